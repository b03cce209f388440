"""Photographs, and cut-outs with alpha, that data sets are made from: finding, checking, sharing out to the splits."""

import importlib.util
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
from tqdm import tqdm

from codes.errors import InputError
from codes.image import IMAGES, read_image
from codes.making.synthesis import SPLITS

SMALLEST_PHOTO = 64  # px; below it even a small frame is mostly mirrors
BUNDLED = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
# Fur and wood grain, bright and full of detail: a fair test. The rocket is mostly smooth dark sky, where any
# method scores high, so it would flatter the test; the astronaut gives training faces, cloth and hard edges.
BUNDLED_TEST = ("chelsea.png", "coffee.png")


def find_photos(folder: Path | None, out: Path | None = None, flag: str = "--photos") -> dict[str, Path]:
    """Photographs by name (path below the folder), in sorted order; ``out``, should it lie inside, is left out."""
    if folder is None:
        spec = importlib.util.find_spec("skimage")
        found = {name: Path(spec.origin).parent / "data" / name for name in BUNDLED} if spec else {}
        if not found or not all(path.is_file() for path in found.values()):
            raise InputError("scikit-image's photographs are not installed; give your own with --photos DIR")
        return found
    if not folder.is_dir():
        raise InputError(f"{flag} {folder} is no folder")
    out = out and out.resolve()
    # No hidden ones: a program that was killed may have left half a picture.
    files = [p for p in folder.rglob("*") if p.suffix.lower() in IMAGES and p.name[0] != "." and p.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in files if out not in path.resolve().parents}
    if not names:
        raise InputError(f"{flag} {folder} holds no pictures ({', '.join(IMAGES)})")
    return dict(sorted(names.items()))


def usable(photos: dict[str, Path], read=read_image) -> dict[str, int]:
    """CRC-32 of each photograph (or, with ``read_cutout``, cut-out) that can serve; says why of each that cannot."""
    checksums: dict[str, int] = {}
    for name, path in tqdm(photos.items(), desc="reading photographs", unit="photo", leave=False, disable=None):
        try:
            height, width = read(path).shape[:2]
            checksum = zlib.crc32(path.read_bytes())
            if min(height, width) < SMALLEST_PHOTO:
                raise InputError(f"{path} has {height}x{width} pixels; each side must be at least {SMALLEST_PHOTO}")
            if checksum in checksums.values():  # a copy could put one photograph in both splits
                raise InputError(f"{path} is a copy of another photograph")
            checksums[name] = checksum
        except (OSError, InputError, cv2.error) as error:
            tqdm.write(f"left out: {' '.join(str(error).split())}", file=sys.stderr)
    if not checksums:
        raise InputError("no photograph can be used")
    return checksums


def split_photos(names: list[str], chosen: Sequence[str] | None, wanted: dict[str, int]) -> dict[str, list[str]]:
    """Share the photographs out: ``chosen`` ones to test, else a spread-out quarter (2 of 4 to 11; 1 of 2 or 3)."""
    if chosen is not None:
        test = {name for name in names for pick in chosen if pick in (name, Path(name).name, Path(name).stem)}
        for pick in chosen:
            if not any(pick in (name, Path(name).name, Path(name).stem) for name in test):
                raise InputError(f"--test_photos {pick}: no such photograph; there are {', '.join(names[:20])}")
    elif len(names) == 1:
        if all(wanted.values()):
            raise InputError(f"{names[0]} is the only photograph; two splits need two (or give --train 0 or --test 0)")
        test = set(names if wanted["test"] else [])
    else:
        count = max(len(names) // 4, 2 if len(names) >= 4 else 1)
        test = {names[(2 * i + 1) * len(names) // (2 * count)] for i in range(count)}
    photos = {"train": [name for name in names if name not in test], "test": [name for name in names if name in test]}
    for split in SPLITS:
        if wanted[split] and not photos[split]:
            raise InputError(f"no photograph is left for {split}; --test_photos must leave some, or give --{split} 0")
    return photos
