"""Blurry photographs with exact ground truth, made from still photographs: a moving camera, moving things.

A photograph lies behind the frame and moves under a smooth random camera path (a curve in the plane, with
a little rotation and zoom). Cut-outs of other photographs pass in front of it on paths of their own. The
137 sub-frames of this small film are rendered one after another, float32 B,G,R in [0, 1]. From them come

    blur    the mean of the 97 sub-frames under the exposure
    sharp   the sub-frames at the 7 instants of the sequence protocol
    spikes  all 137, each as the spike camera sees it at a quarter of the size, through the sensor model

just as the official program gets them from interpolated GOPRO video (S-SDM, arXiv 2403.09486, section 4.1),
and in its layout, `{blur_data,sharp_data,spike_data}/<sequence>/<frame>.{png,png,dat}`.

**Motion** is the length, in pixels of the frame, of the polyline through the 97 positions that one point
takes in the frame under the exposure. For the camera it is the scene point at the frame's centre at the
exposure's centre, about which the image also turns and zooms; for a cut-out it is its own centre. A path
is normalised to the length that was drawn, so the figure is exact. Turning and zooming are in proportion:
each adds at most 0.2 of the motion at half the frame's longer side from the centre.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from codes.dat import write_dat
from codes.errors import InputError
from codes.exposure import EXPOSURE, SCALE
from codes.image import read_image, write_image
from codes.making.sensor import seen_by_spike_camera, spikes_from_frames

SPLITS = ("train", "test")
FRAME = EXPOSURE.raw_frames + EXPOSURE.raw_frames // 2
"""Official number of exposure 1, the first that has 20 frames before it: 13 * 1 + 6 = 19."""


@dataclass(frozen=True)
class Sample:
    """All that decides the bytes of one sample.

    Args:
        split: "train" or "test"; a test sample shows its photograph upright.
        index: number of the sample in its split.
        photo: file of the photograph.
        motion: camera motion over the exposure in pixels of the frame (see the module).
        foregrounds: (file, motion in pixels) of each cut-out, the rearmost first.
        size: ``(H, W)`` of the frame, multiples of 4.
        seed: seed of the data set; the sample's own is (seed, split, index).
        vth: firing thresholds in the paper's unit; the spikes at the first are spike_data.
        noise: whether the sensor adds its inherent noise.
        cutouts: whether the cut-outs' files are pictures with an outline of their own (alpha), not photographs.
    """

    split: str
    index: int
    photo: str
    motion: float
    foregrounds: tuple[tuple[str, float], ...]
    size: tuple[int, int]
    seed: int
    vth: tuple[float, ...] = (1.0,)
    noise: bool = True
    cutouts: bool = False

    @property
    def name(self) -> str:
        """Name of the sequence, as in 0000_chelsea."""
        return sequence_name(self.index, self.photo)

    def paths(self, folder) -> tuple[Path, list[Path], list[Path]]:
        """Its files below ``folder``: the blurry image, the 7 sharp ones, the spikes at each threshold."""
        base = Path(folder, self.split)
        sharps = [base / "sharp_data" / self.name / f"{FRAME + offset:06}.png" for offset in EXPOSURE.sequence_offsets]
        spikes = [base / spike_folder(self.vth, i) / self.name / f"{FRAME:06}.dat" for i in range(len(self.vth))]
        return base / "blur_data" / self.name / f"{FRAME:06}.png", sharps, spikes

    def exists(self, folder) -> bool:
        """Whether it is written: its spikes at the first threshold come last."""
        return self.paths(folder)[2][0].is_file()

    def rng(self, purpose: int) -> np.random.Generator:
        """A source of randomness for one purpose: 0 what the sample is, 1 its scene, 2 its sensor."""
        return _rng(self.seed, self.split, self.index, purpose)


def _rng(seed: int, split: str, index: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng((seed, SPLITS.index(split), index, purpose))


def sequence_name(index: int, photo) -> str:
    """Name of a sample's sequence: its number and the photograph's stem, in ASCII letters, digits, - and _."""
    stem = unicodedata.normalize("NFKD", Path(photo).stem).encode("ascii", "ignore").decode()
    return f"{index:04}_{re.sub('[^A-Za-z0-9-]+', '_', stem).strip('_')[:40] or 'photo'}"


def draw_sample(
    split: str,
    index: int,
    photos: Sequence,
    *,
    size: tuple[int, int],
    motion: tuple[float, float],
    max_foregrounds: int,
    seed: int,
    vth: tuple[float, ...] = (1.0,),
    noise: bool = True,
    cutouts: Sequence = (),
) -> Sample:
    """Draw what sample ``index`` is. Photographs take turns; motions are uniform in ``motion`` (pixels at 720p).

    Foregrounds are ``cutouts`` if there are any, else pieces of ``photos``.
    """
    rng = _rng(seed, split, index, 0)
    low, high = (edge * size[0] / 720 for edge in motion)
    camera = rng.uniform(low, high)
    count = rng.integers(max_foregrounds + 1)
    pool = cutouts or photos
    foregrounds = tuple((str(pool[rng.integers(len(pool))]), rng.uniform(low, high)) for _ in range(count))
    photo = str(photos[index % len(photos)])
    return Sample(split, index, photo, camera, foregrounds, size, seed, vth, noise, bool(cutouts))


@dataclass(frozen=True)
class Motion:
    """How a plane moves in the frame: ``shift`` (137, 2) in px (x, y), ``angle`` (137,) in rad, ``zoom`` (137,).

    All three are neutral (0, 0 and 1) at the exposure's centre.
    """

    shift: np.ndarray
    angle: np.ndarray
    zoom: np.ndarray

    def inverse(self, time: int, anchor, turn: np.ndarray, pivot) -> np.ndarray:
        """Matrix (2, 3) from frame to plane: ``pivot`` of the plane lies on ``anchor`` + shift of the frame.

        ``turn`` (2, 2) takes a step in the frame to a step in the plane when angle and zoom are neutral.
        """
        cos, sin = np.cos(self.angle[time]), np.sin(self.angle[time])
        linear = turn @ np.array([[cos, sin], [-sin, cos]]) / self.zoom[time]
        return np.column_stack([linear, pivot - linear @ (anchor + self.shift[time])])


def draw_motion(length: float, reach: float, rng: np.random.Generator) -> Motion:
    """Draw a smooth curved path whose polyline through the 97 exposure frames has exactly ``length`` pixels.

    ``reach`` is the distance from the pivot (px) at which turning and zooming each add up to 0.2 of ``length``
    over the exposure.
    """
    u = (np.arange(EXPOSURE.total) - EXPOSURE.centre) / (EXPOSURE.length - 1)  # the exposure is [-0.5, 0.5]
    phase = rng.uniform(0, 2 * np.pi, 3)
    heading = phase[0] + rng.uniform(-1.5, 1.5) * u + 0.4 * np.sin(2 * np.pi * rng.uniform(0.5, 1.2) * u + phase[1])
    speed = 1 + 0.4 * np.sin(2 * np.pi * rng.uniform(0.4, 0.8) * u + phase[2])
    steps = speed[:-1, None] * np.stack([np.cos(heading), np.sin(heading)], axis=-1)[:-1]
    steps *= length / np.linalg.norm(steps[EXPOSURE.start : EXPOSURE.stop - 1], axis=-1).sum()
    shift = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    swing, growth = rng.uniform(-0.2, 0.2, 2) * length / reach
    return Motion(shift - shift[EXPOSURE.centre], swing * u, np.exp(growth * u))


def _draw_scale(shape, size: tuple[int, int], rng: np.random.Generator) -> float:
    """Pixels of the frame per pixel of a photograph of ``shape``.

    A photograph that is large enough is shown anywhere between whole and pixel by pixel. One that is too
    small is enlarged no further than to cover at least three quarters of the frame's sides; mirrors do the rest.
    """
    cover = max(size[0] / shape[0], size[1] / shape[1])
    low = cover if cover <= 1 else max(1.0, 0.75 * cover)
    return float(np.exp(rng.uniform(np.log(low), np.log(max(1.4 * low, 1.0)))))


def _resized(photo: np.ndarray, scale: float) -> np.ndarray:
    """The photograph at ``scale``; shrinking averages over areas, so that nothing aliases."""
    height, width = (max(round(side * scale), 1) for side in photo.shape[:2])
    return cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def read_cutout(path) -> np.ndarray:
    """Read a cut-out: uint8 ``(h, w, 4)``, B,G,R and alpha.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no 8-bit image with an alpha channel.
    """
    encoded = np.fromfile(path, np.uint8)
    image = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED) if encoded.size else None
    if image is None or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 4:
        raise InputError(f"{path} is no cut-out: expected an 8-bit colour image with an alpha channel, such as a PNG")
    return image


class Background:
    """A photograph seen by a moving camera.

    Args:
        photo: uint8 ``(h, w, 3)``, B,G,R.
        size: ``(H, W)`` of the frame.
        motion: the camera's motion, as it moves the image.
        upright: show it within 3 degrees of upright and unflipped; else turned by any angle and maybe flipped.
    """

    def __init__(self, photo, size: tuple[int, int], motion: Motion, upright: bool, rng: np.random.Generator):
        scale = _draw_scale(photo.shape, size, rng)
        if scale < 1:  # enlarging is left to the warp: one interpolation instead of two
            photo, scale = _resized(photo, scale), 1.0
        angle = rng.uniform(-np.pi, np.pi) * (1 / 60 if upright else 1)
        mirror = -1 if not upright and rng.random() < 0.5 else 1
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, sin], [-sin, cos]]) @ np.diag([mirror, 1]) / scale
        # The view stays inside the photograph where it fits, else it stays nearly centred.
        sides = np.array(photo.shape[1::-1])
        room = sides / 2 - np.abs(turn) @ np.array(size[::-1]) / 2
        room = np.where(room >= 0, room, np.minimum(-room, sides / 8))
        self.size = size
        self.pivot = (sides - 1) / 2 + rng.uniform(-1, 1, 2) * room
        centre = (np.array(size[::-1]) - 1) / 2
        self.matrices = np.stack([motion.inverse(t, centre, turn, self.pivot) for t in range(EXPOSURE.total)])
        # Keep just what the camera ever sees, continued by mirroring: no frame reaches a border.
        corners = np.array([(x, y, 1) for x in (0, size[1] - 1) for y in (0, size[0] - 1)])
        seen = corners @ self.matrices.transpose(0, 2, 1)
        low = np.floor(seen.min(axis=(0, 1))).astype(int) - 2  # cubic interpolation reaches 2 pixels
        high = np.ceil(seen.max(axis=(0, 1))).astype(int) + 3
        (left, top), (right, bottom) = np.maximum(-low, 0), np.maximum(high - sides, 0)
        photo = cv2.copyMakeBorder(photo, top, bottom, left, right, cv2.BORDER_REFLECT_101)
        first, last = low + (left, top), high + (left, top)
        self.picture = photo[first[1] : last[1], first[0] : last[0]].astype(np.float32) / np.float32(255)
        self.matrices[..., 2] -= low
        self.pivot = self.pivot - low

    def frame(self, time: int) -> np.ndarray:
        """Sub-frame ``time``: float32 ``(H, W, 3)``, B,G,R, not yet clipped to [0, 1]."""
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(
            self.picture, self.matrices[time], self.size[::-1], flags=flags, borderMode=cv2.BORDER_REFLECT_101
        )


class Foreground:
    """A soft-edged piece of a photograph that moves over the frame.

    Args:
        photo: uint8, B,G,R ``(h, w, 3)``, of which a piece is cut out, or with alpha ``(h, w, 4)``, taken whole.
        size: ``(H, W)`` of the frame.
        length: its motion over the exposure in pixels of the frame.
    """

    def __init__(self, photo, size: tuple[int, int], length: float, rng: np.random.Generator):
        self.radius = max(round(rng.uniform(0.1, 0.25) * size[0]), 4)
        side = 2 * self.radius + 1
        # Colours are premultiplied by alpha: edges mix rightly.
        if photo.shape[2] == 4:
            self.picture = self._fitted(photo, side)
        else:
            scale = max(_draw_scale(photo.shape, size, rng), side / min(photo.shape[:2]))
            piece = min(round(side / scale), *photo.shape[:2])
            top, left = (int(rng.integers(room - piece + 1)) for room in photo.shape[:2])
            picture = _resized(photo[top : top + piece, left : left + piece], side / piece)
            alpha = self._outline(side, 3 * max(size[0] / 720, 0.5), rng)[..., None]
            colour = picture.astype(np.float32) / np.float32(255)
            self.picture = np.concatenate([colour * alpha, alpha], axis=-1)
        self.size = size
        self.motion = draw_motion(length, self.radius, rng)
        self.anchor = rng.uniform(0.1, 0.9, 2) * size[::-1]
        angle = rng.uniform(-0.3, 0.3)
        self.turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])

    @staticmethod
    def _fitted(cutout: np.ndarray, side: int) -> np.ndarray:
        """A picture with alpha, premultiplied, in the middle of a square: float32 ``(side, side, 4)`` in [0, 1]."""
        picture = cutout.astype(np.float32) / np.float32(255)
        picture[..., :3] *= picture[..., 3:]
        picture = np.clip(_resized(picture, (side - 2) / max(cutout.shape[:2])), 0, 1)
        picture[..., :3] = np.minimum(picture[..., :3], picture[..., 3:])
        rows, columns = picture.shape[:2]
        square = np.zeros((side, side, 4), np.float32)
        top, left = (side - rows) // 2, (side - columns) // 2
        square[top : top + rows, left : left + columns] = picture
        return square

    def _outline(self, side: int, soft: float, rng: np.random.Generator) -> np.ndarray:
        """A star-shaped blob, float32 ``(side, side)`` in [0, 1], whose edge fades over ``soft`` pixels."""
        y, x = np.mgrid[:side, :side] - self.radius
        theta = np.arctan2(y, x)
        order = np.arange(2, 7)
        weight, phase = rng.uniform(0.2, 1, 5) / order, rng.uniform(0, 2 * np.pi, 5)
        wave = np.tensordot(weight / weight.sum(), np.cos(np.multiply.outer(order, theta) + phase[:, None, None]), 1)
        edge = (self.radius - soft) * (0.75 + 0.25 * wave)
        ramp = np.clip((edge - np.hypot(x, y)) / soft + 0.5, 0, 1)
        return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)

    def paint(self, frame: np.ndarray, time: int) -> None:
        """Lay it over sub-frame ``time``, float32 ``(H, W, 3)``, in place; only the pixels around it are touched."""
        centre, reach = self.anchor + self.motion.shift[time], self.radius * self.motion.zoom[time] + 1
        low = np.maximum(np.floor(centre - reach), 0).astype(int)
        high = np.minimum(np.ceil(centre + reach) + 1, self.size[::-1]).astype(int)
        if (high <= low).any():
            return
        matrix = self.motion.inverse(time, self.anchor - low, self.turn, np.full(2, self.radius))
        piece = cv2.warpAffine(
            self.picture, matrix, (high - low).tolist(), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        )
        under = frame[low[1] : high[1], low[0] : high[0]]
        under *= 1 - piece[..., 3:]
        under += piece[..., :3]


class Scene:
    """The film of a sample: ``frame(t)`` for t = 0 to 136, the exposure being [20, 117).

    Args:
        read: reads a photograph as uint8 ``(h, w, 3)``, B,G,R.
    """

    def __init__(self, sample: Sample, read: Callable[[str], np.ndarray] = read_image):
        rng = sample.rng(1)
        motion = draw_motion(sample.motion, max(sample.size) / 2, rng)
        self.background = Background(read(sample.photo), sample.size, motion, sample.split == "test", rng)
        read = read_cutout if sample.cutouts else read
        self.foregrounds = [Foreground(read(photo), sample.size, length, rng) for photo, length in sample.foregrounds]

    def frame(self, time: int) -> np.ndarray:
        """Sub-frame ``time``: float32 ``(H, W, 3)`` in [0, 1], B,G,R."""
        frame = self.background.frame(time)
        for foreground in self.foregrounds:
            foreground.paint(frame, time)
        return np.clip(frame, 0, 1, out=frame)

    def __iter__(self) -> Iterator[np.ndarray]:
        """All sub-frames in order, one at a time."""
        return map(self.frame, range(EXPOSURE.total))


def to_uint8(image: np.ndarray) -> np.ndarray:
    """A sub-frame, float32 ``(H, W, 3)`` in [0, 1], rounded to uint8."""
    return np.rint(image * 255).astype(np.uint8)


def render(scene: Scene) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Render a scene, holding one full-size sub-frame at a time.

    Returns:
        blur, uint8 ``(H, W, 3)``, B,G,R; the 7 sharp frames, likewise; the light on the spike camera, grey
        float32 ``(137, H/4, W/4)`` in [0, 1].
    """
    height, width = scene.background.size
    total = np.zeros((height, width, 3), np.float32)
    light = np.empty((EXPOSURE.total, height // SCALE, width // SCALE), np.float32)
    sharps = []
    for time, frame in enumerate(scene):
        if EXPOSURE.start <= time < EXPOSURE.stop:
            total += frame
        if time in EXPOSURE.sequence_instants:
            sharps.append(to_uint8(frame))
        light[time] = seen_by_spike_camera(frame, SCALE)
    return to_uint8(total / np.float32(EXPOSURE.length)), sharps, light


def spike_folder(vth: tuple[float, ...], index: int) -> str:
    """Folder of the spikes at threshold ``index`` of several: the first is spike_data, the rest are named."""
    return "spike_data" if index == 0 else f"spike_data_vth{vth[index]:g}"


def write_sample(sample: Sample, folder) -> None:
    """Render a sample and write its files below ``folder``, the spikes at the first threshold last."""
    blur, sharps, light = render(Scene(sample))
    blur_path, sharp_paths, spike_paths = sample.paths(folder)
    write_image(blur_path, blur)
    for path, sharp in zip(sharp_paths, sharps, strict=True):
        write_image(path, sharp)
    for path, vth in reversed(list(zip(spike_paths, sample.vth, strict=True))):
        write_dat(path, spikes_from_frames(light, sample.rng(2), vth, sample.noise))
