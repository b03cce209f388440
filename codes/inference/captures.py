"""Captures in files, folders and data sets, as scripts/deblur.py is given them."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from codes.dataset import SpikeData
from codes.errors import InputError, MissingFileError, one_line
from codes.files import by_stem
from codes.image import IMAGES
from codes.inference.opening import OFFICIALLY, Capture, Reading, open_capture
from codes.inference.registering import common, register
from codes.inference.soundness import RATES
from codes.inference.streams import SUFFIXES, Layout
from codes.registration import Camera
from codes.spike import evenly
from codes.tone import Tone


def chosen_instants(text: str, window: slice) -> tuple[int, ...]:
    """The instants that ``--frames`` asks for."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers:
        raise InputError(f"--frames is '{text}'; expected a number, or spike frame numbers with commas, as 20,68,116")
    if "," not in text:
        return evenly(window, numbers[0])
    if twice := [number for number in dict.fromkeys(numbers) if numbers.count(number) > 1]:
        raise InputError(f"--frames is '{text}'; frame {twice[0]} is asked for more than once, give each frame once")
    return tuple(numbers)


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
    streams = {path.stem: path for path in find_streams(cfg.spike)}
    missing = [path for path in images if path.stem not in streams]
    if missing:
        wanted = " or ".join(f"{missing[0].stem}{suffix}" for suffix in SUFFIXES)
        raise MissingFileError(
            f"{len(missing)} of {len(images)} images have no stream; the first: {missing[0]} (no {cfg.spike}/{wanted})"
        )
    return [(path.stem, path, streams[path.stem]) for path in images]


def find_streams(path: Path) -> list[Path]:
    """A stream's file, or all of a folder."""
    if not path.is_dir():
        return [path]
    return sorted(one for one in path.iterdir() if one.suffix.lower() in SUFFIXES and one.name[0] != ".")


def find_pairs(folder: Path) -> list[tuple[str, Path, Path]]:
    """(name, image, stream) of every capture of a folder.

    It holds images and streams of the same names, or ``blur_data/`` and ``spike_data/`` with them, in folders or not;
    of a data set in the GOPRO layout, its ``train/`` does.

    Raises:
        MissingFileError: there are none.
    """
    root = next((one for one in (folder / "train", folder) if (one / "spike_data").is_dir()), None)
    images, streams = (root / "blur_data", root / "spike_data") if root else (folder, folder)
    places = [streams, *sorted(path for path in streams.glob("[!.]*") if path.is_dir())] if streams.is_dir() else []
    found = []
    for place in places:
        beside = images / place.relative_to(streams)
        known = by_stem(beside, IMAGES)
        found += [(path, known[path.stem]) for path in find_streams(place) if path.stem in known]
    if not found:
        raise MissingFileError(
            f"{folder} holds no captures; expected images and streams ({', '.join(SUFFIXES)}) of the same names, in "
            "one folder or in blur_data/ and spike_data/"
        )
    return [(path.relative_to(streams).with_suffix("").as_posix(), image, path) for path, image in found]


def sound(captures, reading: Reading, left_out: dict[str, str]) -> Iterator[tuple[str, Capture]]:
    """Those captures in which image and spikes fit; the others are said, and noted in ``left_out`` with the reason."""
    for name, image, stream in captures:
        try:
            capture = open_capture(image, stream, reading)
            rate = float(capture.tfp_long().mean())
            doubts = list(capture.doubts)
            if not RATES[0] <= rate <= RATES[1]:
                doubts.append(f"a pixel fires in {rate:.1%} of the frames: {'dark' if rate < 0.5 else 'saturated'}")
        except (InputError, OSError) as error:
            doubts = [one_line(error)]
        if doubts:
            left_out[name] = "; ".join(doubts)
            print(f"{name}: left out: {left_out[name]}")
        else:
            print(f"{name}: {'; '.join(capture.notes) or 'sound'}", flush=True)
            yield name, capture


def reading_of(cfg) -> Reading:
    """How the options of scripts/deblur.py want captures to be read; of data sets nothing is found unless asked for."""
    layout = Layout(cfg.spike_size and tuple(cfg.spike_size), cfg.row_bits, cfg.bit_order, cfg.key, cfg.axes)
    defaults: dict[str, Any] = OFFICIALLY if cfg.base_folder else {"tone": "auto", "align": "auto", "bad_pixels": True}
    align, tone = cfg.align or defaults["align"], cfg.tone
    camera = Camera.of(cfg.base_folder) if cfg.base_folder else None
    if align not in ("auto", "off"):
        camera = Camera.read(align)
    if camera and (cfg.align or camera != Camera()):
        tone = tone or camera.tone.name
        align = camera.registration if align not in ("auto", "off") or not cfg.align else align
    return Reading(
        layout,
        exposure=cfg.exposure,
        flip=cfg.flip,
        crop=cfg.crop,
        tone=tone or defaults["tone"],
        align=align,
        bad_pixels=cfg.bad_pixels == "auto" if cfg.bad_pixels else defaults["bad_pixels"],
        bits=cfg.bits,
        exif=cfg.exif,
        check=cfg.check,
    )


def calibrated(captures, reading: Reading) -> tuple[Camera, list[str]]:
    """What several captures tell of the cameras that they share, and a line about each.

    Raises:
        InputError: none of them tells.
    """
    found, tones, lines = [], [], []
    for name, image, stream in captures:
        capture = open_capture(image, stream, replace(reading, align="auto"))
        seen = register(capture.grey_frame(), capture.tfp_long(), capture.registration)
        used = seen.after >= 0.9
        words = seen.registration.words(capture.frame)
        lines.append(f"{name or image}: {words} (correlation {seen.after:.4f}{'' if used else ', left out'})")
        if used:
            found.append(seen.registration)
            tones.append(capture.tone.name)
    if not found:
        raise InputError("no capture shows clearly how the cameras lie on one another (correlation of 0.9 or more)")
    return Camera(common(found), Tone(max(set(tones), key=tones.count))), lines


def opened(captures, reading: Reading) -> Iterator[tuple[str, Capture]]:
    """The captures; what was found is said on stdout, what seems wrong on stderr."""
    for name, image, stream in captures:
        capture = open_capture(image, stream, reading)
        for note in capture.notes:
            tqdm.write(f"{name or image}: {note}")
        given = " (counted from what --crop and --flip made of it)" if reading.crop or reading.flip != "none" else ""
        for doubt in capture.doubts:
            tqdm.write(f"warning: {stream}: {doubt}{given} (--no-check: do not look)", file=sys.stderr)
        yield name, capture
