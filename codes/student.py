"""What a student sees of a spike stream.

Officially the student (:class:`codes.model.ldn_model.Deblur_Net`) is given the 21 spike frames around the instant, and
serves the firing threshold that it was trained at. Two things can be changed, at the same number of parameters: the
**pyramid**, which shows it the whole stream, and the **exposure gain**, which makes spikes of any threshold as bright
as the blurry image. A weight file says which of them it wants.

A student is a network that has

- ``kind``, ``spike_dim`` and ``gain``: what it sees (:class:`Sight`);
- ``forward(blur, spike)``: ``(B, 3, H, W)``, B,G,R in [0, 1], and ``(B, M, spike_dim, H/4, W/4)`` of M instants to
  ``(B, M, 3, H, W)``, not clipped;
- ``encode(blur)``, what is the same for every instant, and ``decode(blur, encoded, spike)`` with spikes
  ``(B, spike_dim, H/4, W/4)`` of one instant to ``(B, 3, H, W)``: forward in two steps, for long sequences;
- ``multiple``, if it pads its image to sides that are multiples of more than 4;
- a record in :mod:`codes.model.registry`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from codes.image import grey
from codes.spike import (
    EXPOSURE,
    Intervals,
    mirrored,
    mirrored_windows,
    refuse_outside,
    spike_windows,
    tfp_long,
    tfp_windows,
)

PYRAMID = (2, 2, 3, 5, 10, 20, 51)
"""Lengths of the windows of :func:`spike_pyramid` on either side of the 7 single frames."""

LARGEST_GAIN = 64.0
"""Bound of :func:`exposure_gain`: where a handful of spikes stand for a bright image, their number says nothing."""


def spike_pyramid(spike: torch.Tensor | Intervals, instants: Sequence[int]) -> torch.Tensor:
    """The whole stream as seen from each instant: finely near it, coarsely far from it.

    21 channels in the order of time, as many as the official window has frames: the frames within 3 of the instant one
    by one, and before and after them the means over windows of 2, 2, 3, 5, 10, 20 and 51 frames (up to 96 away). A
    window is averaged over those of its frames that the stream holds, and 0 where it holds none; so the channels also
    tell where in the exposure the instant lies.

    Args:
        spike: ``(B, T, H, W)``, zeros and ones, any dtype; or its light by intervals.
        instants: frame indices, 0 <= instant < T.

    Returns:
        float32 ``(B, M, 21, H, W)`` in [0, 1].
    """
    reach = [3 + sum(PYRAMID[: index + 1]) for index in range(len(PYRAMID))]  # 5, 7, 10, 15, 25, 45, 96
    after = [(last - length + 1, last + 1) for last, length in zip(reach, PYRAMID, strict=True)]
    around = [(1 - stop, 1 - start) for start, stop in reversed(after)]
    around += [(offset, offset + 1) for offset in range(-3, 4)] + after
    windows = [(instant + start, instant + stop) for instant in instants for start, stop in around]
    refuse_outside(instants, spike.total if isinstance(spike, Intervals) else spike.shape[1])
    means = spike.means(windows) if isinstance(spike, Intervals) else tfp_windows(spike, windows)
    return means.unflatten(1, (len(instants), len(around)))


def exposure_gain(blur: torch.Tensor, spike: torch.Tensor, exposure=EXPOSURE) -> torch.Tensor:
    """What the spikes of each sample must be multiplied by to be as bright as its blurry image.

    mean(grey blurry image) / mean(spikes of the exposure): about 1 at Vth 1, V at Vth V: one number for each
    sample, a crop's in training, a whole frame's in use.

    Args:
        blur: ``(B, 3, H, W)``, B,G,R in [0, 1].
        spike: ``(B, T, h, w)``, zeros and ones, any dtype.
        exposure: anything with ``start`` and ``stop``, frame indices.

    Returns:
        float32 ``(B,)``, at most :data:`LARGEST_GAIN`; 1 where no pixel fires.
    """
    rate = tfp_long(spike, exposure).flatten(1).mean(dim=1)
    light = grey(blur.float().mean(dim=(-2, -1), keepdim=True)).flatten()
    return torch.where(rate > 0, light / rate.clamp(min=1e-9), 1.0).clamp(max=LARGEST_GAIN)


@dataclass(frozen=True)
class Sight:
    """What a student is given of a stream.

    Args:
        kind: 'frames', officially the frames around the instant; 'pyramid', the whole stream (:func:`spike_pyramid`);
            'intervals', the same of light by intervals instead of spikes (:class:`codes.spike.Intervals`); 'mirrored',
            as many frames as are wanted of a stream that is mirrored at its ends.
        frames: channels.
        gain: make spikes as bright as the image first (:func:`exposure_gain`).
    """

    kind: str = "frames"
    frames: int = 21
    gain: bool = False

    @classmethod
    def of(cls, student: Any) -> "Sight":
        """What a student wants to see."""
        return cls(student.kind, student.spike_dim, student.gain)

    def __call__(
        self, blur: torch.Tensor, spike: torch.Tensor, instants: Sequence[int], exposure=EXPOSURE, gain=None, near=None
    ) -> torch.Tensor:
        """The student's second input.

        Args:
            blur: ``(B, 3, H, W)``, B,G,R in [0, 1].
            spike: ``(B, T, H/4, W/4)``, zeros and ones, any dtype.
            instants: M frame indices; with 'frames' the window around each must lie in the stream.
            exposure: anything with ``start`` and ``stop``, frame indices.
            gain: what :func:`exposure_gain` said of the same exposure for other instants, ``(B,)``.
            near: the stream's light by intervals near these and other instants, if it is known.

        Returns:
            ``(B, M, frames, H/4, W/4)``.
        """
        if self.kind == "intervals":
            refuse_outside(instants, spike.shape[1])  # before they tell what is near
            windows = spike_pyramid(near or Intervals(spike, min(instants), max(instants)), instants)
        elif self.kind == "pyramid":
            windows = spike_pyramid(spike, instants)
        elif self.kind == "mirrored":
            windows = mirrored_windows(spike, instants, self.frames)
        else:
            windows = spike_windows(spike, instants, self.frames)
        if self.gain:
            gain = exposure_gain(blur, spike, exposure) if gain is None else gain
            windows = windows * gain[:, None, None, None, None]
        return windows

    def anywhere(
        self, blur: torch.Tensor, spike: torch.Tensor, instants: Sequence[int], exposure=EXPOSURE, gain=None, near=None
    ) -> torch.Tensor:
        """The same for any instants of a stream, which is mirrored at its ends where the window leaves it."""
        half = self.frames // 2 if self.kind == "frames" else 0  # the others know where a stream ends
        shifted = slice(exposure.start + half, exposure.stop + half)
        return self(blur, mirrored(spike, half), [instant + half for instant in instants], shifted, gain, near)
