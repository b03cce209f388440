"""Which frames of a stream were taken while the shutter was open?

The blurry image is the mean of the light over the exposure, so the mean of the spikes over a window looks most like it
where the window is the exposure. With C_t the sum of the first t frames and g the grey image at the size of the spikes,
both freed of slow changes of brightness, the part of a window that the image does not explain is

    q(s, e) = (|D|^2 - <g, D>^2 / |g|^2 - noise) / |D|^2,    D = C_e - C_s

for all windows [s, e) at once from the inner products of the C_t. The noise of the spikes would favour long windows; it
is known (:func:`_noise`) and taken off.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from codes.inference.alignment import flattened

PIXELS = 40_000
"""Pixels at which frames are compared; larger ones are shrunk."""

SHORTEST = 16
"""Frames of the shortest exposure that is looked for."""

SPANS = 400
"""A longer stream is first searched in this many spans of frames, then finely around what was found."""

NOISE_RATE = 0.007
"""Spikes of a pixel and frame that no light has caused."""

TOLERANCE = 5
"""Windows that differ by more frames from the best must fit clearly worse; otherwise the exposure cannot be told."""

SMOOTH = 2.2
"""Standard deviation, in pixels, of the smoothing: noise has all frequencies, scenes mostly low ones."""

KEPT = 0.7 / (4 * np.pi * SMOOTH**2)
"""Share of the noise that is taken off after the smoothing, a little less than what is left of white noise."""

DROWNED = 0.7
"""Windows with a larger share of noise are left out."""

BETTER, DEVIATIONS = 0.5, 3.0
"""'Clearly': by this share of what the best leaves unexplained, and this many deviations of the noise's energy."""


@dataclass(frozen=True)
class Timing:
    """Where an exposure lies in a stream.

    Args:
        start, stop: the frames [start, stop) that fit the image best.
        unexplained: share of their mean that the image does not explain, beyond noise; 0 is a perfect fit.
        sure: whether clearly other windows fit clearly worse.
    """

    start: int
    stop: int
    unexplained: float
    sure: bool


def find_exposure(image: np.ndarray, spike: np.ndarray, length: int | None = None) -> Timing:
    """The window of a stream whose mean looks most like the blurry image.

    Args:
        image: grey blurry image in linear light at the size of the spikes, float ``(h, w)``, lying as they do.
        spike: ``(T, h, w)``, zeros and ones.
        length: of the exposure in frames; None: unknown.

    Returns:
        The best window; not ``sure`` where others fit as well, as with a still scene.
    """
    total = len(spike)
    step = -(-total // SPANS)
    edges = np.unique(np.append(np.arange(0, total, step), total))
    found = _search(image, spike, edges, length, step)
    if step > 1:
        near = [np.arange(max(at - 2 * step, 0), min(at + 2 * step, total) + 1) for at in (found.start, found.stop)]
        fine = _search(image, spike, np.unique(np.concatenate(near)), length, 1)
        found = Timing(fine.start, fine.stop, fine.unexplained, found.sure)
    return found


def misfit(image: np.ndarray, spike: np.ndarray, exposure: slice) -> float:
    """The unexplained share of one window, as in :class:`Timing`."""
    return _search(image, spike, np.array([exposure.start, exposure.stop]), None, 1, shortest=1).unexplained


def find_instants(pictures: list[np.ndarray], spike: np.ndarray, window: int = 13) -> list[int | None]:
    """When the light of sharp pictures was seen.

    Args:
        pictures: grey, in linear light, at the size of the spikes, float ``(h, w)``.
        spike: ``(T, h, w)``, zeros and ones.
        window: frames of the short TFP that they are compared with.

    Returns:
        For each the middle of the window that looks most like it; None where others look nearly as much like it.
    """
    total = len(spike)
    small, sums, _, _ = _sums(pictures[0], spike, np.arange(total + 1))
    short = sums[window:] - sums[:-window]
    short /= np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-12)
    found = []
    for picture in pictures:
        small = _sums(picture, spike[:1], np.arange(2))[0]
        match = short @ (small / max(float(np.linalg.norm(small)), 1e-12))
        best = int(match.argmax())
        far = np.abs(np.arange(len(match)) - best) > 2 * TOLERANCE
        clear = match[best] > 0.5 and not (far.any() and match[far].max() > match[best] - 0.02)
        found.append(best + window // 2 if clear else None)
    return found


def time_fault(expected: list[int], found: list[int | None]) -> str:
    """What is wrong with a stream in time, in words, from when its sharp frames should have been seen and when were.

    '' where nothing is, or where too little moves to tell.
    """
    pairs = [(when, seen) for when, seen in zip(expected, found, strict=True) if seen is not None]
    if 2 * len(pairs) < max(len(expected), 1) or not pairs:
        return ""
    late = int(np.median([seen - when for when, seen in pairs]))
    if len(pairs) > 2:
        slope = float(np.polyfit(*np.transpose(pairs), 1)[0])
        if slope < -0.5:
            return "the stream runs backwards: the sharp frames fit it in reverse order"
        if abs(slope - 1) > 0.2:
            return f"the sharp frames fit other instants of the stream than they should ({_pairs(pairs)})"
    if abs(late) > TOLERANCE:
        words = f"{abs(late)} frames {'early' if late > 0 else 'late'}"
        return f"the stream begins {words}: the sharp frames fit other instants than they should ({_pairs(pairs)})"
    return ""


def _pairs(pairs) -> str:
    return ", ".join(f"{when} at {seen}" for when, seen in pairs)


def _search(image, spike, edges: np.ndarray, length: int | None, step: int, shortest: int = SHORTEST) -> Timing:
    """The best window that begins and ends at one of several frames."""
    target, sums, light, share = _sums(image, spike, edges)
    target = target / max(float(np.linalg.norm(target)), 1e-12)
    gram, towards = (sums @ sums.T).astype(np.float64), (sums @ target).astype(np.float64)
    square = np.diag(gram)
    energy = square[:, None] + square[None] - 2 * gram
    along = towards[None] - towards[:, None]
    start, stop = np.meshgrid(edges, edges, indexing="ij")
    span = stop - start
    noise, deviation = _noise(span, light, share)
    if length:
        allowed = (abs(span - length) < step) & (span > 0)
    else:
        allowed = span >= min(shortest, edges[-1] - edges[0])
    allowed &= along > 0  # a negative of the image is no fit
    allowed &= noise < DROWNED * energy
    signal = np.where(allowed, energy - noise, 1.0)
    left = np.where(allowed, (energy - along**2 - noise) / signal, np.inf)
    first, last = np.unravel_index(left.argmin(), left.shape)
    best = float(left[first, last])
    if not np.isfinite(best):
        return Timing(int(edges[0]), int(edges[-1]), 1.0, False)
    far = np.maximum(abs(start - edges[first]), abs(stop - edges[last])) > max(TOLERANCE, 2 * step)
    margin = np.maximum(DEVIATIONS * deviation / signal, BETTER * max(best, 0.0))
    sure = best < 0.3 and bool((left[far] > best + margin[far]).all())
    return Timing(int(edges[first]), int(edges[last]), best, sure)


def _sums(image: np.ndarray, spike: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """The image, and the sum of the frames before each edge, shrunk and flattened; the rest for :func:`_noise`."""
    height, width = image.shape
    factor = min(1.0, (PIXELS / (height * width)) ** 0.5)
    size = max(int(width * factor), 8), max(int(height * factor), 8)

    def small(picture):
        picture = cv2.GaussianBlur(np.asarray(picture, np.float32), (0, 0), SMOOTH)
        return picture if factor == 1 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)

    total = np.zeros((height, width), np.int64 if len(spike) > 30000 else np.int32)
    sums = []
    before = edges[0]
    for edge in edges:
        total += spike[before:edge].sum(axis=0, dtype=total.dtype)
        sums.append(flattened(small(total)).ravel())
        before = edge
    seen = small(image)
    rate = float(total.mean()) / max(int(edges[-1] - edges[0]), 1) - NOISE_RATE
    light = seen.ravel() * (max(rate, 0.0) / max(float(seen.mean()), 1e-9))
    return flattened(seen).ravel(), np.stack(sums), light, seen.size / (height * width) * KEPT


def _noise(span: np.ndarray, light: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Energy that the noise of the spikes adds to the sum of a window of ``span`` frames, and its deviation.

    The count of a pixel that integrates errs by the phases at both ends: a variance of f (1 - f), where f is what an
    expected count has behind its point; 1/6 on average, and less where a pixel hardly fires. Spikes without light add
    NOISE_RATE a frame. ``share`` of it is left where pixels were averaged.

    Args:
        span: frames.
        light: spikes a frame that are expected of each pixel, ``(pixels,)``.
        share: pixels here over pixels of the sensor.
    """
    spans = np.unique(np.geomspace(1, max(span.max(), 2), 40).astype(int))
    count = np.minimum(spans[:, None] * light, 0.7887)  # from there on, the average: f (1 - f) is 1/6 there
    variance = (count * (1 - count)).mean(axis=1) + NOISE_RATE * spans
    variance = np.interp(span, spans, variance) * share
    return light.size * variance, variance * (1.4 * light.size * 2 * np.pi * SMOOTH**2) ** 0.5
