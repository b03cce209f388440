r"""Where it stops working: the PSNR of each method as the spikes, or the motion, get worse than those of the paper.

    python scripts/robustness.py --out exp/robustness
    python scripts/robustness.py --out exp/robustness --methods blur sdm21 ldn --vth 1 2 4 8 16 --noise --shift --ratio

Scenes with exact ground truth are rendered from photographs and measured at the exposure's centre. One factor grows
while the others stay where they are in the paper:

    vth     firing threshold in the paper's unit
    noise   how many independent sources of the sensor's inherent noise
    shift   pixels of the image by which the spike camera looks too far to the right
    ratio   pixels of the image, each way, per pixel of the spike camera
    motion  length of the motion over the exposure, in pixels of the image

Writes robustness.md, .csv, .json and .png, and index.html with plots to look into. The JSON keeps the PSNR of every
sample: the same command goes on where it was interrupted, and more samples, methods or values of a factor add to it.
PSNR: B,G,R in [0, 1], whole frames, unrounded images against 8-bit ground truth, mean over samples. A flag of a factor
without values leaves it out.
"""

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import command  # noqa: E402
from codes.engine.options import Size, option, parse_config, weights_of, with_weights  # noqa: E402
from codes.errors import InputError  # noqa: E402
from codes.model.registry import method_names  # noqa: E402

MEASURED, VALUES, HARDWARE = "what to measure", "values of the factors", "weights and hardware"
RATIOS = (4, 6, 8, 12, 24)


@with_weights
@dataclass(frozen=True)
class RobustnessConfig:
    """What is measured, of which methods."""

    out: Path = option("exp/robustness", "folder for the results", group=MEASURED)
    methods: tuple[str, ...] = option(
        ("blur", "sdm21", "teacher", "ldn", "sdmnet_motion"),
        "the teacher takes most of the time",
        choices=tuple(method_names()),
        group=MEASURED,
    )
    photos: Path | None = option(
        None, "your photographs, subfolders too; none: four of scikit-image's", group=MEASURED, metavar="DIR"
    )
    size: Size = option("360x640", "image size", low=16, multiple=4, group=MEASURED)
    samples: int = option(4, "scenes; photographs take turns", low=1, group=MEASURED)
    seed: int = option(0, "same seed, same scenes and spikes", low=0, group=MEASURED)
    vth: tuple[float, ...] | None = option((0.5, 1.0, 2.0, 4.0, 8.0), "firing thresholds", above=0, group=VALUES)
    noise: tuple[int, ...] | None = option((0, 1, 2, 4, 8), "multiples of the inherent noise", low=0, group=VALUES)
    shift: tuple[float, ...] | None = option(
        (0.0, 0.5, 1.0, 2.0, 4.0, 8.0), "pixels of the image", low=0, high=24, group=VALUES
    )
    ratio: tuple[int, ...] | None = option((4, 6, 8, 12), "image pixels per spike pixel, each way", group=VALUES)
    motion: tuple[float, ...] | None = option(
        (6.0, 12.0, 24.0, 48.0, 96.0), "pixels over the exposure", above=0, group=VALUES
    )
    align: bool = option(
        False,
        "find how image and spikes lie on one another first, as deblur.py does; into another --out",
        group=MEASURED,
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps", group=HARDWARE)
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = option("fp32", "of the networks", group=HARDWARE)

    def __post_init__(self):
        if wrong := set(self.ratio or ()) - set(RATIOS):
            raise InputError(f"--ratio {min(wrong)}; expected some of {', '.join(map(str, RATIOS))}")
        if not self.values:
            raise InputError("every factor is left out; give at least one of them values")

    @property
    def values(self) -> dict[str, list[float]]:
        """The factors that are not left out, their values in order."""
        factors = {name: sorted(getattr(self, name) or ()) for name in ("vth", "noise", "shift", "ratio", "motion")}
        return {name: values for name, values in factors.items() if values}


def measure(points, methods: dict, settings: list, cfg: RobustnessConfig, photos: list[str], device) -> None:
    """Measure what the points lack."""
    import torch
    from tqdm import tqdm

    from codes.engine.device import autocast
    from codes.exposure import EXPOSURE
    from codes.image import to_float
    from codes.inference import Reading, open_capture
    from codes.inference.deblurrer import View
    from codes.making.degradation import record, sample_of, spikes
    from codes.making.synthesis import Scene
    from codes.metrics import psnr
    from codes.report.evaluation import capped

    scenes = {(setting.motion, index): [] for setting in settings for index in range(cfg.samples)}
    for setting in settings:
        for index in range(cfg.samples):
            missing = [name for name in methods if not points.has(setting.key, name, index)]
            scenes[setting.motion, index] += [(setting, missing)] if missing else []
    todo = sum(len(missing) for parts in scenes.values() for _, missing in parts)
    with tqdm(total=todo, unit="image", disable=None) as bar:
        for (motion, index), parts in scenes.items():
            if not parts:
                continue
            sample = sample_of(index, motion, photos, cfg.size, cfg.seed)
            photo, sharp, lights = record(Scene(sample), cfg.size, {setting.view for setting, _ in parts})
            blur, sharp = (torch.from_numpy(to_float(image))[None].to(device) for image in (photo, sharp))
            for setting, missing in parts:
                stream = spikes(lights[setting.view], setting, cfg.size, sample.rng(2))
                view = None
                if cfg.align:
                    capture = open_capture(photo, stream, Reading(tone="linear", bad_pixels=False))
                    view = View(capture, capture.light())
                seen = torch.from_numpy(view.image).permute(2, 0, 1)[None].to(device) if view else blur
                stream = torch.from_numpy(stream)[None].to(device)
                for name in missing:
                    with torch.inference_mode(), autocast(device, cfg.precision):
                        image = methods[name].start(seen, stream)([EXPOSURE.centre])[:, 0]
                    if view:
                        image = view.back(image[0].float().permute(1, 2, 0).cpu().numpy(), methods[name].grey)
                        image = torch.from_numpy(image).permute(2, 0, 1)[None].clamp(0, 1).to(device)
                    value = psnr(image.float(), methods[name].reference(sharp)).item()
                    points.add(setting.key, name, index, capped(value))
                    bar.update()
                points.save()


def main(argv: list[str] | None = None) -> None:
    """Measure, print and write."""
    cfg, start = parse_config(RobustnessConfig, argv), time.monotonic()
    import zlib

    from codes.engine.device import choose_device, describe
    from codes.engine.weights import Weights
    from codes.inference.methods import load_method
    from codes.making.degradation import Setting
    from codes.making.photos import find_photos, usable
    from codes.report.sweep import Points, Sweep

    device, weights = choose_device(cfg.device), Weights(**weights_of(cfg))
    methods = {name: load_method(name, weights, device) for name in cfg.methods}
    files = find_photos(cfg.photos, cfg.out)
    photos = usable(files)
    about = {
        name: {"title": m.title, "weights": {Path(f).name: zlib.crc32(Path(f).read_bytes()) for f in m.weights}}
        for name, m in methods.items()
    }
    options = {"size": list(cfg.size), "seed": cfg.seed, "precision": cfg.precision, "photos": photos}
    options |= {"align": True} if cfg.align else {}
    points = Points(cfg.out / "robustness.json", options, about)
    settings = {
        name: {value: replace(Setting(), **{name: value}) for value in values} for name, values in cfg.values.items()
    }
    each = list(dict.fromkeys(setting for group in settings.values() for setting in group.values()))
    measure(points, methods, each, cfg, [str(files[name]) for name in photos], device)
    points.save()
    sweep = Sweep(
        points,
        list(methods),
        cfg.samples,
        {name: {value: setting.key for value, setting in group.items()} for name, group in settings.items()},
        {name: getattr(Setting(), name) for name in settings},
        [f"PSNR at the exposure's centre, mean of {cfg.samples} rendered scenes of {cfg.size}, {cfg.precision}"],
    )
    sweep.write(cfg.out)
    print(sweep.table().markdown())
    print(
        f"{cfg.out}/robustness.md, .csv, .json, .png, index.html: {time.monotonic() - start:.0f} s, {describe(device)}"
    )


if __name__ == "__main__":
    command(main)
