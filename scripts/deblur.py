r"""A sharp video from one blurry image and its spike stream.

    python scripts/deblur.py --blur photo.png --spike stream.dat --spike_size 250x400 --out DIR
    python scripts/deblur.py --blur photos/ --spike streams/ --out DIR          # pairs of the same name
    python scripts/deblur.py --base_folder RSB --data_type real --out DIR       # a data set's test split

For each capture: the sharp frames as PNG, named by their spike frame; for more than one, sequence.mp4 and sequence.gif,
and the same beside the input (beside.mp4); comparison.png with a magnified part; tfp.png, what the spikes alone show.
Before it starts it looks whether image and spikes show the same scene, and says which option mends it if not. The same
as a Python class: codes.inference.Deblurrer.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

from codes.dataset import SpikeData  # noqa: E402
from codes.engine.command import Parser, command  # noqa: E402
from codes.engine.device import describe  # noqa: E402
from codes.errors import (
    InputError,  # noqa: E402
    MissingFileError,  # noqa: E402
)
from codes.image import AnimationWriter, grid, to_uint8, write_animation, write_image  # noqa: E402
from codes.inference.deblurrer import FLIPS, Capture, Deblurrer, check, open_capture  # noqa: E402
from codes.inference.methods import methods
from codes.model.registry import weight_options  # noqa: E402
from codes.report.figures import magnified  # noqa: E402
from codes.spike import EXPOSURE, evenly, tfp_long  # noqa: E402
from scripts.make_demo_data import any_size, at_least  # noqa: E402

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def make_parser() -> Parser:
    """Every flag with its default."""
    parser = Parser(description=__doc__)
    add = parser.add_argument_group("captures").add_argument
    add("--blur", type=Path, metavar="PATH", help="blurry image, or a folder of them")
    add("--spike", type=Path, metavar="PATH", help="its .dat stream, or a folder of streams of the same names")
    add("--base_folder", type=Path, metavar="DIR", help="instead of both: a data set, of which the test split is taken")
    add("--data_type", choices=("GOPRO", "real"), default="GOPRO", help="layout of --base_folder; real: RSB")
    add(
        "--vth",
        type=at_least(0, float),
        default=0,
        metavar="V",
        help="threshold of the data set's spikes",
    )
    add("--limit", type=at_least(0), default=0, metavar="N", help="of many captures take the first N; 0 is all")
    add = parser.add_argument_group("how the spikes lie").add_argument
    add(
        "--spike_size",
        type=any_size,
        metavar="HxW",
        help="size of the spikes (default: a quarter of the image)",
    )
    add(
        "--exposure",
        type=exposure,
        metavar="START:END",
        help="spike frames taken while the shutter was open, counted from 0, END not among them (default: 20:117, for "
        "streams of 137 frames)",
    )
    add("--flip", choices=tuple(FLIPS), default="none", help="turn the spikes over to lie as the image does")
    add("--bit_order", choices=("little", "big"), default="little", help="which bit of a byte is its first pixel")
    add(
        "--crop",
        type=rectangle,
        metavar="TOP,LEFT,HEIGHT,WIDTH",
        help="what the spike camera sees, in image pixels; may reach beyond the image. The image is cut to it, and "
        "brought to 4 times the spikes' size",
    )
    add("--no_check", action="store_true", help="do not look whether image and spikes fit")
    add = parser.add_argument_group("what to make").add_argument
    add("--out", type=Path, default="exp/deblur", help="folder for the results")
    add(
        "--frames",
        default="7",
        metavar="N|LIST",
        help="how many sharp frames, evenly over the exposure (1: its centre), or which, with commas",
    )
    add(
        "--method",
        choices=[name for name in methods() if name != "blur"],
        default="ldn",
        help="ldn is the student",
    )
    add("--fps", type=at_least(1), default=12, help="frames per second of the videos")
    add = parser.add_argument_group("weights and hardware").add_argument
    for name, about in weight_options().items():
        add(f"--{name}", default="", metavar="FILE", help=about)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="of the networks")
    add("--tile", type=int, default=-1, metavar="N", help="side of tiles; 0: whole images; -1: tiles above 6 MP")
    return parser


def exposure(text: str) -> slice:
    """'20:117' as a slice."""
    start, colon, stop = text.partition(":")
    if not (colon and start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise InputError(text)
    return slice(int(start), int(stop))


def rectangle(text: str) -> tuple[int, int, int, int]:
    """'TOP,LEFT,HEIGHT,WIDTH' as numbers."""
    top, left, height, width = (int(part) for part in text.split(","))
    if max(map(abs, (top, left, height, width))) > 10**6:
        raise InputError(text)
    return top, left, height, width


def chosen_instants(text: str, window: slice) -> tuple[int, ...]:
    """The instants that ``--frames`` asks for."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers:
        raise InputError(f"--frames is '{text}'; expected a number, or spike frame numbers with commas, as 20,68,116")
    return tuple(numbers) if "," in text else evenly(window, numbers[0])


def find_captures(args) -> list[tuple[str, Path, Path]]:
    """(name, image, stream) of every capture.

    Raises:
        OSError, ValueError: nothing there, or a partner is missing; says what was looked for.
    """
    if args.base_folder:
        if args.blur or args.spike:
            raise InputError("give either --base_folder or --blur and --spike")
        data = SpikeData(args.base_folder, args.data_type, "test", vth=args.vth)
        names = [f"{path.parent.name}/{path.stem}" for path in data.spike_paths]
        return list(zip(names, data.blur_paths, data.spike_paths, strict=True))
    if not (args.blur and args.spike):
        raise InputError("what to deblur? give --blur and --spike, or --base_folder (see --help)")
    if args.blur.is_dir() != args.spike.is_dir():
        raise InputError(f"--blur {args.blur} and --spike {args.spike}: give two files or two folders")
    if not args.blur.is_dir():
        return [("", args.blur, args.spike)]
    images = sorted(path for path in args.blur.iterdir() if path.suffix.lower() in IMAGES and path.name[0] != ".")
    if not images:
        raise MissingFileError(f"{args.blur} holds no images ({', '.join(IMAGES)})")
    pairs = [(path.stem, path, args.spike / f"{path.stem}.dat") for path in images]
    missing = [path for _, _, path in pairs if not path.is_file()]
    if missing:
        raise MissingFileError(f"{len(missing)} of {len(pairs)} images have no stream; the first: {missing[0]}")
    return pairs


def deblur(args, deblurrer: Deblurrer, capture: Capture, folder: Path, bar) -> None:
    """Write everything of one capture."""
    blur, instants = capture.blur, chosen_instants(args.frames, capture.exposure)
    frames = deblurrer.frames(capture, instants)
    height, width = blur.shape[:2]
    long = to_uint8(tfp_long(torch.from_numpy(capture.spike), capture.exposure))
    peak = max(int(long.max()), 1)
    preview = np.uint8(np.minimum(long * (255 / peak), 255))
    write_image(folder / "tfp.png", preview)
    many, small = len(instants) > 1, []
    share = min(720 / width, 1)
    middle = None
    with AnimationWriter(folder / "sequence.mp4", args.fps, many) as alone:
        with AnimationWriter(folder / "beside.mp4", args.fps, many) as beside:
            for index, (instant, frame) in enumerate(zip(instants, frames, strict=True)):
                write_image(folder / f"{instant:03}.png", frame)
                alone.add(frame)
                beside.add(grid([(blur, "Blurry input"), (frame, f"{deblurrer.method.title}, t = {instant}")], 2))
                if many:
                    small.append(cv2.resize(frame, None, fx=share, fy=share, interpolation=cv2.INTER_AREA))
                if index == len(instants) // 2:
                    middle = frame
                bar.update()
    if many:
        write_animation(folder / "sequence.gif", small + small[-2:0:-1], args.fps)
    cells = [
        (blur, "Blurry input"),
        (preview, "Long TFP"),
        (middle, f"{deblurrer.method.title}, t = {instants[len(instants) // 2]}"),
    ]
    write_image(folder / "comparison.png", magnified(cells))


def opened(args, captures) -> Iterator[tuple[str, Capture]]:
    """The captures, each checked; what seems wrong is said."""
    for name, image, stream in captures:
        capture = open_capture(image, stream, args.spike_size, args.exposure, args.flip, args.bit_order, args.crop)
        if not args.no_check and (fault := check(capture)):
            given = " (counted from what --crop and --flip made of it)" if args.crop or args.flip != "none" else ""
            tqdm.write(f"warning: {stream}: {fault}{given} (--no_check: do not look)", file=sys.stderr)
        yield name, capture


def shortest(path: str) -> str:
    """A path as one would type it here."""
    path, here = Path(path), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def main() -> None:
    """Check, deblur, write."""
    args = make_parser().parse_args()
    captures = find_captures(args)
    captures = captures[: args.limit or None]
    chosen_instants(args.frames, args.exposure or slice(EXPOSURE.start, EXPOSURE.stop))  # refused before work begins
    paths = {name: getattr(args, name) for name in weight_options()}
    deblurrer = Deblurrer(args.method, device=args.device, precision=args.precision, tile=args.tile, **paths)
    weights = ", ".join(map(shortest, deblurrer.method.weights)) or "no weights"
    print(f"{deblurrer.method.title} ({weights}), {args.precision} on {describe(deblurrer.device)}")
    hide = not sys.stderr.isatty()
    with tqdm(unit="frame", dynamic_ncols=True, disable=hide) as bar:
        for name, capture in opened(args, captures):
            count = len(chosen_instants(args.frames, capture.exposure))
            bar.total = (bar.total or 0) + count
            deblur(args, deblurrer, capture, args.out / name, bar)
            tqdm.write(f"{args.out / name}: {count} frames of {capture.blur.shape[0]}x{capture.blur.shape[1]}")


if __name__ == "__main__":
    command(main)
