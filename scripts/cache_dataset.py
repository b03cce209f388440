"""Make the data cache of a data set ahead of time.

    python scripts/cache_dataset.py --base_folder GOPRO/ --cache CACHE

The train scripts (--cache CACHE) make what is missing as they go; this saves their first epoch that work. What the
train scripts read is kept, decoded: the blurry images of both splits and the sharp images of the test split, 3 bytes a
pixel, 2.8 MB per image of 720x1280, that is 2.8 MB per training sample and 5.5 MB per test sample. Spikes are read
straight from their .dat files. What is there and up to date is left alone.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import command
from codes.engine.options import option, parse_config


@dataclass(frozen=True)
class CacheConfig:
    """What is kept, and where."""

    base_folder: Path = option("GOPRO", "data set: the folder that holds train/ and test/")
    cache: Path = option(..., "folder of the cache; its disk needs room for 3 bytes a pixel of every image")
    data_type: Literal["GOPRO", "real"] = option("GOPRO", "layout of the data set; 'real' has no sharp images (RSB)")
    splits: tuple[Literal["train", "test"], ...] = option((), "splits to keep; by default those that there are")
    use_small: bool = option(False, "keep every 10th sample")
    vth: float = option(0.0, "firing threshold of the spikes: samples are those of spike_data_vth2 for 2", low=0)
    spike_full: bool = option(False, "samples are those of spike_full/")
    workers: int = option(-1, "processes (-1: one per core, at most 4)", low=-1)


def main(argv: list[str] | None = None) -> None:
    """Read each sample once through the cache."""
    cfg = parse_config(CacheConfig, argv)
    from torch.utils.data import ConcatDataset
    from tqdm import tqdm

    from codes.dataset import SCALE, SpikeData
    from codes.engine.loader import loader

    options = {"use_small": cfg.use_small, "vth": cfg.vth, "spike_full": cfg.spike_full, "cache": cfg.cache}
    options |= {"use_roi": True, "roi_size": SCALE}  # the smallest crop there is: decoding is the work here
    present = [split for split in ("train", "test") if (cfg.base_folder / split).is_dir()]
    parts = [
        SpikeData(cfg.base_folder, cfg.data_type, split, use_sharp=split == "test", **options)
        for split in cfg.splits or present or ("test",)
    ]
    source = loader(ConcatDataset(parts), workers=cfg.workers)
    for _sample in tqdm(source, desc="cache", unit="sample", disable=not sys.stderr.isatty()):
        pass
    kept = {part.cache.path(path) for part in parts for path in part.blur_paths + part.sharp_paths}
    size = sum(path.stat().st_size for path in kept)
    print(f"{sum(map(len, parts))} samples, {len(kept)} images, {size / 1e9:.3g} GB in {cfg.cache}")


if __name__ == "__main__":
    command(main)
