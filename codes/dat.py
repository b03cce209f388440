"""The .dat file of spikes, in the layout of the Vidar spike camera.

Frames follow one another. Within a byte the first pixel is the least significant bit, pixels run row by row, and the
rows of a frame are stored bottom-up. Each frame starts on a whole byte: where height * width is no multiple of 8, the
unused high bits of a frame's last byte are zero.
"""

import mmap
from pathlib import Path

import numpy as np

from codes.errors import InputError
from codes.files import disguise, replacing, write_bytes


def find_streams(folder) -> list[Path]:
    """``<sequence>/<frame>.dat`` below a folder, sorted; the suffix in any case, hidden files and folders left out."""
    found = (path for path in Path(folder).glob("*/*") if path.suffix.lower() == ".dat")
    return sorted(path for path in found if "." not in (path.name[0], path.parent.name[0]))


def frame_bytes(height: int, width: int) -> int:
    """Bytes of one frame in a .dat file: height * width bits, rounded up to whole bytes."""
    return (height * width + 7) // 8


def read_dat(
    path, height: int, width: int, rows: slice = slice(None), columns: slice = slice(None), bit_order: str = "little"
) -> np.ndarray:
    """Read a .dat spike file, or a cut-out of it, for which no more than its own bytes are unpacked.

    Args:
        height, width: size of a frame in pixels.
        rows, columns: the cut-out, in pixels, without a step; row 0 is the top.
        bit_order: 'little' as above (see the module), or 'big' for files whose first pixel is the most significant bit.

    Returns:
        uint8 array ``(T, height, width)`` of zeros and ones, top row first; of the cut-out, its rows and columns.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is empty or no whole number of frames long.
    """
    if height < 1 or width < 1:
        raise InputError(f"a spike frame of {height}x{width} pixels cannot be; both sides must be at least 1")
    frames, size = count_frames(path, height, width), frame_bytes(height, width)
    if frames == 0:
        raise InputError(
            f"{path} holds {Path(path).stat().st_size} bytes, not a whole number of {height}x{width} spike frames "
            f"({size} bytes each){disguise(path, '; the file is truncated or its frames have another size')}"
        )
    top, bottom, _ = rows.indices(height)
    left, right, _ = columns.indices(width)
    with open(path, "rb") as file:  # not np.memmap: to make one takes longer than many a cut-out
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    packed = np.frombuffer(data, np.uint8, frames * size).reshape(frames, size)
    if width % 8 == 0:  # each row starts on a whole byte
        first, last = left // 8, -(-right // 8)
        packed = packed.reshape(frames, height, width // 8)[:, height - bottom : height - top, first:last]
        bits = np.unpackbits(packed[:, ::-1], axis=2, bitorder=bit_order)[..., left - 8 * first : right - 8 * first]
    else:
        first, last = (height - bottom) * width, (height - top) * width
        bits = np.unpackbits(packed[:, first // 8 : -(-last // 8)], axis=1, bitorder=bit_order)
        bits = bits[:, first % 8 : first % 8 + last - first].reshape(frames, bottom - top, width)
        bits = bits[:, ::-1, left:right]
    return np.ascontiguousarray(bits)


def write_dat(path, spikes: np.ndarray) -> None:
    """Write a .dat spike file that :func:`read_dat` returns unchanged.

    Args:
        path: the file; it appears whole or not at all.
        spikes: ``(T, H, W)``, bool or a number type, of zeros and ones.

    Raises:
        ValueError: not three-dimensional, empty, or a value other than 0 and 1.
    """
    spikes = np.asarray(spikes)
    if spikes.ndim != 3 or spikes.size == 0:
        raise InputError(f"spikes of shape {spikes.shape}; expected (T, H, W), none of them 0")
    if spikes.dtype != bool:
        if not ((spikes == 0) | (spikes == 1)).all():
            raise InputError("spikes must be 0 or 1")
        spikes = spikes.astype(bool)
    packed = pack(spikes)
    with replacing(path) as temporary:
        write_bytes(temporary, packed)


def pack(spikes: np.ndarray) -> np.ndarray:
    """Frames as they lie in a .dat file: bool ``(T, H, W)`` to uint8 ``(T, bytes of a frame)``."""
    return np.packbits(spikes[:, ::-1].reshape(len(spikes), -1), axis=1, bitorder="little")


def count_frames(path, height: int, width: int) -> int:
    """Number of frames in a .dat file, from its length alone (0 where it is no whole number)."""
    frames, rest = divmod(Path(path).stat().st_size, frame_bytes(height, width))
    return 0 if rest else frames
