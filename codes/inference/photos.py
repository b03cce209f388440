"""Photographs as cameras give them: of 8 bits, or of 10 to 16 in 16, turned as Exif says."""

import io
import warnings
from contextlib import suppress
from dataclasses import dataclass

import cv2
import numpy as np

from codes.errors import InputError
from codes.image import JPEG_SIGNATURE, PNG_SIGNATURE, read_image

DEPTHS = (10, 12, 14)


@dataclass(frozen=True)
class Photo:
    """A photograph.

    Args:
        pixels: uint8 or uint16 ``(H, W, 3)``, B,G,R, using the whole range.
        orientation: what Exif says, 1 to 8; 1 is upright.
        note: what was done to it, or ''.
    """

    pixels: np.ndarray
    orientation: int = 1
    note: str = ""


def read_photo(path, bits: int = 0, turn: bool = True) -> Photo:
    """Read a photograph.

    Args:
        path: any image that OpenCV reads.
        bits: that the numbers of a 16-bit file have; 0: as many as their largest needs, of 10, 12, 14 and 16.
        turn: as Exif says.

    Raises:
        OSError, InputError: it cannot be read, is cut, or has larger numbers than ``bits`` allow.
    """
    pixels = read_image(path)  # refuses what is broken
    encoded = np.fromfile(path, np.uint8)
    deep = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    orientation = _orientation(encoded.tobytes())
    if deep is not None and deep.dtype == np.uint16:
        deep = cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        return deep_photo(deep, bits, str(path))
    if not turn and orientation != 1:
        pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return Photo(pixels, orientation if turn else 1)


def deep_photo(pixels: np.ndarray, bits: int = 0, name: str = "the photo") -> Photo:
    """A photograph of up to 16 bits, uint16 ``(H, W, 3)``, brought to the whole range."""
    most = int(pixels.max())
    told = bits or next((depth for depth in DEPTHS if most < 1 << depth), 16)
    if most >= 1 << told:
        raise InputError(f"{name} has numbers up to {most}; --bits {bits} ends at {(1 << bits) - 1}")
    if told == 16 or not most:
        return Photo(pixels)
    pixels = np.rint(pixels * (65535 / ((1 << told) - 1))).astype(np.uint16)
    said = "" if bits else f" (its largest number is {most}; --bits 16: take it as it is)"
    return Photo(pixels, note=f"{told} bits in a 16-bit file{said}")


def _orientation(encoded: bytes) -> int:
    """The Exif orientation of a JPEG or PNG; 1 where there is none."""
    if not encoded.startswith((PNG_SIGNATURE, JPEG_SIGNATURE)):
        return 1
    from PIL import Image  # comes with scikit-image

    exif = Image.Exif()
    with warnings.catch_warnings(), suppress(Exception):  # of data that are damaged, or no Exif
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(encoded)) as image:  # reads the header alone
            exif.load(image.info.get("exif", b""))
    value = exif.get(0x0112)
    return value if value in range(1, 9) else 1
