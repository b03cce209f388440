"""Training data of a student for captures that are not ideal: known scenes, recorded anew by another camera each time.

A *scene* (:func:`write_scene`) is a short film with known light, rendered once and kept on disk. A *draw*
(:class:`Draw`) is all that a capture of it can differ in: firing threshold, noise, light, size and place of the spike
pixels, length of the exposure, grey images. The data set (:class:`Draws`) draws for each sample and epoch,
simulates the sensor on the training crop, and gives what the student is given: the blurry image, the spike pyramid and
the sharp frames that belong to it. All of it depends on (seed, sample, epoch) alone.

**Light.** A spike pixel sees the 2x2 image pixels in its middle, whatever its size (codes/making/sensor.py). So a scene
keeps the means over 2x2 pixels at *every* place: pixel (y, x) of ``light`` is the mean of the image's rows y and y + 1
and columns x and x + 1. A spike camera of any scale, moved by any fraction of a pixel, reads its light there by
bilinear interpolation.

**Sensor.** With a constant threshold the voltage before the remainder is taken is a running sum, and a pixel fires
whenever the sum passes another multiple of the threshold; more than one multiple in a frame is still one spike. This is
:func:`codes.making.sensor.integrate_and_fire` without its loop over frames.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from codes.errors import InputError, MissingFileError
from codes.exposure import EXPOSURE, SCALE
from codes.files import replacing, write_json
from codes.image import GREY_WEIGHTS, to_float, write_image
from codes.making.options import ScenesConfig
from codes.making.photos import find_photos, usable
from codes.making.resimulation import shrunk, write_pictures
from codes.making.sensor import GAIN, NOISE_GAP_MEAN, NOISE_GAP_STD, VTH_UNIT
from codes.making.synthesis import Sample, Scene, draw_sample
from codes.random import rng as stream_of
from codes.student import exposure_gain, spike_pyramid
from codes.tone import Tone

WINDOW = 144  # px, side of what is kept of a scene's frame
FRAME = (224, 384)  # px, the frame that the window is a part of: as large as cut-outs and motions are meant for
SLOW, FAST = (0.0, 10.0), (5.0, 120.0)  # px, motions over the exposure
RECORD = "scenes.json"


# Scenes --------------------------------------------------------------


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


# Draws ---------------------------------------------------------------


@dataclass(frozen=True)
class Draw:
    """How a scene is recorded; the defaults are the paper's.

    Args:
        vth: firing threshold in the paper's unit.
        noise: multiple of the sensor's inherent noise.
        pattern: spread of the pixels' thresholds, in natural logarithms.
        light: share of the light that the spike camera gets.
        dim: share of the light that scene, image and spikes have.
        ratio: image pixels per spike pixel, each way.
        phase: (down, right) by which the grid of spike pixels begins before the crop, in image pixels.
        smooth: coarse spikes are brought to the network's grid by bilinear interpolation, not the nearest spike pixel.
        corners: by what the spike camera looks too far (down, right) at the crop's corners, in image pixels; top left,
            top right, bottom left, bottom right.
        stretch: spike frames under the exposure, in multiples of the official 97; the network is given means over spans
            of them.
        settled: whether voltages start anywhere below the threshold, as in a camera that has long been running;
            else with at most a frame's light, as in the official simulator.
        grey: whether the image is grey.
        enlarged: by what factor the image was enlarged from the photograph, 1 or more.
        tone: curve with which the photograph's 8 bits code its light (:class:`codes.tone.Tone`).
    """

    vth: float = 1.0
    noise: float = 1.0
    pattern: float = 0.0
    light: float = 1.0
    dim: float = 1.0
    ratio: float = float(SCALE)
    phase: tuple[float, float] = (0.0, 0.0)
    smooth: bool = False
    corners: tuple[tuple[float, float], ...] = ((0.0, 0.0),) * 4
    stretch: float = 1.0
    settled: bool = False
    grey: bool = False
    enlarged: float = 1.0
    tone: str = "linear"


def random_draw(rng: np.random.Generator) -> Draw:
    """Draw how a scene is recorded: half of them as the paper does but for the threshold, the others with troubles."""

    def between(low: float, high: float) -> float:  # evenly on a logarithmic axis
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    draw = Draw(vth=between(0.5, 8), settled=bool(rng.random() < 0.5), grey=bool(rng.random() < 1 / 6))
    if rng.random() < 0.5:
        return draw
    if rng.random() < 0.5:
        draw = replace(draw, noise=float(rng.uniform(0, 4)))
    if rng.random() < 0.25:
        draw = replace(draw, light=between(0.1, 1))
    if rng.random() < 0.2:
        draw = replace(draw, dim=between(0.2, 1))
    if rng.random() < 0.3:
        ratio = between(2, 8)
        phase = tuple(rng.uniform(0, ratio, 2).tolist())
        draw = replace(draw, ratio=ratio, phase=phase, smooth=bool(rng.random() < 0.5))
    if rng.random() < 0.5:  # as registration leaves it
        corners = rng.uniform(-0.5, 0.5, 2) + rng.uniform(-0.5, 0.5, (4, 2))
        draw = replace(draw, corners=tuple(map(tuple, corners.tolist())))
    if rng.random() < 0.2:
        draw = replace(draw, stretch=between(1 / 3, 4))
    return draw


def spike_grid(side: int, ratio: float, phase: float, smooth: bool) -> tuple[np.ndarray, np.ndarray]:
    """Spike pixels along one side of a crop, and how they are brought to the network's grid.

    Args:
        side: of the crop in image pixels.
        ratio, phase, smooth: as in :class:`Draw`.

    Returns:
        The centres of the n spike pixels in image pixels from the crop's edge, ``(n,)``, and the weights
        ``(side / 4, n)`` of each in the pixels of the network's grid: the nearest one (of coarser pixels), bilinear, or
        (of finer ones) the share of the pixel that each covers. Rows sum to 1.
    """
    places = SCALE * np.arange(side // SCALE) + SCALE / 2  # middles of the network's pixels
    first, last = int(np.floor(phase / ratio)) - 1, int(np.ceil((side + phase) / ratio)) + 1
    centres = (np.arange(first, last) + 0.5) * ratio - phase
    if ratio < SCALE:
        low, high = places[:, None] - SCALE / 2, places[:, None] + SCALE / 2
        cover = np.minimum(high, centres + ratio / 2) - np.maximum(low, centres - ratio / 2)
        weights = np.maximum(cover, 0) / SCALE
    elif smooth:
        weights = np.maximum(1 - np.abs(places[:, None] - centres) / ratio, 0)
    else:
        weights = np.zeros((len(places), len(centres)))
        weights[np.arange(len(places)), np.floor((places + phase) / ratio).astype(int) - first] = 1
    used = weights.any(axis=0)
    return centres[used], weights[:, used].astype(np.float32)


def watch(light: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Light on spike pixels anywhere.

    Args:
        light: uint8 ``(n * n, T)``, a scene's.
        y, x: float ``(P,)``, the pixels' centres in image pixels from the window's edge.

    Returns:
        float32 ``(P, T)`` in [0, 255].
    """
    side = round(len(light) ** 0.5)
    y, x = (np.clip(place - 1, 0, side - 1.001) for place in (y, x))  # place of the 2x2 pixels around the centre
    top, left = y.astype(np.int64), x.astype(np.int64)
    down, right = ((place - whole).astype(np.float32)[:, None] for place, whole in ((y, top), (x, left)))
    seen = np.zeros((len(y), light.shape[1]), np.float32)
    for row, rows in ((0, 1 - down), (1, down)):
        for column, columns in ((0, 1 - right), (1, right)):
            share = rows * columns
            if share.any():
                seen += share * light[(top + row) * side + left + column]
    return seen


def fire(charge: np.ndarray, start: np.ndarray, vth: float) -> np.ndarray:
    """Integrate and fire without a loop: who passes another multiple of the threshold.

    Args:
        charge: float32 ``(P, T)``, voltage that each frame adds.
        start: float32 ``(P,)``, voltage at the beginning.
        vth: firing threshold in the paper's unit.

    Returns:
        bool ``(P, T)``.
    """
    sums = np.cumsum(charge, axis=1)
    sums += start[:, None]
    passed = np.floor(sums / np.float32(vth * VTH_UNIT))
    before = np.floor(start / np.float32(vth * VTH_UNIT))
    return np.diff(passed, axis=1, prepend=before[:, None]) > 0


def noise_spikes(shape: tuple[int, int], rate: float, rng: np.random.Generator) -> np.ndarray:
    """Spikes without light: :func:`codes.making.sensor.inherent_noise` at ``rate`` times its rate; bool ``(P, T)``."""
    line = np.zeros(shape[0] * shape[1], bool)
    if rate > 0:
        mean, spread = NOISE_GAP_MEAN / rate, NOISE_GAP_STD / rate
        places = np.cumsum(rng.normal(mean, spread, int(len(line) / mean * 1.1) + 32))
        line[places[(places >= 0) & (places < len(line))].astype(np.int64)] = True
    return line.reshape(shape)


def spans(spikes: np.ndarray, frames: int) -> np.ndarray:
    """Means over ``frames`` equal spans of a stream: bool ``(P, T)`` to float32 ``(P, frames)`` in [0, 1]."""
    total = spikes.shape[1]
    sums = np.zeros((len(spikes), total + 1), np.float32)
    np.cumsum(spikes, axis=1, out=sums[:, 1:])
    edges = np.arange(frames + 1) * (total / frames)
    whole = np.minimum(edges.astype(np.int64), total - 1)
    part = (edges - whole).astype(np.float32)
    at_edges = sums[:, whole] * (1 - part) + sums[:, whole + 1] * part
    return np.diff(at_edges, axis=1) * np.float32(frames / total)


def record(light: np.ndarray, gain: float, draw: Draw, corner: tuple[int, int], side: int, rng) -> np.ndarray:
    """What the spike camera of a draw records of a crop, on the network's grid.

    Args:
        light: a scene's, uint8 ``(143 * 143, 137)``.
        corner: (top, left) of the crop in the window.
        side: of the crop in image pixels.
        rng: of the sensor.

    Returns:
        float32 ``(137, side / 4, side / 4)``: zeros and ones, or means of some.
    """
    (y, rows), (x, columns) = (spike_grid(side, draw.ratio, phase, draw.smooth) for phase in draw.phase)
    y, x = np.repeat(y, len(x)), np.tile(x, len(y))
    down, right = (np.clip(place / side, 0, 1) for place in (y, x))
    shares = np.stack([(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right], axis=1)
    shift = shares @ np.array(draw.corners)
    seen = watch(light, y + corner[0] + shift[:, 0], x + corner[1] + shift[:, 1])
    frames = max(round(EXPOSURE.total * draw.stretch), 1)
    if frames != EXPOSURE.total:
        seen = seen[:, ((np.arange(frames) + 0.5) * EXPOSURE.total / frames).astype(np.int64)]
    seen *= np.float32(GAIN * gain * draw.light * draw.dim / 255)
    if draw.pattern:  # light per threshold is all that a pixel knows
        seen *= np.exp(draw.pattern * rng.standard_normal((len(seen), 1), dtype=np.float32))
    start = rng.random(len(seen), dtype=np.float32) * np.float32(draw.vth * VTH_UNIT if draw.settled else GAIN)
    spikes = fire(seen, start, draw.vth) | noise_spikes(seen.shape, draw.noise, rng)
    spikes = spikes.astype(np.float32) if frames == EXPOSURE.total else spans(spikes, EXPOSURE.total)
    spikes = spikes.reshape(rows.shape[1], columns.shape[1], -1)
    if draw.ratio != SCALE or any(draw.phase):
        spikes = np.einsum("iy,yxt,jx->ijt", rows, spikes, columns, optimize=True)
    return np.ascontiguousarray(spikes.transpose(2, 0, 1))


def photographed(image: np.ndarray, draw: Draw) -> np.ndarray:
    """The light of a blurry image as a photograph tells it: of its pixels and its 8 bits.

    Args:
        image: float32 ``(S, S, 3)`` in [0, 1].
        draw: how it is taken.

    Returns:
        float32 ``(S, S, 3)`` in [0, 1].
    """
    tone, size = Tone(draw.tone), image.shape[1::-1]
    if draw.enlarged > 1:
        pixels = tuple(round(side / draw.enlarged) for side in size)
        image = cv2.resize(image, pixels, interpolation=cv2.INTER_AREA)
    image = tone.linear(np.rint(tone.coded(image) * 255) / np.float32(255)).astype(np.float32)
    if draw.enlarged > 1:
        image = np.clip(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), 0, 1)
    return image


# The data set --------------------------------------------------------


class Draws(torch.utils.data.Dataset):
    """Scenes, recorded anew in each epoch, as what the student is given.

    Samples are dictionaries: ``blur`` float32 ``(3, S, S)``, B,G,R in [0, 1]; ``spike`` float32
    ``(M, 21, S/4, S/4)``, the pyramids (:func:`codes.student.spike_pyramid`) of M instants, made as bright as the
    image; ``sharps`` float32 ``(M, 3, S, S)``, the frames at these instants; ``name``. An item is asked for by its
    index or by (index, epoch).

    Args:
        folder: scenes that scripts/make_scenes.py made; those that are missing are rendered when they are first needed.
        side: S, side of the crop in image pixels, a multiple of 4 of at most 132.
        instants: M of the 7 instants of the sequence protocol; the first and the last twice as often as others.
        seed: of all draws.
        without: fields of :class:`Draw` that stay as they are in the paper, for trials; the other draws are the same.
        draw: draws how a scene is recorded; None: :func:`random_draw`.

    Raises:
        MissingFileError: the folder holds no scenes.
        InputError: the crop is too large, or the record is damaged.
    """

    def __init__(
        self,
        folder,
        side: int = 128,
        instants: int = 2,
        seed: int = 0,
        without=(),
        draw: Callable[[np.random.Generator], Draw] | None = None,
    ):
        self.folder, self.side, self.instants, self.seed = Path(folder), side, instants, seed
        self.draw = draw or random_draw
        self.paper = {name: getattr(Draw(), name) for name in without}
        if side % SCALE or not SCALE <= side <= WINDOW - 12:
            raise InputError(f"a crop of {side} pixels; expected a multiple of {SCALE} of at most {WINDOW - 12}")
        self.scenes = read_scenes(self.folder)
        self.names = [f"{index:05}" for index in range(len(self.scenes))]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, item) -> dict:
        index, epoch = item if isinstance(item, tuple) else (item, 0)
        rng = stream_of("records", self.seed, epoch, index)
        draw = replace(self.draw(rng), **self.paper)
        scene = self.scenes[index]
        write_scene(scene, self.folder / self.names[index])
        images, light = (
            np.load(self.folder / self.names[index] / f"{name}.npy", mmap_mode="r") for name in ("images", "light")
        )
        top, left = (int(rng.integers(6, WINDOW - self.side - 5)) for _ in range(2))
        odds = np.ones(len(EXPOSURE.sequence_instants))
        odds[[0, -1]] = 2
        chosen = np.sort(rng.choice(len(odds), self.instants, replace=False, p=odds / odds.sum()))
        images = images[np.array([0, *(chosen + 1)]), top : top + self.side, left : left + self.side]
        images = images.astype(np.float32) * np.float32(draw.dim / 255)
        if draw.grey:
            images = np.repeat(images @ np.array(GREY_WEIGHTS, np.float32)[:, None], 3, axis=-1)
        images[0] = photographed(images[0], draw)
        spike = record(light, scene.gain, draw, (top, left), self.side, rng)
        turns, mirror = int(rng.integers(4)), rng.random() < 0.5
        images, spike = (np.rot90(x, turns, (-2, -1)) for x in (images.transpose(0, 3, 1, 2), spike))
        if mirror:
            images, spike = images[..., ::-1], spike[..., ::-1]
        images, spike = (torch.from_numpy(np.ascontiguousarray(x)) for x in (images, spike))
        blur, stream = images[:1], spike[None]
        pyramid = spike_pyramid(stream, [EXPOSURE.sequence_instants[i] for i in chosen])[0]
        return {
            "name": self.names[index],
            "blur": blur[0],
            "spike": pyramid * exposure_gain(blur, stream),
            "sharps": images[1:],
        }
