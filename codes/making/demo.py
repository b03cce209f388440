"""A data set in the GOPRO layout made from photographs, with exact ground truth (:mod:`codes.making.synthesis`)."""

import json
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import cv2
from tqdm import tqdm

from codes.errors import InputError
from codes.files import write_json
from codes.making.options import DemoConfig
from codes.making.photos import BUNDLED_TEST, find_photos, split_photos, usable
from codes.making.synthesis import SPLITS, Sample, draw_sample, read_cutout, sequence_name, write_sample

RECORD = "demo_data.json"


def make_data_set(cfg: DemoConfig) -> None:
    """Make the data set that the options ask for; what exists of it stays."""
    wanted = {"train": cfg.train, "test": cfg.test}
    files = find_photos(cfg.photos, cfg.out)
    checksums = usable(files)
    chosen = BUNDLED_TEST if cfg.photos is None and cfg.test_photos is None else cfg.test_photos
    photos = split_photos(list(checksums), chosen, wanted)
    options: dict = {"foregrounds": cfg.foregrounds, "no_noise": not cfg.noise, "seed": cfg.seed}
    options |= {key: list(getattr(cfg, key)) for key in ("motion", "size", "vth")} | {"samples": wanted}
    options["photos"] = {split: {name: checksums[name] for name in photos[split]} for split in SPLITS}
    cutouts: dict[str, list[Path]] = {split: [] for split in SPLITS}
    options["cutouts"] = None
    if cfg.cutouts is not None:
        pictures = find_photos(cfg.cutouts, cfg.out, "--cutouts")
        checksums = usable(pictures, read_cutout)
        shared = split_photos(list(checksums), None, wanted)
        options["cutouts"] = {split: {name: checksums[name] for name in shared[split]} for split in SPLITS}
        cutouts = {split: [pictures[name] for name in shared[split]] for split in SPLITS}
    paths = {split: [files[name] for name in photos[split]] for split in SPLITS}
    drawn: dict = {"size": cfg.size, "motion": cfg.motion, "max_foregrounds": cfg.foregrounds, "seed": cfg.seed}
    drawn |= {"vth": cfg.vth, "noise": cfg.noise}
    samples = [
        draw_sample(split, i, paths[split], cutouts=cutouts[split], **drawn)
        for split in SPLITS
        for i in range(wanted[split])
    ]
    if cfg.shard.merges:
        cfg.shard.require("samples", {f"{sample.split}/{sample.name}": sample.exists(cfg.out) for sample in samples})
    open_folder(cfg.out, options, cfg.overwrite)
    for split in SPLITS:
        rows = [describe(sample) for sample in samples if sample.split == split]
        write_json(cfg.out / split / "samples.json", rows)
        print(f"{split}: {len(rows)} samples of {len(photos[split])} photographs: {', '.join(photos[split][:8])}")
    write_all(cfg.shard.of(samples), cfg.out, cfg.workers)
    print(f"{cfg.out}: {f'part {cfg.shard} ' if cfg.shard.is_part else ''}done")


def open_folder(out: Path, options: dict, overwrite: bool) -> None:
    """Give the folder to this configuration: refuse what disagrees, or with ``overwrite`` delete its samples."""
    record = out / RECORD
    # Looked at before the record, which another part may be writing: what is there without one is not ours.
    filled = out.is_dir() and not all(path.match(f".{record.stem}.*.tmp.json") for path in out.iterdir())
    if record.is_file():
        try:
            old = json.loads(record.read_text())
            names = [
                (split, sequence_name(i, list(old["photos"][split])[i % len(old["photos"][split])]))
                for split in SPLITS
                for i in range(old["samples"][split])
            ]
        except (ValueError, LookupError, TypeError, AttributeError):
            raise InputError(f"{record} is damaged; delete the folder or choose another --out") from None
        changed = [key for key in options if key != "samples" and options[key] != old.get(key)]
        changed += [f"fewer {split} samples" for split in SPLITS if options["samples"][split] < old["samples"][split]]
        if changed and not overwrite:
            raise InputError(
                f"{out} was made with other options ({', '.join(changed)}); "
                "choose another --out, or --overwrite to make it anew"
            )
        for split, name in names if overwrite else ():  # only what the record names: other files are not ours
            # Spikes first: a sample exists when they do.
            for folder in [*out.glob(f"{split}/spike_data*"), out / split / "blur_data", out / split / "sharp_data"]:
                if (folder / name).exists():
                    shutil.rmtree(folder / name)
    elif filled or out.exists() and not out.is_dir():
        raise InputError(f"--out {out} exists and is not this program's work; choose another folder")
    write_json(record, options)


def describe(sample: Sample) -> dict:
    """What samples.json tells of a sample, for tables by motion."""
    return {
        "sequence": sample.name,
        "photo": Path(sample.photo).name,
        "motion_px": sample.motion,
        "vth": sample.vth,
        "seed": [sample.seed, sample.split, sample.index],
        "foregrounds": [{"photo": Path(photo).name, "motion_px": motion} for photo, motion in sample.foregrounds],
    }


def write_all(samples: Sequence[Sample], out: Path, workers: int) -> None:
    """Write the samples that do not exist yet."""
    todo = [sample for sample in samples if not sample.exists(out)]
    # Threads, not processes: OpenCV and NumPy let them run side by side, and no worker has to import torch anew.
    cv2.setNumThreads(1)
    bar = tqdm(total=len(samples), initial=len(samples) - len(todo), unit="sample", disable=None)
    with bar, ThreadPoolExecutor(workers) as pool:
        try:
            for future in as_completed([pool.submit(write_sample, sample, out) for sample in todo]):
                future.result()
                bar.update()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                print("finishing the samples under way; the same command goes on from there", file=sys.stderr)
            pool.shutdown(wait=False, cancel_futures=True)  # leaving the block waits for the samples under way
            raise
