"""Photographs as cameras give them: of 8 bits, or of 10 to 16 in 16, turned as Exif says."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from codes.errors import InputError
from codes.image import PNG_SIGNATURE, read_image

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
    encoded = np.fromfile(path, np.uint8)
    pixels = read_image(path)  # refuses what is broken
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
    if encoded[:8] == PNG_SIGNATURE:
        place = encoded.find(b"eXIf")
        return _tiff_orientation(encoded[place + 4 :]) if place > 0 else 1
    place = 2
    while place + 10 <= len(encoded) and encoded[place] == 0xFF and encoded[place + 1] not in (0xDA, 0xD9):
        size = int.from_bytes(encoded[place + 2 : place + 4], "big")
        if encoded[place + 1] == 0xE1 and encoded[place + 4 : place + 10] == b"Exif\0\0":
            return _tiff_orientation(encoded[place + 10 : place + 2 + size])
        place += 2 + size
    return 1


def _tiff_orientation(tiff: bytes) -> int:
    order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"

    def number(at, length):
        return int.from_bytes(tiff[at : at + length], order)

    first = number(4, 4)
    for entry in range(min(number(first, 2), 200)):
        at = first + 2 + 12 * entry
        if number(at, 2) == 0x0112:
            value = number(at + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1
