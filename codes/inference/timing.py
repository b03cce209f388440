"""Which frames of a stream were taken while the shutter was open?

The blurry image is the mean of the light over the exposure, so the mean of the spikes over a window looks most like it
where the window is the exposure. With C_t the sum of the first t frames, D = C_e - C_s that of the window [s, e), and P
the projection onto what the image explains (in each of several tiles by factors of its own), the part of a window that
the image does not explain is

    q(s, e) = 1 - |P D|^2 / |D|^2

for all windows at once from the inner products of the C_t. The noise of the spikes would favour long windows. It is
independent from pixel to pixel, the scene is not: so every square above is the product of two halves of the pixels,
those of a chequerboard's black and of its white fields, and no noise has to be known.

What an image explains: its grey and the square of it, for a tone curve that is not quite known; its grey as a pixel
with a small aperture sees it, since a mean over the whole pixel is softer, as a longer exposure is; and by what its
finest detail differs between black and white fields: without that q falls with the sharpness of D, short windows win.

A spike comes when its pixel has gathered enough, up to a spike's worth late: the C_t are smoothed over some frames
around t, so that this does not show. What remains of the noise is seen where both halves differ. |D|^2 (q - q_best) in
units of its variance is twice the logarithm of how much likelier the best window is; all windows for which that is
small may be the exposure, and the farthest of them says how well it is known.
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

SMOOTH = 1.0
"""Standard deviation, in pixels, of the smoothing that brings both halves onto one grid."""

AROUND = 16
"""Frames before and after the instant t over which C_t is smoothed."""

TILES, LEAST = (3, 4), 8
"""Tiles in each direction, and the pixels that each must have each way."""

SIGNAL = 0.3
"""Windows of which less than this is common to both halves show nothing but noise, and are left out."""

FITTED = 3
"""Windows on each side of the best that a paraboloid is fitted to."""

WITHIN = 5
"""Frames within which start and end must be known."""

LIKELY = 3.0
"""Windows that fit worse than the best by more standard deviations of the noise are excluded."""

SYSTEMATIC = 0.25
"""Nor is a window excluded by less than this share of what the best leaves unexplained: of that, noise is no part."""

ENDS = 5e-4
"""Nor by less than this where the best begins or ends with the stream: there the C_t are extrapolated."""

TOLERANCE = 5
"""Frames by which sharp frames may be late."""


@dataclass(frozen=True)
class Timing:
    """Where an exposure lies in a stream.

    Args:
        start, stop: the frames [start, stop) that fit the image best.
        unexplained: share of their mean that the image does not explain, beyond noise; 0 is a perfect fit.
        sure: whether start and stop are known well enough.
        error: by how many frames start or stop may be off.
    """

    start: int
    stop: int
    unexplained: float
    sure: bool
    error: float = np.inf


def find_exposure(image: np.ndarray, spike: np.ndarray, length: int | None = None) -> Timing:
    """The window of a stream whose mean looks most like the blurry image.

    Args:
        image: grey blurry image in linear light at the size of the spikes, float ``(h, w)``, lying as they do; or
            ``(h, w, 2)``: averaged over whole spike pixels, and over their middle.
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
        reach = 2 * step + AROUND
        near = [np.arange(max(at - reach, 0), min(at + reach, total) + 1) for at in (found.start, found.stop)]
        fine = _search(image, spike, np.unique(np.concatenate(near)), length, 1)
        found = Timing(fine.start, fine.stop, fine.unexplained, found.sure and fine.sure, fine.error)
    return found


def misfit(image: np.ndarray, spike: np.ndarray, exposure: slice) -> float:
    """The unexplained share of one window, as in :class:`Timing`."""
    return _search(image, spike, np.array([exposure.start, exposure.stop]), None, 1, shortest=1).unexplained


def find_instants(pictures: list[np.ndarray], spike: np.ndarray) -> list[int | None]:
    """When the light of sharp pictures was seen.

    Args:
        pictures: grey, in linear light, at the size of the spikes, float ``(h, w)``.
        spike: ``(T, h, w)``, zeros and ones.

    Returns:
        For each the middle of the window that looks most like it; None where others look nearly as much like it. The
        window is as long as two spikes of the mean light take, and not below 13 frames.
    """
    total = len(spike)
    window = max(min(int(2 / max(float(spike.mean()), 1e-6)) | 1, total // 3 | 1), 13)
    _, black, white = _halves(pictures[0], spike, np.arange(total + 1))
    sums = np.stack([flattened(both).ravel() for both in black + white])
    short = sums[window:] - sums[:-window]
    short /= np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-12)
    found = []
    for picture in pictures:
        small = flattened(_halves(picture, spike[:0], np.arange(1))[0][..., 0]).ravel()
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
    fits, total, noisy, same = _products(image, spike, edges)
    start, stop = np.meshgrid(edges, edges, indexing="ij")
    span = stop - start
    if length:
        allowed = (abs(span - length) < step) & (span > 0)
    else:
        allowed = span >= min(shortest, edges[-1] - edges[0])
    shows = allowed & (total > SIGNAL * noisy) & (same > 0)
    whole = np.where(shows, 1 - fits / np.where(shows, total, 1), np.inf)
    first, last = np.unravel_index(whole.argmin(), whole.shape)
    best = float(whole[first, last])
    if not np.isfinite(best):
        return Timing(int(edges[0]), int(edges[-1]), 1.0, False)
    begin, end = (int(np.clip(round(value), edges[0], edges[-1])) for value in _between(whole, edges, length))
    end = begin + length if length and step == 1 else end
    correlated = 2 * np.pi * SMOOTH**2 / spike[0].size
    noise, energy = np.maximum(noisy - total, 1e-12), total[shows]
    smaller = np.minimum(energy, total[first, last])
    own = smaller * (noise[shows] / energy + noise[first, last] / total[first, last])
    unshared = np.minimum(own, (noise[first][:, None] + noise[last])[shows])
    variance = correlated * noise[first, last]  # of the noise against a change of the light
    other = correlated**0.5 * unshared / variance  # deviation of the noise against itself
    limit = variance * np.where(other < 2 * LIKELY, LIKELY**2 + other**2 / 4, LIKELY * other)
    at_an_end = begin == 0 or end == len(spike)
    unexplained = whole[shows] - best - max(SYSTEMATIC * abs(best), ENDS * at_an_end)
    likely = unexplained * smaller <= limit
    apart = np.maximum(abs(start - edges[first]), abs(stop - edges[last]))[shows]
    error = float(apart[likely].max())
    sure = best < 0.3 and error <= (WITHIN if step == 1 else AROUND)  # a fine search sees that far
    return Timing(begin, end, best, bool(sure), max(error, 1.0))


def _between(misfit: np.ndarray, edges: np.ndarray, length: int | None) -> tuple[float, float]:
    """Start and stop of the least misfit, between the edges: where a paraboloid fitted around it is least."""
    first, last = np.unravel_index(misfit.argmin(), misfit.shape)
    place = np.array([edges[first], edges[last]], np.float64)
    rows, columns = (slice(max(at - FITTED, 0), at + FITTED + 1) for at in (first, last))
    start, stop = np.meshgrid(edges[rows] - edges[first], edges[columns] - edges[last], indexing="ij")
    known = np.isfinite(misfit[rows, columns])
    x, y, value = start[known].astype(np.float64), stop[known].astype(np.float64), misfit[rows, columns][known]
    if length:
        terms, axes = np.stack([np.ones_like(x), x, x**2], axis=1), [[1.0, 1.0]]
    else:
        terms, axes = np.stack([np.ones_like(x), x, y, x**2, x * y, y**2], axis=1), np.eye(2)
    if len(x) <= terms.shape[1]:
        return tuple(place)
    fit = np.linalg.lstsq(terms, value, rcond=None)[0]
    bend = np.array([[2 * fit[2]]]) if length else np.array([[2 * fit[3], fit[4]], [fit[4], 2 * fit[5]]])
    if (np.linalg.eigvalsh(bend) > 0).all():
        move = np.linalg.solve(bend, -fit[1 : 1 + len(bend)]) @ np.asarray(axes)
        place += np.clip(move, -FITTED, FITTED)
    return tuple(place)


def _products(image, spike, edges: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of each window ``(starts, stops)``: |P D|^2, |D|^2, the same with noise, <image, D>; the sums of all tiles."""
    seen, *halves = _halves(image, spike, edges)
    views = np.concatenate([seen[..., :1], seen[..., :1] ** 2, seen[..., 1:]], axis=-1).astype(np.float64)
    rows, columns = (
        np.linspace(0, side, max(min(most, side // LEAST), 1) + 1).astype(int)
        for side, most in zip(seen.shape, TILES, strict=False)
    )
    smooth = _smoothing(edges)
    halves = [(smooth @ half.reshape(len(edges), -1)).reshape(half.shape) for half in halves]
    grams = np.zeros((3, len(edges), len(edges)))
    along = np.zeros(len(edges))
    for top, bottom in zip(rows[:-1], rows[1:], strict=True):
        for left, right in zip(columns[:-1], columns[1:], strict=True):
            basis = views[top:bottom, left:right].reshape(-1, views.shape[-1])
            basis, signs = np.linalg.qr(basis - basis.mean(axis=0))
            basis[:, 0] *= np.sign(signs[0, 0]) or 1
            black, white = (half[:, top:bottom, left:right].reshape(len(edges), -1) for half in halves)
            black, white = (half - half.mean(axis=1, keepdims=True) for half in (black, white))
            on = [half @ basis.astype(np.float32) for half in (black, white)]
            grams += on[0] @ on[1].T, black @ white.T, (black @ black.T + white @ white.T) / 2
            along += (on[0] + on[1])[:, 0] / 2
    return *map(_squares, grams), along[None] - along[:, None]


def _squares(gram: np.ndarray) -> np.ndarray:
    """|C_e - C_s|^2 of all pairs from their inner products."""
    gram = (gram + gram.T) / 2
    square = np.diag(gram)
    return square[:, None] + square[None] - 2 * gram


def _smoothing(edges: np.ndarray) -> np.ndarray:
    """The matrix that puts a parabola through the values around each edge, float32 ``(edges, edges)``.

    A plain mean would see exposures with soft ends, which look most like shorter ones.
    """
    matrix = np.zeros((len(edges), len(edges)), np.float32)
    for row, edge in enumerate(edges):
        near = abs(edges - edge) <= AROUND
        matrix[row, near] = np.linalg.pinv(np.vander((edges[near] - edge) / AROUND, 3, increasing=True))[0]
    return matrix


def _halves(image, spike, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The image, and the sums of the frames before each edge, of every second pixel and of the others.

    Returns:
        ``(h, w, n + 1)``: the image's n pictures, and by what its finest detail differs between the halves; and twice
        ``(edges, h, w)``: all smoothed, and shrunk where they are large.
    """
    height, width = image.shape[:2]
    factor = min(1.0, (PIXELS / (height * width)) ** 0.5)
    size = max(int(width * factor), 8), max(int(height * factor), 8)

    def small(picture):
        picture = cv2.GaussianBlur(np.asarray(picture, np.float32), (0, 0), SMOOTH)
        return picture if factor == 1 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)

    black = np.indices((height, width)).sum(axis=0) % 2 == 0
    views = np.reshape(image, (height, width, -1)).astype(np.float32)
    leaked = views[..., -1:] * np.where(black, 1, -1)[..., None]
    seen = small(np.concatenate([views, leaked], axis=-1))
    total = np.zeros((height, width), np.float32)
    halves = np.empty((2, len(edges), *seen.shape[:2]), np.float32)
    before = edges[0]
    for index, edge in enumerate(edges):
        total += spike[before:edge].sum(axis=0, dtype=np.float32)
        halves[0, index], halves[1, index] = small(2 * total * black), small(2 * total * ~black)
        before = edge
    return seen, halves[0], halves[1]
