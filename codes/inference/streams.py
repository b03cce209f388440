"""Spike streams as laboratories publish them: .dat with or without padded rows, .npy, .npz, packed or not.

A **.dat** file is as :func:`codes.spike.read_dat` says, or with each row padded to ``row_bits`` bits, as cameras of 400
columns send it (416). Arrays in **.npy** and **.npz** have their first row on top; they are bool, numbers that are 0 or
1, or bytes with eight pixels each (``np.packbits`` along the last axis).
"""

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from codes.dat import read_dat
from codes.errors import InputError

ARRAYS = (".npy", ".npz")
SUFFIXES = (".dat", *ARRAYS)
SIZES = ((250, 400), (180, 320), (360, 640), (720, 1280), (1000, 1000))
"""Sizes of spike cameras and of the field's data sets."""

SCALES = (4, 2, 1, 3, 6, 8)
"""Image pixels per spike pixel that are tried for a stream whose size nobody said."""

PADDED = {400: 416}
"""Columns -> bits of a row in raw files of cameras."""

SHORTEST = 16
ASPECT = 0.02
"""By how much the aspect ratio of image and spikes may differ."""


@dataclass(frozen=True)
class Layout:
    """How a stream is kept.

    Args:
        size: (height, width) of a frame; None: the array says it.
        row_bits: bits of a row in a .dat file; 0: as many as columns.
        bit_order: 'little': the first pixel of a byte is its least significant bit; or 'big'.
        key: of the array in an .npz; '': the only one.
        axes: 'thw', 'hwt', or 'auto': as the size says, otherwise 'thw'.
    """

    size: tuple[int, int] | None = None
    row_bits: int = 0
    bit_order: str = "little"
    key: str = ""
    axes: str = "auto"

    @property
    def words(self) -> str:
        """In short."""
        rows = f" in rows of {self.row_bits} bits" if self.row_bits else ""
        return f"{self.size[0]}x{self.size[1]}{rows}"


def read_stream(path, layout: Layout) -> np.ndarray:
    """A stream as uint8 ``(T, h, w)`` of zeros and ones.

    Raises:
        OSError, InputError: it cannot be read, or is laid out otherwise; says what was found.
    """
    if Path(path).suffix.lower() in ARRAYS:
        return unpacked(load_array(path, layout.key), layout, str(path))
    if layout.size is None:
        raise InputError(f"{path}: a .dat file does not tell its size; give --spike_size HxW")
    height, width = layout.size
    if not layout.row_bits:
        return read_dat(path, height, width, bit_order=layout.bit_order)
    if layout.row_bits < width:
        raise InputError(f"--row_bits {layout.row_bits} is less than the {width} columns of --spike_size")
    padded = read_dat(path, height, layout.row_bits, bit_order=layout.bit_order)
    return np.ascontiguousarray(padded[:, :, :width])


def load_array(path, key: str = "") -> np.ndarray:
    """The array of an .npy or .npz file.

    Raises:
        OSError, InputError: it cannot be read, or there are several and ``key`` names none.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            known = loaded.files
            if key in known:
                return loaded[key]
            arrays = [] if key else [array for array in map(loaded.get, known) if array.ndim == 3 or len(known) == 1]
            if len(arrays) == 1:  # labels beside the stream are none
                return arrays[0]
    except (ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"{path} is no array that NumPy can read ({error})") from None
    raise InputError(f"{path} holds the arrays {', '.join(known) or 'none'}; say which are the spikes (--key NAME)")


def unpacked(array: np.ndarray, layout: Layout, name: str = "the array") -> np.ndarray:
    """An array of spikes as uint8 ``(T, h, w)``.

    Raises:
        InputError: it holds something else than zeros and ones and no bytes of eight pixels, or does not fit the size.
    """
    size = layout.size
    if 0 in array.shape:
        raise InputError(f"{name} is {array.dtype} {array.shape}: it holds no frames, or frames of no pixels")
    if array.dtype.kind not in "buif":
        raise InputError(f"{name} is {array.dtype} {array.shape}; expected real numbers, or bool")
    if array.dtype == np.uint8 and array.ndim == 3 and array.size and not (array % 255).any():
        array = array // 255  # as a picture: 0 and 255
    binary = array.dtype == bool or (array.size and bool(((array == 0) | (array == 1)).all()))
    if not binary:
        if array.dtype != np.uint8 or size is None:
            raise InputError(
                f"{name} is {array.dtype} {array.shape}; expected zeros and ones (T, h, w), or bytes of eight pixels "
                "with --spike_size"
            )
        bits = np.unpackbits(array, axis=-1, bitorder=layout.bit_order)
        count = size[0] * size[1]
        if array.ndim == 3 and bits.shape[1] == size[0] and 0 <= bits.shape[2] - size[1] < 64:
            array = bits[:, :, : size[1]]
        elif array.ndim == 2 and bits.shape[1] >= count:
            array = bits[:, :count].reshape(len(bits), *size)
        elif array.ndim == 1 and bits.size % count == 0:
            array = bits.reshape(-1, *size)
        else:
            raise InputError(f"{name} is {array.dtype} {array.shape}: no bytes of frames of {size[0]}x{size[1]}")
    if array.ndim != 3 or not array.size:
        raise InputError(f"{name} is {array.dtype} {array.shape}; expected three axes: time, rows, columns")
    axes = layout.axes
    if axes == "auto":
        fits_last, fits_first = size is not None and array.shape[:2] == tuple(size), array.shape[1:] == size
        axes = "hwt" if fits_last and not fits_first else "thw"
    array = array.transpose(2, 0, 1) if axes == "hwt" else array
    if size is not None and array.shape[1:] != tuple(size):
        raise InputError(
            f"{name} has frames of {array.shape[1]}x{array.shape[2]} (axes {axes}); --spike_size says "
            f"{size[0]}x{size[1]}"
        )
    return np.ascontiguousarray(array.astype(np.uint8, copy=False))


def layouts_that_fit(path, image: tuple[int, int] | None, layout: Layout) -> list[Layout]:
    """The layouts that a file's length allows for a photograph, most usual first.

    Args:
        path: a .dat, .npy or .npz file.
        image: (height, width) of the photograph; None: any.
        layout: what is known already.
    """
    if Path(path).suffix.lower() in ARRAYS:
        shape = load_array(path, layout.key).shape
        if len(shape) != 3 or layout.axes != "auto" or image is None:
            return [layout]
        fits = [
            replace(layout, axes=axes)
            for axes, size in (("thw", shape[1:]), ("hwt", shape[:2]))
            if _same_aspect(size, image)
        ]
        return fits or [layout]
    length = Path(path).stat().st_size
    sizes = list(SIZES)
    if image is not None:
        sizes = [(-(-image[0] // scale), -(-image[1] // scale)) for scale in SCALES]
        sizes += [size for size in SIZES if _same_aspect(size, image)]
    found = []
    for size in dict.fromkeys(sizes):
        for row_bits in dict.fromkeys((layout.row_bits, layout.row_bits or PADDED.get(size[1], 0))):
            frame = (size[0] * (row_bits or size[1]) + 7) // 8
            if min(size) >= 8 and length % frame == 0 and length // frame >= SHORTEST:
                found.append(replace(layout, size=size, row_bits=row_bits))
    return found


def flip(spike: np.ndarray, way: str) -> np.ndarray:
    """A stream turned over: 'none', 'vertical', 'horizontal', 'both'."""
    rows = slice(None, None, -1 if way in ("vertical", "both") else 1)
    columns = slice(None, None, -1 if way in ("horizontal", "both") else 1)
    return spike if way == "none" else np.ascontiguousarray(spike[:, rows, columns])


def other_bits(spike: np.ndarray) -> np.ndarray:
    """A stream read with the other bit order; the width is a multiple of 8."""
    return np.ascontiguousarray(spike.reshape(*spike.shape[:2], -1, 8)[..., ::-1].reshape(spike.shape))


def _same_aspect(size, image) -> bool:
    return abs(size[0] * image[1] / (size[1] * image[0]) - 1) <= ASPECT
