"""The teacher's textures, made once for whole frames and kept on disk, so that no teacher runs in the training loop.

    <folder>/<key>/about.json              what the textures depend on, in words; the key is its checksum
    <folder>/<key>/<path of a .dat>.npy    float16 (1 + M, H, W): E_long, then E_short(t) at the M instants

The labels follow from a crop of these and of the blurry image by :meth:`codes.sdm.Teacher.labels`. They differ from
labels made crop by crop in two ways: the networks see beyond the edge of the crop, and textures are rounded to float16.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from codes.cache import ArrayCache, stamp
from codes.dataset import SCALE, SpikeData
from codes.engine import distributed
from codes.errors import InputError
from codes.files import write_text
from codes.labels import Distilled, Kept
from codes.sdm import Teacher
from codes.spike import EXPOSURE

FORMAT = 1
"""To be raised with every change of this program that changes textures."""


def describe_network(network: nn.Module) -> str:
    """A network in words: its class and a checksum of its weights, or its settings where it has no weights."""
    state = network.state_dict()
    if not state:
        return str(network)
    checksum = hashlib.sha256()
    for name in sorted(state):
        values = state[name].detach().cpu().contiguous().numpy()
        checksum.update(f"{name} {values.dtype} {values.shape} ".encode() + values.tobytes())
    return f"{type(network).__name__}, weights {checksum.hexdigest()}"


def describe(teacher: Teacher, instants: Sequence[int], precision: str) -> dict:
    """Everything that the textures of a .dat file depend on."""
    window = teacher.length if teacher.raw else 2 * (teacher.length // 2) + 1
    return {
        "format": FORMAT,
        "E_long": f"enlarge(mean of the spikes [{EXPOSURE.start}, {EXPOSURE.stop}))",
        "E_short": f"enlarge(denoise({'' if teacher.raw else 'mean of '}{window} frames around the instant))",
        "denoise": describe_network(teacher.denoise),
        "enlarge": describe_network(teacher.enlarge),
        "instants": list(instants),
        "precision": precision,
    }


def kept(source: Distilled, run, dataset: SpikeData) -> Distilled | Kept:
    """The same labels of textures in ``--teacher_cache``, which are made first; the data set then hands them out."""
    if run.done:
        return source
    dataset.textures = cached_textures(run, source.teacher, dataset, source.instants(0))
    return Kept(source.instants)


def cached_textures(run, teacher: Teacher, dataset: SpikeData, instants: Sequence[int]) -> ArrayCache:
    """The textures of a data set in ``--teacher_cache``; those that are missing or out of date are made first.

    Args:
        run: the run (:class:`codes.engine.run.Run`); gives folder, precision and device.
        teacher: on the run's device.
        dataset: the training split.

    Raises:
        OSError: they do not fit on the disk, or the folder is not writable.
    """
    about = json.dumps(describe(teacher, instants, run.cfg.precision), indent=1)
    folder = Path(run.cfg.teacher_cache) / hashlib.sha256(about.encode()).hexdigest()[:16]
    cache = ArrayCache(folder, "--teacher_cache")
    missing = _missing(cache, dataset)
    sizes = [texture_bytes(path, len(instants)) for path in dataset.spike_paths]
    run.say(
        f"teacher cache: {len(sizes)} samples, {sum(sizes) / len(sizes) / 1e6:.1f} MB each, {sum(sizes) / 1e9:.1f} GB; "
        f"{len(missing) or 'none'} to make, in {folder}"
    )
    if missing:
        check_space(folder, sum(sizes[index] for index in missing))
        write_text(folder / "about.json", about + "\n")

    def make(index: int) -> None:
        source = dataset.spike_paths[index]
        state = stamp(source)
        try:
            spike = dataset.whole(index)["spike"][None].to(run.device)
        except (OSError, InputError):
            if dataset.skip_bad:  # counted where it is drawn
                return
            raise
        with torch.inference_mode(), run.autocast():
            textures = teacher.textures(spike, instants)[0]
        cache.write(source, textures.to(torch.float16).cpu().numpy(), state)

    _in_turn(make, distributed.broadcast(missing)[distributed.rank() :: distributed.world()])
    if distributed.world() > 1:  # the folder may be each machine's own
        _in_turn(make, _missing(cache, dataset)[distributed.local_rank() :: distributed.launched_here()])
    return cache


def _missing(cache: ArrayCache, dataset: SpikeData) -> list[int]:
    return [index for index, path in enumerate(dataset.spike_paths) if cache.read(path) is None]


def _in_turn(make: Callable[[int], None], todo: list[int]) -> None:
    """Make this rank's part, and hear from the others after each: hours without an exchange would end in a timeout."""
    hide = distributed.rank() > 0 or not sys.stderr.isatty()
    with tqdm(total=len(todo), desc="teacher cache", unit="sample", leave=False, disable=hide) as bar:
        while distributed.any_rank(bool(todo)):
            if todo:
                make(todo.pop(0))
                bar.update()


def texture_bytes(path: Path, instants: int) -> int:
    """Bytes of the textures of a .dat file, from its length alone."""
    pixels = path.stat().st_size // EXPOSURE.total * 8 * SCALE**2
    return (1 + instants) * pixels * np.dtype(np.float16).itemsize


def check_space(folder: Path, needed: int) -> None:
    """Refuse what does not fit on the disk of ``folder``, which need not exist yet."""
    there = next(parent for parent in folder.absolute().parents if parent.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise OSError(
            f"the teacher cache needs {needed / 1e9:.1f} GB more, but {there} has {free / 1e9:.1f} GB free; "
            "make room, choose another disk for --teacher_cache, or leave it out"
        )
