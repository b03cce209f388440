r"""Where it stops working: the PSNR of each method as the spikes, or the motion, get worse than those of the paper.

    python scripts/robustness.py --out exp/robustness
    python scripts/robustness.py --out exp/robustness --methods blur sdm21 ldn --vth 1 2 4 8 16 --noise --shift --ratio

Scenes with exact ground truth are rendered from photographs (codes/synthesis.py) and measured at the exposure's centre.
One factor grows while the others stay where they are in the paper:

    vth     firing threshold in the paper's unit
    noise   how many independent sources of the sensor's inherent noise; each fires at about 0.7 % of the slots
    shift   pixels of the image by which the spike camera looks too far to the right
    ratio   pixels of the image, each way, per pixel of the spike camera. Whatever its size, a spike pixel sees the 2x2
            image pixels in its middle, as in the official simulator. The networks want 4: the frames of a coarser
            camera are brought there by nearest enlarging
    motion  length of the motion over the exposure, of the camera and of two things before it, in pixels of the image

Writes robustness.md, .csv, .json and .png. The JSON keeps the PSNR of every sample: the same command goes on where it
was interrupted, and more samples, methods or values of a factor add to it. PSNR: B,G,R in [0, 1], whole frames,
unrounded images against 8-bit ground truth, mean over samples. A flag of a factor without values leaves it out.
"""

import csv
import dataclasses
import json
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

from codes.engine.command import Parser, command  # noqa: E402
from codes.engine.device import autocast, choose_device, describe  # noqa: E402
from codes.engine.weights import Weights
from codes.errors import InputError  # noqa: E402
from codes.files import replacing  # noqa: E402
from codes.image import grey, to_float  # noqa: E402
from codes.inference.methods import Method, load_method, methods
from codes.making.sensor import inherent_noise, spikes_from_frames  # noqa: E402
from codes.making.synthesis import SCALE, Sample, Scene  # noqa: E402
from codes.metrics import psnr  # noqa: E402
from codes.model.registry import weight_options  # noqa: E402
from codes.report.plots import Line, Panel, plot_methods  # noqa: E402
from codes.spike import EXPOSURE  # noqa: E402
from scripts.make_demo_data import at_least, find_photos, frame_size, usable, write_json  # noqa: E402

MARGIN = 24  # px seen beyond the image to its right, and a multiple of all ratios


@dataclass(frozen=True)
class Setting:
    """The value of each factor; the defaults are the paper's."""

    vth: float = 1.0
    noise: int = 1
    shift: int = 0
    ratio: int = SCALE
    motion: float = 24.0

    @property
    def key(self) -> str:
        """Its name in the JSON."""
        return " ".join(f"{name}={value:g}" for name, value in dataclasses.asdict(self).items())

    @property
    def view(self) -> tuple[int, int]:
        """What decides the light on the sensor: ratio, and pixels by which its grid is off the image's."""
        return self.ratio, self.shift % self.ratio


@dataclass(frozen=True)
class Factor:
    """A factor: its title, axis label, default values, and whether its axis is logarithmic."""

    title: str
    label: str
    values: tuple
    log: str = ""


FACTORS = {
    "vth": Factor("Firing threshold", "Vth (paper's unit)", (0.5, 1.0, 2.0, 4.0, 8.0), "x"),
    "noise": Factor("Sensor noise", "multiple of the inherent noise", (0, 1, 2, 4, 8)),
    "shift": Factor("Misaligned spikes", "shift (image px)", (0, 1, 2, 4, 8)),
    "ratio": Factor("Spike resolution", "share of the image's sides", (4, 6, 8, 12)),
    "motion": Factor("Motion", "motion over the exposure (px)", (6.0, 12.0, 24.0, 48.0, 96.0), "x"),
}


def record(scene: Scene, size: tuple[int, int], views) -> tuple[np.ndarray, np.ndarray, dict]:
    """Render a scene that reaches beyond the image, which is its upper left part.

    Args:
        scene: rendered.
        size: ``(H, W)`` of the image.
        views: (ratio, offset) of the spike cameras.

    Returns:
        blur and sharp image at the exposure's centre, uint8 ``(H, W, 3)``, B,G,R; the light on each spike camera, by
        view, float32 ``(137, h, w)`` in [0, 1].
    """
    height, width = size
    total = np.zeros((height, width, 3), np.float32)
    lights = {view: [] for view in views}
    for instant, frame in enumerate(scene):
        image = frame[:height, :width]
        if EXPOSURE.start <= instant < EXPOSURE.stop:
            total += image
        if instant == EXPOSURE.centre:
            sharp = np.rint(image * 255).astype(np.uint8)
        for (ratio, offset), light in lights.items():
            rows, columns = frame.shape[0] // ratio, (frame.shape[1] - offset) // ratio
            seen = frame[: rows * ratio, offset : offset + columns * ratio]
            small = cv2.resize(seen, (columns, rows), interpolation=cv2.INTER_LINEAR)  # ratios are even: the middle 2x2
            light.append(grey(small, axis=-1)[..., 0])
    blur = np.rint(total / np.float32(EXPOSURE.length) * 255).astype(np.uint8)
    return blur, sharp, {view: np.stack(light) for view, light in lights.items()}


def spikes(light: np.ndarray, setting: Setting, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """The stream that the networks are given: uint8 ``(137, H/4, W/4)`` of zeros and ones.

    Args:
        light: what the setting's spike camera sees (:func:`record`).
        setting: the factors.
        size: ``(H, W)`` of the image.
        rng: of the sensor; with one source of noise the stream is that of ``spikes_from_frames``.
    """
    stream = spikes_from_frames(light, rng, setting.vth, noise=False)
    for _ in range(setting.noise):
        stream |= inherent_noise(stream.shape, rng)
    # The spike pixel under the centre of each 4x4 block of the image, which lies 4 i + 2 pixels from the edge.
    rows, columns = ((SCALE * np.arange(side // SCALE) + SCALE // 2) // setting.ratio for side in size)
    return stream[:, rows[:, None], columns + setting.shift // setting.ratio]


def settings_of(values: dict[str, tuple]) -> Iterator[tuple[str, float, Setting]]:
    """(factor, value, setting) for all values of the factors."""
    for factor, chosen in values.items():
        for value in chosen:
            yield factor, value, dataclasses.replace(Setting(), **{factor: value})


def sample_of(index: int, motion: float, photos: list[str], size: tuple[int, int], seed: int) -> Sample:
    """Scene ``index``: the same at all motions, but for how far all moves."""
    canvas = tuple(-(-side // MARGIN) * MARGIN for side in (size[0], size[1] + MARGIN))
    before = tuple((photos[(index + step) % len(photos)], motion) for step in (1, 2))
    return Sample("test", index, photos[index % len(photos)], motion, before, canvas, seed)


class Points:
    """The PSNR values of a folder's robustness.json: setting -> method -> sample -> dB.

    Args:
        path: the file; it is read if it exists.
        options: what all its values share.
        methods: name -> what a method is (its title and weights).

    Raises:
        ValueError: the file is damaged, or made with other options or weights.
    """

    def __init__(self, path: Path, options: dict, methods: dict[str, dict]):
        self.path, self.options, self.methods, self.values = path, options, methods, {}
        if not path.is_file():
            return
        try:
            old = json.loads(path.read_text())
            changed = [name for name in options if old["options"][name] != options[name]]
            changed += [
                f"weights of {name}" for name in methods if old["methods"].get(name, methods[name]) != methods[name]
            ]
            self.values = {key: {name: dict(row) for name, row in rows.items()} for key, rows in old["psnr"].items()}
            self.methods = old["methods"] | methods
        except (ValueError, LookupError, TypeError, AttributeError):
            raise InputError(f"{path} is damaged; delete it or choose another --out") from None
        if changed:
            raise InputError(f"{path} was made with another {', '.join(changed)}; choose another --out or delete it")

    def has(self, setting: Setting, method: str, index: int) -> bool:
        """Whether it is measured."""
        return str(index) in self.values.get(setting.key, {}).get(method, {})

    def add(self, setting: Setting, method: str, index: int, value: float) -> None:
        """Keep a value."""
        self.values.setdefault(setting.key, {}).setdefault(method, {})[str(index)] = value

    def get(self, setting: Setting, method: str, samples: int) -> list[float]:
        """The values of the first samples."""
        return [self.values[setting.key][method][str(index)] for index in range(samples)]

    def save(self) -> None:
        """Write the file."""
        write_json(self.path, {"options": self.options, "methods": self.methods, "psnr": self.values})


def measure(points: Points, methods: dict[str, Method], args, photos: list[str], device: torch.device) -> None:
    """Measure what the points lack."""
    settings = list(dict.fromkeys(setting for _, _, setting in settings_of(args.values)))
    bar = tqdm(total=len(settings) * args.samples * len(methods), unit="image", disable=None)
    with bar:
        for motion in dict.fromkeys(setting.motion for setting in settings):
            alike = [setting for setting in settings if setting.motion == motion]
            for index in range(args.samples):
                todo = {s: [name for name in methods if not points.has(s, name, index)] for s in alike}
                bar.update(len(alike) * len(methods) - sum(map(len, todo.values())))
                todo = {setting: names for setting, names in todo.items() if names}
                if not todo:
                    continue
                sample = sample_of(index, motion, photos, args.size, args.seed)
                blur, sharp, lights = record(Scene(sample), args.size, {setting.view for setting in todo})
                blur, sharp = (torch.from_numpy(to_float(image))[None].to(device) for image in (blur, sharp))
                for setting, names in todo.items():
                    stream = spikes(lights[setting.view], setting, args.size, sample.rng(2))
                    stream = torch.from_numpy(stream)[None].to(device)
                    for name in names:
                        with torch.inference_mode(), autocast(device, args.precision):
                            image = methods[name].start(blur, stream)([EXPOSURE.centre])[:, 0]
                        reference = methods[name].reference(sharp)
                        points.add(setting, name, index, psnr(image.float(), reference).item())
                        bar.update()
                    points.save()


def failures(points: Points, args) -> Iterator[str]:
    """Of each method and factor, the values at which it is no better than the blurry input."""
    for name in args.methods if "blur" in args.methods else ():
        for factor in args.values:
            bad = []
            for _, value, setting in settings_of({factor: args.values[factor]}):
                gains = np.subtract(points.get(setting, name, args.samples), points.get(setting, "blur", args.samples))
                if name != "blur" and gains.mean() <= 0:
                    bad.append(shown(factor, value))
            if bad:
                yield f"{points.methods[name]['title']}: {FACTORS[factor].title.lower()} {', '.join(bad)}"


def shown(factor: str, value: float) -> str:
    """A value as it stands in the table and on the axis."""
    return f"1/{value:g}" if factor == "ratio" else f"{value:g}"


def markdown(points: Points, args) -> str:
    """The table, and where the methods fail."""
    titles = [points.methods[name]["title"] for name in args.methods]
    lines = ["| factor | value | " + " | ".join(f"{title} (dB)" for title in titles) + " |"]
    lines.append("|---" * (len(titles) + 2) + "|")
    for factor, value, setting in settings_of(args.values):
        means = [f"{np.mean(points.get(setting, name, args.samples)):.2f}" for name in args.methods]
        word = shown(factor, value) + (" (default)" if setting == Setting() else "")
        about = FACTORS[factor]
        lines.append(f"| {about.title}: {about.label} | {word} | {' | '.join(means)} |")
    size = "x".join(map(str, args.size))
    lines += ["", f"PSNR at the exposure's centre, mean of {args.samples} rendered scenes of {size}, {args.precision}."]
    if "blur" in args.methods:
        lines += [f"No better than the blurry input: {'; '.join(failures(points, args)) or 'none'}."]
    return "\n".join(lines)


def write(points: Points, args) -> None:
    """Write the table, the CSV and the picture."""
    with replacing(args.out / "robustness.md") as path:
        path.write_text(markdown(points, args) + "\n", encoding="utf-8")
    with replacing(args.out / "robustness.csv") as path, open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["factor", "value", "method", "psnr_db", "lowest_db", "highest_db", "samples"])
        for factor, value, setting in settings_of(args.values):
            for name in args.methods:
                found = points.get(setting, name, args.samples)
                figures = (f"{number:.4f}" for number in (np.mean(found), min(found), max(found)))
                writer.writerow([factor, f"{value:g}", name, *figures, len(found)])
    panels = []
    for factor, values in args.values.items():
        about, lines = FACTORS[factor], []
        settings = [setting for _, _, setting in settings_of({factor: values})]
        for name in args.methods:
            means = [np.mean(points.get(setting, name, args.samples)) for setting in settings]
            lines.append(Line(points.methods[name]["title"], np.array(values, float), np.array(means)))
        ticks = {value: shown(factor, value) for value in values}
        default = getattr(Setting(), factor)
        panels.append(Panel(factor, about.title, about.label, "PSNR (dB)", lines, about.log, ticks, default))
    plot_methods(panels, args.out / "robustness.png", grey=points.methods.get("blur", {"title": ""})["title"])


def make_parser() -> Parser:
    """Every flag with its default."""
    parser = Parser(description=__doc__)
    add = parser.add_argument_group("what to measure").add_argument
    add("--out", type=Path, default="exp/robustness", help="folder for the results")
    known = ", ".join(methods())
    usual = ["blur", "sdm21", "teacher", "ldn"]
    add("--methods", nargs="+", default=usual, metavar="NAME", help=f"of {known}; the teacher takes most of the time")
    add("--photos", type=Path, metavar="DIR", help="your photographs, subfolders too; none: four of scikit-image's")
    add("--size", type=frame_size, default="360x640", metavar="HxW", help="image size")
    add("--samples", type=at_least(1), default=4, metavar="N", help="scenes; photographs take turns")
    add("--seed", type=at_least(0), default=0, help="same seed, same scenes and spikes")
    add = parser.add_argument_group("values of the factors").add_argument
    kinds = {
        "vth": at_least(0, float, True),
        "noise": at_least(0),
        "shift": at_least(0),
        "ratio": at_least(4),
        "motion": at_least(0, float, True),
    }
    for name, factor in FACTORS.items():
        add(f"--{name}", type=kinds[name], nargs="*", default=factor.values, metavar="X", help=factor.label)
    add = parser.add_argument_group("weights and hardware").add_argument
    for name, about in weight_options().items():
        add(f"--{name}", default="", metavar="FILE", help=about)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="of the networks")
    return parser


def main() -> None:
    """Measure, print and write."""
    args, start = make_parser().parse_args(), time.monotonic()
    args.values = {name: tuple(dict.fromkeys(sorted(getattr(args, name)))) for name in FACTORS}
    args.values = {name: values for name, values in args.values.items() if values}
    if not args.values:
        raise InputError("every factor is left out; give at least one of them values")
    for factor, low, high in (("shift", 0, MARGIN), ("ratio", SCALE, MARGIN)):
        for value in args.values.get(factor, ()):
            if value > high or (factor == "ratio" and (value % 2 or MARGIN % value)):
                fitting = "4, 6, 8, 12 or 24" if factor == "ratio" else f"{low} to {high}"
                raise InputError(f"--{factor} {value}; expected {fitting}")
    device = choose_device(args.device)
    weights = Weights(**{name.removesuffix("_path"): getattr(args, name) for name in weight_options()})
    methods = {name: load_method(name, weights, device) for name in dict.fromkeys(args.methods)}
    args.methods = list(methods)
    files = find_photos(args.photos, args.out)
    photos = usable(files)
    about = {
        name: {"title": m.title, "weights": {Path(f).name: zlib.crc32(Path(f).read_bytes()) for f in m.weights}}
        for name, m in methods.items()
    }
    options = {"size": list(args.size), "seed": args.seed, "precision": args.precision, "photos": photos}
    points = Points(args.out / "robustness.json", options, about)
    measure(points, methods, args, [str(files[name]) for name in photos], device)
    points.save()
    write(points, args)
    print(markdown(points, args))
    print(f"{args.out}/robustness.md, .csv, .json, .png: {time.monotonic() - start:.0f} s, {describe(device)}")


if __name__ == "__main__":
    command(main)
