"""Scenes: short films with known light, from the small photographs that captures become; rendered once, kept on disk.

    <folder>/pictures/*.png, scenes.json    the photographs, and which scenes are drawn from them
    <folder>/NNNNN/images.npy, light.npy    a window of a scene: the blurry image and 7 sharp ones, and its light

**Light.** A spike pixel sees the 2x2 image pixels in its middle, whatever its size (codes/making/sensor.py). So a scene
keeps the means over 2x2 pixels at *every* place: pixel (y, x) of ``light`` is the mean of the image's rows y and y + 1
and columns x and x + 1. A spike camera of any scale, moved by any fraction of a pixel, reads its light there by
bilinear interpolation (:mod:`codes.making.draws`).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from codes.errors import InputError, MissingFileError
from codes.exposure import EXPOSURE
from codes.files import replacing, write_json
from codes.image import GREY_WEIGHTS, to_float, write_image
from codes.making.options import ScenesConfig
from codes.making.photos import find_photos, usable
from codes.making.resimulation import shrunk, write_pictures
from codes.making.synthesis import Sample, Scene, draw_sample
from codes.random import rng as stream_of
from codes.tone import Tone

WINDOW = 144  # px, side of what is kept of a scene's frame
FRAME = (224, 384)  # px, the frame that the window is a part of: as large as cut-outs and motions are meant for
SLOW, FAST = (0.0, 10.0), (5.0, 120.0)  # px, motions over the exposure
RECORD = "scenes.json"


@dataclass(frozen=True)
class SceneDraw:
    """What a scene is.

    Args:
        sample: photographs and motion, in a frame of :data:`FRAME`.
        corner: (top, left) of the window in the frame, px.
        gain: by what the light is multiplied; above 1 highlights saturate, in image and spikes.
        tint: factors of B, G and R, a cast of colour.
    """

    sample: Sample
    corner: tuple[int, int]
    gain: float
    tint: tuple[float, float, float]


def draw_scene(index: int, photos, seed: int) -> SceneDraw:
    """Draw scene ``index``: a quarter of them slow, one in six too bright, one in six with a cast of colour."""
    rng = stream_of("scenes", seed, index)
    slowest, fastest = SLOW if rng.random() < 0.25 else FAST
    motion = slowest * 720 / FRAME[0], fastest * 720 / FRAME[0]  # draw_sample's unit is 720p
    sample = draw_sample("train", index, photos, size=FRAME, motion=motion, max_foregrounds=3, seed=seed)
    corner = int(rng.integers(FRAME[0] - WINDOW + 1)), int(rng.integers(FRAME[1] - WINDOW + 1))
    gain = float(rng.uniform(1.1, 2.0)) if rng.random() < 1 / 6 else 1.0
    tint = rng.uniform(0.4, 1, 3) if rng.random() < 1 / 6 else np.ones(3)
    return SceneDraw(sample, corner, gain, tuple((tint / tint.max()).tolist()))


def render_window(draw: SceneDraw) -> tuple[np.ndarray, np.ndarray]:
    """Render a scene's window.

    Returns:
        images, uint8 ``(8, 144, 144, 3)``, B,G,R: the blurry image and the 7 sharp ones of the sequence protocol;
        light, uint8 ``(143 * 143, 137)``, grey, before the gain: the means over 2x2 pixels, one row for each place. It
        is rounded at random, so that means over time are true to less than a step.
    """
    scene, rng = Scene(draw.sample), stream_of("rounding", draw.sample.seed, draw.sample.index)
    offset = np.array(draw.corner[::-1], float)
    matrices = scene.background.matrices
    matrices[..., 2] += matrices[..., :2] @ offset
    scene.background.size = (WINDOW, WINDOW)
    for foreground in scene.foregrounds:
        foreground.size = (WINDOW, WINDOW)
        foreground.anchor = foreground.anchor - offset
    tint, weights = np.array(draw.tint, np.float32), np.array([GREY_WEIGHTS], np.float32)
    total, sharps = np.zeros((WINDOW, WINDOW, 3), np.float32), []
    light = np.empty((EXPOSURE.total, WINDOW - 1, WINDOW - 1), np.uint8)
    for time, frame in enumerate(scene):
        frame = frame * tint
        if EXPOSURE.start <= time < EXPOSURE.stop:
            total += frame
        if time in EXPOSURE.sequence_instants:
            sharps.append(frame * draw.gain)
        seen = cv2.boxFilter(cv2.transform(frame, weights), -1, (2, 2), anchor=(0, 0))[:-1, :-1]
        light[time] = seen * np.float32(255) + rng.random(seen.shape, dtype=np.float32)
    images = np.stack([total * (draw.gain / EXPOSURE.length), *sharps])
    return np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8), np.ascontiguousarray(light.reshape(len(light), -1).T)


def write_scene(draw: SceneDraw, folder: Path) -> None:
    """Write a scene's images.npy and, last, light.npy; one that exists stays."""
    if (folder / "light.npy").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(("images", "light"), render_window(draw), strict=True):
        with replacing(folder / f"{name}.npy") as path, open(path, "wb") as file:
            np.save(file, array)


def write_picture(path: Path, frame: np.ndarray, tone: Tone, most: float) -> None:
    """Write a deblurred frame as a small photograph in linear light, still large enough to fill a scene's frame.

    Args:
        path: of the picture.
        frame: uint8 ``(H, W, 3)``, B,G,R.
        tone: its curve.
        most: how many times smaller at most.
    """
    light = torch.from_numpy(tone.linear(to_float(frame)))  # (3, H, W)
    factor = min(most, *(side / least for side, least in zip(frame.shape, FRAME, strict=False)))
    write_image(path, shrunk(light, max(factor, 1.0)))


def write_record(folder: Path, photos: list[str], count: int, seed: int) -> None:
    """Say in scenes.json what the scenes of a folder are; ``photos`` are files below it."""
    write_json(folder / RECORD, {"seed": seed, "count": count, "photos": photos})


def read_scenes(folder: Path) -> list[SceneDraw]:
    """The scenes of a folder, whether they are rendered yet or not.

    Raises:
        MissingFileError: it has no scenes.json.
        InputError: that is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        raise MissingFileError(f"no scenes: {path} does not exist; scripts/make_scenes.py makes them")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        photos, count, seed = [str(folder / name) for name in record["photos"]], record["count"], record["seed"]
        return [draw_scene(index, photos, seed) for index in range(count)]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise InputError(f"{path} is damaged; make the scenes anew") from None


def render(folder: Path) -> None:
    """Render the scenes of a folder that are not there."""
    for index, scene in enumerate(tqdm(read_scenes(folder), unit="scene", disable=None)):
        write_scene(scene, folder / f"{index:05}")


def make_scenes(cfg: ScenesConfig) -> None:
    """Deblur, shrink, render (scripts/make_scenes.py).

    Raises:
        InputError: the folder holds other scenes.
    """
    cv2.setNumThreads(1)
    pictures, path = cfg.out / "pictures", cfg.out / RECORD
    print(
        f"{pictures}: {len(write_pictures(cfg, pictures))} photographs, {cfg.shrink:g} times smaller than the captures"
    )
    photos = [f"pictures/{name}" for name in usable(find_photos(pictures))]
    if path.is_file():
        read_scenes(cfg.out)  # refuses what is damaged
        before = json.loads(path.read_text(encoding="utf-8"))
        if (before["seed"], before["photos"]) != (cfg.seed, photos):
            raise InputError(f"{cfg.out} holds scenes of another --seed or other pictures; choose another --out")
    write_record(cfg.out, photos, cfg.count, cfg.seed)
    scenes = read_scenes(cfg.out)
    if cfg.render:
        render(cfg.out)
    print(f"{cfg.out}: {len(scenes)} scenes")
