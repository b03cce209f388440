"""Captures in files, folders and data sets, as scripts/deblur.py is given them."""

import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from codes.dataset import SpikeData
from codes.errors import InputError, MissingFileError
from codes.inference.deblurrer import Capture, check, open_capture
from codes.spike import evenly

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def chosen_instants(text: str, window: slice) -> tuple[int, ...]:
    """The instants that ``--frames`` asks for."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers:
        raise InputError(f"--frames is '{text}'; expected a number, or spike frame numbers with commas, as 20,68,116")
    return tuple(numbers) if "," in text else evenly(window, numbers[0])


def find_captures(cfg) -> list[tuple[str, Path, Path]]:
    """(name, image, stream) of every capture.

    Raises:
        OSError, ValueError: nothing there, or a partner is missing; says what was looked for.
    """
    if cfg.base_folder:
        if cfg.blur or cfg.spike:
            raise InputError("give either --base_folder or --blur and --spike")
        data = SpikeData(cfg.base_folder, cfg.data_type, "test", vth=cfg.vth)
        names = [f"{path.parent.name}/{path.stem}" for path in data.spike_paths]
        return list(zip(names, data.blur_paths, data.spike_paths, strict=True))
    if not (cfg.blur and cfg.spike):
        raise InputError("what to deblur? give --blur and --spike, or --base_folder (see --help)")
    if cfg.blur.is_dir() != cfg.spike.is_dir():
        raise InputError(f"--blur {cfg.blur} and --spike {cfg.spike}: give two files or two folders")
    if not cfg.blur.is_dir():
        return [("", cfg.blur, cfg.spike)]
    images = sorted(path for path in cfg.blur.iterdir() if path.suffix.lower() in IMAGES and path.name[0] != ".")
    if not images:
        raise MissingFileError(f"{cfg.blur} holds no images ({', '.join(IMAGES)})")
    pairs = [(path.stem, path, cfg.spike / f"{path.stem}.dat") for path in images]
    missing = [path for _, _, path in pairs if not path.is_file()]
    if missing:
        raise MissingFileError(f"{len(missing)} of {len(pairs)} images have no stream; the first: {missing[0]}")
    return pairs


def opened(cfg, captures) -> Iterator[tuple[str, Capture]]:
    """The captures, each checked; what seems wrong is said."""
    for name, image, stream in captures:
        capture = open_capture(image, stream, cfg.spike_size, cfg.exposure, cfg.flip, cfg.bit_order, cfg.crop)
        if cfg.check and (fault := check(capture)):
            given = " (counted from what --crop and --flip made of it)" if cfg.crop or cfg.flip != "none" else ""
            tqdm.write(f"warning: {stream}: {fault}{given} (--no-check: do not look)", file=sys.stderr)
        yield name, capture
