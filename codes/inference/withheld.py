"""Figures that need no sharp image: some spikes are withheld from a network, and its frames must agree with them.

One spike pixel of 25 is filled from its neighbours, as a bad one would be. The light of the frames at its place, from
one instant to the next, is compared with what it saw meanwhile. The other figure is the paper's: the mean of the
frames over the exposure against the blurry photograph.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from codes.image import grey, write_image
from codes.inference.deblurrer import View
from codes.inference.opening import SCALE, Capture
from codes.inference.pixels import fill
from codes.inference.rates import LONGEST
from codes.spike import EXPOSURE, Intervals, evenly

EVERY = 5
"""Of so many pixels, in each direction, one is withheld."""

INSTANTS = 13
"""Frames of a capture that are looked at, from the first to the last of the exposure."""

LEAST = 24
"""Spike pixels of a side from which on a quarter of the picture can be registered alone."""


def withhold(capture: Capture) -> tuple[Capture, np.ndarray]:
    """The capture without the spikes of some pixels, and which they are: bool ``(h, w)``."""
    mask = np.zeros(capture.spike.shape[1:], bool)
    mask[EVERY // 2 :: EVERY, EVERY // 2 :: EVERY] = True
    return replace(capture, spike=fill(capture.spike, mask)), mask


def seen(capture: Capture, light: np.ndarray) -> np.ndarray:
    """What the spike camera sees of an image that lies as the photograph does, grey, means over its pixels.

    Args:
        capture: how both lie on one another.
        light: linear, float ``(H, W, 3)``.

    Returns:
        float32 ``(h, w)``.
    """
    height, width = light.shape[:2]
    tall, wide = capture.frame
    h, w = capture.spike.shape[1:]
    full = cv2.copyMakeBorder(light, 0, tall - height, 0, wide - width, cv2.BORDER_REPLICATE)
    small = cv2.resize(np.float32(grey(full, -1)[..., 0]), (w, h), interpolation=cv2.INTER_AREA)
    if capture.registration.is_none(capture.frame):
        return small
    matrix = capture.registration.pixels((h, w), (h, w))
    return cv2.warpPerspective(small, matrix, (w, h), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def left_over(capture: Capture) -> float:
    """How far photograph and spikes are from lying on one another in the four quarters of the picture.

    Returns:
        The root of the mean squared shift in image pixels; 0 where none can be told.
    """
    image, rate = seen(capture, capture.light()), capture.tfp_long()
    h, w = rate.shape
    shifts = []
    for rows in (slice(0, h // 2), slice(h // 2, h)):
        for columns in (slice(0, w // 2), slice(w // 2, w)):
            if min(h, w) < 2 * LEAST:
                continue
            pair = [np.ascontiguousarray(one[rows, columns], np.float32) for one in (image, rate)]
            criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-5)
            try:
                start = np.eye(2, 3, dtype=np.float32)
                value, way = cv2.findTransformECC(*pair, start, cv2.MOTION_TRANSLATION, criteria, None, 5)
            except cv2.error:  # nothing to see there
                continue
            move = np.hypot(*way[:, 2]) * capture.frame[1] / w
            if value > 0.9 and move < 4:
                shifts.append(move)
    return float(np.sqrt(np.mean(np.square(shifts)))) if shifts else 0.0


def observed(capture: Capture) -> dict:
    """What a capture tells of its sensor, for :meth:`codes.making.estimate.SensorEstimate.of`."""
    view = View(capture, capture.light())
    length = capture.exposure.stop - capture.exposure.start
    return {
        "light": seen(capture, capture.light()),
        "rate": capture.tfp_long(),
        "misalignment": left_over(capture),
        "ratio": SCALE * view.grid[1] / capture.spike.shape[2],
        "enlarged": SCALE * view.grid[1] / capture.frame[1],
        "stretch": length / EXPOSURE.length if length > LONGEST else 1.0,
        "tone": capture.tone.name,
        "grey": bool((capture.blur == capture.blur[..., :1]).all()),
    }


def figures(capture: Capture, mask: np.ndarray, instants: Sequence[int], frames: Sequence[np.ndarray]) -> dict:
    """Reblur error and agreement with withheld spikes.

    Args:
        capture: with all of its spikes.
        mask: pixels that were withheld.
        instants: from the first to the last frame of the exposure, evenly.
        frames: at these instants, uint8 ``(H, W, 3)``, B,G,R, coded as the photograph is.

    Returns:
        ``reblur``, ``agreement``: PSNR in dB, both in the photograph's linear light. The latter has the noise of spikes
        in it, less than if they were counted (:class:`codes.spike.Intervals`): it compares two networks on the same
        captures and says nothing beside another capture's.
    """
    lights = [capture.tone.linear(frame.astype(np.float32) / np.float32(255)) for frame in frames]
    between = [(one + other) / 2 for one, other in zip(lights[:-1], lights[1:], strict=True)]
    spans = np.diff(instants) / (instants[-1] - instants[0])
    mean = sum(np.float32(share) * light for share, light in zip(spans, between, strict=True))
    image, rate = seen(capture, capture.light()), capture.tfp_long()
    slope, dark = np.polyfit(image.ravel(), rate.ravel(), 1)  # from light to firing rate
    known = Intervals(torch.from_numpy(capture.spike[:, mask, None]))
    rates = known.means(list(zip(instants[:-1], instants[1:], strict=True)))[..., 0].numpy()
    errors = []
    for fired, light in zip(rates, between, strict=True):
        errors.append(np.square((fired - dark) / max(slope, 1e-6) - seen(capture, light)[mask]).mean())
    return {"reblur": _db(np.square(mean - capture.light()).mean()), "agreement": _db(np.mean(errors))}


def deblurred(capture: Capture, deblurrer, folder: Path | None = None) -> tuple[np.ndarray, dict]:
    """Deblur a capture without some of its spikes.

    Args:
        capture: the capture.
        deblurrer: a :class:`codes.inference.deblurrer.Deblurrer`.
        folder: for the frames at :data:`INSTANTS` instants, ``{instant:03}.png``; None: only the middle one is made.

    Returns:
        The middle frame, uint8 ``(H, W, 3)``, B,G,R, and the :func:`figures` of all of them ({} without a folder).
    """
    partial, mask = withhold(capture)
    instants = evenly(capture.exposure, INSTANTS if folder else 1)
    frames = list(deblurrer.frames(partial, instants))
    if folder is None:
        return frames[0], {}
    for instant, frame in zip(instants, frames, strict=True):
        write_image(folder / f"{instant:03}.png", frame)
    return frames[len(frames) // 2], figures(capture, mask, instants, frames)


def _db(error) -> float:
    return float(-10 * np.log10(max(float(error), 1e-10)))
