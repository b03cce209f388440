"""Make the spike data set from GOPRO, or from any high-speed video, in one pass and without intermediate files.

    python scripts/prepare_gopro.py --raw_folder GOPRO/test/raw_data --multi
    python scripts/prepare_gopro.py --raw_folder GOPRO/train/raw_data --vth 1 2 4 --workers 8
    python scripts/prepare_gopro.py --raw_folder XVFI/test --interp none --out GOPRO/test
    python scripts/prepare_gopro.py --video clip.mp4 --out OWN/train

The raw folder holds one folder of numbered images per sequence (or the images themselves). blur_data, spike_data and
sharp_data come beside it, as the official scripts make them (codes/prepare.py says what of which frames). The published
figures used XVFI for the frames between; feed its output with --interp none. The same command goes on where it was
interrupted; what exists is not made again. prepared.json keeps the options: with others, a folder is not added to.
"""

import argparse
import multiprocessing
import os
import queue
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2  # noqa: E402
from tqdm import tqdm  # noqa: E402

from codes.engine.command import Parser, command  # noqa: E402
from codes.errors import (
    InputError,  # noqa: E402
    one_line,  # noqa: E402
)
from codes.making.interpolation import INTERPOLATORS  # noqa: E402
from codes.making.preparation import IMAGES, OUTPUTS, VIDEOS, Done, Film, Recipe, Sequence, record_options  # noqa: E402
from codes.spike import ExposureWindow  # noqa: E402
from scripts.make_demo_data import at_least  # noqa: E402

REPORT_EVERY = 8
"""Frames after which a worker reports progress."""


def make_parser(description: str = __doc__, outputs: tuple[str, ...] = OUTPUTS, interp: str = "flow") -> Parser:
    """Every flag with its default.

    Args:
        description: of the script.
        outputs: what it makes; the official scripts make one thing each.
        interp: the default of ``--interp``.
    """
    parser = Parser(description=description)
    add = parser.add_argument
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--raw_folder", type=Path, default=argparse.SUPPRESS, help="sequences as folders of images")
    where.add_argument("--video", type=Path, nargs="+", default=argparse.SUPPRESS, help="video files, a sequence each")
    add("--out", type=Path, default=argparse.SUPPRESS, help="the split's folder (beside the raw folder)")
    interps = "frames between: by optical flow, as a weighted mean, or none: the folders hold them already"
    add("--interp", choices=(*INTERPOLATORS, "none"), default=interp, help=interps)
    add("--num_inter", type=at_least(0), default=7, metavar="N", help="frames between two raw ones")
    add("--blur_num", type=at_least(3), default=13, metavar="N", help="raw frames of an exposure, odd")
    add("--overlap_len", type=at_least(0), default=7, metavar="N", help="interpolated frames between two exposures")
    if "spike" in outputs:
        add("--spike_add", type=at_least(0), default=20, metavar="N", help="spike frames before and after the exposure")
        add("--scale", type=at_least(1), default=4, metavar="N", help="image pixels per spike pixel, each way")
        vth = "firing thresholds in the paper's unit: the first for spike_data, more for spike_data_vth2 and so on"
        add("--vth", type=at_least(0, float, True), nargs="+", default=(1.0,), metavar="V", help=vth)
        add("--spike_full", action="store_true", help="also spikes at the size of the image, in spike_full")
        add("--no_noise", action="store_true", help="leave out the sensor's inherent noise")
        add("--seed", type=at_least(0), default=0, help="of the sensor: same seed, same bytes")
    if "sharp" in outputs:
        add("--multi", action="store_true", help="the 7 sharp frames of each exposure, not the middle one alone")
    add("--workers", type=at_least(1), default=os.cpu_count(), metavar="N", help="sequences at a time")
    return parser


def find_sources(args) -> list[Path]:
    """The sequences: folders of images or video files."""
    if "video" in args:
        for path in args.video:
            if not path.is_file():
                raise InputError(f"--video {path} is no file")
        found = list(args.video)
    else:
        folder = args.raw_folder
        if not folder.is_dir():
            raise InputError(f"--raw_folder {folder} is no folder")
        inside = sorted(path for path in folder.iterdir() if path.name[0] != ".")
        found = [path for path in inside if path.is_dir() and any(p.suffix.lower() in IMAGES for p in path.iterdir())]
        found += [path for path in inside if path.suffix.lower() in VIDEOS]
        if any(path.suffix.lower() in IMAGES for path in inside):
            found.append(folder)
    if not found:
        raise InputError(f"--raw_folder {args.raw_folder} holds no sequences: expected folders of images, or images")
    names = [path.name if path.is_dir() else path.stem for path in found]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two sequences are called {name}; rename one")
    return found


def make_recipe(args, outputs: tuple[str, ...]) -> Recipe:
    """What the command line asks for."""
    window = ExposureWindow(args.blur_num, args.num_inter, getattr(args, "spike_add", 20))
    vth = tuple(getattr(args, "vth", (1.0,)))
    if len(set(vth)) < len(vth):
        raise InputError(f"--vth {' '.join(f'{value:g}' for value in vth)} names a threshold twice")
    return Recipe(
        window,
        args.overlap_len,
        getattr(args, "scale", 4),
        vth,
        getattr(args, "multi", False),
        getattr(args, "spike_full", False),
        not getattr(args, "no_noise", False),
        getattr(args, "seed", 0),
        outputs,
    )


def open_sequence(source: Path, recipe: Recipe, interp: str, out: Path) -> Sequence:
    """A sequence and what of it is missing."""
    interpolator = None if interp == "none" else INTERPOLATORS[interp]()
    block = (recipe.scale, 8 * recipe.scale)  # so that a row of spikes fills whole bytes
    return Sequence(Film(source, recipe.window.inserted, interpolator, block), recipe, out)


_progress = None


def _start_worker(progress) -> None:
    global _progress  # noqa: PLW0603 (how a process pool passes a queue)
    _progress = progress
    cv2.setNumThreads(1)


def _work(source: Path, recipe: Recipe, interp: str, out: Path) -> Done | str:
    """Make one sequence in a worker; an error is its one line."""
    done = 0

    def report(frames: int):
        nonlocal done
        done += frames
        if done % REPORT_EVERY == 0:
            _progress.put(REPORT_EVERY)

    try:
        return open_sequence(source, recipe, interp, out).make(report)
    except (OSError, InputError, cv2.error) as error:
        return one_line(error)


def run_all(sources: list[Path], recipe: Recipe, interp: str, out: Path, workers: int) -> list[Done]:
    """Make all sequences, some at a time; one that fails does not keep the others from being finished.

    Raises:
        ValueError: sequences failed; names them. Raised at the end.
    """
    total, failed, done = 0, {}, []
    for source in sources:
        try:
            sequence = open_sequence(source, recipe, interp, out)
            total += len(sequence.needed)
            if sequence.film.size != sequence.film.whole:
                (height, width), (rows, columns) = sequence.film.whole, sequence.film.size
                print(f"{source}: frames of {height}x{width} are cropped to {rows}x{columns}")
        except (OSError, InputError, cv2.error) as error:
            failed[source] = one_line(error)
    for folder in record_options(out, recipe, interp) if len(failed) < len(sources) else ():
        print(f"{out / folder}: files from before, with options that are not known; what is missing is added")
    context = multiprocessing.get_context("spawn")  # OpenCV's threads do not survive a fork
    progress = context.Queue()
    todo = [source for source in sources if source not in failed]
    bar = tqdm(total=total, unit="frame", disable=None, smoothing=0.05)
    with bar, ProcessPoolExecutor(max(min(workers, len(todo)), 1), context, _start_worker, (progress,)) as pool:
        try:
            futures = {pool.submit(_work, source, recipe, interp, out): source for source in todo}
            waiting = set(futures)
            while waiting:
                try:
                    bar.update(progress.get(timeout=0.2))
                    continue
                except queue.Empty:
                    pass
                for future in [future for future in waiting if future.done()]:
                    waiting.remove(future)
                    result = future.result()
                    if isinstance(result, str):
                        failed[futures[future]] = result
                    else:
                        done.append(result)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        for source, error in failed.items():
            print(f"{source}: {error}", file=sys.stderr)
        raise InputError(
            f"{len(failed)} of {len(sources)} sequences are unfinished ({', '.join(map(str, failed))}); "
            "what did not need the faulty frames is written"
        )
    return done


def main(
    arguments: list[str] | None = None,
    description: str = __doc__,
    outputs: tuple[str, ...] = OUTPUTS,
    interp: str = "flow",
) -> None:
    """Make what the command line asks for; the official scripts (blur_syn.py and so on) make a part of it."""
    args = make_parser(description, outputs, interp).parse_args(arguments)
    if "out" not in args and "video" in args:
        raise InputError("--video needs --out, the split's folder, as OWN/train")
    recipe, sources = make_recipe(args, outputs), find_sources(args)
    out = args.out if "out" in args else args.raw_folder.absolute().parent
    done = run_all(sources, recipe, args.interp, out, args.workers)
    seconds = {key: sum(part.seconds[key] for part in done) for key in (done[0].seconds if done else ())}
    written, before = sum(part.written for part in done), sum(part.before for part in done)
    print(f"{out}: {len(done)} sequences, {written} files written, {before} there before")
    if written:
        print("seconds of work: " + ", ".join(f"{key} {value:.1f}" for key, value in seconds.items()))


if __name__ == "__main__":
    command(main)
