"""What the scripts that make data sets are told (:mod:`codes.engine.options`)."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from codes.engine.options import AUTO_PRECISION, AutoPrecision, Config, Size, option
from codes.engine.shard import WHOLE, Shard, shard_option
from codes.errors import InputError
from codes.exposure import EXPOSURE, SCALE, read_exposure

THRESHOLDS = "firing thresholds in the paper's unit: the first for spike_data, more for spike_data_vth2 and so on"
CORES = os.cpu_count() or 1
READ, MAKE, TRAIN = "how captures are read", "what is made of them", "training"


@dataclass(frozen=True)
class BlurConfig:
    """Sequences, and which of their frames are an exposure: all that the official blur_syn.py needs."""

    outputs: ClassVar[tuple[str, ...]] = ("blur",)
    raw_folder: Path | None = option(None, "sequences as folders of images")
    video: tuple[Path, ...] | None = option(None, "instead: video files, a sequence each", metavar="FILE")
    out: Path | None = option(None, "the split's folder (default: beside the raw folder)")
    interp: Literal["flow", "linear", "none"] = option(
        "none", "frames between: by optical flow, as a weighted mean, or none: the folders hold them already"
    )
    num_inter: int = option(EXPOSURE.inserted, "frames between two raw ones", low=0)
    blur_num: int = option(EXPOSURE.raw_frames, "raw frames of an exposure, odd", low=3)
    overlap_len: int = option(7, "interpolated frames between two exposures", low=0)
    to_the_cut: bool = option(False, "of a video that is cut off short or damaged, use what comes before that")
    workers: int = option(CORES, "sequences at a time", low=1)
    shard: Shard = shard_option("sequences")

    def __post_init__(self):
        if bool(self.raw_folder) == bool(self.video):
            raise InputError("give either --raw_folder or --video")
        if self.video and not self.out:
            raise InputError("--video needs --out, the split's folder, as OWN/train")


@dataclass(frozen=True)
class SpikeConfig(BlurConfig):
    """And the sensor: the official spike_simulate.py."""

    outputs: ClassVar[tuple[str, ...]] = ("spike",)
    spike_add: int = option(EXPOSURE.margin, "spike frames before and after the exposure", low=0)
    scale: int = option(SCALE, "image pixels per spike pixel, each way", low=1)
    vth: tuple[float, ...] = option((1.0,), THRESHOLDS, above=0)
    spike_full: bool = option(False, "also spikes at the size of the image, in spike_full")
    noise: bool = option(True, "the sensor's inherent noise")
    seed: int = option(0, "of the sensor: same seed, same bytes", low=0)


@dataclass(frozen=True)
class SharpConfig(BlurConfig):
    """And the sharp frames: the official sharp_extract.py."""

    outputs: ClassVar[tuple[str, ...]] = ("sharp",)
    multi: bool = option(False, "the 7 sharp frames of each exposure, not the middle one alone")


@dataclass(frozen=True)
class PrepareConfig(SpikeConfig, SharpConfig):
    """All of it in one pass."""

    outputs: ClassVar[tuple[str, ...]] = ("blur", "spike", "sharp")
    interp: Literal["flow", "linear", "none"] = option(
        "flow", "frames between: by optical flow, as a weighted mean, or none: the folders hold them already"
    )


@dataclass(frozen=True)
class DemoConfig:
    """A data set from photographs."""

    out: Path = option("GOPRO", "folder of the data set")
    size: Size = option(Size(720, 1280), "image size", low=16, high=8192, multiple=SCALE)
    train: int = option(32, "training samples", low=0)
    test: int = option(8, "test samples", low=0)
    photos: Path | None = option(None, "your photographs, subfolders too; none: four of scikit-image's")
    cutouts: Path | None = option(
        None, "pictures with alpha (PNG) as moving foregrounds; none: pieces of the photographs"
    )
    test_photos: tuple[str, ...] | None = option(
        None, "those for testing; without it, a spread-out quarter", metavar="NAME"
    )
    motion: tuple[float, float] = option(
        (20.0, 80.0), "least and greatest motion over the exposure in pixels at 720p", low=0, metavar=("MIN", "MAX")
    )
    foregrounds: int = option(3, "most moving cut-outs", low=0)
    vth: tuple[float, ...] = option((1.0,), THRESHOLDS, above=0)
    noise: bool = option(True, "the sensor's inherent noise")
    seed: int = option(0, "same seed, same bytes", low=0)
    workers: int = option(CORES, "samples rendered at a time", low=1)
    overwrite: bool = option(False, "delete the samples that this program made in the folder before")
    shard: Shard = shard_option("samples")

    def __post_init__(self):
        if self.overwrite and self.shard != WHOLE:
            raise InputError(
                "--overwrite would delete what other parts have made; give it without --shard, or delete --out"
            )
        check_motion(*self.motion)
        if not self.train + self.test:
            raise InputError("--train 0 --test 0 asks for no samples")


@dataclass(frozen=True)
class CapturesConfig:
    """Captures, and how they become small photographs."""

    base_folder: Path = option("GOPRO", "the captures: a data set in the GOPRO or RSB layout")
    data_type: Literal["GOPRO", "real"] = option("GOPRO", "layout of the captures")
    split: Literal["train", "test"] = option("train", "split of the captures")
    vth: float = option(0.0, "firing threshold of the captures' spikes", low=0)
    tone: str = option("", "curve of the blurry images: linear, srgb or gamma:G; otherwise what camera.json says")
    deblur_path: Path | None = option(None, "weights of a student that deblurs the captures; none: the SDM")
    shrink: float = option(3.0, "how many times smaller the photographs are", low=1)
    seed: int = option(0, "same seed, same bytes", low=0)
    device: str = option("auto", "where a student runs: auto, cpu, cuda, cuda:N or mps")


@dataclass(frozen=True)
class ScenesConfig(CapturesConfig):
    """Scenes from captures."""

    out: Path = option("SCENES", "folder of the scenes")
    shrink: float = option(2.0, "how many times smaller the photographs are", low=1)
    count: int = option(2000, "scenes", low=1)
    render: bool = option(False, "render them all now; off, each when training first needs it")


@dataclass(frozen=True)
class ResimulateConfig(CapturesConfig):
    """A data set from captures."""

    out: Path = option("RESIM", "folder of the new data set")
    size: Size = option(Size(192, 320), "image size of the new data set", low=16, high=8192, multiple=SCALE)
    count: int = option(1000, "samples of the new data set", low=1)
    motion: tuple[float, float] = option(
        (5.0, 120.0), "least and greatest motion over the exposure in pixels", low=0, metavar=("MIN", "MAX")
    )
    new_vth: tuple[float, ...] = option((1.0,), "firing thresholds to simulate", above=0)
    workers: int = option(CORES, "samples rendered at a time", low=1)
    shard: Shard = shard_option("captures, and of the new samples,")

    def __post_init__(self):
        check_motion(*self.motion_at_720p)

    @property
    def motion_at_720p(self) -> tuple[float, float]:
        """The range of motion in the unit of :class:`DemoConfig`."""
        low, high = (pixels * 720 / self.size.height for pixels in self.motion)
        return low, high


@dataclass(frozen=True)
class AdaptConfig:
    """What to adapt to, and for how long."""

    captures: Path = option(..., "folder of the captures", positional=True, metavar="CAPTURES")
    out: Path = option("exp/adapted", "folder for weights and page")
    minutes: float = option(10.0, "of training; a short timing says how many steps that is", above=0)
    steps: int | None = option(None, "optimiser steps, instead of --minutes", low=0)
    init_path: Path | None = option(None, "weights to begin from: of SDMNet, or an LDN with pyramid and gain")
    exposure: slice | None = option(
        None,
        "spike frames of the exposure, as in deblur.py; otherwise 20:117 of 137 frames, auto of others",
        parse=read_exposure,
        metavar="START:END|auto[:N]",
        group=READ,
    )
    spike_size: Size | None = option(None, "size of the spikes; otherwise found", low=1, group=READ)
    tone: str = option("auto", "auto, linear, srgb or gamma:G", group=READ)
    align: Literal["auto", "off"] = option("auto", "registration of photographs and spikes", group=READ)
    scenes: int = option(160, "short films that are rendered, 3.3 MB each", low=1, group=MAKE)
    shrink: float = option(2.0, "how many times smaller than the captures, at most", low=1, group=MAKE)
    shown: int = option(8, "captures that are compared before and after", low=1, group=MAKE)
    lr: float = option(3e-4, "largest learning rate of Adam", low=0, group=TRAIN)
    bs: int = option(8, "scenes in a batch", low=1, group=TRAIN)
    roi_size: int = option(128, "side of the training crop in image pixels", low=16, high=132, group=TRAIN)
    seed: int = option(42, "of scenes and draws", low=0, group=TRAIN)
    precision: AutoPrecision = option("auto", AUTO_PRECISION, group=TRAIN)
    workers: int = option(-1, "loader processes (-1: one per core, at most 4)", low=-1, group=TRAIN)
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps", group=TRAIN)

    def training(self, steps: int) -> Config:
        """The run's configuration."""
        more = {
            "save_folder": self.out,
            "exp_name": "training",
            "max_steps": steps,
            "eval_every": 0,
            "state_every": 60.0,
        }
        more |= {"lr_schedule": "onecycle", "grad_clip": 1.0}
        same = ("lr", "bs", "roi_size", "seed", "precision", "workers", "device")
        return replace(Config(), **more, **{name: getattr(self, name) for name in same})  # type: ignore[arg-type]


def check_motion(low: float, high: float) -> None:
    """Refuse a range of motion, in pixels at 720p, that is none."""
    if not low <= high <= 720:
        raise InputError(f"--motion {low:g} {high:g}; expected MIN <= MAX <= 720 at 720p")
