"""Deblur one's own captures in three lines.

    from codes.inference import Deblurrer

    frames = Deblurrer()("photo.png", "stream.dat")      # uint8 (7, H, W, 3), B,G,R

How photograph and spikes belong together is found in :mod:`codes.inference.opening`. Here the networks are given what
they know: an image in linear light whose sides are multiples of 4, spikes on its quarter grid, an exposure of 97
frames. Afterwards all of it is undone.
"""

from collections.abc import Iterator, Sequence
from operator import index
from typing import Any

import cv2
import numpy as np
import torch

from codes.engine.device import autocast, choose_device
from codes.engine.weights import Weights
from codes.errors import InputError
from codes.inference.colour import Palette
from codes.inference.methods import Method, load_method
from codes.inference.opening import SCALE, Capture, Reading, open_capture
from codes.inference.rates import Clock, fired, on_grid
from codes.model.registry import method_of
from codes.registration import Registration
from codes.spike import evenly, refuse_outside
from codes.student import exposure_gain

AUTO_TILE, WHOLE = 1024, 9_000_000
"""Images of more than WHOLE pixels are computed in tiles of AUTO_TILE."""

FINER, LARGEST = 1.25, 2.0
"""Where spikes are more than FINER times as fine as a quarter of the image, they keep their size and the image is
enlarged, at most by LARGEST; coarser ones are enlarged themselves."""

SINGLE = ("tfi", "stir", "sdm_stir", "spkdeblurnet")
"""Methods that look at single spikes: rates are turned to zeros and ones for them."""


class View:
    """The photograph as the spikes see it, and the way back.

    The networks take spikes as they are, zeros and ones, better than resampled ones (docs/captures.md). So the
    photograph is brought onto the spikes' grid, and what deblurring changes there is brought back and added to the
    photograph, whose own pixels are not resampled.

    Args:
        light: its photograph in linear light.
        block: image pixels per spike pixel, each way, that the networks want.

    Attributes:
        image: float32 ``(block * h, block * w, 3)``.
        grid: (h, w), what the spikes are to be brought to: their own size in most cases.
    """

    def __init__(self, capture: Capture, light: np.ndarray, block: int = SCALE):
        self.light, self.frame = light, capture.frame
        height, width = light.shape[:2]
        h, w = capture.spike.shape[1:]
        fine = block * w / self.frame[1]
        inside = 1 / FINER <= fine <= LARGEST
        share = 1.0 if inside else min(fine, LARGEST) / fine if fine > 1 else 1 / fine
        self.grid = (h, w) if inside else (round(h * share), round(w * share))
        self.factor = min(fine, LARGEST) if fine > FINER else 1.0
        size = block * self.grid[0], block * self.grid[1]
        right, bottom = self.frame[1] - width, self.frame[0] - height
        full = cv2.copyMakeBorder(light, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        if self.factor > 1:
            enlarged = round(self.frame[1] * self.factor), round(self.frame[0] * self.factor)
            full = cv2.resize(full, enlarged, interpolation=cv2.INTER_CUBIC).clip(0, 1)
        self.inner, self.matrix, self.image = full.shape[:2], None, full
        if self.inner != size or capture.registration != Registration():
            self.matrix = capture.registration.pixels(self.inner, size)
            self.image = cv2.warpPerspective(
                full, self.matrix, size[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
            ).clip(0, 1)

    def back(self, sharp: np.ndarray, whole: bool = False) -> np.ndarray:
        """A sharp image of the spikes' view as one of the photograph's (or up to 3 pixels larger).

        Args:
            sharp: float32, as :attr:`image`.
            whole: bring itself back, not what it changes; it is then black where the spikes see nothing.
        """
        if self.matrix is None and self.factor == 1:
            return sharp
        sharp = sharp if whole else sharp - self.image
        if self.matrix is not None:
            flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
            sharp = cv2.warpPerspective(sharp, self.matrix, self.inner[::-1], flags=flags)
        if self.factor > 1:
            sharp = cv2.resize(sharp, self.frame[::-1], interpolation=cv2.INTER_AREA)
        height, width = self.light.shape[:2]
        return sharp if whole else self.light + sharp[:height, :width]


class Deblurrer:
    """Sharp images at any instants of an exposure.

    Args:
        method: one of :func:`codes.inference.methods.methods`: 'ldn', 'sdmnet' (students), 'sdmnet_motion' (its frames
            joined along the motion), 'teacher', 'sdm', ...; '' is the student whose weights are named, else SDMNet,
            joined along the motion.
        bsn_path, sr_path, deblur_path: weight files; '' is ours in model/.
        **paths: likewise those of the other networks of the registry: ``san_path``, ``stir_path``, ...
        device: 'auto', 'cpu', 'cuda', ...
        precision: 'fp32', 'tf32', 'bf16' or 'fp16'.
        tile: side of the tiles in which the image is computed, a multiple of 4 of at least 64; 0 is the whole image,
            -1 whole images up to 9 million pixels and tiles of 1024 above. The result is the same within rounding.
            The neighbours (:attr:`codes.inference.methods.Method.whole`) compute whole images only.
        spike_gain: 'auto': make the spikes as bright as the photograph for a student that does not do so itself, as the
            authors' weights, so that it serves other firing thresholds than its own.
        hold_colour: hold colours back that the photograph does not justify (:mod:`codes.inference.colour`).

    Raises:
        ValueError, OSError: no such method or device, or weights that are missing or do not fit.
    """

    def __init__(
        self,
        method: str = "",
        bsn_path: str = "",
        sr_path: str = "",
        deblur_path: str = "",
        device: str = "auto",
        precision: str = "fp32",
        tile: int = -1,
        spike_gain: str = "off",
        hold_colour: bool = True,
        **paths: str,
    ):
        if tile not in (0, -1) and (tile < 64 or tile % SCALE):
            raise InputError(f"--tile is {tile}; expected a multiple of {SCALE} of at least 64, 0 (whole) or -1 (auto)")
        self.device, self.precision, self.tile = choose_device(device), precision, tile
        if spike_gain not in ("auto", "off"):
            raise InputError(f"spike_gain is '{spike_gain}'; expected 'auto' or 'off'")
        self.spike_gain, self.hold_colour = spike_gain, hold_colour
        autocast(self.device, precision)
        paths |= {"bsn_path": bsn_path, "sr_path": sr_path, "deblur_path": deblur_path}
        by_flag: dict[str, Any] = {name.removesuffix("_path"): path for name, path in paths.items()}
        self.name = method or method_of([flag for flag, path in by_flag.items() if path])
        self.weights = Weights(**by_flag)
        self._methods: dict[int, Method] = {}
        self.method = self._method(max(tile, 0))

    def _method(self, tile: int) -> Method:
        if tile not in self._methods:
            self._methods[tile] = load_method(self.name, self.weights, self.device, tile)
        return self._methods[tile]

    def frames(self, capture: Capture, instants: Sequence[int]) -> Iterator[np.ndarray]:
        """The sharp images, one after another, so that a long sequence needs no more memory than a short one.

        Args:
            instants: spike frame indices from the start of the stream.

        Returns:
            An iterator over uint8 ``(H, W, 3)``, B,G,R, of the image's size.

        Raises:
            ValueError: an instant outside the stream.
        """
        refuse_outside(instants, len(capture.spike))
        return self._frames(capture, instants)

    def _frames(self, capture: Capture, instants: Sequence[int]) -> Iterator[np.ndarray]:
        height, width = capture.blur.shape[:2]
        light = capture.light()
        palette = Palette(light) if self.hold_colour and not self.method.grey else None
        view = View(capture, light, block=2 if self.name == "spkdeblurnet" else SCALE)
        tall, wide = view.image.shape[:2]
        clock = Clock(capture.exposure, len(capture.spike))
        rates = on_grid(clock.streams(capture.spike), view.grid)
        rates = fired(rates) if self.name in SINGLE else rates
        tile = (AUTO_TILE if tall * wide > WHOLE else 0) if self.tile < 0 else self.tile
        method = self._method(0 if self.method.whole else tile)
        with torch.inference_mode(), autocast(self.device, self.precision):
            blur = torch.from_numpy(view.image).permute(2, 0, 1)[None].contiguous().to(self.device)
            spike = torch.from_numpy(rates)[None].to(self.device)
            plain = any(getattr(network, "gain", True) is False for network in method.networks.values())
            if self.spike_gain == "auto" and plain:
                spike = spike * exposure_gain(blur, spike, clock.exposure)[:, None, None, None]
            images = method.start(blur, spike, clock.exposure)
        for instant in instants:
            with torch.inference_mode(), autocast(self.device, self.precision):
                image = images([clock.instant(instant)])[0, 0]
            sharp = np.nan_to_num(image.float().cpu().numpy().transpose(1, 2, 0))
            sharp = view.back(sharp, self.method.grey)[:height, :width].clip(0, 1)
            if palette:
                sharp = palette.hold(sharp).clip(0, 1)
            yield np.rint(capture.tone.coded(sharp).clip(0, 1) * 255).astype(np.uint8)

    def __call__(
        self, blur, spike, frames: int | Sequence[int] = 7, reading: Reading | None = None, **known
    ) -> np.ndarray:
        """Deblur one capture.

        Args:
            blur: the photograph's path, or ``(H, W, 3)``, B,G,R, uint8 or uint16.
            spike: the stream's path (.dat, .npy or .npz), or ``(T, h, w)`` of zeros and ones.
            frames: how many instants, evenly over the exposure, or which (spike frame indices).
            reading: what is known of them; the rest is found.
            **known: instead of it, by name: ``spike_size``, ``exposure``, ``tone``, ``flip``, ... (:class:`Reading`).

        Returns:
            uint8 ``(M, H, W, 3)``, B,G,R.

        Raises:
            OSError, ValueError: what is wrong with the capture.
        """
        capture = open_capture(blur, spike, reading, **known)
        try:
            if isinstance(frames, int | np.integer):
                instants = evenly(capture.exposure, int(frames))
            else:
                instants = tuple(map(index, frames))
        except TypeError:
            raise InputError(f"frames is {frames!r}; expected how many, or which as a list of numbers") from None
        return np.stack(list(self.frames(capture, instants)))
