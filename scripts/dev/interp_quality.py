"""How good are the frames between? Frames of real video are held back, interpolated, and compared with the truth.

    python scripts/dev/interp_quality.py cup.mp4 box.mp4 hand_held/ --rendered 4

For each source (a video or a folder of images) two tables' rows: every second frame held back, and 7 of 8, as
prepare_gopro.py inserts them. Nearest is the nearer of the two frames that are there.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from codes.engine.command import command
from codes.engine.options import option, parse_config
from codes.errors import InputError


@dataclass(frozen=True)
class QualityConfig:
    """Which films, and how much of them."""

    sources: tuple[Path, ...] = option((), "videos, or folders of numbered images", positional=True, metavar="SOURCE")
    rendered: int = option(0, "films of a moving camera over photographs", low=0)
    frames: int = option(97, "frames of each source that are used, at most", low=9)


class Nearest:
    """The nearer one of two frames; the first in the middle."""

    def between(self, first, second, count):
        """As in codes.making.interpolation."""
        return [first if 2 * step <= count + 1 else second for step in range(1, count + 1)]


def quality(frames: list, held_back: int, methods: dict) -> dict[str, float]:
    """Mean PSNR (dB) of frames that were held back between every two that are ``held_back + 1`` apart."""
    import cv2
    import numpy as np

    step, values = held_back + 1, {name: [] for name in methods}
    for start in range(0, len(frames) - step, step):
        for name, build in methods.items():
            made = build().between(frames[start], frames[start + step], held_back)
            for offset, frame in enumerate(made, 1):
                values[name].append(cv2.PSNR(frame, frames[start + offset]))
    return {name: float(np.mean(found)) for name, found in values.items()}


def rendered(index: int, count: int) -> list:
    """Frames of a camera that moves 20 to 80 px (at 720p) over a photograph, 360x640, every one of 137 sub-frames."""
    from codes.making.photos import find_photos
    from codes.making.synthesis import Scene, draw_sample, to_uint8

    photos = list(find_photos(None).values())
    sample = draw_sample("test", index, photos, size=(360, 640), motion=(20, 80), max_foregrounds=3, seed=0)
    return [to_uint8(frame) for frame, _ in zip(Scene(sample), range(count), strict=False)]


def main(argv: list[str] | None = None) -> None:
    """Measure and print a Markdown table."""
    cfg = parse_config(QualityConfig, argv)
    if not cfg.sources and not cfg.rendered:
        raise InputError("nothing to measure; name videos or folders of images, or give --rendered N")
    from tqdm import tqdm

    from codes.making.film import Film
    from codes.making.interpolation import Flow, Linear

    methods = {"nearest": Nearest, "linear": Linear, "flow": Flow}
    films = {}
    for source in cfg.sources:
        film = Film(source, 0, None if source.is_dir() else Linear(), (1, 1))
        films[source.name] = [frame for _, frame in film.frames(set(range(min(film.count, cfg.frames))))]
    for index in range(cfg.rendered):
        films[f"rendered {index}"] = rendered(index, cfg.frames)
    print("| source | frames | held back | " + " | ".join(f"{name} (dB)" for name in methods) + " | flow - linear |")
    print("|---" * (4 + len(methods)) + "|")
    for name, frames in tqdm(films.items(), disable=None, leave=False):
        for held_back in (1, 7):
            found = quality(frames, held_back, methods)
            figures = " | ".join(f"{found[method]:.2f}" for method in methods)
            gain = found["flow"] - found["linear"]
            print(f"| {name} | {len(frames)} | {held_back} of {held_back + 1} | {figures} | {gain:+.2f} |", flush=True)


if __name__ == "__main__":
    command(main)
