"""Do a blurry image and a spike stream show the same scene, pixel on pixel? And if not, what is wrong?

The mean of the spikes over the exposure (the long TFP) looks like the grey blurry image at the size of the spikes.
Their correlation tells; both are freed of slow changes of brightness first, which correlate in any two pictures, and
where they differ, of what differs from pixel to pixel: few spikes, and pixels with thresholds of their own. If another
reading of the stream fits clearly better than the one at hand, that is what is wrong with it.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

WAYS = {
    "": lambda x: x,
    "flipped vertically": lambda x: x[::-1],
    "flipped horizontally": lambda x: x[:, ::-1],
    "turned by 180 degrees": lambda x: x[::-1, ::-1],
    "packed with the other bit order": lambda x: x.reshape(len(x), -1, 8)[..., ::-1].reshape(x.shape),
}
"""What can be wrong with a stream, and how its picture is mended. (The last where rows fill whole bytes.)"""

ENOUGH = 0.5
"""Correlation from which on two pictures show the same scene."""

SAME = 0.9
"""Correlation from which on no other scale is looked for."""

CLEARLY = 0.1
"""By how much another reading must fit better."""


RIGHT = 0.3
"""Or what share of the rest it may leave unexplained."""

SOFT, SMALLEST = 1.0, 45
"""Standard deviation, in spike pixels, of what both are smoothed with where they differ, since scaling alone smooths;
and the shorter side from which on enough is left then to tell one scene from another."""


@dataclass(frozen=True)
class Alignment:
    """How a long TFP lies on its blurry image.

    Args:
        correlation: as they are but for the smoothing, -1 to 1.
        best: of the reading that fits best.
        way: that reading, a key of :data:`WAYS`; '' is the one at hand.
        shift: (down, right) in spike pixels by which the TFP must be moved to fit.
        scale: by what the TFP must be enlarged about its centre, before it is moved.
        textured: whether there is enough to see in both to tell.
    """

    correlation: float
    best: float
    way: str
    shift: tuple[int, int]
    scale: float = 1.0
    textured: bool = True

    @property
    def fault(self) -> str:
        """What is wrong, in words; '' if nothing is."""
        if not self.textured:
            return ""
        if self.best < ENOUGH:
            return f"the spikes do not show the image's scene (correlation {self.correlation:.2f})"
        if not self.way and self.scale == 1 and max(map(abs, self.shift)) <= 1:
            return ""
        down, right = self.shift
        words = [self.way] if self.way else []
        if self.scale != 1:
            words.append(f"seen {1 / self.scale:.2f} times as large")
        if max(map(abs, self.shift)) > 1:
            words.append(f"shifted by {-down} rows and {-right} columns of spike pixels")
        return (
            f"the spikes are {' and '.join(words)} against the image "
            f"(correlation {self.correlation:.2f} as they are, {self.best:.2f} mended)"
        )


SCALES = tuple(float(scale) for scale in np.geomspace(0.6, 1.7, 22).round(3))


def align(image: np.ndarray, tfp_long: np.ndarray, reach: float = 0.25, scales: bool = False) -> Alignment:
    """Find the reading, the scale and the shift of a long TFP that fit a blurry image best.

    Args:
        image: grey blurry image at the size of the spikes, float ``(h, w)``.
        tfp_long: mean of the spikes over the exposure, float ``(h, w)``.
        reach: largest shift that is looked for, as a part of each side.
        scales: also look whether the spikes show the scene from 0.6 to 1.7 times as large, the right way up.
    """
    target, seen, prepared = flattened(image), flattened(tfp_long), flattened
    # Spikes are regular: the mean of 97 errs by less than one of them. Below that there is nothing to see.
    textured = target.std() > 0.004 and seen.std() > 0.004
    if min(image.shape) >= SMALLEST and _correlation(target, seen, (0, 0)) < SAME:
        prepared = _smoothed
        target, seen = prepared(image), prepared(tfp_long)
    as_is = _correlation(target, seen, (0, 0))
    best = Alignment(as_is, as_is, "", (0, 0), textured=bool(textured))
    for way, mend in WAYS.items():
        if "bit order" in way and image.shape[1] % 8:
            continue
        picture = prepared(mend(tfp_long))
        for shift in ((0, 0), _shift(target, picture, reach)):
            value = _correlation(target, picture, shift)
            # A smooth picture correlates in any bit order: what is left unexplained tells more.
            right = way != best.way and value > SAME and 1 - value < RIGHT * (1 - best.best)
            if right or value > best.best + (CLEARLY if way != best.way else CLEARLY / 2):
                best = replace(best, best=value, way=way, shift=shift)
    if scales and best.best < SAME:
        for scale in SCALES:
            picture = prepared(_scaled(tfp_long, scale))
            shift = _shift(target, picture, reach)
            value = _correlation(target, picture, shift)
            if value > best.best + (CLEARLY if best.scale == 1 else 0):
                best = replace(best, best=value, way="", scale=scale, shift=shift)
    return best


def _scaled(picture: np.ndarray, scale: float) -> np.ndarray:
    """A picture enlarged about its centre, of the same size; beyond its borders, its mean."""
    height, width = picture.shape
    matrix = np.array([[scale, 0, (1 - scale) * (width - 1) / 2], [0, scale, (1 - scale) * (height - 1) / 2]])
    picture = np.asarray(picture, np.float32)
    return cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=float(picture.mean()))


def flattened(picture: np.ndarray) -> np.ndarray:
    """A picture without its slow changes of brightness."""
    picture = np.asarray(picture, np.float32)
    return picture - cv2.GaussianBlur(picture, (0, 0), max(min(picture.shape) / 8, 1))


def _smoothed(picture: np.ndarray) -> np.ndarray:
    """The same without what differs from pixel to pixel."""
    return flattened(cv2.GaussianBlur(np.asarray(picture, np.float32), (0, 0), SOFT))


def _shift(target: np.ndarray, picture: np.ndarray, reach: float) -> tuple[int, int]:
    """The (down, right) by which ``picture`` must be moved to lie on ``target``, from their cross-correlation."""
    size = [2 * extent for extent in target.shape]
    product = np.fft.rfft2(target, size) * np.conj(np.fft.rfft2(picture, size))
    surface = np.fft.irfft2(product, size)
    limits = [int(extent * reach) for extent in target.shape]
    rows, columns = (np.arange(-limit, limit + 1) for limit in limits)
    inside = surface[np.ix_(rows, columns)]  # negative indices are negative shifts
    row, column = np.unravel_index(inside.argmax(), inside.shape)
    return int(rows[row]), int(columns[column])


def _correlation(target: np.ndarray, picture: np.ndarray, shift: tuple[int, int]) -> float:
    """Correlation of both where they overlap after the shift."""
    parts = []
    for extent, move in zip(target.shape, shift, strict=True):
        parts.append((slice(max(move, 0), extent + min(move, 0)), slice(max(-move, 0), extent - max(move, 0))))
    a, b = target[parts[0][0], parts[1][0]], picture[parts[0][1], parts[1][1]]
    spread = a.std() * b.std()
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 0 else 0.0
