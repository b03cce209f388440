"""Which frames of a stream were taken while the shutter was open?

The blurry image is the mean of the light over the exposure, so the mean of the spikes over a window looks most like it
where the window is the exposure. With the cumulative sums of the frames and their inner products, the correlation of
every window [s, e) with the image follows at once:

    r(s, e) = <g, C_e - C_s> / (|g| |C_e - C_s|)

where g is the grey image at the size of the spikes and C_t the sum of the first t frames, all freed of slow changes of
brightness. The noise of the spikes adds to |C_e - C_s|, the more the shorter the window; it is measured in the stream
itself and taken off.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from codes.inference.alignment import flattened

PIXELS = 40_000
"""Pixels at which frames are compared; larger ones are shrunk."""

SHORTEST = 16
"""Frames of the shortest exposure that is looked for."""

SMOOTH = 0.8
"""Standard deviation, in pixels, of the smoothing of frames and image."""

TRUST = 0.8
"""Share of the expected noise that is taken off."""

NOISE_RATE = 0.007
"""Spikes of a pixel and frame that no light has caused."""

SURE, TOLERANCE = 0.5, 5
"""A window that differs by more than TOLERANCE frames from the best must be worse by this share of what the best
leaves unexplained; otherwise the exposure cannot be told."""


@dataclass(frozen=True)
class Timing:
    """Where an exposure lies in a stream.

    Args:
        start, stop: the frames [start, stop) that fit the image best.
        correlation: of their mean with the image, the noise taken off.
        sure: whether clearly other windows fit clearly worse.
    """

    start: int
    stop: int
    correlation: float
    sure: bool


def find_exposure(image: np.ndarray, spike: np.ndarray, length: int | None = None) -> Timing:
    """The window of a stream whose mean looks most like the blurry image.

    Args:
        image: grey blurry image in linear light at the size of the spikes, float ``(h, w)``.
        spike: ``(T, h, w)``, zeros and ones.
        length: of the exposure in frames; None: unknown.

    Returns:
        The best window; not ``sure`` where others fit as well, as with a still scene.
    """
    total = len(spike)
    small, frames = _shrunk(image, spike)
    target = _band(small).ravel()
    target = target / max(float(np.linalg.norm(target)), 1e-12)
    sums = np.zeros((total + 1, target.size), np.float32)
    np.cumsum(np.stack([_band(frame).ravel() for frame in frames]), axis=0, out=sums[1:])
    gram, towards = (sums @ sums.T).astype(np.float64), (sums @ target).astype(np.float64)
    start, stop = np.meshgrid(np.arange(total + 1), np.arange(total + 1), indexing="ij")
    span = stop - start
    energy = np.diag(gram)[:, None] + np.diag(gram)[None] - 2 * gram
    kept = float(np.square(cv2.getGaussianKernel(9, SMOOTH)).sum()) ** 2  # of the variance of white noise
    noise = kept * _noise(span, target.size * target.size / image.size)
    signal = np.maximum(energy - TRUST * noise, 0.1 * energy)
    allowed = span == length if length else span >= min(SHORTEST, total)
    fit = np.where(allowed & (span > 0), (towards[None] - towards[:, None]) / np.sqrt(np.maximum(signal, 1e-12)), -1)
    first, last = np.unravel_index(fit.argmax(), fit.shape)
    best = float(fit[first, last])
    far = np.maximum(abs(start - first), abs(stop - last)) > TOLERANCE
    second = float(np.where(far, fit, -1).max())
    return Timing(int(first), int(last), best, bool(1 - second > (1 + SURE) * max(1 - best, 1e-4)))


def _band(picture: np.ndarray) -> np.ndarray:
    """A picture without its slow changes of brightness, and without its finest grain, which is mostly noise."""
    return cv2.GaussianBlur(flattened(picture), (9, 9), SMOOTH)


def _shrunk(image: np.ndarray, spike: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image and frames at no more than PIXELS pixels, float32."""
    height, width = image.shape
    factor = min(1.0, (PIXELS / (height * width)) ** 0.5)
    size = max(int(width * factor), 8), max(int(height * factor), 8)

    def small(picture):
        picture = np.asarray(picture, np.float32)
        return picture if factor == 1 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)

    return small(image), np.stack([small(frame) for frame in spike])


def _noise(span: np.ndarray, pixels: float) -> np.ndarray:
    """Energy that the noise of the spikes adds to the sum of a window of ``span`` frames.

    The count of a pixel that integrates errs by the phases at both ends, a variance of 1/6 however long the window is;
    spikes without light add NOISE_RATE a frame.

    Args:
        span: frames of the windows.
        pixels: number of pixels, divided by how many each stands for.
    """
    return pixels * (1 / 6 + NOISE_RATE * np.maximum(span, 0))
