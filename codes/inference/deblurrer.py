"""Deblur one's own captures in three lines.

    from codes.inference import Deblurrer

    frames = Deblurrer()("photo.png", "stream.dat")      # uint8 (7, H, W, 3), B,G,R

A capture is a blurry image of any size and a spike stream of any length in which the exposure is [start, stop). The
spike camera must see what the image shows, at a quarter of its size; :func:`fit` brings captures there whose fields of
view differ, and :func:`check` says whether they do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from codes.engine.device import autocast, choose_device
from codes.engine.weights import Weights
from codes.errors import InputError
from codes.image import GREY_WEIGHTS, read_image, to_float, to_uint8
from codes.inference.alignment import ENOUGH, align
from codes.inference.methods import Method, load_method
from codes.spike import EXPOSURE, SCALE, count_frames, evenly, read_dat, tfp_long

AUTO_TILE, WHOLE = 1024, 6_000_000
"""Images of more than WHOLE pixels are computed in tiles of AUTO_TILE."""

FLIPS = {
    "none": (slice(None), slice(None)),
    "vertical": (slice(None, None, -1), slice(None)),
    "horizontal": (slice(None), slice(None, None, -1)),
    "both": (slice(None, None, -1), slice(None, None, -1)),
}
MENDS = {
    "flipped vertically": "--flip vertical",
    "flipped horizontally": "--flip horizontal",
    "turned by 180 degrees": "--flip both",
    "packed with the other bit order": "--bit_order big",
}


@dataclass(frozen=True)
class Capture:
    """A blurry image with its spikes, ready for the networks.

    Args:
        blur: uint8 ``(H, W, 3)``, B,G,R.
        spike: uint8 ``(T, h, w)`` of zeros and ones, with 4h >= H > 4h - 4 and likewise w.
        exposure: the frames [start, stop) during which the image was taken.
    """

    blur: np.ndarray
    spike: np.ndarray
    exposure: slice


def read_spikes(
    path, size: tuple[int, int], flip: str = "none", bit_order: str = "little", exposure: slice | None = None
) -> tuple[np.ndarray, slice]:
    """Read a stream and say where its exposure is.

    Args:
        path: a .dat file.
        size: (height, width) of its frames.
        flip: 'none', 'vertical', 'horizontal' or 'both': how the stream must be turned over to lie as the image does.
        bit_order: 'little', or 'big' where the first pixel is the most significant bit.
        exposure: frames [start, stop); None is [20, 117), for streams of 137 frames.

    Returns:
        uint8 ``(T, h, w)`` and the exposure.

    Raises:
        OSError, ValueError: the file cannot be read, has no whole number of such frames, or another exposure.
    """
    height, width = size
    frames = count_frames(path, height, width)
    if frames and exposure is None and frames != EXPOSURE.total:
        raise InputError(
            f"{path} holds {frames} frames of {height}x{width}; {EXPOSURE.total} are expected: say which were taken "
            "during the exposure (--exposure START:END, counted from 0), or the right --spike_size"
        )
    exposure = exposure or slice(EXPOSURE.start, EXPOSURE.stop)
    if frames and not 0 <= exposure.start < exposure.stop <= frames:
        raise InputError(
            f"--exposure {exposure.start}:{exposure.stop} leaves {path}, which holds {frames} frames of "
            f"{height}x{width}; expected 0 <= START < END <= {frames}"
        )
    spikes = read_dat(path, height, width, bit_order=bit_order)
    return np.ascontiguousarray(spikes[(slice(None), *FLIPS[flip])]), exposure


def fit(blur: np.ndarray, spike: np.ndarray, crop: tuple[int, int, int, int] | None = None):
    """Bring an image and a stream to one field of view, the image 4 times as large as the spikes.

    Args:
        blur: uint8 ``(H, W, 3)``.
        spike: ``(T, h, w)``.
        crop: (top, left, height, width) of the spikes' field of view in image pixels; it may reach beyond the image,
            and both are then cut to what they share. None: the image is 4 times as large already, or up to 3 pixels
            less.

    Returns:
        The image and the spikes, cut, the image enlarged or shrunk where ``crop`` is not 4 times the spikes.

    Raises:
        ValueError: the sizes do not fit, or the fields of view share too little.
    """
    height, width = blur.shape[:2]
    h, w = spike.shape[1:]
    if crop is None:
        if not (0 <= SCALE * h - height < SCALE and 0 <= SCALE * w - width < SCALE):
            raise InputError(
                f"the image is {height}x{width} and the spikes are {h}x{w}; expected an image 4 times as large, "
                f"{SCALE * h}x{SCALE * w}: give the right --spike_size, or --crop TOP,LEFT,HEIGHT,WIDTH, the part of "
                "the image that the spike camera sees"
            )
        return blur, spike
    top, left, tall, wide = crop
    if tall < 1 or wide < 1:
        raise InputError(f"--crop asks for {tall}x{wide} pixels; both sides must be at least 1")
    if (tall, wide) != (SCALE * h, SCALE * w):  # image pixels become as large as a quarter of a spike pixel
        ratio = SCALE * h / tall, SCALE * w / wide
        size = max(round(height * ratio[0]), 1), max(round(width * ratio[1]), 1)
        if max(size) > 65536:
            raise InputError(f"--crop {top},{left},{tall},{wide} would enlarge the image to {size[0]}x{size[1]}")
        shrinks = ratio[0] < 1
        blur = cv2.resize(blur, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        top, left = round(top * ratio[0]), round(left * ratio[1])
        height, width = size
    cuts = []
    for offset, extent, spikes in ((top, height, h), (left, width, w)):
        first, last = max(-(offset // SCALE), 0), min((extent - offset) // SCALE, spikes)
        cuts.append((first, last, slice(offset + SCALE * first, offset + SCALE * last)))
        if last - first < 8:
            raise InputError(
                f"--crop {','.join(map(str, crop))} leaves image and spikes less than 8 spike pixels in common; "
                f"the image is {blur.shape[0]}x{blur.shape[1]}"
            )
    (y0, y1, rows), (x0, x1, columns) = cuts
    return np.ascontiguousarray(blur[rows, columns]), np.ascontiguousarray(spike[:, y0:y1, x0:x1])


def check(capture: Capture) -> str:
    """What seems wrong between image and spikes, and which option mends it; '' if nothing."""
    height, width = capture.blur.shape[:2]
    h, w = capture.spike.shape[1:]
    full = cv2.copyMakeBorder(capture.blur, 0, SCALE * h - height, 0, SCALE * w - width, cv2.BORDER_REPLICATE)
    grey = full.astype(np.float32) @ np.array(GREY_WEIGHTS, np.float32) / 255
    small = cv2.resize(grey, (w, h), interpolation=cv2.INTER_AREA)
    long = tfp_long(torch.from_numpy(capture.spike), capture.exposure)[0].numpy()
    found = align(small, long, scales=True)
    if not found.fault:
        return ""
    known = found.best >= ENOUGH  # of another scene, whatever fits best mends nothing
    words = [MENDS[found.way]] if known and found.way else []
    if known and (max(map(abs, found.shift)) > 1 or found.scale != 1):
        # Where the mended TFP lies on the image: moved by the shift, scaled about its centre.
        down, right = (SCALE * move for move in found.shift)
        tall, wide = round(SCALE * h * found.scale), round(SCALE * w * found.scale)
        top, left = round(down + (SCALE * h - tall) / 2), round(right + (SCALE * w - wide) / 2)
        words.append(f"--crop={top},{left},{tall},{wide}")  # '=': a negative TOP is no flag then
    mend = (
        f"; try {' '.join(words)}"
        if words
        else ("; is it the right stream, exposure (--exposure), spike size (--spike_size) and crop (--crop)?")
    )
    return found.fault + mend


class Deblurrer:
    """Sharp images at any instants of an exposure.

    Args:
        method: one of :func:`codes.inference.methods.methods`: 'ldn' (the student), 'teacher', 'sdm', ...
        bsn_path, sr_path, deblur_path: weight files; '' is ours in model/.
        **paths: likewise those of the other networks of the registry: ``san_path``, ``stir_path``, ...
        device: 'auto', 'cpu', 'cuda', ...
        precision: 'fp32', 'bf16' or 'fp16'.
        tile: side of the tiles in which the image is computed, a multiple of 4 of at least 64; 0 is the whole image,
            -1 whole images up to 6 million pixels and tiles of 1024 above. The result is the same within rounding.
            The neighbours (:attr:`codes.inference.methods.Method.whole`) compute whole images only.

    Raises:
        ValueError, OSError: no such method or device, or weights that are missing or do not fit.
    """

    def __init__(
        self,
        method: str = "ldn",
        bsn_path: str = "",
        sr_path: str = "",
        deblur_path: str = "",
        device: str = "auto",
        precision: str = "fp32",
        tile: int = -1,
        **paths: str,
    ):
        if tile not in (0, -1) and (tile < 64 or tile % SCALE):
            raise InputError(f"--tile is {tile}; expected a multiple of {SCALE} of at least 64, 0 (whole) or -1 (auto)")
        self.name, self.device, self.precision, self.tile = method, choose_device(device), precision, tile
        autocast(self.device, precision)
        paths |= {"bsn_path": bsn_path, "sr_path": sr_path, "deblur_path": deblur_path}
        self.weights = Weights(**{name.removesuffix("_path"): path for name, path in paths.items()})
        self._methods: dict[int, Method] = {}
        self.method = self._method(max(tile, 0))

    def _method(self, tile: int) -> Method:
        if tile not in self._methods:
            self._methods[tile] = load_method(self.name, self.weights, self.device, tile)
        return self._methods[tile]

    def frames(self, capture: Capture, instants: Sequence[int]) -> Iterator[np.ndarray]:
        """The sharp images, one after another, so that a long sequence needs no more memory than a short one.

        Args:
            capture: image, spikes and exposure.
            instants: spike frame indices from the start of the stream.

        Returns:
            An iterator over uint8 ``(H, W, 3)``, B,G,R, of the image's size.

        Raises:
            ValueError: an instant outside the stream.
        """
        total = len(capture.spike)
        for instant in instants:
            if not 0 <= instant < total:
                raise InputError(f"instant {instant} is outside the {total}-frame stream; expected 0 to {total - 1}")
        return self._frames(capture, instants)

    def _frames(self, capture: Capture, instants: Sequence[int]) -> Iterator[np.ndarray]:
        height, width = capture.blur.shape[:2]
        h, w = capture.spike.shape[1:]
        tall, wide = SCALE * h, SCALE * w
        full = cv2.copyMakeBorder(capture.blur, 0, tall - height, 0, wide - width, cv2.BORDER_REPLICATE)
        tile = (AUTO_TILE if tall * wide > WHOLE else 0) if self.tile < 0 else self.tile
        tile = 0 if self.method.whole else tile
        blur = torch.from_numpy(to_float(full))[None].to(self.device)
        spike = torch.from_numpy(capture.spike)[None].to(self.device)
        with torch.inference_mode(), autocast(self.device, self.precision):
            images = self._method(tile).start(blur, spike, capture.exposure)
        for instant in instants:
            with torch.inference_mode(), autocast(self.device, self.precision):
                image = images([instant])[0, 0]
            yield to_uint8(image)[:height, :width]

    def __call__(
        self,
        blur,
        spike,
        frames: int | Sequence[int] = 7,
        spike_size: tuple[int, int] | None = None,
        exposure: slice | None = None,
        flip: str = "none",
        bit_order: str = "little",
        crop: tuple[int, int, int, int] | None = None,
    ) -> np.ndarray:
        """Deblur one capture.

        Args:
            blur: the image's path, or uint8 ``(H, W, 3)``, B,G,R.
            spike: the stream's path, or ``(T, h, w)`` of zeros and ones.
            frames: how many instants, evenly over the exposure, or which (spike frame indices).
            spike_size: (height, width) of the spikes in a file; None is a quarter of the image.
            exposure, flip, bit_order: as in :func:`read_spikes`.
            crop: as in :func:`fit`.

        Returns:
            uint8 ``(M, H, W, 3)``, B,G,R.

        Raises:
            OSError, ValueError: what is wrong with the capture.
        """
        capture = open_capture(blur, spike, spike_size, exposure, flip, bit_order, crop)
        instants = evenly(capture.exposure, frames) if isinstance(frames, int) else frames
        return np.stack(list(self.frames(capture, instants)))


def open_capture(
    blur,
    spike,
    spike_size: tuple[int, int] | None = None,
    exposure: slice | None = None,
    flip: str = "none",
    bit_order: str = "little",
    crop: tuple[int, int, int, int] | None = None,
) -> Capture:
    """Image and spikes from files or arrays, brought to one field of view; arguments as in :class:`Deblurrer`."""
    image = blur if isinstance(blur, np.ndarray) else read_image(blur)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(f"the image is {image.dtype} {image.shape}; expected uint8 (H, W, 3), B,G,R")
    if isinstance(spike, np.ndarray):
        if spike.ndim != 3 or not ((spike == 0) | (spike == 1)).all():
            raise InputError(f"spikes are {spike.dtype} {spike.shape}; expected zeros and ones of shape (T, h, w)")
        if exposure is None and len(spike) != EXPOSURE.total:
            raise InputError(f"the stream has {len(spike)} frames, not {EXPOSURE.total}; say which are the exposure")
        exposure = exposure or slice(EXPOSURE.start, EXPOSURE.stop)
        stream = np.ascontiguousarray(spike[(slice(None), *FLIPS[flip])].astype(np.uint8))
    else:
        size = spike_size or tuple(-(-extent // SCALE) for extent in image.shape[:2])
        stream, exposure = read_spikes(spike, size, flip, bit_order, exposure)
    return Capture(*fit(image, stream, crop), exposure)
