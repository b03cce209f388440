"""Where each pixel of a photograph lies among the spikes.

Two cameras never look quite alike. A :class:`Registration` says how the spikes' field of view lies on the photograph's:
a homography between both, in units of their sides, so that it serves any size of either. One can be estimated for each
capture (:mod:`codes.inference.registering`), or once for a pair of cameras, and kept in a file.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from codes.errors import InputError
from codes.files import write_json
from codes.tone import Tone

CORNERS = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float64)
QUARTER = 0.25
"""Image pixels; what lies closer is left as it is."""


@dataclass(frozen=True)
class Registration:
    """How the spikes lie on the photograph.

    Args:
        matrix: 3x3 in nine numbers, row by row, from (x, y, 1) on the photograph to the spikes' field of view; both go
            from (0, 0), the upper left corner, to (1, 1).
    """

    matrix: tuple[float, ...] = (1, 0, 0, 0, 1, 0, 0, 0, 1)

    def __post_init__(self):
        array = np.array(self.matrix, np.float64)
        if array.shape != (9,) or not np.isfinite(array).all() or abs(np.linalg.det(array.reshape(3, 3))) < 1e-6:
            raise InputError(f"a registration is nine finite numbers of an invertible matrix, not {self.matrix}")

    @classmethod
    def of(cls, matrix: np.ndarray) -> "Registration":
        """That of a 3x3 matrix."""
        return cls(tuple(float(value) for value in (matrix / matrix[2, 2]).ravel()))

    @classmethod
    def from_pixels(cls, matrix: np.ndarray, image: tuple[int, int], spikes: tuple[int, int]) -> "Registration":
        """Of a matrix from pixel (x, y) of an image to one of the spikes; sizes are (height, width)."""
        return cls.of(_unit(spikes) @ np.asarray(matrix, np.float64) @ np.linalg.inv(_unit(image)))

    def pixels(self, image: tuple[int, int], spikes: tuple[int, int]) -> np.ndarray:
        """The 3x3 matrix from pixel (x, y) of an image to a pixel of the spikes; the inverse of :meth:`from_pixels`."""
        return np.linalg.inv(_unit(spikes)) @ np.array(self.matrix).reshape(3, 3) @ _unit(image)

    def distance(self, image: tuple[int, int], other: "Registration | None" = None) -> float:
        """By how many image pixels the farthest corner differs from that of another, or of none."""
        here, there = (_moved(each.matrix, CORNERS) for each in (self, other or Registration()))
        return float(np.linalg.norm((here - there) * (image[1], image[0]), axis=1).max())

    def is_none(self, image: tuple[int, int]) -> bool:
        """Whether it moves no corner by a quarter of an image pixel."""
        return self.matrix == Registration.matrix or self.distance(image) < QUARTER

    def words(self, image: tuple[int, int]) -> str:
        """How the spikes' view lies on an image: shift of its centre, turn and size."""
        way = np.linalg.inv(self.pixels(image, image))
        middle = np.array([[(image[1] - 1) / 2, (image[0] - 1) / 2]])
        centre, right, down = (_moved(way.ravel(), middle + step)[0] for step in ([0, 0], [1, 0], [0, 1]))
        x, y = centre - middle[0]
        turn = np.degrees(np.arctan2(right[1] - centre[1], right[0] - centre[0]))
        scale = (np.linalg.norm(right - centre) * np.linalg.norm(down - centre)) ** 0.5
        return f"{x:+.2f} pixels right, {y:+.2f} down, turned by {turn:+.2f} degrees, {scale:.4f} times as large"


CAMERA = "camera.json"
"""In a data set's folder: what is known of its cameras."""


@dataclass(frozen=True)
class Camera:
    """What captures of the same cameras share, kept in a file.

    Args:
        registration: how the spikes lie on the photographs.
        tone: the photographs' tone curve.
    """

    registration: Registration = Registration()
    tone: Tone = Tone()

    @classmethod
    def read(cls, path) -> "Camera":
        """From a file.

        Raises:
            OSError, InputError: it cannot be read, or is none.
        """
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
            rows = value.get("photo_to_spikes", np.eye(3).tolist())
            numbers = tuple(float(number) for row in rows for number in row)
            return cls(Registration(numbers), Tone(str(value.get("tone", "linear"))))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{path} does not describe cameras (JSON with photo_to_spikes, 3x3 numbers, and tone): {error}"
            ) from None

    @classmethod
    def of(cls, folder) -> "Camera":
        """That of a data set's folder; without a file photographs are linear and lie on the spikes."""
        path = Path(folder) / CAMERA
        return cls.read(path) if path.is_file() else cls()

    def write(self, path) -> None:
        """To a file."""
        rows = np.array(self.registration.matrix).reshape(3, 3).tolist()
        write_json(path, {"photo_to_spikes": rows, "tone": self.tone.name})

    def on_spikes(self, image: np.ndarray) -> np.ndarray:
        """A photograph brought onto the spikes' grid at its own size, uint8 ``(H, W, 3)``; itself if it lies there."""
        height, width = image.shape[:2]
        if self.registration.is_none((height, width)):
            return image
        matrix = self.registration.pixels((height, width), (height, width))
        return cv2.warpPerspective(
            image, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )


def _unit(size: tuple[int, int]) -> np.ndarray:
    """From pixels, whose centres are whole numbers, to units of the sides."""
    height, width = size
    return np.array([[1 / width, 0, 0.5 / width], [0, 1 / height, 0.5 / height], [0, 0, 1]])


def _moved(matrix, points: np.ndarray) -> np.ndarray:
    """Points ``(N, 2)`` under a homography."""
    x = np.c_[points, np.ones(len(points))] @ np.array(matrix, np.float64).reshape(3, 3).T
    return x[:, :2] / x[:, 2:]
