"""Many sequences prepared at a time, one to a process."""

import multiprocessing
import queue
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
from tqdm import tqdm

from codes.engine.shard import WHOLE, Shard
from codes.errors import InputError, one_line
from codes.exposure import EXPOSURE, ExposureWindow
from codes.image import IMAGES
from codes.making.film import VIDEOS, Film
from codes.making.interpolation import INTERPOLATORS
from codes.making.options import BlurConfig
from codes.making.preparation import Done, Recipe, Sequence, record_options

REPORT_EVERY = 8
"""Frames after which a worker reports progress."""


def find_sources(raw_folder: Path | None, videos: tuple[Path, ...] | None) -> list[Path]:
    """The sequences: video files as they are given, or the folders of images and the videos in a folder.

    Raises:
        InputError: there are none, or two have one name.
    """
    if videos:
        for path in videos:
            if not path.is_file():
                raise InputError(f"--video {path} is no file")
        found = list(videos)
    else:
        if not raw_folder.is_dir():
            raise InputError(f"--raw_folder {raw_folder} is no folder")
        inside = sorted(path for path in raw_folder.iterdir() if path.name[0] != ".")
        found = [path for path in inside if path.is_dir() and any(p.suffix.lower() in IMAGES for p in path.iterdir())]
        found += [path for path in inside if path.suffix.lower() in VIDEOS]
        if any(path.suffix.lower() in IMAGES and path.stem[-1:].isdecimal() for path in inside):
            found.append(raw_folder)
        if not found:
            raise InputError(f"--raw_folder {raw_folder} holds no sequences: expected folders of images, or images")
    names = [path.name if path.is_dir() else path.stem for path in found]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two sequences are called {name}; rename one")
    return found


def make_recipe(cfg: BlurConfig) -> Recipe:
    """What the options ask for; those that a script lacks have the official values."""
    names = {"overlap_len": "skipped", "spike_full": "full"}
    parts = {"overlap_len", "scale", "vth", "multi", "spike_full", "noise", "seed"} & vars(cfg).keys()
    window = ExposureWindow(cfg.blur_num, cfg.num_inter, getattr(cfg, "spike_add", EXPOSURE.margin))
    return Recipe(window, outputs=cfg.outputs, **{names.get(key, key): getattr(cfg, key) for key in parts})


def prepare(cfg: BlurConfig) -> None:
    """Make what the options ask for, and say what was made."""
    recipe, sources = make_recipe(cfg), list(cfg.shard.of(find_sources(cfg.raw_folder, cfg.video)))
    out = cfg.out or cfg.raw_folder.absolute().parent
    done = run_all(sources, recipe, cfg.interp, out, cfg.workers, cfg.to_the_cut, cfg.shard)
    seconds = {key: sum(part.seconds[key] for part in done) for key in (done[0].seconds if done else ())}
    written, before = sum(part.written for part in done), sum(part.before for part in done)
    print(f"{out}: {len(done)} sequences, {written} files written, {before} there before")
    if written:
        print("seconds of work: " + ", ".join(f"{key} {value:.1f}" for key, value in seconds.items()))


def open_sequence(source: Path, recipe: Recipe, interp: str, out: Path, to_the_cut: bool = False) -> Sequence:
    """A sequence and what of it is missing."""
    interpolator = None if interp == "none" else INTERPOLATORS[interp]()
    block = (recipe.scale, 8 * recipe.scale)  # so that a row of spikes fills whole bytes
    return Sequence(Film(source, recipe.window.inserted, interpolator, block, to_the_cut), recipe, out)


_progress = None


def _start_worker(progress) -> None:
    global _progress  # noqa: PLW0603 (how a process pool passes a queue)
    _progress = progress
    cv2.setNumThreads(1)


def _work(*sequence) -> Done | str:
    """Make one sequence in a worker; an error is its one line."""
    done = 0

    def report(frames: int):
        nonlocal done
        done += frames
        if done % REPORT_EVERY == 0:
            _progress.put(REPORT_EVERY)

    try:
        return open_sequence(*sequence).make(report)
    except (OSError, InputError, cv2.error) as error:
        return one_line(error)


def run_all(
    sources: list[Path],
    recipe: Recipe,
    interp: str,
    out: Path,
    workers: int,
    to_the_cut: bool = False,
    shard: Shard = WHOLE,
) -> list[Done]:
    """Make all sequences, some at a time; one that fails does not keep the others from being finished.

    Raises:
        InputError: sequences failed; names them. Raised at the end. Or parts that are to be merged are incomplete.
    """
    total, failed, done, todo = 0, {}, [], []
    for source in sources:
        try:
            sequence = open_sequence(source, recipe, interp, out, to_the_cut)
            total += len(sequence.needed)
            if sequence.needed:
                todo.append(source)
            else:
                done.append(sequence.make())
            if note := sequence.film.source.note:
                print(f"{source}: {note}")
            if "spike" in recipe.outputs and not any(
                recipe.has_spikes(start, sequence.film.count) for start, _ in recipe.exposures(sequence.film.count)
            ):
                print(f"{source}: too short for a sample: {sequence.film.count} frames, inserted ones among them")
            if sequence.film.size != sequence.film.whole:
                (height, width), (rows, columns) = sequence.film.whole, sequence.film.size
                print(f"{source}: frames of {height}x{width} are cropped to {rows}x{columns}")
        except (OSError, InputError, cv2.error) as error:
            failed[source] = one_line(error)
    if shard.merges:
        shard.require("sequences", {source.name: source not in (*todo, *failed) for source in sources})
    for folder in record_options(out, recipe, interp) if len(failed) < len(sources) else ():
        print(f"{out / folder}: files from before, with options that are not known; what is missing is added")
    context = multiprocessing.get_context("spawn")  # OpenCV's threads do not survive a fork
    progress = context.Queue()
    bar = tqdm(total=total, unit="frame", disable=None, smoothing=0.05)
    with bar, ProcessPoolExecutor(max(min(workers, len(todo)), 1), context, _start_worker, (progress,)) as pool:
        try:
            futures = {pool.submit(_work, source, recipe, interp, out, to_the_cut): source for source in todo}
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
