"""From high-speed video to a data set in one pass: frames in; blurry images, spikes and sharp frames out.

Per sequence, over the interpolated frames f0, f1, ... (7 inserted between two raw ones; S-SDM section 4.1, the official
scripts' constants):

    exposure k   the 97 frames from 104 k on; its name is the raw frame at its centre, 13 k + 6, with as many digits as
                 the raw names have
    blur         their mean, rounded; written for every whole exposure
    spikes       20 frames more on either side, so none for exposure 0, and none for the last one if they are missing;
                 each frame as the spike camera sees it at a quarter of the size, through the sensor
                 (codes.making.sensor)
    sharp        the raw frames 6, 19, 32, ...; with ``multi`` also those up to 6 before and after in steps of 2

Each raw frame is decoded once and nothing is written in between; what a sample needs of a frame is added up at once, so
memory does not grow with the sequence. The sensor's randomness depends on the seed and the sample's name alone.
"""

import contextlib
import functools
import json
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from codes.dat import pack
from codes.errors import InputError
from codes.exposure import SCALE, ExposureWindow
from codes.files import replacing, write_bytes, write_json
from codes.image import write_image
from codes.making.film import Film
from codes.making.sensor import Sensor, inherent_noise, seen_by_spike_camera

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
    scale: int = SCALE
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
        interp: what inserts the frames between, by its name, or 'none'.

    Returns:
        folders that hold files of which no options are known.

    Raises:
        ValueError: a folder holds files made with other options; names the first one.
    """
    window = recipe.window
    frames: dict = {"num_inter": window.inserted, "blur_num": window.raw_frames, "overlap_len": recipe.skipped}
    wanted = {"blur_data": frames | {"interp": interp}, "sharp_data": frames}
    for folder, (scale, vth) in recipe.spike_folders.items():
        sensor = {"spike_add": window.margin, "vth": vth, "no_noise": not recipe.noise, "seed": recipe.seed}
        wanted[folder] = frames | {"interp": interp, "scale": scale} | sensor
    # Looked at before the record, which whoever fills a folder has written: so another part at work is no stranger.
    filled = {folder: any(path.is_file() for path in (split / folder).glob("[!.]*/[!.]*")) for folder in wanted}
    before, unknown = read_record(split), []
    record = dict(before)
    for folder, options in wanted.items():
        if folder.split("_")[0] not in recipe.outputs:
            continue
        known = record.get(folder)
        if filled[folder] and known is None:
            unknown.append(folder)
            continue
        for flag, value in options.items() if filled[folder] else ():
            if (other := known.get(flag)) != value:
                more = ", or further thresholds after that one (--vth V W)" if flag == "vth" else ""
                raise InputError(
                    f"{split / folder} was made with {flag} {other}, not {value} ({RECORD}); give the same{more}, "
                    "choose another --out, or remove that folder"
                )
        record[folder] = options
    if record != before:
        write_json(split / RECORD, dict(sorted(record.items())))
    return unknown


class SpikeRecorder:
    """The spikes of one sample at one threshold, packed as they come.

    Args:
        size: ``(h, w)`` of the spike frames.
        vth: firing threshold in the paper's unit.
        seed: of warm-up and noise, as in :func:`codes.making.sensor.spikes_from_frames`, which gives the same spikes.
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
class Exposure:
    """One exposure on its way: what of it is to be written, and what has come together so far.

    Args:
        start: its first frame.
        blur_path: None where the blurry image is there or not wanted.
        spike_paths: the streams that are missing, by folder.
    """

    start: int
    blur_path: Path | None
    spike_paths: dict[str, Path]
    total: np.ndarray | None = None
    recorders: dict[str, SpikeRecorder] = field(default_factory=dict)


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
    return seed, zlib.crc32(f"{sequence}/{frame}".encode("utf-8", "surrogateescape"))


class Sequence:
    """The work on one sequence.

    Args:
        out: the split's folder, which will hold blur_data, spike_data, sharp_data.
    """

    def __init__(self, film: Film, recipe: Recipe, out: Path):
        self.film, self.recipe, self.out = film, recipe, Path(out)
        self.before = self.written = 0
        self.seconds = dict.fromkeys(("decode", "interpolate", "blur", "spikes", "write"), 0.0)
        count, window = film.count, recipe.window
        self.exposures: list[Exposure] = []
        self.sharps: dict[int, Path] = {}
        self.needed: set[int] = set()
        for start, centre in recipe.exposures(count):
            name = f"{centre:0{film.digits}}"
            blur = self._missing("blur", "blur_data", f"{name}.png")
            folders = recipe.spike_folders if recipe.has_spikes(start, count) else ()
            spikes = {folder: self._missing("spike", folder, f"{name}.dat") for folder in folders}
            spikes = {folder: path for folder, path in spikes.items() if path}
            if blur or spikes:
                self.exposures.append(Exposure(start, blur, spikes))
                margin = window.margin if spikes else 0
                self.needed.update(range(start - margin, start + window.length + margin))
        for raw in recipe.sharp_frames(count):
            if path := self._missing("sharp", "sharp_data", f"{raw:0{film.digits}}.png"):
                self.sharps[raw * (window.inserted + 1)] = path
        self.needed.update(self.sharps)

    def _missing(self, output: str, folder: str, name: str) -> Path | None:
        """A file that is wanted and not there."""
        path = self.out / folder / self.film.name / name
        if output not in self.recipe.outputs:
            return None
        self.before += path.is_file()
        return None if path.is_file() else path

    @contextlib.contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds[kind] += time.perf_counter() - begun

    def make(self, progress: Callable[[int], None] = lambda frames: None) -> Done:
        """Make what is missing.

        Args:
            progress: told of frames as they are done.

        Raises:
            OSError, InputError: a frame is missing, damaged or of another size; samples that did not need it stay.
        """
        window = self.recipe.window
        for index, frame in self.film.frames(self.needed):
            lights: dict[int, np.ndarray] = {}
            for exposure in self.exposures:
                place = index - exposure.start
                if exposure.blur_path and 0 <= place < window.length:
                    self._add_blur(exposure, frame, last=place == window.length - 1)
                if exposure.spike_paths and -window.margin <= place < window.length + window.margin:
                    with self._timed("spikes"):
                        self._expose(exposure, frame, lights, last=place == window.length + window.margin - 1)
            if index in self.sharps:
                self._write(self.sharps[index], frame)
            progress(1)
        self.seconds |= self.film.seconds
        return Done(self.film.name, self.written, self.before, len(self.needed), self.seconds)

    def _write(self, path: Path, image: np.ndarray) -> None:
        with self._timed("write"):
            write_image(path, image)
        self.written += 1

    def _add_blur(self, exposure: Exposure, frame: np.ndarray, last: bool) -> None:
        with self._timed("blur"):
            if exposure.total is None:
                exposure.total = np.zeros(frame.shape, np.float32)  # whole numbers, exact up to 2**24
            cv2.accumulate(frame, exposure.total)
        if last:
            mean = exposure.total.astype(np.float64) / self.recipe.window.length
            self._write(exposure.blur_path, np.rint(mean).astype(np.uint8))  # to even at a half, as OpenCV does it
            exposure.total = None

    def _expose(self, exposure: Exposure, frame: np.ndarray, lights: dict[int, np.ndarray], last: bool) -> None:
        for folder, path in exposure.spike_paths.items():
            scale, vth = self.recipe.spike_folders[folder]
            if scale not in lights:
                lights[scale] = seen_by_spike_camera(frame, scale)
            if folder not in exposure.recorders:
                seed = sample_seed(self.recipe.seed, self.film.name, path.stem)
                frames, noise = self.recipe.window.total, self.recipe.noise
                exposure.recorders[folder] = SpikeRecorder(lights[scale].shape, frames, vth, seed, noise)
            exposure.recorders[folder].expose(lights[scale])
        if last:
            for folder in reversed(exposure.spike_paths):  # spike_data's last: then the sample exists
                exposure.recorders.pop(folder).write(exposure.spike_paths[folder])
                self.written += 1
