"""Make a small data set in the GOPRO layout from photographs, with exact ground truth (see codes/synthesis.py).

    python scripts/make_demo_data.py --out GOPRO --size 360x640 --train 32 --test 8

Nothing is downloaded: without --photos it uses four photographs that come with scikit-image. The folder also
gets ``demo_data.json`` (the options, the photographs) and ``{train,test}/samples.json`` (what was drawn for
each sample). The same command goes on where it was interrupted; a larger --train or --test adds samples.
"""

import argparse
import importlib.util
import json
import math
import os
import re
import shutil
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2  # noqa: E402
from tqdm import tqdm  # noqa: E402

from codes.engine.command import Parser, command  # noqa: E402
from codes.errors import InputError  # noqa: E402
from codes.files import replacing  # noqa: E402
from codes.image import read_image  # noqa: E402
from codes.making.synthesis import SPLITS, Sample, draw_sample, read_cutout, sequence_name, write_sample  # noqa: E402

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
SMALLEST_PHOTO = 64  # px; below it even a small frame is mostly mirrors
BUNDLED = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
# Fur and wood grain, bright and full of detail: a fair test. The rocket is mostly smooth dark sky, where any
# method scores high, so it would flatter the test; the astronaut gives training faces, cloth and hard edges.
BUNDLED_TEST = ("chelsea.png", "coffee.png")
RECORD = "demo_data.json"


def frame_size(text: str) -> tuple[int, int]:
    """Read the size HxW of an image on the spike grid."""
    return _size(text, 16, 4, "HxW, multiples of 4 from 16 to 8192, as 720x1280")


def any_size(text: str) -> tuple[int, int]:
    """Read HxW."""
    return _size(text, 1, 1, "HxW from 1x1 to 8192x8192, as 250x400")


def _size(text: str, smallest: int, grid: int, expected: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)[xX](\d+)", text)
    size = tuple(map(int, match.groups())) if match and len(text) < 12 else (0, 0)
    if any(not smallest <= side <= 8192 or side % grid for side in size):
        raise argparse.ArgumentTypeError(f"{text[:50]!r} is no size; expected {expected}")
    return size


def at_least(low, kind=int, above: bool = False):
    """A type for argparse: a finite number that is at least (or above) ``low``."""

    def read(text: str):
        try:
            value = kind(text)
            finite = math.isfinite(value)
        except (ValueError, OverflowError):  # the latter: a whole number beyond all floating-point ones
            finite = False
        if not finite or value < low or (above and value == low):
            noun = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"{text!r}; expected a {noun} {'above' if above else 'of at least'} {low}")
        return value

    return read


def make_parser() -> Parser:
    """Every flag with its default."""
    parser = Parser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--out", type=Path, default="GOPRO", help="folder of the data set")
    add("--size", type=frame_size, default="720x1280", metavar="HxW", help="image size")
    add("--train", type=at_least(0), default=32, metavar="N", help="training samples")
    add("--test", type=at_least(0), default=8, metavar="N", help="test samples")
    add("--photos", type=Path, metavar="DIR", help="your photographs, subfolders too; none: four of scikit-image's")
    cutouts = "pictures with alpha (PNG) as moving foregrounds; none: pieces of the photographs"
    add("--cutouts", type=Path, metavar="DIR", help=cutouts)
    add("--test_photos", nargs="*", metavar="NAME", help="those for testing; without it, a spread-out quarter")
    motion = "least and greatest motion over the exposure in pixels at 720p"
    add("--motion", type=at_least(0, float), nargs=2, default=(20.0, 80.0), metavar=("MIN", "MAX"), help=motion)
    add("--foregrounds", type=at_least(0), default=3, metavar="MAX", help="most moving cut-outs")
    vth = "firing thresholds in the paper's unit: the first for spike_data, more for spike_data_vth2 and so on"
    add("--vth", type=at_least(0, float, True), nargs="+", default=(1.0,), metavar="V", help=vth)
    add("--no_noise", action="store_true", help="leave out the sensor's inherent noise")
    add("--seed", type=at_least(0), default=0, help="same seed, same bytes")
    workers = "samples rendered at a time"
    add("--workers", type=at_least(1), default=os.cpu_count(), metavar="N", help=workers)
    add("--overwrite", action="store_true", help="delete the samples that this program made in the folder before")
    return parser


def find_photos(folder: Path | None, out: Path, flag: str = "--photos") -> dict[str, Path]:
    """Photographs by name (path below the folder), in sorted order; ``out``, should it lie inside, is left out."""
    if folder is None:
        spec = importlib.util.find_spec("skimage")
        found = {name: Path(spec.origin).parent / "data" / name for name in BUNDLED} if spec else {}
        if not found or not all(path.is_file() for path in found.values()):
            raise InputError("scikit-image's photographs are not installed; give your own with --photos DIR")
        return found
    if not folder.is_dir():
        raise InputError(f"{flag} {folder} is no folder")
    out = out.resolve()
    # No hidden ones: a program that was killed may have left half a picture.
    files = [p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.name[0] != "." and p.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in files if out not in path.resolve().parents}
    if not names:
        raise InputError(f"{flag} {folder} holds no pictures ({', '.join(sorted(SUFFIXES))})")
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


def split_photos(names: list[str], chosen: list[str] | None, wanted: dict[str, int]) -> dict[str, list[str]]:
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


def write_json(path: Path, value) -> None:
    """Write a JSON file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n")


def check_drawing(motion, vth) -> None:
    """Refuse a range of motion (in pixels at 720p) that is none, and thresholds that are given twice."""
    if motion[0] > motion[1] or motion[1] > 720:
        raise InputError(f"--motion {motion[0]:g} {motion[1]:g}; expected MIN <= MAX <= 720")
    if len(set(vth)) < len(vth):
        raise InputError(f"--vth {' '.join(f'{value:g}' for value in vth)} names a threshold twice")


def open_folder(out: Path, options: dict, overwrite: bool) -> None:
    """Give the folder to this configuration: refuse what disagrees, or with ``overwrite`` delete its samples."""
    record = out / RECORD
    if record.is_file():
        try:
            old = json.loads(record.read_text())
            names = [
                (split, sequence_name(i, list(old["photos"][split])[i % len(old["photos"][split])]))
                for split in SPLITS
                for i in range(old["samples"][split])
            ]
        except (ValueError, LookupError, TypeError, AttributeError):
            raise InputError(f"{record} is damaged; delete the folder or choose another --out") from None
        changed = [key for key in options if key != "samples" and options[key] != old.get(key)]
        changed += [f"fewer {split} samples" for split in SPLITS if options["samples"][split] < old["samples"][split]]
        if changed and not overwrite:
            raise InputError(
                f"{out} was made with other options ({', '.join(changed)}); "
                "choose another --out, or --overwrite to make it anew"
            )
        for split, name in names if overwrite else ():  # only what the record names: other files are not ours
            # Spikes first: a sample exists when they do.
            for folder in [*out.glob(f"{split}/spike_data*"), out / split / "blur_data", out / split / "sharp_data"]:
                if (folder / name).exists():
                    shutil.rmtree(folder / name)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out} exists and is not this program's work; choose another folder")
    write_json(record, options)


def describe(sample: Sample) -> dict:
    """What samples.json tells of a sample, for tables by motion."""
    return {
        "sequence": sample.name,
        "photo": Path(sample.photo).name,
        "motion_px": sample.motion,
        "vth": sample.vth,
        "seed": [sample.seed, sample.split, sample.index],
        "foregrounds": [{"photo": Path(photo).name, "motion_px": motion} for photo, motion in sample.foregrounds],
    }


def write_all(samples: list[Sample], out: Path, workers: int) -> None:
    """Write the samples that do not exist yet."""
    todo = [sample for sample in samples if not sample.exists(out)]
    # Threads, not processes: OpenCV and NumPy let them run side by side, and no worker has to import torch anew.
    cv2.setNumThreads(1)
    bar = tqdm(total=len(samples), initial=len(samples) - len(todo), unit="sample", disable=None)
    with bar, ThreadPoolExecutor(workers) as pool:
        try:
            for future in as_completed([pool.submit(write_sample, sample, out) for sample in todo]):
                future.result()
                bar.update()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                print("finishing the samples under way; the same command goes on from there", file=sys.stderr)
            pool.shutdown(wait=False, cancel_futures=True)  # leaving the block waits for the samples under way
            raise


def main(arguments: list[str] | None = None) -> None:
    """Make the data set that the command line asks for."""
    args = make_parser().parse_args(arguments)
    wanted = {"train": args.train, "test": args.test}
    check_drawing(args.motion, args.vth)
    if not any(wanted.values()):
        raise InputError("--train 0 --test 0 asks for no samples")
    files = find_photos(args.photos, args.out)
    checksums = usable(files)
    chosen = list(BUNDLED_TEST) if args.photos is None and args.test_photos is None else args.test_photos
    photos = split_photos(list(checksums), chosen, wanted)
    options = {key: getattr(args, key) for key in ("foregrounds", "no_noise", "seed")}
    options |= {key: list(getattr(args, key)) for key in ("motion", "size", "vth")} | {"samples": wanted}
    options["photos"] = {split: {name: checksums[name] for name in photos[split]} for split in SPLITS}
    cutouts, options["cutouts"] = dict.fromkeys(SPLITS, ()), None
    if args.cutouts is not None:
        pictures = find_photos(args.cutouts, args.out, "--cutouts")
        checksums = usable(pictures, read_cutout)
        shared = split_photos(list(checksums), None, wanted)
        options["cutouts"] = {split: {name: checksums[name] for name in shared[split]} for split in SPLITS}
        cutouts = {split: [pictures[name] for name in shared[split]] for split in SPLITS}
    drawing = {"motion": args.motion, "max_foregrounds": args.foregrounds, "noise": not args.no_noise}
    drawing |= {"size": args.size, "seed": args.seed, "vth": tuple(args.vth)}
    paths = {split: [files[name] for name in photos[split]] for split in SPLITS}
    samples = [
        draw_sample(split, i, paths[split], cutouts=cutouts[split], **drawing)
        for split in SPLITS
        for i in range(wanted[split])
    ]
    open_folder(args.out, options, args.overwrite)
    for split in SPLITS:
        rows = [describe(sample) for sample in samples if sample.split == split]
        write_json(args.out / split / "samples.json", rows)
        print(f"{split}: {len(rows)} samples of {len(photos[split])} photographs: {', '.join(photos[split][:8])}")
    write_all(samples, args.out, args.workers)
    print(f"{args.out}: done")


if __name__ == "__main__":
    command(main)
