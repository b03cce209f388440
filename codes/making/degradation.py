"""Captures that are worse than the paper's in one respect, of scenes whose sharp frames are known exactly."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from codes.exposure import EXPOSURE, SCALE
from codes.making.sensor import inherent_noise, seen_by_spike_camera, spikes_from_frames
from codes.making.synthesis import Sample, Scene

MARGIN = 24
"""Pixels seen beyond the image to its right, and a multiple of all ratios."""


@dataclass(frozen=True)
class Setting:
    """The value of each factor; the defaults are the paper's.

    Args:
        vth: firing threshold in the paper's unit.
        noise: how many independent sources of the sensor's inherent noise; each fires at about 0.7 % of the slots.
        shift: pixels of the image by which the spike camera looks too far to the right.
        ratio: pixels of the image, each way, per pixel of the spike camera. Whatever its size, a spike pixel sees the
            2x2 image pixels in its middle, as in the official simulator. The networks want 4: the frames of a coarser
            camera are brought there by nearest enlarging.
        motion: length of the motion over the exposure, of the camera and of two things before it, in pixels of the
            image.
    """

    vth: float = 1.0
    noise: int = 1
    shift: float = 0
    ratio: int = SCALE
    motion: float = 24.0

    @property
    def key(self) -> str:
        """Its name in a file."""
        return " ".join(f"{name}={value:g}" for name, value in dataclasses.asdict(self).items())

    @property
    def view(self) -> tuple[int, float]:
        """What decides the light on the sensor: ratio, and pixels by which its grid is off the image's."""
        return self.ratio, self.shift % self.ratio


def sample_of(index: int, motion: float, photos: list[str], size: tuple[int, int], seed: int) -> Sample:
    """Scene ``index``: the same at all motions, but for how far all moves."""
    height, width = (-(-side // MARGIN) * MARGIN for side in (size[0], size[1] + MARGIN))
    before = tuple((photos[(index + step) % len(photos)], motion) for step in (1, 2))
    return Sample("test", index, photos[index % len(photos)], motion, before, (height, width), seed)


def record(scene: Scene, size: tuple[int, int], views) -> tuple[np.ndarray, np.ndarray, dict]:
    """Render a scene that reaches beyond the image, which is its upper left part.

    Args:
        scene: rendered.
        size: ``(H, W)`` of the image.
        views: (ratio, offset) of the spike cameras.

    Returns:
        blur and sharp image at the exposure's centre, uint8 ``(H, W, 3)``, B,G,R; the light on each spike camera, by
        view, float32 ``(137, h, w)`` in [0, 1].
    """
    height, width = size
    total = np.zeros((height, width, 3), np.float32)
    lights: dict = {view: [] for view in views}
    for instant, frame in enumerate(scene):
        image = frame[:height, :width]
        if EXPOSURE.start <= instant < EXPOSURE.stop:
            total += image
        if instant == EXPOSURE.centre:
            sharp = np.rint(image * 255).astype(np.uint8)
        for (ratio, offset), light in lights.items():
            whole, part = int(offset), offset % 1
            rows, columns = frame.shape[0] // ratio, (frame.shape[1] - whole - (part > 0)) // ratio
            seen = frame[: rows * ratio, whole : whole + columns * ratio]
            if part:  # between two pixels
                seen = (1 - part) * seen + part * frame[: rows * ratio, whole + 1 : whole + 1 + columns * ratio]
            light.append(seen_by_spike_camera(seen, ratio))
    blur = np.rint(total / np.float32(EXPOSURE.length) * 255).astype(np.uint8)
    return blur, sharp, {view: np.stack(light) for view, light in lights.items()}


def spikes(light: np.ndarray, setting: Setting, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """The stream that the networks are given: uint8 ``(137, H/4, W/4)`` of zeros and ones.

    Args:
        light: what the setting's spike camera sees (:func:`record`).
        setting: the factors.
        size: ``(H, W)`` of the image.
        rng: of the sensor; with one source of noise the stream is that of ``spikes_from_frames``.
    """
    stream = spikes_from_frames(light, rng, setting.vth, noise=False)
    for _ in range(setting.noise):
        stream |= inherent_noise(stream.shape, rng)
    # The spike pixel under the centre of each 4x4 block of the image, which lies 4 i + 2 pixels from the edge.
    rows, columns = ((SCALE * np.arange(side // SCALE) + SCALE // 2) // setting.ratio for side in size)
    return stream[:, rows[:, None], columns + int(setting.shift // setting.ratio)]
