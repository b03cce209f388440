"""Arrays kept on disk, each made from one source file: decoded images, the teacher's textures.

    <folder>/<absolute path of the source>.npy     an .npy file, then 24 bytes: format, size, modification time (ns)

The folder mirrors the paths of the sources, so that any number of data sets, splits and thresholds share one. Arrays
are memory-mapped: whoever takes a crop reads the crop. Each is checked against its source on every read, so that one
whose source has changed is never used, and it appears whole or not at all, so that any number of processes may write.
"""

import math
import mmap
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codes.files import replacing

FORMAT = 1
STAMP = struct.Struct("<3q")


def stamp(source) -> bytes:
    """What tells one state of a source from another: its size and its modification time.

    Take it before the source is read: what changes in between is then noticed.
    """
    status = os.stat(source)
    return STAMP.pack(FORMAT, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class ArrayCache:
    """A folder of arrays.

    Args:
        flag: the command-line flag that named it, for messages.
    """

    folder: Path
    flag: str = "--cache"

    def path(self, source) -> Path:
        """The file that holds the array of a source."""
        source = Path(os.path.abspath(source))
        return Path(self.folder, source.drive.strip(":\\/"), *source.parts[1:-1], source.name + ".npy")

    def read(self, source) -> np.ndarray | None:
        """The array of a source, memory-mapped and read-only; None where there is none, or none of its present state.

        Raises:
            OSError: the source is missing, or the file cannot be read.
        """
        expected = stamp(source)
        try:
            with open(self.path(source), "rb") as file:
                # One open file for header, array and stamp: another process may replace it meanwhile.
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                if data[-STAMP.size :] != expected:
                    return None
                return np.frombuffer(data, dtype, math.prod(shape), file.tell()).reshape(shape)
        except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: not a file of ours, or damaged
            return None

    def write(self, source, array: np.ndarray, state: bytes) -> None:
        """Keep the array of a source.

        Args:
            array: of a plain type, contiguous.
            state: the source's :func:`stamp` from before it was read.

        Raises:
            OSError: the folder is not writable, or the disk is full; says what to do.
        """
        path = self.path(source)
        try:
            with replacing(path) as temporary, open(temporary, "wb") as file:
                np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
                file.write(array.data)  # not write_array, whose tofile ignores a disk that is full at the end
                file.write(state)
        except OSError as error:
            raise OSError(
                f"{path} could not be written ({error.strerror or error}); "
                f"give {self.flag} a writable folder on a disk with room, or leave it out"
            ) from error

    def get(self, source, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of a source, from the folder or, the first time and after each change, from ``make``."""
        array = self.read(source)
        if array is None:
            state = stamp(source)
            array = make()
            self.write(source, array, state)
        return array
