"""Captures of three kinds that the released weights have not seen, with known sharp frames, and how weights do on them.

    python scripts/dev/shifted.py --photos photos/ --out exp/shifted
    python scripts/adapt.py exp/shifted/tilted --out exp/adapted/tilted
    python scripts/dev/shifted.py --out exp/shifted --domains tilted \
        --weights model/SDMNet_photo.pth exp/adapted/tilted/SDMNet_adapted.pth

tilted: spike pixels of 1/3 of the image's sides instead of 1/4, the spike camera turned by 0.5 degrees. pattern: each
pixel has a threshold of its own (spread 15 %), the same in all captures, and noise of twice the rate. night: light of
0.05 to 0.15, but for what is nearly white, which stays. Each has --count captures of --size; adapt.py is given blurry
images and spikes, the sharp frames are in sharp/ beside them.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from codes.engine.command import command
from codes.engine.options import Size, option, parse_config

DOMAINS = ("tilted", "pattern", "night")
TILT, SPREAD, SEED = 0.5, 0.15, 7


@dataclass(frozen=True)
class ShiftedConfig:
    """What to make, what to measure."""

    photos: Path | None = option(None, "photographs; without them, captures must be there")
    out: Path = option("exp/shifted", "folder of the captures")
    domains: tuple[Literal["tilted", "pattern", "night"], ...] = option(DOMAINS, "which of the three")
    count: int = option(8, "captures of each", low=1)
    size: Size = option(Size(360, 648), "of the images", low=48, multiple=12)
    motion: tuple[float, float] = option((10.0, 60.0), "over the exposure, in pixels", low=0, metavar=("MIN", "MAX"))
    weights: tuple[Path, ...] = option((), "weights to measure, of a student each")
    instants: int = option(3, "instants of each capture that are measured", low=1, high=7)
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps")


def make(cfg: ShiftedConfig, domain: str, photos: list[str]) -> None:
    """Render and write the captures of a domain that are not there."""
    import cv2
    import numpy as np

    from codes.exposure import EXPOSURE
    from codes.image import write_image
    from codes.making.sensor import seen_by_spike_camera, spikes_from_frames
    from codes.making.synthesis import Scene, draw_sample, to_uint8

    height, width = cfg.size
    ratio = 3 if domain == "tilted" else 4
    unit = 720 / height
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), TILT, 1)
    thresholds = np.exp(SPREAD * np.random.default_rng(SEED).standard_normal((height // ratio, width // ratio)))
    for index in range(cfg.count):
        name, rng = f"{index:03}", np.random.default_rng((SEED, index))
        path = cfg.out / domain / "spike_data" / f"{name}.npy"
        if path.is_file():
            continue
        sample = draw_sample("test", index, photos, size=tuple(cfg.size), seed=SEED, max_foregrounds=2,
                             motion=tuple(pixels * unit for pixels in cfg.motion))  # fmt: skip
        dim = float(rng.uniform(0.05, 0.15)) if domain == "night" else 1.0
        total, light = np.zeros((height, width, 3), np.float32), []
        for time, frame in enumerate(Scene(sample)):
            if domain == "night":
                lamp = np.clip((frame.max(axis=-1, keepdims=True) - 0.9) / 0.1, 0, 1)
                frame = frame * np.float32(dim + (1 - dim) * lamp)
            if EXPOSURE.start <= time < EXPOSURE.stop:
                total += frame
            if time in EXPOSURE.sequence_instants:
                write_image(cfg.out / domain / "sharp" / name / f"{time:03}.png", to_uint8(frame))
            if domain == "tilted":
                frame = cv2.warpAffine(frame, turn, (width, height), borderMode=cv2.BORDER_REFLECT_101)
            light.append(seen_by_spike_camera(frame, ratio))
        light = np.stack(light) / np.float32(thresholds if domain == "pattern" else 1)
        spikes = spikes_from_frames(light, rng)
        if domain == "pattern":
            spikes |= spikes_from_frames(0 * light, rng)
        write_image(cfg.out / domain / "blur_data" / f"{name}.png", to_uint8(total / EXPOSURE.length))
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, spikes)


def measure(cfg: ShiftedConfig, domain: str, path: Path | None, ending: str = "") -> float:
    """Mean PSNR of some weights, in dB, of the method whose name so ends; None: of the blurry images."""
    import numpy as np

    from codes.engine.weights import load_student, record_of
    from codes.exposure import EXPOSURE
    from codes.image import read_image
    from codes.inference import Deblurrer, open_capture
    from codes.inference.captures import find_pairs

    instants, values = EXPOSURE.sequence_instants, []
    instants = [instants[round(i)] for i in np.linspace(0, 6, cfg.instants)] if cfg.instants > 1 else [EXPOSURE.centre]
    if path:
        record = record_of(load_student(path))
        deblurrer = Deblurrer(record.key + ending, device=cfg.device, **{f"{record.flag}_path": str(path)})
    for name, image, stream in find_pairs(cfg.out / domain):
        capture = open_capture(image, stream, tone="linear")
        frames = deblurrer.frames(capture, instants) if path else [capture.picture] * len(instants)
        for instant, frame in zip(instants, frames, strict=True):
            sharp = read_image(cfg.out / domain / "sharp" / name / f"{instant:03}.png")
            error = np.square(frame.astype(np.float32) - sharp).mean() / 255**2
            values.append(-10 * np.log10(max(float(error), 1e-10)))
    return float(np.mean(values))


def main(argv: list[str] | None = None) -> None:
    """Make, measure, print."""
    cfg = parse_config(ShiftedConfig, argv, __doc__)
    from codes.making.photos import find_photos, usable
    from codes.model.registry import ALONG

    photos: list[str] = []
    if cfg.photos:
        files = find_photos(cfg.photos, cfg.out)
        photos = [str(files[name]) for name in usable(files)]
    for domain in cfg.domains:
        if photos:
            make(cfg, domain, photos)
        if cfg.weights:
            print(f"| {domain} | blurry input | {measure(cfg, domain, None):.2f} | |", flush=True)
        for path in cfg.weights:
            alone, joined = (measure(cfg, domain, path, ending) for ending in ("", ALONG))
            print(f"| {domain} | {path} | {alone:.2f} | joined {joined:.2f} |", flush=True)


if __name__ == "__main__":
    command(main)
