"""How a photograph and its spikes lie on one another, far below a pixel.

The photograph and the long TFP saw the same light over the same time, so they are blurred alike: what moves one onto
the other (ECC, Evangelidis and Psarakis 2008) is the way between the two cameras, however much the scene moved.

The long TFP is the noisy one of the two, and has been sampled with nothing to keep fine texture from aliasing. So it is
left as it is, and the photograph is moved onto it at its own, finer size: gradients of noise, and interpolation of what
was sampled coarsely, would pull the estimate away.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from codes.inference.alignment import ENOUGH
from codes.registration import QUARTER, Registration
from codes.spike import SCALE

SENSOR = 3
"""Side of what a pixel of the spikes sees, in quarters of it: sensors leave a part of a pixel dark."""

SMOOTH = 5
"""Side of the smoothing of the rough step and of correlations, in pixels of the spikes."""

ITERATIONS, PRECISION = 200, 1e-6
LARGEST = 260_000
"""Pixels of the spikes at which both are compared; larger ones are shrunk."""

GAINED = 0.2
"""Share of what does not correlate that a registration must explain, to be more than noise."""

LEAST = 1e-4
"""And by how much it must raise the correlation: nothing is gained at 0.9999."""

STEPS = (
    (1, SMOOTH, cv2.MOTION_AFFINE, 0.0),
    (SCALE, 1, cv2.MOTION_AFFINE, -0.1),
    (SCALE, 1, cv2.MOTION_HOMOGRAPHY, 0.15),
)
"""One after another: how fine the photograph is, the smoothing, the kind of motion, and the share that it must explain
of what the one before has left. (The first fine one may leave a little more: correlations are of smoothed pictures.)"""

REMAINS = 0.15
"""Share of the texture that stays unexplained from which on something else is said to be wrong."""


@dataclass(frozen=True)
class Registered:
    """What was found.

    Args:
        registration: the way.
        before, after: correlation of photograph and long TFP, smoothed, without it and with it.
        sure: whether it is clear enough to act on.
        pixels: by how many image pixels it moves the farthest corner.
    """

    registration: Registration
    before: float
    after: float
    sure: bool
    pixels: float


def register(image: np.ndarray, tfp_long: np.ndarray, start: Registration | None = None) -> Registered:
    """The registration of a photograph and the long TFP of its spikes.

    Args:
        image: grey photograph in linear light, float ``(H, W)``, of what the spikes see if they lie on it exactly.
        tfp_long: mean of the spikes over the exposure, float ``(h, w)``.
        start: where to begin; None: as they are.
    """
    size, factor = image.shape, min(1.0, (LARGEST / tfp_long.size) ** 0.5)
    shape = tuple(int(extent * factor) for extent in tfp_long.shape)
    seen, small, fine = (
        _resized(picture, tuple(times * extent for extent in shape))
        for picture, times in ((tfp_long, 1), (image, 1), (image, SCALE))
    )
    fine = cv2.blur(fine, (SENSOR, SENSOR))
    before = _correlation(fine, seen, Registration())
    best = start or Registration()
    after = _correlation(fine, seen, best)
    for times, smooth, motion, least in STEPS:
        found = _ecc(small if times == 1 else fine, seen, best, motion, smooth)
        value = _correlation(fine, seen, found) if found else -1.0
        if 1 - value < (1 - least) * (1 - after):
            best, after = found, value
    pixels = best.distance(size)
    clear = after >= ENOUGH and after - before > max(GAINED * (1 - before), LEAST) and _plausible(best)
    return Registered(best, before, after, bool(clear and pixels >= QUARTER), pixels)


def common(registrations: list[Registration]) -> Registration:
    """One registration of several captures of the same cameras: the median of where they move the corners."""
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32)
    moved = [cv2.perspectiveTransform(corners[None], np.array(each.matrix).reshape(3, 3))[0] for each in registrations]
    return Registration.of(cv2.getPerspectiveTransform(corners, np.median(moved, axis=0).astype(np.float32)))


def _ecc(image, seen, start: Registration, motion: int, smooth: int) -> Registration | None:
    """What ECC finds; the photograph may be finer than the long TFP if neither is smoothed."""
    matrix = np.linalg.inv(start.pixels(image.shape, seen.shape))
    matrix = np.float32(matrix / matrix[2, 2])
    matrix = matrix if motion == cv2.MOTION_HOMOGRAPHY else matrix[:2]
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ITERATIONS, PRECISION)
    try:
        _, matrix = cv2.findTransformECC(seen, image, np.ascontiguousarray(matrix), motion, criteria, None, smooth)
    except cv2.error:  # it did not converge
        return None
    matrix = np.float64(matrix if motion == cv2.MOTION_HOMOGRAPHY else np.vstack([matrix, [0, 0, 1]]))
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-6:
        return None
    return Registration.from_pixels(np.linalg.inv(matrix), image.shape, seen.shape)


def _correlation(image, seen, registration: Registration) -> float:
    """Of both where they overlap, on the grid of the spikes, smoothed."""
    height, width = seen.shape
    matrix = registration.pixels(image.shape, seen.shape)
    moved, inside = (cv2.warpPerspective(each, matrix, (width, height)) for each in (image, np.ones_like(image)))
    moved, seen, inside = (cv2.GaussianBlur(each, (SMOOTH, SMOOTH), 0) for each in (moved, seen, inside))
    inside = inside > 0.999
    inside &= np.pad(np.ones((height - 8, width - 8), bool), 4) if min(height, width) > 32 else True
    if inside.sum() < 64:
        return -1.0
    a, b = seen[inside], moved[inside]
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 0 else 0.0


def _plausible(registration: Registration) -> bool:
    """Whether it neither mirrors nor shrinks the view out of reason."""
    matrix = np.array(registration.matrix).reshape(3, 3)
    return 0.2 < np.linalg.det(matrix[:2, :2]) < 5 and abs(matrix[2, :2]).max() < 0.2


def _resized(picture: np.ndarray, size) -> np.ndarray:
    """Of (height, width); shrunk by area."""
    shrinks = size[0] < picture.shape[0]
    flags = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(np.asarray(picture, np.float32), size[::-1], interpolation=flags)
