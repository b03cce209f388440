"""Training data with known sharp frames from nothing but captures (scripts/resimulate.py says how)."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Subset
from tqdm import tqdm

from codes.dataset import SpikeData
from codes.engine.device import choose_device, keep_memory, place
from codes.engine.loader import loader
from codes.engine.shard import WHOLE, Shard
from codes.engine.textures import describe_network
from codes.engine.weights import load_student
from codes.errors import InputError
from codes.exposure import EXPOSURE
from codes.files import recorded, write_json
from codes.image import read_image, to_uint8, write_image
from codes.making.demo import make_data_set
from codes.making.options import CapturesConfig, DemoConfig, ResimulateConfig
from codes.making.photos import SMALLEST_PHOTO
from codes.motion import Joined
from codes.sdm import Teacher
from codes.student import Sight
from codes.tone import Tone


def resimulate(cfg: ResimulateConfig) -> None:
    """Deblur, shrink, simulate."""
    keep_memory()
    pictures = cfg.out / "pictures"
    names = write_pictures(cfg, pictures, cfg.shard)
    awaited = sum(not (pictures / name).is_file() for name in names)
    print(f"{pictures}: {len(names) - awaited} photographs, {cfg.shrink:g} times smaller than the captures")
    if awaited:  # each sample may show any of them
        print(f"{awaited} are still to come from other parts; the same command then makes the samples of {cfg.shard}")
        return
    wanted = DemoConfig(
        out=cfg.out / "GOPRO",
        photos=pictures,
        train=cfg.count,
        test=0,
        test_photos=(),
        size=cfg.size,
        motion=cfg.motion_at_720p,
        vth=cfg.new_vth,
        seed=cfg.seed,
        workers=cfg.workers,
        shard=cfg.shard,
    )
    make_data_set(wanted)


def shrunk(image: torch.Tensor, factor: float) -> np.ndarray:
    """An image ``(3, H, W)`` in [0, 1], ``factor`` times smaller by the mean over areas, as uint8 ``(h, w, 3)``."""
    picture = image.clamp(0, 1).permute(1, 2, 0).cpu().numpy()
    small = cv2.resize(picture, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    return to_uint8(small.transpose(2, 0, 1))


def refuse_small(captures: SpikeData, factor: float) -> None:
    """Refuse captures of which none is large enough to be a photograph when it is ``factor`` times smaller."""
    largest = (0, 0)
    for path in captures.blur_paths:
        largest = max(largest, read_image(path).shape[:2], key=min)
        if round(min(largest) / factor) >= SMALLEST_PHOTO:
            return
    most = int(100 * min(largest) / SMALLEST_PHOTO) / 100
    raise InputError(
        f"{captures.folder}: the largest image has {largest[0]}x{largest[1]} pixels; a photograph needs "
        f"{SMALLEST_PHOTO} each way after --shrink {factor:g}: "
        + (f"give at most --shrink {most:g}" if most >= 1 else "these captures are too small for any")
    )


def write_pictures(cfg: CapturesConfig, folder: Path, shard: Shard = WHOLE) -> list[str]:
    """Deblur the captures at the centre of the exposure and write them small; those that exist stay.

    Returns:
        the files' names, of all parts.

    Raises:
        InputError: none of the captures is large enough, or ``folder`` holds pictures that were made otherwise.
    """
    captures = SpikeData(cfg.base_folder, cfg.data_type, cfg.split, vth=cfg.vth)
    if cfg.tone:
        captures.camera = replace(captures.camera, tone=Tone(cfg.tone))
    names = [f"{name.replace('/', '_')}.png" for name in captures.names]
    if shard.merges:
        shard.require("captures", {name: (folder / name).is_file() for name in names})
    device, teacher, student = choose_device(cfg.device), Teacher.plain(21, "bilinear"), None
    if cfg.deblur_path:
        student = place(load_student(cfg.deblur_path), device).eval()

    def frames(blur, spike, instants):  # (M, 3, H, W)
        if student is None:
            return teacher(blur, spike, instants)[0]
        return student(blur, Sight.of(student)(blur, spike, instants))[0].clamp(0, 1)

    about = {"captures": str(captures.folder), "vth": cfg.vth, "shrink": cfg.shrink}
    if captures.camera.tone.name != "linear":
        about["tone"] = captures.camera.tone.name
    about["student"] = describe_network(student) if student else "none: the SDM on 21 frames, bilinear"
    about["frames"] = "joined along the motion"
    # A tone is recorded where there is one: folders from before know none.
    recorded(folder / "pictures.json", about | {"tone": about.get("tone")}, "choose another --out")
    refuse_small(captures, cfg.shrink)
    write_json(folder / "pictures.json", about)
    with torch.inference_mode():
        todo = [index for index in shard.of(range(len(names))) if not (folder / names[index]).is_file()]
        samples = loader(Subset(captures, todo))
        for index, sample in zip(
            todo, tqdm(samples, desc="captures", unit="capture", leave=False, disable=None), strict=True
        ):
            blur, spike, centre = sample["blur"].to(device), sample["spike"].to(device), [EXPOSURE.centre]
            image = Joined(blur[0], partial(frames, blur, spike), spike=spike[0])(centre)[0]
            write_image(folder / names[index], shrunk(image, cfg.shrink))
    return names
