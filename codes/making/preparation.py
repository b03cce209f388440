"""From high-speed video to a data set in one pass: frames in; blurry images, spikes and sharp frames out.

Per sequence, over the interpolated frames f0, f1, ... (7 inserted between two raw ones; S-SDM section 4.1, the official
scripts' constants):

    exposure k   the 97 frames from 104 k on; its name is the raw frame at its centre, 13 k + 6, with as many digits as
                 the raw names have
    blur         their mean, rounded; written for every whole exposure
    spikes       20 frames more on either side, so none for exposure 0, and none for the last one if they are missing;
                 each frame as seen at a quarter of the size (bilinear, half-pixel centres: the mean of the central 2x2
                 of each 4x4 block), grey, through the sensor (codes.making.sensor)
    sharp        the raw frames 6, 19, 32, ...; with ``multi`` also those up to 6 before and after in steps of 2

Each raw frame is decoded once and nothing is written in between; what a sample needs of a frame is added up at once, so
memory does not grow with the sequence. The sensor's randomness depends on the seed and the sample's name alone.
"""

import functools
import itertools
import json
import re
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from codes.errors import InputError
from codes.files import replacing, write_bytes
from codes.image import grey, read_image, write_image
from codes.making.sensor import Sensor, inherent_noise
from codes.spike import ExposureWindow, pack

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
OUTPUTS = ("blur", "spike", "sharp")


@dataclass(frozen=True)
class Recipe:
    """What is made of a sequence.

    Args:
        window: the exposure (raw frames, inserted frames, spike frames before and after).
        skipped: interpolated frames between two exposures (``--overlap_len``).
        scale: pixels of the image per pixel of the spike camera, each way.
        vth: firing thresholds in the paper's unit: the first for spike_data, the rest for spike_data_vth2 and so on.
        multi: write the whole sharp sequence.
        full: also write spikes at the size of the image, to spike_full.
        noise: whether the sensor adds its inherent noise.
        seed: of the sensor.
        outputs: which of blur, spike and sharp to make.
    """

    window: ExposureWindow = ExposureWindow()
    skipped: int = 7
    scale: int = 4
    vth: tuple[float, ...] = (1.0,)
    multi: bool = False
    full: bool = False
    noise: bool = True
    seed: int = 0
    outputs: tuple[str, ...] = OUTPUTS

    def __post_init__(self):
        window, step = self.window, self.window.inserted + 1
        if window.raw_frames % 2 == 0:
            raise InputError(f"--blur_num {window.raw_frames} has no frame at its centre; give an odd number")
        if (self.skipped + 1) % step:
            raise InputError(
                f"--overlap_len {self.skipped} with --num_inter {window.inserted}: exposures must begin at raw frames; "
                f"give {step - 1}, {2 * step - 1} and so on"
            )

    @property
    def stride(self) -> int:
        """Interpolated frames from one exposure to the next: 104."""
        return self.window.length + self.skipped

    @functools.cached_property
    def spike_folders(self) -> dict[str, tuple[int, float]]:
        """Scale and threshold of the spikes in each folder."""
        kinds = [("spike_data", self.scale), *([("spike_full", 1)] if self.full else [])]
        return {
            kind + (f"_vth{vth:g}" if index else ""): (scale, vth)
            for index, vth in enumerate(self.vth)
            for kind, scale in kinds
        }

    def exposures(self, count: int) -> Iterator[tuple[int, int]]:
        """(first interpolated frame, raw frame at the centre) of each whole exposure among ``count`` frames."""
        step = self.window.inserted + 1
        for start in range(0, count - self.window.length + 1, self.stride):
            yield start, (start + self.window.length // 2) // step

    def has_spikes(self, start: int, count: int) -> bool:
        """Whether an exposure has enough frames before and after it."""
        margin = self.window.margin
        return start >= margin and start + self.window.length + margin <= count

    def sharp_frames(self, count: int) -> list[int]:
        """Raw frames to be written as sharp, of ``count`` interpolated frames."""
        step = self.window.inserted + 1
        period, centre = self.stride // step, self.window.raw_frames // 2
        reach = centre if self.multi else 0
        return [
            raw
            for raw in range(-(-count // step))
            if abs(offset := raw % period - centre) <= reach and (not self.multi or offset % 2 == 0)
        ]


RECORD = "prepared.json"
"""In a split's folder: with which options each of its folders was made."""


def read_record(split: Path) -> dict[str, dict]:
    """The options of each folder of a split by the flags that set them; none where there is no record.

    Raises:
        ValueError: the record is damaged.
    """
    path = Path(split) / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not all(isinstance(options, dict) for options in record.values()):
        raise InputError(f"{path} is damaged; remove it if all in that folder was made with the same options")
    return record


def record_options(split: Path, recipe: Recipe, interp: str) -> list[str]:
    """Note what the folders of a split are made with; what was made with other options is not added to.

    Args:
        split: the split's folder.
        recipe: what will be made.
        interp: what inserts the frames between, by its name, or 'none'.

    Returns:
        folders that hold files of which no options are known.

    Raises:
        ValueError: a folder holds files made with other options; names the first one.
    """
    window = recipe.window
    frames = {"num_inter": window.inserted, "blur_num": window.raw_frames, "overlap_len": recipe.skipped}
    wanted = {"blur_data": frames | {"interp": interp}, "sharp_data": frames}
    for folder, (scale, vth) in recipe.spike_folders.items():
        sensor = {"spike_add": window.margin, "vth": vth, "no_noise": not recipe.noise, "seed": recipe.seed}
        wanted[folder] = frames | {"interp": interp, "scale": scale} | sensor
    record, unknown = read_record(split), []
    for folder, options in wanted.items():
        if folder.split("_")[0] not in recipe.outputs:
            continue
        known, filled = record.get(folder), any(path.is_file() for path in (split / folder).glob("[!.]*/[!.]*"))
        if filled and known is None:
            unknown.append(folder)
            continue
        for flag, value in options.items() if filled else ():
            if (other := known.get(flag)) != value:
                more = ", or further thresholds after that one (--vth V W)" if flag == "vth" else ""
                raise InputError(
                    f"{split / folder} was made with --{flag} {other}, not {value} ({RECORD}); give the same{more}, "
                    "choose another --out, or remove that folder"
                )
        record[folder] = options
    text = json.dumps(record, indent=1, sort_keys=True) + "\n"
    path = split / RECORD
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return unknown


class Film:
    """The frames of one sequence, raw ones read from images or a video, the others inserted, cropped to whole blocks.

    Args:
        source: a folder of images, or a video file.
        inserted: frames between two raw ones.
        interpolator: makes them (codes.making.interpolation); None where the folder holds them already, as
            ``000012.png, 000012_0.png ... 000012_6.png, 000013.png``.
        block: (rows, columns) of which height and width must be multiples; the rest is cut off evenly.
    """

    def __init__(self, source: Path, inserted: int, interpolator, block: tuple[int, int]):
        self.source, self.inserted, self.interpolator, self.block = Path(source), inserted, interpolator, block
        self.video = None
        self.seconds = {"decode": 0.0, "interpolate": 0.0}
        if self.source.is_dir():
            files = [p for p in self.source.iterdir() if p.suffix.lower() in IMAGES and p.name[0] != "."]
            self.files = sorted(files, key=_frame_key)
            for before, path in itertools.pairwise(self.files):
                if _frame_key(before) == _frame_key(path):
                    raise InputError(f"{path} and {before.name} have the same number; which frame is it?")
            self._refuse_gaps()
            self.raw = len(self.files)
            numbers = re.match(r"\d+", self.files[0].stem) if self.files else None
            self.digits = len(numbers[0]) if numbers else 6
        else:
            self.files, self.digits = [], 6
            self.raw = self._count()
        if self.raw == 0:
            raise InputError(f"{self.source} holds no frames")
        height, width = self._read(0).shape[:2]
        self.whole = height, width
        self.size = tuple(extent - extent % unit for extent, unit in zip(self.whole, block, strict=True))
        if 0 in self.size:
            raise InputError(
                f"{self.source}: frames of {height}x{width} pixels; expected at least {block[0]}x{block[1]}"
            )

    def _refuse_gaps(self) -> None:
        """A frame that is missing would shift all that follow it."""
        keys = [_frame_key(path) for path in self.files]
        numbers = [number for number, inserted in keys if inserted < 0]
        steps = {after - before for before, after in itertools.pairwise(numbers)}
        if len(steps) > 1:
            before = next(a for a, b in itertools.pairwise(numbers) if b - a > min(steps))
            raise InputError(f"{self.source}: frame {before + min(steps)} is missing, others after it are there")
        if self.interpolator is None and len(keys) > len(numbers):
            whole = [(number, index) for number in numbers[:-1] for index in range(-1, self.inserted)]
            whole.append((numbers[-1], -1) if numbers else (0, -1))
            if odd := sorted(set(whole) ^ set(keys)):
                number, index = odd[0]
                what = "is missing" if odd[0] in whole else "is one too many"
                raise InputError(
                    f"{self.source}: frame {number}{f'_{index}' if index >= 0 else ''} {what}; expected "
                    f"{self.inserted} inserted frames (--num_inter), _0 to _{self.inserted - 1}, between two raw ones"
                )

    @property
    def name(self) -> str:
        """Name of the sequence."""
        return self.source.name if self.source.is_dir() else self.source.stem

    @property
    def count(self) -> int:
        """Number of interpolated frames."""
        return self.raw if self.interpolator is None else (self.raw - 1) * (self.inserted + 1) + 1

    def frames(self, needed: set[int]) -> Iterator[tuple[int, np.ndarray]]:
        """The interpolated frames that are needed, in order: (index, uint8 ``(H, W, 3)``); the others are not made."""
        if self.interpolator is None:
            for index in sorted(needed):
                yield index, self._cropped(index)
            return
        step, kept = self.inserted + 1, {}
        for raw in range(self.raw):
            inside = [index for index in range(raw * step, raw * step + step) if index in needed]
            if not inside:
                continue
            kept = {number: kept[number] for number in (raw, raw + 1) if number in kept}
            for number in {raw} | ({raw + 1} if inside[-1] > raw * step else set()):
                if number not in kept:
                    kept[number] = self._cropped(number)
            if inside[0] == raw * step:
                yield inside[0], kept[raw]
            if inside[-1] > raw * step:
                start = time.perf_counter()
                between = self.interpolator.between(kept[raw], kept[raw + 1], self.inserted)
                self.seconds["interpolate"] += time.perf_counter() - start
                for index in inside:
                    if index > raw * step:
                        yield index, between[index - raw * step - 1]

    def _cropped(self, number: int) -> np.ndarray:
        frame = self._read(number)
        if frame.shape[:2] != self.whole:
            where = self.files[number] if self.files else f"{self.source}, frame {number},"
            raise InputError(
                f"{where} is {frame.shape[0]}x{frame.shape[1]}, the sequence {self.whole[0]}x{self.whole[1]}"
            )
        top, left = ((whole - size) // 2 for whole, size in zip(self.whole, self.size, strict=True))
        return np.ascontiguousarray(frame[top : top + self.size[0], left : left + self.size[1]])

    def _read(self, number: int) -> np.ndarray:
        start = time.perf_counter()
        frame = read_image(self.files[number]) if self.files else self._read_video(number)
        self.seconds["decode"] += time.perf_counter() - start
        return frame

    def _open(self):
        video = cv2.VideoCapture(str(self.source))
        if not self.source.is_file() or not video.isOpened():
            raise InputError(f"{self.source} is no video that OpenCV can open")
        return video

    def _count(self) -> int:
        video, count = self._open(), 0  # what the header says is often wrong
        while video.grab():
            count += 1
        return count

    def _read_video(self, number: int) -> np.ndarray:
        if self.video is None or number < self.position:
            self.video, self.position = self._open(), 0
        while self.position < number and self.video.grab():
            self.position += 1
        done, frame = self.video.read()
        if not done:
            raise InputError(f"{self.source}: frame {number} cannot be decoded")
        self.position += 1
        return frame


def _frame_key(path: Path) -> tuple[int, int]:
    """Order of ``000012.png, 000012_0.png, ..., 000013.png``; of other names, the number at their end."""
    match = re.fullmatch(r"(\d+)(?:_(\d+))?", path.stem) or re.fullmatch(r".*?(\d+)()", path.stem)
    if not match:
        raise InputError(f"{path} is no frame: its name must end in a number, as 000012.png")
    return int(match[1]), int(match[2]) if match[2] else -1


def seen_by_spike_camera(frame: np.ndarray, scale: int) -> np.ndarray:
    """What the spike camera sees of a frame: grey float32 ``(H/scale, W/scale)`` in [0, 1].

    Bilinear at half-pixel centres without antialiasing: the mean of the central 2x2 of each block (of an odd scale,
    the central pixel).
    """
    low, high = (scale - 1) // 2, scale // 2
    rows = frame[low::scale].astype(np.float32), frame[high::scale].astype(np.float32)
    small = sum(part[:, offset::scale] for part in rows for offset in (low, high)) / np.float32(4 * 255)
    return np.ascontiguousarray(grey(small, axis=-1)[..., 0])


class SpikeRecorder:
    """The spikes of one sample at one threshold, packed as they come.

    Args:
        size: ``(h, w)`` of the spike frames.
        frames: how many there will be.
        vth: firing threshold in the paper's unit.
        seed: of warm-up and noise, as in :func:`codes.making.sensor.spikes_from_frames`, which gives the same spikes.
        noise: whether to add the inherent noise.
    """

    def __init__(self, size: tuple[int, int], frames: int, vth: float, seed, noise: bool):
        self.size, self.noise, self.recorded = size, noise, 0
        self.rng = np.random.default_rng(seed)
        self.sensor = Sensor(self.rng.random(size, dtype=np.float32), vth)
        self.fired = np.empty(size, bool)
        self.packed = np.empty((frames, (size[0] * size[1] + 7) // 8), np.uint8)

    def expose(self, light: np.ndarray) -> None:
        """Take the next frame, as :func:`seen_by_spike_camera` gives it."""
        self.sensor.expose(light, self.fired)
        self.packed[self.recorded] = pack(self.fired[None])[0]
        self.recorded += 1

    def write(self, path: Path) -> None:
        """Add the noise and write the .dat file."""
        if self.noise:
            noise = inherent_noise((len(self.packed), *self.size), self.rng)
            for frame, more in zip(self.packed, noise, strict=True):
                frame |= pack(more[None])[0]
        with replacing(path) as temporary:
            write_bytes(temporary, self.packed)


@dataclass
class _Sample:
    """One exposure on its way."""

    start: int
    blur_path: Path | None
    spike_paths: dict[str, Path]
    total: np.ndarray | None = None
    recorders: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """What became of a sequence: files written and there before, frames made, seconds by kind of work."""

    name: str
    written: int
    before: int
    frames: int
    seconds: dict[str, float]


def sample_seed(seed: int, sequence: str, frame: str) -> tuple[int, int]:
    """The seed of a sample's sensor."""
    return seed, zlib.crc32(f"{sequence}/{frame}".encode())


class Sequence:
    """The work on one sequence.

    Args:
        film: its frames.
        recipe: what to make.
        out: the split's folder, which will hold blur_data, spike_data, sharp_data.
    """

    def __init__(self, film: Film, recipe: Recipe, out: Path):
        self.film, self.recipe, self.out = film, recipe, Path(out)
        self.before = 0
        count, window = film.count, recipe.window
        self.samples: list[_Sample] = []
        self.sharps: dict[int, Path] = {}
        self.needed: set[int] = set()
        for start, centre in recipe.exposures(count):
            name = f"{centre:0{film.digits}}"
            blur = self._missing("blur", "blur_data", f"{name}.png")
            spikes = {}
            if recipe.has_spikes(start, count):
                for folder in recipe.spike_folders:
                    if (path := self._missing("spike", folder, f"{name}.dat")) is not None:
                        spikes[folder] = path
            if blur is not None or spikes:
                self.samples.append(_Sample(start, blur, spikes))
                margin = window.margin if spikes else 0
                self.needed.update(range(start - margin, start + window.length + margin))
        for raw in recipe.sharp_frames(count):
            path = self._missing("sharp", "sharp_data", f"{raw:0{film.digits}}.png")
            if path is not None:
                self.sharps[raw * (window.inserted + 1)] = path
        self.needed.update(self.sharps)

    def _missing(self, output: str, folder: str, name: str) -> Path | None:
        path = self.out / folder / self.film.name / name
        if output not in self.recipe.outputs:
            return None
        if path.is_file():
            self.before += 1
            return None
        return path

    def make(self, progress: Callable[[int], None] = lambda frames: None) -> Done:
        """Make what is missing.

        Args:
            progress: told of frames as they are done.

        Raises:
            OSError, ValueError: a frame is missing, damaged or of another size; samples that did not need it stay.
        """
        seconds = dict.fromkeys(("decode", "interpolate", "blur", "spikes", "write"), 0.0)
        clock = time.perf_counter
        written = done = 0
        for index, frame in self.film.frames(self.needed):
            lights = {}
            for sample in self.samples:
                position = index - sample.start
                if position >= self.recipe.window.length + self.recipe.window.margin:
                    continue
                if sample.blur_path and 0 <= position < self.recipe.window.length:
                    begun = clock()
                    if sample.total is None:
                        sample.total = np.zeros(frame.shape, np.float32)  # whole numbers, exact up to 2**24
                    cv2.accumulate(frame, sample.total)
                    seconds["blur"] += clock() - begun
                    if position == self.recipe.window.length - 1:
                        begun = clock()
                        write_image(sample.blur_path, _mean(sample.total, self.recipe.window.length))
                        seconds["write"] += clock() - begun
                        sample.total, written = None, written + 1
                if sample.spike_paths and -self.recipe.window.margin <= position:
                    begun = clock()
                    self._expose(sample, frame, lights)
                    seconds["spikes"] += clock() - begun
                    if position == self.recipe.window.length + self.recipe.window.margin - 1:
                        begun = clock()
                        for folder in reversed(sample.spike_paths):  # spike_data's last: then the sample exists
                            sample.recorders[folder].write(sample.spike_paths[folder])
                        seconds["spikes"] += clock() - begun
                        written += len(sample.spike_paths)
                        sample.recorders.clear()
            if index in self.sharps:
                begun = clock()
                write_image(self.sharps[index], frame)
                seconds["write"] += clock() - begun
                written += 1
            done += 1
            progress(1)
        seconds |= self.film.seconds
        return Done(self.film.name, written, self.before, done, seconds)

    def _expose(self, sample: _Sample, frame: np.ndarray, lights: dict[int, np.ndarray]) -> None:
        for folder, path in sample.spike_paths.items():
            scale, vth = self.recipe.spike_folders[folder]
            if scale not in lights:
                lights[scale] = seen_by_spike_camera(frame, scale)
            if folder not in sample.recorders:
                seed = sample_seed(self.recipe.seed, self.film.name, path.stem)
                frames, noise = self.recipe.window.total, self.recipe.noise
                sample.recorders[folder] = SpikeRecorder(lights[scale].shape, frames, vth, seed, noise)
            sample.recorders[folder].expose(lights[scale])


def _mean(total: np.ndarray, count: int) -> np.ndarray:
    """uint8 mean of ``count`` frames from their sum, rounded (to even at a half, as OpenCV does it)."""
    return np.rint(total.astype(np.float64) / count).astype(np.uint8)
