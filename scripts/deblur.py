r"""A sharp video from one blurry image and its spike stream.

    python scripts/deblur.py --blur photo.png --spike stream.dat --spike_size 250x400 --out DIR
    python scripts/deblur.py --blur photos/ --spike streams/ --out DIR          # pairs of the same name
    python scripts/deblur.py --base_folder RSB --data_type real --out DIR       # a data set's test split

For each capture: the sharp frames as PNG, named by their spike frame; for more than one, sequence.mp4 and sequence.gif,
and the same beside the input (beside.mp4); comparison.png with a magnified part; tfp.png, what the spikes alone show;
index.html, a page to look at all that (and one of all captures).
Before it starts it looks whether image and spikes show the same scene, and says which option mends it if not. The same
as a Python class: codes.inference.Deblurrer.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import command  # noqa: E402
from codes.engine.options import Size, option, parse_config, weights_of, with_weights  # noqa: E402
from codes.errors import InputError  # noqa: E402
from codes.model.registry import method_names  # noqa: E402

CAPTURES, LIE, MAKE, HARDWARE = "captures", "how the spikes lie", "what to make", "weights and hardware"


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


@with_weights
@dataclass(frozen=True)
class DeblurConfig:
    """What to deblur, and how."""

    blur: Path | None = option(None, "blurry image, or a folder of them", group=CAPTURES)
    spike: Path | None = option(None, "its .dat stream, or a folder of streams of the same names", group=CAPTURES)
    base_folder: Path | None = option(None, "instead of both: a data set, of which the test split is", group=CAPTURES)
    data_type: Literal["GOPRO", "real"] = option("GOPRO", "layout of --base_folder; real: RSB", group=CAPTURES)
    vth: float = option(0.0, "threshold of the data set's spikes", low=0, group=CAPTURES)
    limit: int = option(0, "of many captures take the first N; 0 is all", low=0, group=CAPTURES)
    spike_size: Size | None = option(None, "size of the spikes; otherwise a quarter of the image", low=1, group=LIE)
    exposure: slice | None = option(
        None,
        "spike frames taken while the shutter was open, counted from 0, END not among them; otherwise 20:117, for "
        "streams of 137 frames",
        parse=exposure,
        metavar="START:END",
        group=LIE,
    )
    flip: Literal["none", "vertical", "horizontal", "both"] = option(
        "none", "turn the spikes over to lie as the image does", group=LIE
    )
    bit_order: Literal["little", "big"] = option("little", "which bit of a byte is its first pixel", group=LIE)
    crop: tuple | None = option(
        None,
        "what the spike camera sees, in image pixels; may reach beyond the image. The image is cut to it, and brought "
        "to 4 times the spikes' size",
        parse=rectangle,
        metavar="TOP,LEFT,HEIGHT,WIDTH",
        group=LIE,
    )
    check: bool = option(True, "look whether image and spikes fit", group=LIE)
    out: Path = option("exp/deblur", "folder for the results", group=MAKE)
    frames: str = option(
        "7",
        "how many sharp frames, evenly over the exposure (1: its centre), or which, with commas",
        metavar="N|LIST",
        group=MAKE,
    )
    method: str = option("ldn", "ldn is the student", choices=tuple(method_names()[1:]), group=MAKE)
    fps: int = option(12, "frames per second of the videos", low=1, group=MAKE)
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps", group=HARDWARE)
    precision: Literal["fp32", "bf16", "fp16"] = option("fp32", "of the networks", group=HARDWARE)
    tile: int = option(-1, "side of tiles; 0: whole images; -1: tiles above 6 MP", group=HARDWARE)


def deblur(cfg, deblurrer, capture, name: str, bar, sharp=None):
    """Write everything of one capture; ``sharp``: instant -> true frame. Returns what the viewer of a page shows."""
    import cv2
    import numpy as np
    import torch

    from codes.image import AnimationWriter, grid, to_uint8, write_animation, write_image
    from codes.inference.captures import chosen_instants
    from codes.report.figures import magnified
    from codes.report.page import capture_view
    from codes.spike import tfp_long

    folder = cfg.out / name
    blur, instants = capture.blur, chosen_instants(cfg.frames, capture.exposure)
    frames = deblurrer.frames(capture, instants)
    height, width = blur.shape[:2]
    long = to_uint8(tfp_long(torch.from_numpy(capture.spike), capture.exposure))
    peak = max(int(long.max()), 1)
    preview = np.uint8(np.minimum(long * (255 / peak), 255))
    write_image(folder / "tfp.png", preview)
    many, small = len(instants) > 1, []
    share = min(720 / width, 1)
    middle = None
    with AnimationWriter(folder / "sequence.mp4", cfg.fps, many) as alone:
        with AnimationWriter(folder / "beside.mp4", cfg.fps, many) as beside:
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
        write_animation(folder / "sequence.gif", small + small[-2:0:-1], cfg.fps)
    cells = [
        (blur, "Blurry input"),
        (preview, "Long TFP"),
        (middle, f"{deblurrer.method.title}, t = {instants[len(instants) // 2]}"),
    ]
    write_image(folder / "comparison.png", magnified(cells))
    title = deblurrer.method.title
    return capture_view(folder, blur, capture.spike, instants, title, sharp, name or cfg.blur.name)


def write_page(cfg, about: dict[str, str], folder: Path, views: list) -> None:
    """The page of a capture, or of several; ``views``: what the viewer shows of each."""
    from codes.report.page import Page, Section, of_views

    about = {"Data": str(cfg.base_folder or f"{cfg.blur} and {cfg.spike}")} | about
    if len(views) == 1:
        page = Page(views[0].name, views=views, about=about, fps=cfg.fps)
    else:
        page = Page(f"{len(views)} captures", [Section("Captures", samples=of_views(views))], about=about, fps=cfg.fps)
    page.write(folder / "index.html")


def shortest(path: str) -> str:
    """A path as one would type it here."""
    path, here = Path(path), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def main() -> None:
    """Check, deblur, write."""
    cfg = parse_config(DeblurConfig)
    from tqdm import tqdm

    from codes.engine.device import describe
    from codes.inference import Deblurrer
    from codes.inference.captures import chosen_instants, find_captures, opened
    from codes.report.page import made_by, sharp_frames
    from codes.spike import EXPOSURE

    captures = find_captures(cfg)
    captures = captures[: cfg.limit or None]
    chosen_instants(cfg.frames, cfg.exposure or slice(EXPOSURE.start, EXPOSURE.stop))  # refused before work begins
    paths = {f"{flag}_path": path for flag, path in weights_of(cfg).items()}
    deblurrer = Deblurrer(cfg.method, device=cfg.device, precision=cfg.precision, tile=cfg.tile, **paths)
    weights = ", ".join(map(shortest, deblurrer.method.weights)) or "no weights"
    print(f"{deblurrer.method.title} ({weights}), {cfg.precision} on {describe(deblurrer.device)}")
    sharp = sharp_frames(cfg.base_folder, cfg.data_type, cfg.vth) if cfg.base_folder else {}
    about = {"Method": deblurrer.method.title, "Weights": weights, "Device": describe(deblurrer.device)} | made_by()
    views = []
    hide = not sys.stderr.isatty()
    with tqdm(unit="frame", dynamic_ncols=True, disable=hide) as bar:
        for name, capture in opened(cfg, captures):
            count = len(chosen_instants(cfg.frames, capture.exposure))
            bar.total = (bar.total or 0) + count
            views.append(deblur(cfg, deblurrer, capture, name, bar, sharp.get(name)))
            write_page(cfg, about, cfg.out / name, views[-1:])
            tqdm.write(f"{cfg.out / name}: {count} frames of {capture.blur.shape[0]}x{capture.blur.shape[1]}")
    if len(views) > 1:
        write_page(cfg, about, cfg.out, views)


if __name__ == "__main__":
    command(main)
