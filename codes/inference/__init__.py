"""From captures to sharp frames: the methods, and :class:`Deblurrer`, which applies them."""

from codes.inference.deblurrer import Deblurrer
from codes.inference.opening import Capture, Reading, check, fit, open_capture
from codes.inference.streams import Layout

__all__ = ["Capture", "Deblurrer", "Layout", "Reading", "check", "fit", "open_capture"]
