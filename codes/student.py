"""The students as they are used: their weights with what they were trained to see, and what they see of a stream.

Officially the student (:class:`codes.model.ldn_model.Deblur_Net`) is given the 21 spike frames around the instant, and
serves the firing threshold that it was trained at. Two things can be changed, at the same number of parameters: the
**pyramid**, which shows it the whole stream, and the **exposure gain**, which makes spikes of any threshold as bright
as the blurry image. A weight file says which of them it wants.

:class:`SANStudent` puts another network in the LDN's place, to compare with (S-SDM's table of students).
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from codes.checkpoint import load_weights, state_dict
from codes.image import grey
from codes.model.ldn_model import SPIKE_INPUTS, Deblur_Net
from codes.model.san_model import SAN
from codes.spike import EXPOSURE, mirrored_windows, spike_windows, tfp_long

PYRAMID = (2, 2, 3, 5, 10, 20, 51)
"""Lengths of the windows of :func:`spike_pyramid` on either side of the 7 single frames."""


def spike_pyramid(spike: torch.Tensor, instants) -> torch.Tensor:
    """The whole stream as seen from each instant: finely near it, coarsely far from it.

    21 channels in the order of time, as many as the official window has frames: the frames within 3 of the instant one
    by one, and before and after them the means over windows of 2, 2, 3, 5, 10, 20 and 51 frames (up to 96 away). A
    window is averaged over those of its frames that the stream holds, and 0 where it holds none; so the channels also
    tell where in the exposure the instant lies.

    Args:
        spike: ``(B, T, H, W)``, zeros and ones, any dtype.
        instants: frame indices, 0 <= instant < T.

    Returns:
        float32 ``(B, M, 21, H, W)`` in [0, 1].
    """
    total = spike.shape[1]
    sums = F.pad(torch.as_tensor(spike).cumsum(dim=1, dtype=torch.int32), (0, 0, 0, 0, 1, 0))
    reach = [3 + sum(PYRAMID[: index + 1]) for index in range(len(PYRAMID))]  # 5, 7, 10, 15, 25, 45, 96
    after = [(reach[i] - PYRAMID[i] + 1, reach[i] + 1) for i in range(len(PYRAMID))]
    windows = [(1 - stop, 1 - start) for start, stop in reversed(after)]
    windows += [(offset, offset + 1) for offset in range(-3, 4)] + after
    channels = []
    for instant in instants:
        if not 0 <= instant < total:
            raise ValueError(f"instant {instant} is outside the {total}-frame stream; expected 0 to {total - 1}")
        for start, stop in windows:
            first, last = min(max(instant + start, 0), total), min(max(instant + stop, 0), total)
            channels.append((sums[:, last] - sums[:, first]) / max(last - first, 1))
    return torch.stack(channels, dim=1).unflatten(1, (len(instants), len(windows)))


def exposure_gain(blur: torch.Tensor, spike: torch.Tensor, exposure=EXPOSURE) -> torch.Tensor:
    """What the spikes of each sample must be multiplied by to be as bright as its blurry image.

    mean(grey blurry image) / mean(spikes of the exposure): about 1 at Vth 1, V at Vth V: one number for each
    sample, a crop's in training, a whole frame's in use.

    Args:
        blur: ``(B, 3, H, W)``, B,G,R in [0, 1].
        spike: ``(B, T, h, w)``, zeros and ones, any dtype.
        exposure: anything with ``start`` and ``stop``, frame indices.

    Returns:
        float32 ``(B,)``; 1 where no pixel fires.
    """
    rate = tfp_long(spike, exposure).flatten(1).mean(dim=1)
    light = grey(blur).flatten(1).float().mean(dim=1)
    return torch.where(rate > 0, light / rate.clamp(min=1e-9), 1.0)


class SANStudent(SAN):
    """SAN (:mod:`codes.model.san_model`) in the LDN's place, with the same inputs and outputs and SAN's own keys.

    SAN wants 96 channels of event counts: 16 spans of the exposure, 2 polarities, before, within and after the instant.
    Spikes have no polarity, and how S-SDM gave them to SAN is not known. Here the 96 channels are the 96 spike frames
    around the instant, about the length of the exposure, of a stream mirrored at its ends. Sizes that are no multiples
    of 16 are padded inside with copies of the border. B,G,R, as all students.

    Args:
        gain: whether spikes are made as bright as the image first, as in :class:`Deblur_Net`; the state dict then says
            so under the same key.
    """

    kind, spike_dim = "mirrored", 96

    def __init__(self, gain: bool = False):
        super().__init__(ev_in=self.spike_dim)
        self.gain = gain
        if gain:
            self.register_buffer("spike_input", torch.tensor([SPIKE_INPUTS.index("frames"), 1]))

    def forward(self, blur: torch.Tensor, spike: torch.Tensor) -> torch.Tensor:
        """``(B, 3, H, W)`` and spikes ``(B, M, 96, h, w)`` of M instants to ``(B, M, 3, H, W)``, not clipped."""
        image = self.encode(blur)
        return torch.stack([self.decode(blur, image, one) for one in spike.unbind(1)], dim=1)

    def encode(self, blur: torch.Tensor) -> list[torch.Tensor]:
        """The image's branch, the same for every instant."""
        return super().encode(self._padded(blur))

    def decode(self, blur: torch.Tensor, image: list[torch.Tensor], spike: torch.Tensor) -> torch.Tensor:
        """One instant of each image, spikes ``(B, 96, h, w)``: ``(B, 3, H, W)``, not clipped."""
        height, width = blur.shape[-2:]
        down, right = -height % 16 * spike.shape[-2] // height, -width % 16 * spike.shape[-1] // width
        spike = F.pad(spike.to(blur.dtype), (0, right, 0, down), mode="replicate")
        return self.deblur(spike, self._padded(blur), image)[0][..., :height, :width]

    @staticmethod
    def _padded(blur: torch.Tensor) -> torch.Tensor:
        return F.pad(blur, (0, -blur.shape[-1] % 16, 0, -blur.shape[-2] % 16), mode="replicate")


Student = Deblur_Net | SANStudent


def student_input(
    ldn: Student, blur: torch.Tensor, spike: torch.Tensor, instants: Sequence[int], exposure=EXPOSURE
) -> torch.Tensor:
    """What a student is given of the spikes, for M instants.

    Args:
        ldn: the student; its settings decide.
        blur: ``(B, 3, H, W)``, B,G,R in [0, 1].
        spike: ``(B, T, H/4, W/4)``, zeros and ones, any dtype.
        instants: frame indices.
        exposure: anything with ``start`` and ``stop``, frame indices.

    Returns:
        ``(B, M, spike_dim, H/4, W/4)``, for ``ldn(blur, ...)``.
    """
    if ldn.kind == "pyramid":
        windows = spike_pyramid(spike, instants)
    elif ldn.kind == "mirrored":
        windows = mirrored_windows(spike, instants, ldn.spike_dim)
    else:
        windows = spike_windows(spike, instants, ldn.spike_dim)
    if ldn.gain:
        windows = windows * exposure_gain(blur, spike, exposure)[:, None, None, None, None]
    return windows


def load_student(path, gain: bool = False, hint: str = "") -> Student:
    """The student of a weight file, the authors' or ours; network, number of frames and spike input are the file's.

    Args:
        path: the file.
        gain: make spikes as bright as the image (:func:`codes.spike.exposure_gain`) even where the weights were
            trained without, as the authors' were.
        hint: what to do when the file is missing.

    Raises:
        FileNotFoundError, ValueError: as in :func:`load_weights`.
    """
    state = state_dict(path, "Deblur_Net", hint)
    if any(key.startswith("msff1.") for key in state):
        san = load_weights(SANStudent("spike_input" in state), path, hint)
        san.gain = san.gain or gain
        return san
    settings = {}
    first, kind = state.get("spike_enc.0.weight"), state.get("spike_input")
    if first is not None and first.numel() and first.shape[2:] == (3, 3) and first.shape[1] % 2:
        settings["spike_dim"] = first.shape[1]  # odd, as windows are
    if kind is not None:
        if kind.shape != (2,) or not 0 <= kind[0] < len(SPIKE_INPUTS):
            raise ValueError(f"{path} asks for a spike input that this version does not know; update the program")
        settings |= {"spike_input": SPIKE_INPUTS[int(kind[0])], "gain": bool(kind[1])}
    ldn = load_weights(Deblur_Net(**settings), path, hint)
    ldn.gain = ldn.gain or gain
    return ldn
