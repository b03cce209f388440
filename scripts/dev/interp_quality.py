"""How good are the frames between? Frames of real video are held back, interpolated, and compared with the truth.

    python scripts/dev/interp_quality.py cup.mp4 box.mp4 hand_held/ --rendered 4

For each source (a video or a folder of images) two tables' rows: every second frame held back, and 7 of 8, as
prepare_gopro.py inserts them. Nearest is the nearer of the two frames that are there.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from codes.engine.command import Parser, command  # noqa: E402
from codes.errors import InputError  # noqa: E402
from codes.making.interpolation import INTERPOLATORS  # noqa: E402
from codes.making.preparation import Film  # noqa: E402
from codes.making.synthesis import Scene, draw_sample  # noqa: E402
from scripts.make_demo_data import at_least, find_photos  # noqa: E402


class Nearest:
    """The nearer one of two frames; the first in the middle."""

    def between(self, first, second, count):
        """As in codes.making.interpolation."""
        return [first if 2 * step <= count + 1 else second for step in range(1, count + 1)]


METHODS = {"nearest": Nearest, **{name: INTERPOLATORS[name] for name in ("linear", "flow")}}


def make_parser() -> Parser:
    """Every flag with its default."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("sources", type=Path, nargs="*", help="videos, or folders of numbered images")
    add("--rendered", type=at_least(0), default=0, metavar="N", help="films of a moving camera over photographs")
    add("--frames", type=at_least(9), default=97, metavar="N", help="frames of each source that are used, at most")
    return parser


def quality(frames: list[np.ndarray], held_back: int) -> dict[str, float]:
    """Mean PSNR (dB) of frames that were held back between every two that are ``held_back + 1`` apart."""
    step, values = held_back + 1, {name: [] for name in METHODS}
    for start in range(0, len(frames) - step, step):
        for name, build in METHODS.items():
            made = build().between(frames[start], frames[start + step], held_back)
            for offset, frame in enumerate(made, 1):
                values[name].append(cv2.PSNR(frame, frames[start + offset]))
    return {name: float(np.mean(found)) for name, found in values.items()}


def rendered(index: int, count: int) -> list[np.ndarray]:
    """Frames of a camera that moves 20 to 80 px (at 720p) over a photograph, 360x640, every one of 137 sub-frames."""
    photos = list(find_photos(None, Path("unused")).values())
    sample = draw_sample("test", index, photos, size=(360, 640), motion=(20, 80), max_foregrounds=3, seed=0)
    return [np.rint(frame * 255).astype(np.uint8) for frame, _ in zip(Scene(sample), range(count), strict=False)]


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a Markdown table."""
    args = make_parser().parse_args(arguments)
    if not args.sources and not args.rendered:
        raise InputError("nothing to measure; name videos or folders of images, or give --rendered N")
    films = {}
    for source in args.sources:
        film = Film(source, 0, None if source.is_dir() else INTERPOLATORS["linear"](), (1, 1))
        films[source.name] = [frame for _, frame in film.frames(set(range(min(film.count, args.frames))))]
    for index in range(args.rendered):
        films[f"rendered {index}"] = rendered(index, args.frames)
    print("| source | frames | held back | " + " | ".join(f"{name} (dB)" for name in METHODS) + " | flow - linear |")
    print("|---" * (4 + len(METHODS)) + "|")
    for name, frames in tqdm(films.items(), disable=None, leave=False):
        for held_back in (1, 7):
            found = quality(frames, held_back)
            figures = " | ".join(f"{found[method]:.2f}" for method in METHODS)
            gain = found["flow"] - found["linear"]
            print(f"| {name} | {len(frames)} | {held_back} of {held_back + 1} | {figures} | {gain:+.2f} |", flush=True)


if __name__ == "__main__":
    command(main)
