"""Training data of a student for captures that are not ideal: known scenes, recorded anew by another camera each time.

A *draw* (:class:`Draw`) is all that a capture of a scene (:mod:`codes.making.scenes`) can differ in: firing threshold,
noise, light, size and place of the spike pixels, length of the exposure, grey images. The data set (:class:`Draws`)
draws for each sample and epoch, simulates the sensor on the training crop, and gives what the student is given: the
blurry image, the spike pyramid and the sharp frames that belong to it. All depends on (seed, sample, epoch) alone.

**Sensor.** With a constant threshold the voltage before the remainder is taken is a running sum, and a pixel fires
whenever the sum passes another multiple of the threshold; more than one multiple in a frame is still one spike. This is
:func:`codes.making.sensor.integrate_and_fire` without its loop over frames.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from codes.errors import InputError
from codes.exposure import EXPOSURE, SCALE
from codes.image import GREY_WEIGHTS
from codes.making.scenes import WINDOW, read_scenes, write_scene
from codes.making.sensor import GAIN, NOISE_GAP_MEAN, NOISE_GAP_STD, VTH_UNIT
from codes.random import rng as stream_of
from codes.student import Sight
from codes.tone import Tone

INTERVALS = Sight("intervals", gain=True)
"""What SDMNet sees."""


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
    """Draw how a scene is recorded: half as in the paper, a quarter at any threshold, a quarter with troubles too."""

    def between(low: float, high: float) -> float:  # evenly on a logarithmic axis
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    kind = rng.random()
    vth = between(1, 4) if kind < 0.5 else between(0.4, 12)
    draw = Draw(vth=vth, settled=bool(rng.random() < 0.5), grey=bool(rng.random() < 1 / 6))
    if kind < 0.75:
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


class Draws(torch.utils.data.Dataset):
    """Scenes, recorded anew in each epoch, as what the student is given.

    Samples are dictionaries: ``blur`` float32 ``(3, S, S)``, B,G,R in [0, 1]; ``spike`` float32
    ``(M, 21, S/4, S/4)``, what the student sees at M instants; ``sharps`` float32 ``(M, 3, S, S)``, the frames at these
    instants; ``name``. An item is asked for by its index or by (index, epoch).

    Args:
        folder: scenes that scripts/make_scenes.py made; those that are missing are rendered when they are first needed.
        side: S, side of the crop in image pixels, a multiple of 4 of at most 132.
        instants: M of the 7 instants of the sequence protocol; the first and the last twice as often as others.
        seed: of all draws.
        without: fields of :class:`Draw` that stay as they are in the paper, for trials; the other draws are the same.
        draw: draws how a scene is recorded; None: :func:`random_draw`.
        sight: what the student sees of a stream.

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
        sight: Sight = INTERVALS,
    ):
        self.folder, self.side, self.instants, self.seed = Path(folder), side, instants, seed
        self.sight = sight
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
        return {
            "name": self.names[index],
            "blur": blur[0],
            "spike": self.sight(blur, stream, [EXPOSURE.sequence_instants[i] for i in chosen])[0],
            "sharps": images[1:],
        }
