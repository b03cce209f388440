"""From captures to sharp frames: the methods, and :class:`Deblurrer`, which applies them."""

from codes.inference.deblurrer import Capture, Deblurrer, check, fit, open_capture, read_spikes

__all__ = ["Capture", "Deblurrer", "check", "fit", "open_capture", "read_spikes"]
