"""How a photograph and its spikes lie on one another, far below a pixel.

The photograph and the long TFP saw the same light over the same time, so they are blurred alike: what moves one onto
the other (ECC, Evangelidis and Psarakis 2008) is the way between the two cameras, however much the scene moved.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from codes.inference.alignment import ENOUGH
from codes.registration import QUARTER, Registration

SMOOTH = 5
"""Side of ECC's smoothing, in pixels of the spikes."""

ITERATIONS, PRECISION = 200, 1e-6
LARGEST = 260_000
"""Pixels at which both are compared; larger ones are shrunk."""

GAINED = 0.2
"""Share of what does not correlate that a registration must explain, to be more than noise."""

LEAST = 1e-4
"""And by how much it must raise the correlation: nothing is gained at 0.9999."""

WAYS = ((cv2.MOTION_EUCLIDEAN, 0.0), (cv2.MOTION_AFFINE, 0.02), (cv2.MOTION_HOMOGRAPHY, 0.15))
"""Kinds of motion one after another, and the share that each must explain of what the one before has left."""

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


def register(image: np.ndarray, tfp_long: np.ndarray, size, start: Registration | None = None) -> Registered:
    """The registration of a photograph and the long TFP of its spikes.

    Args:
        image: grey photograph in linear light at the size of the spikes, float ``(h, w)``.
        tfp_long: mean of the spikes over the exposure, float ``(h, w)``.
        size: (height, width) of the photograph, in whose pixels distances are told.
        start: where to begin; None: as they are.
    """
    factor = min(1.0, (LARGEST / image.size) ** 0.5)
    image, seen = (_shrunk(picture, factor) for picture in (image, tfp_long))
    shape = image.shape
    start = start or Registration()
    before = _correlation(image, seen, Registration())
    best, after = start, _correlation(image, seen, start)
    for motion, least in WAYS:
        found = _ecc(image, seen, best, motion, shape)
        value = _correlation(image, seen, found) if found else -1.0
        if 1 - value < (1 - least) * (1 - after):
            best, after = found, value
    pixels = best.distance(tuple(size))
    clear = after >= ENOUGH and after - before > max(GAINED * (1 - before), LEAST) and _plausible(best)
    return Registered(best, before, after, bool(clear and pixels >= QUARTER), pixels)


def common(registrations: list[Registration]) -> Registration:
    """One registration of several captures of the same cameras: the median of where they move the corners."""
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32)
    moved = [cv2.perspectiveTransform(corners[None], np.array(each.matrix).reshape(3, 3))[0] for each in registrations]
    return Registration.of(cv2.getPerspectiveTransform(corners, np.median(moved, axis=0).astype(np.float32)))


def _ecc(image, seen, start: Registration, motion: int, shape) -> Registration | None:
    matrix = start.pixels(shape, shape)
    matrix = np.float32(matrix / matrix[2, 2])
    matrix = matrix if motion == cv2.MOTION_HOMOGRAPHY else matrix[:2]
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ITERATIONS, PRECISION)
    try:
        _, matrix = cv2.findTransformECC(image, seen, np.ascontiguousarray(matrix), motion, criteria, None, SMOOTH)
    except cv2.error:  # it did not converge
        return None
    matrix = matrix if motion == cv2.MOTION_HOMOGRAPHY else np.vstack([matrix, [0, 0, 1]])
    return Registration.from_pixels(matrix, shape, shape) if np.isfinite(matrix).all() else None


def _correlation(image, seen, registration: Registration) -> float:
    """Of both where they overlap, smoothed as ECC does."""
    height, width = image.shape
    matrix = registration.pixels(image.shape, image.shape)
    image, seen = (cv2.GaussianBlur(picture, (SMOOTH, SMOOTH), 0) for picture in (image, seen))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpPerspective(seen, matrix, (width, height), flags=flags)
    inside = cv2.warpPerspective(np.ones_like(seen), matrix, (width, height), flags=flags) > 0.999
    inside &= np.pad(np.ones((height - 8, width - 8), bool), 4) if min(height, width) > 32 else True
    if inside.sum() < 64:
        return -1.0
    a, b = image[inside], moved[inside]
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 0 else 0.0


def _plausible(registration: Registration) -> bool:
    """Whether it neither mirrors nor shrinks the view out of reason."""
    matrix = np.array(registration.matrix).reshape(3, 3)
    return 0.2 < np.linalg.det(matrix[:2, :2]) < 5 and abs(matrix[2, :2]).max() < 0.2


def _shrunk(picture: np.ndarray, factor: float) -> np.ndarray:
    picture = np.asarray(picture, np.float32)
    if factor == 1:
        return picture
    height, width = picture.shape
    return cv2.resize(picture, (int(width * factor), int(height * factor)), interpolation=cv2.INTER_AREA)
