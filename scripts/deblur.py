r"""A sharp video from one blurry image and its spike stream.

    python scripts/deblur.py --blur photo.png --spike stream.dat --out DIR
    python scripts/deblur.py --blur photos/ --spike streams/ --out DIR          # pairs of the same name
    python scripts/deblur.py --base_folder RSB --data_type real --out DIR       # a data set's test split
    python scripts/deblur.py --spike stream.dat --spike_size 250x400 --method tfp --out DIR      # spikes alone

For each capture: the sharp frames as PNG, named by their spike frame; for more than one, sequence.mp4 and sequence.gif,
and the same beside the input (beside.mp4); comparison.png with a magnified part; tfp.png, what the spikes alone show;
index.html, a page to look at all that (and one of all captures). Of spikes alone, pictures and videos.

What is not told of an own capture is found and said in a line each: size of the spikes, flip, bit order, which frames
are the exposure, tone curve, bits, bad pixels, and how spikes and photo lie on one another (docs/captures.md). It acts
only where that is clear. Of data sets nothing is found unless asked for. The same as a Python class:
codes.inference.Deblurrer.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import command  # noqa: E402
from codes.engine.options import Size, option, parse_config, weights_of, with_weights  # noqa: E402
from codes.engine.shard import WHOLE, Shard, shard_option  # noqa: E402
from codes.errors import InputError  # noqa: E402
from codes.exposure import read_exposure  # noqa: E402
from codes.model.registry import method_names  # noqa: E402

WIDEST = 3840
"""Columns of a video."""

CAPTURES, LIE, MAKE, HARDWARE = "captures", "what is known of them", "what to make", "weights and hardware"


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
    spike: Path | None = option(
        None, "its stream (.dat, .npy, .npz), or a folder of streams of the same names", group=CAPTURES
    )
    base_folder: Path | None = option(None, "instead of both: a data set, of which the test split is", group=CAPTURES)
    data_type: Literal["GOPRO", "real"] = option("GOPRO", "layout of --base_folder; real: RSB", group=CAPTURES)
    vth: float = option(0.0, "threshold of the data set's spikes", low=0, group=CAPTURES)
    limit: int = option(0, "of many captures take the first N; 0 is all", low=0, group=CAPTURES)
    shard: Shard = shard_option("captures", group=CAPTURES)
    spike_size: Size | None = option(
        None, "size of the spikes; otherwise what fits the file and looks like the image", low=1, group=LIE
    )
    row_bits: int = option(0, "bits of a row in a .dat file, where rows are padded (416 of 400)", low=0, group=LIE)
    bit_order: Literal["little", "big"] = option("little", "which bit of a byte is its first pixel", group=LIE)
    key: str = option("", "name of the array in an .npz file", group=LIE)
    axes: Literal["auto", "thw", "hwt"] = option("auto", "axes of an .npy or .npz array", group=LIE)
    flip: Literal["none", "vertical", "horizontal", "both"] = option(
        "none", "turn the spikes over to lie as the image does", group=LIE
    )
    exposure: slice | None = option(
        None,
        "spike frames taken while the shutter was open, counted from 0, END not among them; auto finds them (auto:N, "
        "of N frames); otherwise 20:117 of streams of 137 frames, auto of others",
        parse=read_exposure,
        metavar="START:END|auto[:N]",
        group=LIE,
    )
    tone: str = option("", "curve of the image's numbers: linear, srgb, gamma:G or auto (data sets: linear)", group=LIE)
    bits: int = option(0, "bits of the numbers in a 16-bit image; 0: found", low=0, high=16, group=LIE)
    exif: bool = option(True, "turn the image as its Exif data say", group=LIE)
    bad_pixels: Literal["", "auto", "off"] = option(
        "", "auto: find and fill the sensor's own marks (data sets: off)", group=LIE
    )
    crop: tuple | None = option(
        None,
        "what the spike camera sees, in image pixels; may reach beyond the image. The image is cut to it, and brought "
        "to 4 times the spikes' size",
        parse=rectangle,
        metavar="TOP,LEFT,HEIGHT,WIDTH",
        group=LIE,
    )
    align: str = option(
        "",
        "auto: find how image and spikes lie on one another, below a pixel; off; or a file that --calibrate wrote "
        "(data sets: off)",
        metavar="auto|off|FILE",
        group=LIE,
    )
    check: bool = option(True, "look whether image and spikes fit where nothing is found", group=LIE)
    out: Path = option("exp/deblur", "folder for the results", group=MAKE)
    calibrate: Path | None = option(
        None,
        "instead of results: write tone and registration, one for all captures, to a file for --align, or as "
        "camera.json into a data set's folder",
        group=MAKE,
    )
    frames: str = option(
        "7",
        "how many sharp frames, evenly over the exposure (1: its centre), or which, with commas",
        metavar="N|LIST",
        group=MAKE,
    )
    method: str | None = option(
        None,
        "default: sdmnet_motion, or that of the student whose weights are named",
        choices=tuple(method_names()[1:]),
        group=MAKE,
    )
    spike_gain: Literal["auto", "off"] = option(
        "off", "auto: spikes as bright as the image, for the authors' weights at other thresholds", group=MAKE
    )
    hold_colour: bool = option(True, "hold back colours that the image does not justify (data sets: not)", group=MAKE)
    window: int = option(0, "spikes alone, --method tfp: frames of a picture; 0 is 21", low=0, group=MAKE)
    brightness: str = option("auto", "spikes alone: what the light is multiplied by", metavar="auto|X", group=MAKE)
    fps: int = option(12, "frames per second of the videos", low=1, group=MAKE)
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps", group=HARDWARE)
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = option("fp32", "of the networks", group=HARDWARE)
    tile: int = option(-1, "side of tiles; 0: whole images; -1: tiles above 9 MP", group=HARDWARE)

    def __post_init__(self):
        if self.out.is_file():
            raise InputError(f"--out {self.out} is a file; expected a folder")
        if self.shard != WHOLE and (self.calibrate or not (self.base_folder or (self.spike and self.spike.is_dir()))):
            raise InputError("--shard shares out the captures of folders or of a data set, and has no effect without")


def write_sequence(folder: Path, instants, frames, fps: int, blur=None, title: str = "", bar=None):
    """Frames as PNG, and of more than one the videos; returns the middle one."""
    import cv2

    from codes.image import AnimationWriter, grid, write_gif, write_image

    many, small, middle = len(instants) > 1, [], None

    def narrow(picture):  # two beside one another in a video that players take
        share = min(WIDEST / 2 / picture.shape[1], 1)
        return picture if share == 1 else cv2.resize(picture, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)

    seen = narrow(blur) if many and blur is not None else None
    with AnimationWriter(folder / "sequence.mp4", fps, many) as alone:
        with AnimationWriter(folder / "beside.mp4", fps, many and blur is not None) as beside:
            for index, (instant, frame) in enumerate(zip(instants, frames, strict=True)):
                write_image(folder / f"{instant:03}.png", frame)
                alone.add(frame)
                if many and blur is not None:
                    beside.add(grid([(seen, "Blurry input"), (narrow(frame), f"{title}, t = {instant}")], 2))
                if many:
                    share = min(720 / frame.shape[1], 1)
                    small.append(cv2.resize(frame, None, fx=share, fy=share, interpolation=cv2.INTER_AREA))
                if index == len(instants) // 2:
                    middle = frame
                if bar is not None:
                    bar.update()
    if many:
        write_gif(folder / "sequence.gif", small + small[-2:0:-1], fps)
    return middle


def deblur(cfg, deblurrer, capture, name: str, bar, sharp=None):
    """Write everything of one capture; ``sharp``: instant -> true frame. Returns what the viewer of a page shows."""
    import numpy as np

    from codes.image import to_uint8, write_image
    from codes.inference.captures import chosen_instants
    from codes.report.figures import magnified
    from codes.report.page import capture_view

    folder, instants = cfg.out / name, chosen_instants(cfg.frames, capture.exposure)
    frames = deblurrer.frames(capture, instants)
    title, blur = deblurrer.method.title, capture.picture
    long = to_uint8(capture.tfp_long()[None])
    preview = np.uint8(np.minimum(long * (255 / max(int(long.max()), 1)), 255))
    write_image(folder / "tfp.png", preview)
    middle = write_sequence(folder, instants, frames, cfg.fps, blur, title, bar)
    cells = [(blur, "Blurry input"), (preview, "Long TFP"), (middle, f"{title}, t = {instants[len(instants) // 2]}")]
    write_image(folder / "comparison.png", magnified(cells))
    notes = [*capture.doubts, *capture.notes]
    return capture_view(folder, blur, capture.spike, instants, title, sharp, name or cfg.blur.name, notes)


def write_page(cfg, about: dict[str, str], folder: Path, views: list) -> None:
    """The page of a capture, or of several; ``views``: what the viewer shows of each."""
    from codes.report.page import Page, Section, of_views

    about = {"Data": str(cfg.base_folder or f"{cfg.blur} and {cfg.spike}")} | about
    if len(views) == 1:
        page = Page(views[0].name, views=views, about=about, fps=cfg.fps)
    else:
        page = Page(f"{len(views)} captures", [Section("Captures", samples=of_views(views))], about=about, fps=cfg.fps)
    page.write(folder / "index.html")


def write_index(cfg, names: list[str]) -> None:
    """The page of several captures, from their own; those that another command made do not count.

    Raises:
        InputError: parts are to be merged, and some are missing.
    """
    from codes.errors import readable
    from codes.report.page import made_by, read_page

    command = readable(made_by()["Command"])
    pages = {name: read_page(cfg.out / name / "index.html") for name in names}
    pages = {name: page for name, page in pages.items() if page and page.about.get("Command") == command}
    if cfg.shard.merges:
        cfg.shard.require("captures", {name: name in pages for name in names})
    if len(names) > 1:
        about = pages[names[0]].about
        write_page(cfg, about, cfg.out, [view for name in names for view in pages[name].views])


def show_spikes(cfg) -> None:
    """Pictures of spikes alone."""
    import numpy as np

    from codes.engine.device import choose_device
    from codes.engine.weights import Weights
    from codes.image import to_uint8
    from codes.inference import pixels, streams
    from codes.inference.alone import METHODS, brightness, pictures
    from codes.inference.captures import chosen_instants, find_streams

    if cfg.method not in METHODS:
        raise InputError(f"--blur is not given; spikes alone: --method {', '.join(METHODS)} (see --help)")
    how = {"weights": Weights(**weights_of(cfg)), "device": choose_device(cfg.device)}
    layout = streams.Layout(cfg.spike_size and tuple(cfg.spike_size), cfg.row_bits, cfg.bit_order, cfg.key, cfg.axes)
    there: dict[str, bool] = {}
    for path in cfg.shard.of(find_streams(cfg.spike)[: cfg.limit or None]):
        spike = streams.flip(streams.read_stream(path, layout), cfg.flip)
        folder = cfg.out / path.stem if cfg.spike.is_dir() else cfg.out
        if cfg.bad_pixels != "off" and (bad := pixels.find_bad_pixels(spike)).any():
            print(f"{path}: bad pixels: {int(bad.sum())} filled from their neighbours (--bad_pixels off: left)")
            spike = pixels.fill(spike, bad)
        given = cfg.exposure if isinstance(cfg.exposure, slice) else slice(0, len(spike))
        instants = chosen_instants(cfg.frames, slice(given.start, min(given.stop, len(spike))))
        if cfg.shard.merges:
            last = "sequence.gif" if len(instants) > 1 else f"{instants[0]:03}.png"
            there[path.stem] = (folder / last).is_file()
            continue
        first = next(pictures(spike, [instants[len(instants) // 2]], cfg.method, cfg.window, **how))
        scale = brightness(first, cfg.brightness)
        lights = pictures(spike, instants, cfg.method, cfg.window, **how)
        write_sequence(folder, instants, (to_uint8(np.float32(scale) * light[None]) for light in lights), cfg.fps)
        height, width = spike.shape[1:]
        print(
            f"{folder}: {len(instants)} pictures of {height}x{width} by {cfg.method}; a grey level is "
            f"{1 / (255 * scale):.3g} spikes a frame (--brightness {scale:.3g}); {100 * spike.mean():.1f} % of all fire"
        )

    if cfg.shard.merges:
        cfg.shard.require("streams", there)


def shortest(path: str) -> str:
    """A path as one would type it here."""
    path, here = Path(path), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def main() -> None:
    """Read, find, deblur, write."""
    cfg = parse_config(DeblurConfig)
    if cfg.spike and not (cfg.blur or cfg.base_folder):
        show_spikes(cfg)
        return
    from tqdm import tqdm

    from codes.engine.device import describe
    from codes.inference import Deblurrer
    from codes.inference.captures import calibrated, chosen_instants, find_captures, opened, reading_of
    from codes.report.page import made_by, sharp_frames
    from codes.spike import EXPOSURE

    if cfg.window or cfg.brightness != "auto":
        raise InputError("--window and --brightness are for spikes alone, without --blur")
    captures, reading = find_captures(cfg), reading_of(cfg)
    captures = captures[: cfg.limit or None]
    for name, *files in captures:
        if (cfg.out / name).resolve() in [Path(path).resolve().parent for path in files]:
            raise InputError(
                f"--out {cfg.out} is where the capture lies, and would overwrite it; choose another folder"
            )
    if cfg.calibrate:
        camera, lines = calibrated(captures, reading)
        camera.write(cfg.calibrate)
        print(*lines, f"{cfg.calibrate}: tone {camera.tone.name} and registration of {len(lines)} captures", sep="\n")
        return
    if cfg.shard.merges:
        write_index(cfg, [name for name, *_ in captures])
        return
    known = cfg.exposure if isinstance(cfg.exposure, slice) else slice(EXPOSURE.start, EXPOSURE.stop)
    if isinstance(cfg.exposure, slice) or "," in cfg.frames or not cfg.frames.isdecimal() or not int(cfg.frames):
        chosen_instants(cfg.frames, known)  # refused before work begins
    paths = {f"{flag}_path": path for flag, path in weights_of(cfg).items()}
    deblurrer = Deblurrer(
        cfg.method or "",
        device=cfg.device,
        precision=cfg.precision,
        tile=cfg.tile,
        spike_gain=cfg.spike_gain,
        hold_colour=cfg.hold_colour and not cfg.base_folder,
        **paths,
    )
    weights = ", ".join(map(shortest, deblurrer.method.weights)) or "no weights"
    print(f"{deblurrer.method.title} ({weights}), {cfg.precision} on {describe(deblurrer.device)}")
    sharp = sharp_frames(cfg.base_folder, cfg.data_type, cfg.vth) if cfg.base_folder else {}
    about = {"Method": deblurrer.method.title, "Weights": weights, "Device": describe(deblurrer.device)} | made_by()
    hide = not sys.stderr.isatty()
    with tqdm(unit="frame", dynamic_ncols=True, disable=hide) as bar:
        for name, capture in opened(cfg.shard.of(captures), reading):
            count = len(chosen_instants(cfg.frames, capture.exposure))
            bar.total = (bar.total or 0) + count
            view = deblur(cfg, deblurrer, capture, name, bar, sharp.get(name))
            write_page(cfg, about, cfg.out / name, [view])
            tqdm.write(f"{cfg.out / name}: {count} frames of {capture.blur.shape[0]}x{capture.blur.shape[1]}")
    if not cfg.shard.is_part:
        write_index(cfg, [name for name, *_ in captures])


if __name__ == "__main__":
    command(main)
