"""Check a data set before days of training: ours, the authors', or real captures (RSB).

    python scripts/check_dataset.py GOPRO
    python scripts/check_dataset.py RSB --data_type real

Every sample's partners, sizes, number of frames, firing rate, and whether image and spikes show the same scene: a
stream that is flipped, shifted or packed otherwise is recognised and named. Prints a table per sequence, writes a
contact sheet (blurry image, sharp image, long and short TFP), and ends with exit code 0 only if everything is sound.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

from codes.dataset import SCALE  # noqa: E402
from codes.engine.command import Parser, command  # noqa: E402
from codes.errors import (
    InputError,  # noqa: E402
    one_line,  # noqa: E402
)
from codes.image import grey, grid, read_image, to_uint8, write_image  # noqa: E402
from codes.inference.alignment import align  # noqa: E402
from codes.spike import EXPOSURE, count_frames, frame_bytes, read_dat, tfp  # noqa: E402
from scripts.make_demo_data import at_least  # noqa: E402

IMAGES = {"GOPRO": (".png",), "real": (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")}
RATES = (0.005, 0.98)
"""Mean firing rates (spikes per pixel and frame) outside of which a stream is empty or saturated."""


@dataclass
class Row:
    """What is told of one sequence."""

    samples: int = 0
    sizes: set = field(default_factory=set)
    rates: list = field(default_factory=list)
    correlations: list = field(default_factory=list)
    sharps: int = 0
    problems: list = field(default_factory=list)


def make_parser() -> Parser:
    """Every flag with its default."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("folder", type=Path, help="the data set: the folder that holds train/ and test/, or spike_data/ and blur_data/")
    add("--data_type", choices=tuple(IMAGES), default="GOPRO", help="'real' has .jpg images and no sharp ones")
    add("--scale", type=at_least(1), default=SCALE, metavar="N", help="image pixels per spike pixel, each way")
    add("--sheet", type=Path, default="exp/check/contact_sheet.jpg", help="where the contact sheet goes")
    add(
        "--sheet_rows",
        type=at_least(0),
        default=12,
        metavar="N",
        help="samples on the contact sheet, one of a sequence",
    )
    return parser


def partner(path: Path, kind: str, suffixes: tuple[str, ...]) -> Path | None:
    """The image of a stream, by the same relative name."""
    base = path.parents[2] / kind / path.parent.name / path.stem
    return next((found for suffix in suffixes if (found := base.with_name(base.name + suffix)).is_file()), None)


def light_of(image: np.ndarray, scale: int) -> np.ndarray:
    """The grey image at the size of the spikes, float ``(h, w)``: the mean over whole blocks."""
    height, width = (extent // scale for extent in image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return grey(small, axis=-1)[..., 0]


def check_sample(path: Path, args, row: Row) -> list | None:
    """Check one stream; notes what is wrong in ``row`` and returns the sample's pictures for the contact sheet."""

    def problem(text: str) -> None:
        row.problems.append(f"{path}: {text}")

    row.samples += 1
    if not path.is_file():
        problem("no file, or a link to none")
        return None
    scale = 1 if path.parents[1].name.startswith("spike_full") else args.scale
    blur_path = partner(path, "blur_data", IMAGES[args.data_type])
    if blur_path is None:
        problem("no image of that name in blur_data")
        return None
    try:
        blur = read_image(blur_path)
    except (OSError, InputError) as error:
        problem(one_line(error))
        return None
    height, width = blur.shape[:2]
    row.sizes.add((height, width))
    if height % scale or width % scale:
        problem(f"the image is {height}x{width}, no multiple of {scale}")
        return None
    size = height // scale, width // scale
    if count_frames(path, *size) != EXPOSURE.total:
        expected = EXPOSURE.total * frame_bytes(*size)
        problem(f"{path.stat().st_size} bytes; {EXPOSURE.total} frames of {size[0]}x{size[1]} are {expected}")
        return None
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
    if args.data_type == "GOPRO":
        sharp_path = partner(path, "sharp_data", IMAGES["GOPRO"])
        if sharp_path is None:
            problem("no image of that name in sharp_data")
        else:
            found = check_sharps(path, sharp_path, blur.shape, problem)
            row.sharps += len(found)
            if sharp_path in found:
                cells.append((found[sharp_path], "sharp, at the centre"))
    for name, length in (("long TFP, 97 frames", EXPOSURE.length), ("short TFP, 9 frames", 9)):
        picture = tfp(spikes, EXPOSURE.centre, length) / max(np.quantile(long, 0.99), 1e-3)
        cells.append((to_uint8(picture), name))
    return cells


def check_sharps(path: Path, sharp_path: Path, shape: tuple, problem) -> dict[Path, np.ndarray]:
    """Check the sharp images of a sample: the centre's, and the sequence's if there is one; those that can be read."""
    paths, images = [sharp_path], {}
    if path.stem.isdecimal():
        names = [f"{int(path.stem) + offset:0{len(path.stem)}}" for offset in EXPOSURE.sequence_offsets]
        around = [sharp_path.with_stem(name) for name in names]
        there = [other.is_file() for other in around]
        if sum(there) not in (1, len(there)):
            problem(f"{sum(there)} of {len(there)} sharp images of the sequence")
        paths = [other for other, found in zip(around, there, strict=True) if found]
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


def find_streams(folder: Path) -> list[Path]:
    """All streams of a data set, of all splits and thresholds."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder")
    splits = [folder, *(folder / split for split in ("train", "test"))]
    found = [path for split in splits for path in split.glob("spike_*/*/*.dat") if path.name[0] != "."]
    if not found:
        raise InputError(f"{folder} holds no spike_data/<sequence>/<frame>.dat, neither itself nor in train/ or test/")
    return sorted(found)


def main(arguments: list[str] | None = None) -> None:
    """Check, print, write the contact sheet."""
    args = make_parser().parse_args(arguments)
    rows: dict[str, Row] = {}
    cells, columns = [], 4 if args.data_type == "GOPRO" else 3
    streams = find_streams(args.folder)
    for path in tqdm(streams, desc="check", unit="sample", leave=False, disable=None):
        name = path.parent.relative_to(args.folder).as_posix()
        first = name not in rows
        pictures = check_sample(path, args, rows.setdefault(name, Row()))
        if first and pictures and len(pictures) == columns and len(cells) < args.sheet_rows * columns:
            width = 480
            cells += [(small(image, width), text) for image, text in pictures]
    print("| sequence | samples | size | sharp images | firing rate | correlation, least |")
    print("|---" * 6 + "|")
    for name, row in rows.items():
        sizes = ", ".join(f"{height}x{width}" for height, width in sorted(row.sizes)) or "-"
        rate = f"{np.mean(row.rates):.3f}" if row.rates else "-"
        least = f"{min(row.correlations):.3f}" if row.correlations else "-"
        print(f"| {name} | {row.samples} | {sizes} | {row.sharps} | {rate} | {least} |")
    if cells:
        write_image(args.sheet, grid(cells, columns))
        print(f"contact sheet: {args.sheet}")
    problems = [text for row in rows.values() for text in row.problems]
    for text in problems:
        print(text)
    if problems:
        raise InputError(f"{len(problems)} problems in {len(streams)} samples of {args.folder} (listed above)")
    print(f"{len(streams)} samples, all sound")


def small(image: np.ndarray, width: int) -> np.ndarray:
    """An image brought to a width; spike pixels stay square-edged."""
    kind = cv2.INTER_AREA if image.shape[1] > width else cv2.INTER_NEAREST
    return cv2.resize(image, (width, round(image.shape[0] * width / image.shape[1])), interpolation=kind)


if __name__ == "__main__":
    command(main)
