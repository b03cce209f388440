"""The frames of one sequence: raw ones, from numbered images or a video, and those inserted between them."""

import itertools
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from codes.errors import InputError
from codes.image import IMAGES, read_image

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


class Images:
    """Numbered images in a folder, ``000012.png`` or ``any_name_12.png``; between them maybe inserted ones already.

    Args:
        folder: the folder. Files that bear no number are left out.
        inserted: images between two raw ones, as ``000012.png, 000012_0.png ... 000012_6.png, 000013.png``; None where
            they are still to be made.

    Attributes:
        note: what is worth telling about it, in one line; '' is nothing.

    Raises:
        InputError: a number is missing or there twice.
    """

    def __init__(self, folder: Path, inserted: int | None):
        self.folder, self.name = folder, folder.name
        files = [path for path in folder.iterdir() if path.suffix.lower() in IMAGES and path.name[0] != "."]
        numbered = {path: key for path in files if (key := _frame_key(path))}
        self.files = sorted(numbered, key=lambda path: (numbered[path], path.name))
        odd = sorted(path.name for path in files if path not in numbered)
        self.note = f"left out, for their names have no number: {', '.join(odd[:5])}" if odd else ""
        for before, path in itertools.pairwise(self.files):
            if numbered[before] == numbered[path]:
                raise InputError(f"{path} and {before.name} have the same number; which frame is it?")
        self._refuse_gaps([numbered[path] for path in self.files], inserted)
        digits = re.match(r"\d+", self.files[0].stem) if self.files else None
        self.digits = len(digits[0]) if digits else 6

    def _refuse_gaps(self, keys: list[tuple[int, int]], inserted: int | None) -> None:
        """A frame that is missing would shift all that follow it."""
        numbers = [number for number, index in keys if index < 0]
        steps = {after - before for before, after in itertools.pairwise(numbers)}
        if len(steps) > 1:
            before = next(a for a, b in itertools.pairwise(numbers) if b - a > min(steps))
            raise InputError(f"{self.folder}: frame {before + min(steps)} is missing, others after it are there")
        if inserted is not None and len(keys) > len(numbers):
            whole = [(number, index) for number in numbers[:-1] for index in range(-1, inserted)]
            whole.append((numbers[-1], -1) if numbers else (0, -1))
            if odd := sorted(set(whole) ^ set(keys)):
                number, index = odd[0]
                what = "is missing" if odd[0] in whole else "is one too many"
                raise InputError(
                    f"{self.folder}: frame {number}{f'_{index}' if index >= 0 else ''} {what}; expected "
                    f"{inserted} inserted frames (--num_inter), _0 to _{inserted - 1}, between two raw ones"
                )

    def __len__(self) -> int:
        return len(self.files)

    def read(self, number: int) -> np.ndarray:
        """Frame ``number``, uint8 ``(H, W, 3)``, B,G,R."""
        return read_image(self.files[number])

    def where(self, number: int) -> str:
        """A frame, for messages."""
        return str(self.files[number])


class Video:
    """A video file (PyAV), read from its beginning to its end.

    Args:
        to_the_cut: of a video that is cut off short or damaged, use what there is before that.

    Attributes:
        note: as of :class:`Images`; a frame rate that varies.

    Raises:
        InputError: no video, or it is cut off short.
    """

    digits = 6

    def __init__(self, path: Path, to_the_cut: bool = False):
        self.path, self.name, self.note = path, path.stem, ""
        self.frames: Iterator | None = None
        self.position = 0
        times, fault = [], ""
        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            tick, end = float(stream.time_base), 0.0
            try:
                for packet in container.demux():
                    if packet.pts is not None:
                        end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                    if packet.stream is stream:
                        times += [frame.time for frame in packet.decode()]
            except container_errors() as error:
                fault = error.strerror
            steps = [after - before for before, after in itertools.pairwise(times) if None not in (before, after)]
            if steps and (step := statistics.median(steps)) > 0:
                whole = (container.duration or 0) / 1e6 + max(container.start_time or 0, 0) / 1e6
                if not fault and whole - end > 3.5 * step:
                    fault = f"it ends {whole - end:.3g} s early"
                if max(steps) - min(steps) > 0.1 * step + 2 * tick:  # times are rounded to ticks
                    self.note = (
                        f"variable frame rate: {1e3 * min(steps):.1f} to {1e3 * max(steps):.1f} ms from frame to frame "
                        f"(median {1e3 * step:.1f}); they are taken as even"
                    )
        self.count = len(times)
        if fault:
            fault = f"cut off or damaged after {self.count} frames ({fault})"
            if not to_the_cut or not times:
                raise InputError(f"{path} is {fault}; --to_the_cut uses what there is")
            self.note = "; ".join(filter(None, (f"{fault}, used as far as that", self.note)))

    def _open(self):
        import av

        if not self.path.is_file():
            raise InputError(f"{self.path} is no file")
        try:
            container = av.open(str(self.path))
        except container_errors() as error:
            raise InputError(f"{self.path} is no video that can be opened ({error.strerror})") from None
        if not container.streams.video:
            container.close()
            raise InputError(f"{self.path} holds no pictures that move")
        return container

    def __len__(self) -> int:
        return self.count

    def _decoded(self) -> Iterator:
        with self._open() as container:
            container.streams.video[0].thread_type = "AUTO"
            yield from container.decode(video=0)

    def read(self, number: int) -> np.ndarray:
        """Frame ``number``, uint8 ``(H, W, 3)``, B,G,R, turned as the file says; going back costs time."""
        if self.frames is None or number < self.position:
            self.frames, self.position = self._decoded(), 0
        frame = next(itertools.islice(self.frames, number - self.position, None))
        self.position = number + 1
        picture = frame.to_ndarray(format="bgr24", interpolation="BICUBIC")
        return np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90)))

    def where(self, number: int) -> str:
        """A frame, for messages."""
        return f"{self.path}, frame {number},"


def container_errors():
    """What PyAV raises for a file that it cannot read."""
    import av

    return av.error.FFmpegError


class Film:
    """The frames of a sequence at equal steps, cropped to whole blocks.

    Args:
        source: a folder of images, or a video file.
        inserted: frames between two raw ones.
        interpolator: makes them (codes.making.interpolation); None where the folder holds them already.
        block: (rows, columns) of which height and width must be multiples; the rest is cut off evenly.
        to_the_cut: as of :class:`Video`.
    """

    def __init__(self, source: Path, inserted: int, interpolator, block: tuple[int, int], to_the_cut: bool = False):
        self.inserted, self.interpolator = inserted, interpolator
        self.seconds = {"decode": 0.0, "interpolate": 0.0}
        self.source: Images | Video
        if source.is_dir():
            self.source = Images(source, inserted if interpolator is None else None)
        else:
            self.source = Video(source, to_the_cut)
        self.name, self.digits, self.raw = self.source.name, self.source.digits, len(self.source)
        if self.raw == 0:
            raise InputError(f"{source} holds no frames")
        height, width = self._read(0).shape[:2]
        self.whole = height, width
        self.size = height - height % block[0], width - width % block[1]
        if 0 in self.size:
            raise InputError(f"{source}: frames of {height}x{width} pixels; expected at least {block[0]}x{block[1]}")

    @property
    def count(self) -> int:
        """Number of frames, the inserted ones among them."""
        return self.raw if self.interpolator is None else (self.raw - 1) * (self.inserted + 1) + 1

    def frames(self, needed: set[int]) -> Iterator[tuple[int, np.ndarray]]:
        """The frames that are needed, in order: (index, uint8 ``(H, W, 3)``, B,G,R); the others are not made."""
        if self.interpolator is None:
            for index in sorted(needed):
                yield index, self._cropped(index)
            return
        step = self.inserted + 1
        kept: dict[int, np.ndarray] = {}
        for raw, group in itertools.groupby(sorted(needed), lambda index: index // step):
            places = [index - raw * step for index in group]  # 0 is the raw frame itself
            kept = {number: kept[number] for number in (raw, raw + 1) if number in kept}
            for number in (raw, raw + 1) if places[-1] else (raw,):
                if number not in kept:
                    kept[number] = self._cropped(number)
            between = [kept[raw]]
            if places[-1]:
                start = time.perf_counter()
                between += self.interpolator.between(kept[raw], kept[raw + 1], self.inserted)
                self.seconds["interpolate"] += time.perf_counter() - start
            for place in places:
                yield raw * step + place, between[place]

    def _cropped(self, number: int) -> np.ndarray:
        frame = self._read(number)
        if frame.shape[:2] != self.whole:
            raise InputError(
                f"{self.source.where(number)} is {frame.shape[0]}x{frame.shape[1]}, the sequence "
                f"{self.whole[0]}x{self.whole[1]}"
            )
        top, left = ((whole - size) // 2 for whole, size in zip(self.whole, self.size, strict=True))
        return np.ascontiguousarray(frame[top : top + self.size[0], left : left + self.size[1]])

    def _read(self, number: int) -> np.ndarray:
        start = time.perf_counter()
        frame = self.source.read(number)
        self.seconds["decode"] += time.perf_counter() - start
        return frame


def _frame_key(path: Path) -> tuple[int, int] | None:
    """Order of ``000012.png, 000012_0.png, ..., 000013.png``; of other names, the number at their end; None without."""
    match = re.fullmatch(r"(\d+)(?:_(\d+))?", path.stem) or re.fullmatch(r".*?(\d+)()", path.stem)
    return (int(match[1]), int(match[2]) if match[2] else -1) if match else None
