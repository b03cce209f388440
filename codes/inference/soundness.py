"""Whether a data set is sound: partners, sizes, frames, firing rates, one scene in image and spikes.

Used by scripts/check_dataset.py.
"""

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from codes.dat import count_frames, find_streams, frame_bytes, read_dat
from codes.errors import InputError, one_line, readable
from codes.exposure import EXPOSURE
from codes.files import by_stem, disguise, namesake
from codes.image import IMAGES, grey, grid, read_image, to_uint8, write_image
from codes.inference.alignment import align
from codes.inference.timing import find_instants, time_fault
from codes.spike import tfp

RATES = (0.005, 0.98)
"""Mean firing rates (spikes per pixel and frame) outside of which a stream is empty or saturated."""
SHEET_WIDTH = 480
"""Pixels of a picture on the contact sheet."""


@dataclass
class Row:
    """What is told of one sequence."""

    samples: int = 0
    sizes: set = field(default_factory=set)
    rates: list = field(default_factory=list)
    correlations: list = field(default_factory=list)
    sharps: int = 0
    problems: list = field(default_factory=list)

    def __str__(self) -> str:
        sizes = ", ".join(f"{height}x{width}" for height, width in sorted(self.sizes)) or "-"
        rate = f"{np.mean(self.rates):.3f}" if self.rates else "-"
        least = f"{min(self.correlations):.3f}" if self.correlations else "-"
        return f"{self.samples} | {sizes} | {self.sharps} | {rate} | {least}"


def check(folder: Path, has_sharp: bool, scale: int, sheet: Path, sheet_rows: int) -> None:
    """Check a data set, print a table by sequences, write a contact sheet.

    Args:
        folder: it holds train/ and test/, or spike_data/ and blur_data/.
        scale: image pixels per spike pixel, each way.
        sheet_rows: samples on it, one of a sequence.

    Raises:
        InputError: not everything is sound; what is not is printed.
    """
    if sheet.suffix.lower() not in IMAGES:
        raise InputError(f"--sheet {sheet}: no picture; expected one of {', '.join(IMAGES)}")
    rows: dict[str, Row] = {}
    cells: list[tuple] = []
    columns = 4 if has_sharp else 3
    streams = all_streams(folder)
    for path in tqdm(streams, desc="check", unit="sample", leave=False, disable=None):
        name = readable(path.parent.relative_to(folder).as_posix())
        first = name not in rows
        row = rows.setdefault(name, Row())
        try:
            pictures = check_sample(path, has_sharp, scale, row)
        except (OSError, InputError) as error:
            row.problems.append(f"{readable(path)}: {one_line(error)}")
            continue
        if first and len(pictures) == columns and len(cells) < sheet_rows * columns:
            cells += [(resized(image, SHEET_WIDTH), text) for image, text in pictures]
    print("| sequence | samples | size | sharp images | firing rate | correlation, least |")
    print("|---" * 6 + "|")
    for name, row in rows.items():
        print(f"| {name} | {row} |")
    if cells:
        write_image(sheet, grid(cells, columns))
        print(f"contact sheet: {sheet}")
    problems = [text for row in rows.values() for text in row.problems]
    if hidden := hidden_streams(folder):
        print(f"{readable(hidden[0])}: hidden, left out" + (f" with {len(hidden) - 1} more" if hidden[1:] else ""))
    for path, expected in without_stream(folder, streams):
        if has_sharp and expected:
            print(f"{readable(path)}: no stream, as at the beginning and end of a video")
        else:
            problems.append(f"{readable(path)}: no stream of that name in spike_data")
    problems += [f"{readable(path)}: another image of that name lies beside it" for path in doubled(folder)]
    for text in problems:
        print(text)
    if problems:
        raise InputError(f"{len(problems)} problems in {len(streams)} samples of {folder} (listed above)")
    print(f"{len(streams)} samples, all sound")


def splits_of(folder: Path) -> list[Path]:
    """Where streams and images may lie: the folder itself and its splits."""
    return [folder, folder / "train", folder / "test"]


def hidden_streams(folder: Path) -> list[Path]:
    """Streams that are no samples, because their name or their folder's begins with a dot."""
    streams = (path for split in splits_of(folder) for path in split.glob("spike_*/*/*"))
    return sorted(p for p in streams if p.suffix.lower() == ".dat" and (p.name[0] == "." or p.parent.name[0] == "."))


def doubled(folder: Path) -> list[Path]:
    """Images that share their name with another one, such as 1.png and 1.bmp: only one of them is used."""
    found = []
    for split in splits_of(folder):
        for sequence in sorted(split.glob("*_data/[!.]*")):
            used = set(by_stem(sequence, IMAGES).values())
            images = [path for path in sequence.glob("[!.]*") if path.suffix.lower() in IMAGES]
            found += sorted(path for path in images if path not in used)
    return found


def all_streams(folder: Path) -> list[Path]:
    """All streams of a data set, of all splits and thresholds."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder")
    found = [path for split in splits_of(folder) for kind in split.glob("spike_*") for path in find_streams(kind)]
    if not found:
        raise InputError(f"{folder} holds no spike_data/<sequence>/<frame>.dat, neither itself nor in train/ or test/")
    return sorted(found)


def without_stream(folder: Path, streams: list[Path]) -> list[tuple[Path, bool]]:
    """Blurry images without a stream, and whether that is as it should be.

    It is where a data set is made from video: its first exposure, and often its last, have no spikes before or after.
    """
    known: dict[Path, list[str]] = {}
    for path in streams:
        known.setdefault(path.parents[2] / "blur_data" / path.parent.name, []).append(path.stem)
    found = []
    for split in splits_of(folder):
        for sequence in sorted((split / "blur_data").glob("[!.]*")):
            stems = known.get(sequence, [])
            unread = any((split / "spike_data" / sequence.name).glob("*")) and not stems  # files, but no .dat
            for stem, path in sorted(by_stem(sequence, IMAGES).items()):
                if stem not in stems:
                    found.append((path, not unread and not (stems and min(stems) < stem < max(stems))))
    return found


def light_of(image: np.ndarray, scale: int) -> np.ndarray:
    """The grey image at the size of the spikes, float ``(h, w)``: the mean over whole blocks."""
    height, width = (extent // scale for extent in image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return grey(small, axis=-1)[..., 0]


def check_sample(path: Path, has_sharp: bool, scale: int, row: Row) -> list:
    """Check one stream; notes what is wrong in ``row`` and returns the sample's pictures for the contact sheet.

    Raises:
        OSError, InputError: something is wrong after which there is nothing more to see.
    """

    def problem(text: str) -> None:
        row.problems.append(f"{readable(path)}: {text}")

    def image_of(kind: str) -> Path:
        found = by_stem(path.parents[2] / kind / path.parent.name, IMAGES).get(path.stem)
        if found is None:
            lost = path.parents[2] / kind / path.parent.name / f"{path.stem}.png"
            raise InputError(f"no image of that name in {kind}{namesake(lost)}")
        return found

    row.samples += 1
    if not path.is_file():
        raise InputError("no file, or a link to none")
    scale = 1 if path.parents[1].name.startswith("spike_full") else scale
    blur = read_image(image_of("blur_data"))
    height, width = blur.shape[:2]
    row.sizes.add((height, width))
    if height % scale or width % scale:
        raise InputError(f"the image is {height}x{width}, no multiple of {scale}")
    size = height // scale, width // scale
    if count_frames(path, *size) != EXPOSURE.total:
        due = EXPOSURE.total * frame_bytes(*size)
        raise InputError(
            f"{path.stat().st_size} bytes; {EXPOSURE.total} frames of {size[0]}x{size[1]} are {due}{disguise(path)}"
        )
    spikes = torch.from_numpy(read_dat(path, *size))
    rate = spikes.float().mean().item()
    row.rates.append(rate)
    if not RATES[0] <= rate <= RATES[1]:
        problem(f"a pixel fires in {rate:.1%} of the frames: {'nearly dark' if rate < 0.5 else 'saturated'}")
    long = tfp(spikes, EXPOSURE.centre, EXPOSURE.length)[0].numpy()
    alignment = align(light_of(blur, scale), long)
    row.correlations.append(alignment.correlation)
    if alignment.fault:
        problem(alignment.fault)
    cells = [(blur, f"{path.parent.name}/{path.stem}  blur")]
    if has_sharp:
        try:
            sharp_path = image_of("sharp_data")
            found = check_sharps(path, sharp_path, blur.shape, problem)
            if not alignment.fault and (fault := time_of(path, found, spikes.numpy(), scale)):
                problem(fault)
            row.sharps += len(found)
            if sharp_path in found:
                cells.append((found[sharp_path], "sharp, at the centre"))
        except InputError as error:
            problem(one_line(error))
    for name, length in (("long TFP, 97 frames", EXPOSURE.length), ("short TFP, 9 frames", 9)):
        picture = tfp(spikes, EXPOSURE.centre, length) / max(np.quantile(long, 0.99), 1e-3)
        cells.append((to_uint8(picture), name))
    return cells


def time_of(path: Path, sharps: dict[Path, np.ndarray], spikes: np.ndarray, scale: int) -> str:
    """What is wrong with a stream in time, from the sharp frames of its exposure; '' if nothing."""
    if not path.stem.isdecimal():
        return ""
    instants = dict(zip(EXPOSURE.sequence_offsets, EXPOSURE.sequence_instants, strict=True))
    seen = {}
    for other, image in sharps.items():
        instant = instants.get(int(other.stem) - int(path.stem))
        small = light_of(image, scale)
        if instant is not None and small.shape == spikes.shape[1:]:
            seen[instant] = small
    return time_fault(list(seen), find_instants(list(seen.values()), spikes)) if seen else ""


def check_sharps(path: Path, sharp_path: Path, shape: tuple, problem) -> dict[Path, np.ndarray]:
    """Check the sharp images of a sample: the centre's, and the sequence's if there is one; those that can be read."""
    paths, images = [sharp_path], {}
    if path.stem.isdecimal():
        names = [f"{int(path.stem) + offset:0{len(path.stem)}}" for offset in EXPOSURE.sequence_offsets]
        there = by_stem(sharp_path.parent, IMAGES)
        paths = [there[name] for name in names if name in there]
        if len(paths) not in (1, len(names)):
            problem(f"{len(paths)} of {len(names)} sharp images of the sequence")
    for other in paths:
        try:
            images[other] = read_image(other)
        except (OSError, InputError) as error:
            problem(one_line(error))
            continue
        height, width = images[other].shape[:2]
        if (height, width) != shape[:2]:
            problem(f"{other.name} in sharp_data is {height}x{width}, not {shape[0]}x{shape[1]}")
    return images


def resized(image: np.ndarray, width: int) -> np.ndarray:
    """An image brought to a width; spike pixels stay square-edged."""
    kind = cv2.INTER_AREA if image.shape[1] > width else cv2.INTER_NEAREST
    return cv2.resize(image, (width, round(image.shape[0] * width / image.shape[1])), interpolation=kind)
