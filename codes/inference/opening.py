"""A capture is opened once: photo and stream are read, what is not told is found, and what was found is said.

Each finding is a function of its own (bad pixels, size, flip and bit order, tone, exposure, registration) that says how
sure it is; here they are asked one after another. What is clear is done and noted; what is not, is left as it is, and
doubted aloud.
"""

from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path

import cv2
import numpy as np
import torch

from codes.errors import InputError
from codes.exposure import exposure_of
from codes.files import disguise
from codes.image import grey
from codes.inference import pixels, streams
from codes.inference.alignment import ENOUGH, Alignment, align
from codes.inference.photos import Photo, deep_photo, read_photo
from codes.inference.registering import REMAINS, register
from codes.inference.streams import Layout
from codes.inference.timing import Timing, find_exposure, misfit
from codes.registration import Registration
from codes.spike import EXPOSURE, SCALE, tfp_long
from codes.student import LARGEST_GAIN
from codes.tone import Tone, estimate

OFFICIAL = slice(EXPOSURE.start, EXPOSURE.stop)
TURNED = {"flipped vertically": "vertical", "flipped horizontally": "horizontal", "turned by 180 degrees": "both"}
OTHER_BITS = "packed with the other bit order"
CLEARLY_LATER = 0.1
"""An exposure is doubted if this share of its mean does not fit the photograph, and half of that fits elsewhere."""

CLOSE = 2
"""Frames within which an exposure must be known to be taken, or missed, before a registration is tried."""

FITS = 0.02
"""Share of the mean over an exposure that may be unexplained where photo and spikes lie on one another."""


@dataclass(frozen=True)
class Reading:
    """How captures are to be read: what is known of them, and what is to be found.

    Args:
        layout: of the stream's file; its size None: found from the length and the photograph.
        exposure: frames [start, stop) as a slice (a pair, a range and '20:117' become one); 'auto' or 'auto:LENGTH':
            found; None: the official window of streams of 137 frames, otherwise found.
        flip: 'none', 'vertical', 'horizontal' or 'both': how the stream must be turned over to lie as the photo does.
        crop: (top, left, height, width) of the spikes' field of view in image pixels; image and spikes are cut to it.
        tone: 'auto', 'linear', 'srgb' or 'gamma:G'.
        align: 'auto', 'off', or a registration.
        bad_pixels: find and fill the sensor's own marks.
        bits: of the numbers in a 16-bit photograph; 0: found.
        exif: turn the photograph as it says.
        check: look whether both fit where nothing is found automatically.
    """

    layout: Layout = field(default_factory=Layout)
    exposure: slice | range | tuple[int, int] | str | None = None
    flip: str = "none"
    crop: tuple[int, int, int, int] | None = None
    tone: str = "auto"
    align: str | Registration = "auto"
    bad_pixels: bool = True
    bits: int = 0
    exif: bool = True
    check: bool = True

    @classmethod
    def of(cls, spike_size: tuple[int, int] | None = None, **known) -> "Reading":
        """From what is known by name: fields of this class and of :class:`codes.inference.streams.Layout`."""
        layout = {name: known.pop(name) for name in ("row_bits", "bit_order", "key", "axes") if name in known}
        return cls(Layout(spike_size, **layout), **known)

    def __post_init__(self):
        if self.tone != "auto":
            Tone(self.tone)
        if isinstance(self.align, str) and self.align not in ("auto", "off"):
            raise InputError(
                f"align is '{self.align}'; expected 'auto', 'off' or a Registration (Camera.read(FILE).registration)"
            )
        if self.exposure is not None:
            object.__setattr__(self, "exposure", exposure_of(self.exposure))


OFFICIALLY = {"tone": "linear", "align": "off", "bad_pixels": False}
"""The reading of data sets, whose photographs are means of linear light on the grid of their spikes."""


@dataclass(frozen=True)
class Capture:
    """A photograph with its spikes, and what is known of both.

    Args:
        blur: ``(H, W, 3)``, B,G,R, uint8 or uint16, as the camera coded it.
        spike: uint8 ``(T, h, w)`` of zeros and ones, lying as the photograph does.
        exposure: the frames [start, stop) during which the photograph was taken.
        tone: its tone curve.
        registration: how the spikes lie on :attr:`frame`.
        notes: what was found and done, in words.
        doubts: what seems wrong and was left as it is.
    """

    blur: np.ndarray
    spike: np.ndarray
    exposure: slice
    tone: Tone = Tone()
    registration: Registration = Registration()
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def frame(self) -> tuple[int, int]:
        """(height, width) in image pixels of what the spikes see: the photograph, or up to 3 pixels more of it."""
        height, width = self.blur.shape[:2]
        h, w = self.spike.shape[1:]
        quarter = 0 <= SCALE * h - height < SCALE and 0 <= SCALE * w - width < SCALE
        return (SCALE * h, SCALE * w) if quarter else (height, width)

    @property
    def picture(self) -> np.ndarray:
        """The photograph as uint8, to be looked at."""
        return self.blur if self.blur.dtype == np.uint8 else (self.blur >> 8).astype(np.uint8)

    def light(self) -> np.ndarray:
        """The photograph in linear light, float32 ``(H, W, 3)`` in [0, 1]."""
        return self.tone.linear(self.blur.astype(np.float32) / np.float32(np.iinfo(self.blur.dtype).max))

    def grey_small(self, way: int = cv2.INTER_AREA) -> np.ndarray:
        """Its grey at the size of the spikes, as the spikes would see it if they lay on it exactly.

        Args:
            way: cv2.INTER_AREA: averaged over whole spike pixels; cv2.INTER_LINEAR: over their middle.
        """
        h, w = self.spike.shape[1:]
        linear = self.tone.name == "linear"
        seen = self._on_frame(self.blur if linear else self.light())
        small = cv2.resize(seen, (w, h), interpolation=way).astype(np.float32)
        return grey(small / np.float32(np.iinfo(self.blur.dtype).max) if linear else small, -1)[..., 0]

    def grey_frame(self) -> np.ndarray:
        """Its grey in linear light, float32, of the size of :attr:`frame`."""
        return self._on_frame(grey(self.light(), -1)[..., 0])

    def _on_frame(self, picture: np.ndarray) -> np.ndarray:
        below, right = self.frame[0] - picture.shape[0], self.frame[1] - picture.shape[1]
        return cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_REPLICATE)

    def tfp_long(self) -> np.ndarray:
        """The mean of the spikes over the exposure, float32 ``(h, w)``."""
        return tfp_long(torch.from_numpy(self.spike), self.exposure)[0].numpy()

    def noted(self, *notes: str, **changes) -> "Capture":
        """The same with changes and what is to be said of them."""
        return replace(self, notes=(*self.notes, *(note for note in notes if note)), **changes)

    def doubted(self, *doubts: str) -> "Capture":
        """The same with more doubts."""
        return replace(self, doubts=(*self.doubts, *(doubt for doubt in doubts if doubt)))


def open_capture(blur, spike, reading: Reading | None = None, **known) -> Capture:
    """Photograph and spikes from files or arrays.

    Args:
        blur: path, or ``(H, W, 3)``, B,G,R, uint8 or uint16.
        spike: path of .dat, .npy or .npz, or ``(T, h, w)`` of zeros and ones.
        reading: what is known and what is to be found.
        **known: instead of it, by name, as of :meth:`Reading.of`.

    Raises:
        OSError, InputError: what is wrong with it.
    """
    reading = reading or Reading.of(**known)
    photo = _photo(blur, reading)
    notes = [f"photo: {photo.note}"] if photo.note else []
    stream, note = _stream(spike, photo, reading)
    if note:
        notes.append(f"size: {note}")
    image, stream = fit(photo.pixels, streams.flip(stream, reading.flip), reading.crop)
    total = len(stream)
    if isinstance(reading.exposure, slice):
        window = reading.exposure
    else:
        window = OFFICIAL if reading.exposure is None and total == EXPOSURE.total else slice(0, total)
    if not 0 <= window.start < window.stop <= total:
        name = spike if isinstance(spike, str | Path) else "the stream"
        raise InputError(
            f"--exposure {window.start}:{window.stop} leaves {name}, which holds {total} frames of "
            f"{stream.shape[1]}x{stream.shape[2]}; expected 0 <= START < END <= {total}"
        )
    capture = Capture(image, stream, window, notes=tuple(notes))
    find_time = isinstance(reading.exposure, str) or (reading.exposure is None and total != EXPOSURE.total)
    look = find_time or reading.check or reading.align == "auto"
    if not find_time or reading.tone != "auto":  # of another exposure a photo tells no tone
        capture = _toned(capture, reading)
    rate, light = float(capture.tfp_long().mean()), float(capture.grey_small().mean())
    if light > LARGEST_GAIN * rate:
        capture = capture.noted(
            f"brightness: pixels fire in {rate:.3%} of the frames, too few for a photo this bright; "
            f"spikes are multiplied by {LARGEST_GAIN:g} at most"
        )
    coarse = align(capture.grey_small(), capture.tfp_long(), scales=True) if look else None
    if coarse and coarse.textured and coarse.best < ENOUGH and photo.orientation != 1:
        capture = capture.doubted(
            f"the photo is turned by its Exif orientation {photo.orientation}, the stream may not be: try --no-exif"
        )
    if reading.align == "auto" and coarse and coarse.textured:
        capture, coarse = _turned(capture, coarse, photo)
    if reading.bad_pixels and (bad := pixels.find_bad_pixels(capture.spike)).any():
        note = f"bad pixels: {int(bad.sum())} filled from their neighbours (--bad_pixels off: left)"
        capture = capture.noted(note, spike=pixels.fill(capture.spike, bad))
    if find_time:
        capture = _timed(capture, reading, spike)
        capture = _toned(capture, reading)
        coarse = align(capture.grey_small(), capture.tfp_long(), scales=True)
    elif look and (doubt := _time_doubt(capture, coarse)):
        return capture.doubted(doubt)
    if isinstance(reading.align, Registration):
        words = reading.align.words(capture.frame)
        return capture.noted(f"registration: given, {words}", registration=reading.align)
    if reading.align == "auto":
        return _registered(capture, coarse)
    return capture.doubted(_words(capture, coarse)) if reading.check else capture


def check(capture: Capture) -> str:
    """What seems wrong between image and spikes, and which option mends it; '' if nothing."""
    return _words(capture, align(capture.grey_small(), capture.tfp_long(), scales=True))


def fit(blur: np.ndarray, spike: np.ndarray, crop: tuple[int, int, int, int] | None = None):
    """Bring an image and a stream to one field of view.

    Args:
        blur: ``(H, W, 3)``.
        spike: ``(T, h, w)``.
        crop: (top, left, height, width) of the spikes' field of view in image pixels; it may reach beyond the image,
            and both are then cut to what they share. None: both see the same.

    Returns:
        The image and the spikes, cut; the image enlarged or shrunk where ``crop`` is not 4 times the spikes.

    Raises:
        InputError: the shapes do not fit, or the fields of view share too little.
    """
    height, width = blur.shape[:2]
    h, w = spike.shape[1:]
    if crop is None:
        quarter = 0 <= SCALE * h - height < SCALE and 0 <= SCALE * w - width < SCALE
        if not quarter and abs(h * width / (w * height) - 1) > streams.ASPECT:
            raise InputError(
                f"the image is {height}x{width} and the spikes are {h}x{w}: not the same shape; expected an image 4 "
                f"times as large, {SCALE * h}x{SCALE * w}, or larger or smaller in both directions alike: give the "
                "right --spike_size, or --crop TOP,LEFT,HEIGHT,WIDTH, the part of the image that the spike camera sees"
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


# Reading ------------------------------------------------------------------------------------------------


def _photo(blur, reading: Reading) -> Photo:
    if isinstance(blur, str | PathLike):
        return read_photo(blur, reading.bits, reading.exif)
    if not isinstance(blur, np.ndarray):
        raise InputError(f"the image is {type(blur).__name__}; expected a path or an array")
    if blur.ndim != 3 or blur.shape[2] != 3 or blur.dtype not in (np.uint8, np.uint16):
        raise InputError(f"the image is {blur.dtype} {blur.shape}; expected uint8 (or uint16) (H, W, 3), B,G,R")
    return Photo(blur) if blur.dtype == np.uint8 else deep_photo(blur, reading.bits)


def _stream(spike, photo: Photo, reading: Reading) -> tuple[np.ndarray, str]:
    """The stream, and what was found about its layout."""
    layout, size = reading.layout, photo.pixels.shape[:2]
    if isinstance(spike, np.ndarray):
        return streams.unpacked(spike, layout), ""
    if not isinstance(spike, str | PathLike):
        raise InputError(f"the stream is {type(spike).__name__}; expected a path or an array")
    if layout.size is not None:
        return streams.read_stream(spike, layout), ""
    if Path(spike).suffix.lower() in streams.ARRAYS:
        found = streams.layouts_that_fit(spike, size, layout)
        note = "axes read as height, width, time" if found[0].axes == "hwt" and layout.axes == "auto" else ""
        return streams.read_stream(spike, found[0]), note
    found = streams.layouts_that_fit(spike, size, layout)
    quarter = tuple(-(-extent // SCALE) for extent in size)
    known = [one for one in found if one.size == quarter and one.row_bits == layout.row_bits]
    if known and Path(spike).stat().st_size == EXPOSURE.total * (
        (quarter[0] * (layout.row_bits or quarter[1]) + 7) // 8
    ):
        return streams.read_stream(spike, known[0]), ""
    if not found:
        raise InputError(_no_size(spike, photo, layout))
    if len(found) > 1 or found[0].size != quarter:
        return _fitting(spike, photo, found)
    told = found[0].row_bits == layout.row_bits
    return streams.read_stream(spike, found[0]), "" if told else f"spikes of {found[0].words}"


def _fitting(spike, photo: Photo, found: list[Layout]) -> tuple[np.ndarray, str]:
    """Of several layouts the one whose long TFP looks like the photograph."""
    tried = []
    for layout in found:
        stream = streams.read_stream(spike, layout)
        h, w = stream.shape[1:]
        small = grey(cv2.resize(photo.pixels, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32), -1)[..., 0]
        mean = stream.mean(axis=0, dtype=np.float32)
        short = min(w, 160), max(min(w, 160) * h // w, 8)  # enough to tell, and little to do
        small, mean = (cv2.resize(picture, short, interpolation=cv2.INTER_AREA) for picture in (small, mean))
        tried.append((align(small, mean).best, layout, stream))
    tried.sort(key=lambda one: -one[0])
    listed = ", ".join(f"{layout.words} ({len(stream)} frames)" for _, layout, stream in tried[:6])
    if tried[0][0] < ENOUGH or (len(tried) > 1 and tried[0][0] < tried[1][0] + 0.1):
        raise InputError(f"{spike} may hold frames of {listed}: none is clearly the photograph's; give --spike_size")
    return tried[0][2], f"spikes of {tried[0][1].words}, {len(tried[0][2])} frames (correlation {tried[0][0]:.2f})"


def _no_size(spike, photo: Photo, layout: Layout) -> str:
    height, width = photo.pixels.shape[:2]
    quarter = -(-height // SCALE), -(-width // SCALE)
    size = Path(spike).stat().st_size
    words = (
        f"{spike} holds {size} bytes, not a whole number of {quarter[0]}x{quarter[1]} spike frames "
        "(a quarter of the image)"
    )
    if what := disguise(spike):
        return words + what
    turned = streams.layouts_that_fit(spike, (width, height), layout)
    if turned and photo.orientation > 4:
        return (
            f"{words}, but of {turned[0].words}: the photo is turned by its Exif orientation {photo.orientation}, the "
            "stream is not (--no-exif: do not turn the photo)"
        )
    others = streams.layouts_that_fit(spike, None, layout)
    fits = ", ".join(one.words for one in others)
    return f"{words}; " + (f"{fits} would fit its length; " if fits else "") + "give --spike_size HxW"


# Findings -----------------------------------------------------------------------------------------------


def _toned(capture: Capture, reading: Reading) -> Capture:
    """With its tone curve."""
    if reading.tone != "auto":
        return replace(capture, tone=Tone(reading.tone))
    found = estimate(capture.picture, capture.tfp_long())
    tone = found.tone if found.sure else Tone()
    if not found.sure:
        return replace(capture, tone=tone).noted(f"tone: taken as linear, cannot tell ({found.why}); --tone says it")
    if tone.name == "linear":
        return replace(capture, tone=tone)
    return replace(capture, tone=tone).noted(
        f"tone: {tone.name}, gamma {found.gamma:.2f} (fits from {found.low:.2f} to {found.high:.2f}): photo brought to "
        "linear light and back"
    )


def _turned(capture: Capture, coarse: Alignment, photo: Photo) -> tuple[Capture, Alignment]:
    """With flip and bit order mended where one of them clearly is what is wrong."""
    if not coarse.way or coarse.best < ENOUGH:
        return capture, coarse
    way = TURNED.get(coarse.way)
    spike = streams.flip(capture.spike, way) if way else streams.other_bits(capture.spike)
    exif = f"; Exif orientation of the photo: {photo.orientation}" if photo.orientation != 1 and way else ""
    note = (
        f"{'flip' if way else 'bit order'}: the spikes are {coarse.way}, mended "
        f"({MENDS[coarse.way]}; correlation {coarse.correlation:.2f}, mended {coarse.best:.2f}{exif})"
    )
    capture = capture.noted(note, spike=spike)
    return capture, align(capture.grey_small(), capture.tfp_long(), scales=True)


def _timed(capture: Capture, reading: Reading, spike) -> Capture:
    """With the exposure that was found.

    Raises:
        InputError: it cannot be told, and the official one does not apply.
    """
    length = int(reading.exposure[5:] or 0) if isinstance(reading.exposure, str) else 0  # of 'auto:LENGTH'
    found = _searched(capture, reading, length or None)
    if found.sure:
        window = slice(found.start, found.stop)
        words = f"exposure: frames {window.start}:{window.stop}, each within {found.error:.1f}, {_fit_words(found)}"
        return capture.noted(words, exposure=window)
    total = len(capture.spike)
    name = spike if isinstance(spike, str | Path) else "the stream"
    h, w = capture.spike.shape[1:]
    if reading.exposure is None or total < EXPOSURE.total:
        raise InputError(
            f"{name} holds {total} frames of {h}x{w}; {EXPOSURE.total} are expected, and which of them are the "
            f"exposure cannot be told from the photo (best {found.start}:{found.stop}): say it "
            "(--exposure START:END, counted from 0), or its length (--exposure auto:LENGTH), or the right --spike_size"
        )
    better = "" if length else ", or its length (--exposure auto:LENGTH)"
    why = "too little moves" if reading.tone == "auto" else f"too little moves, or the tone is not {reading.tone}"
    raise InputError(
        f"{name}: which frames are the exposure cannot be told from the photo: {why} (best "
        f"{found.start}:{found.stop}); give --exposure START:END{better}"
    )


def _searched(capture: Capture, reading: Reading, length: int | None) -> Timing:
    """The exposure of the photo as it is; where that does not fit well, of what tone and registration make of it.

    Both are told by the best window so far: those of a longer stream would take what moved for a shift.
    """
    found = find_exposure(_views(capture), capture.spike, length)
    if found.sure and found.error <= CLOSE and found.unexplained < FITS:
        return found
    guess = _toned(replace(capture, exposure=slice(found.start, found.stop)), reading)
    views, long = _views(guess), guess.tfp_long()
    small = views[..., 0]
    coarse = align(small, long, scales=True)
    if coarse.best >= ENOUGH:
        way = register(guess.grey_frame(), long, _coarse_way(coarse, small.shape))
        if way.sure:
            h, w = small.shape
            matrix = np.linalg.inv(way.registration.pixels(small.shape, small.shape))
            views = cv2.warpPerspective(
                views, matrix, (w, h), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
            )
    again = find_exposure(views, capture.spike, length)
    return min(found, again, key=lambda one: (not one.sure, one.unexplained))


def _views(capture: Capture) -> np.ndarray:
    """The photo in grey as :func:`find_exposure` wants it."""
    return np.dstack([capture.grey_small(), capture.grey_small(cv2.INTER_LINEAR)])


def _time_doubt(capture: Capture, coarse: Alignment | None) -> str:
    """Whether the photograph fits another part of the stream clearly better than the exposure at hand."""
    if coarse is None or not coarse.textured or coarse.best < ENOUGH or len(capture.spike) < 32:
        return ""
    small = _views(capture)
    here = misfit(small, capture.spike, capture.exposure)
    length = capture.exposure.stop - capture.exposure.start
    if here < CLEARLY_LATER * 0.02 and length > 16:
        return ""
    found = find_exposure(small, capture.spike)
    start, stop = capture.exposure.start, capture.exposure.stop
    apart = max(abs(found.start - start), abs(found.stop - stop))
    if found.sure and found.error <= CLOSE and apart > 8 and found.unexplained < 0.5 * here:
        return (
            f"the photo was taken during other frames of the stream than {start}:{stop}; try --exposure "
            f"{found.start}:{found.stop} ({_fit_words(found)} instead of {100 * here:.2f} %)"
        )
    return ""


def _registered(capture: Capture, coarse: Alignment | None) -> Capture:
    """With the registration of spikes and photograph, where one is clear."""
    if coarse is None or not coarse.textured:
        return capture
    if coarse.best < ENOUGH:
        return capture.doubted(_words(capture, coarse))
    found = register(capture.grey_frame(), capture.tfp_long(), _coarse_way(coarse, capture.spike.shape[1:]))
    if found.sure:
        capture = capture.noted(
            f"registration: the spikes' view lies {found.registration.words(capture.frame)} on the photo, up to "
            f"{found.pixels:.2f} image pixels: resampled (correlation {found.before:.4f}, so {found.after:.4f}; "
            "--align off: left)",
            registration=found.registration,
        )
    elif coarse.fault:
        capture = capture.doubted(_words(capture, coarse))
    if 1 - found.after > REMAINS and found.after >= ENOUGH:
        capture = capture.doubted(
            f"image and spikes correlate by {found.after:.2f} and no better: parts at different distances (parallax), "
            "another tone or another exposure; no registration of the whole mends that"
        )
    return capture


def _coarse_way(coarse: Alignment, size: tuple[int, int]) -> Registration | None:
    """Where the coarse look puts the spikes, as the start of the registration."""
    if coarse.scale == 1 and max(map(abs, coarse.shift)) <= 1:
        return None
    matrix = np.diag([1 / coarse.scale, 1 / coarse.scale, 1.0])
    for axis, (move, extent) in enumerate(((coarse.shift[1], size[1]), (coarse.shift[0], size[0]))):
        matrix[axis, 2] = 0.5 - (0.5 + move / extent) / coarse.scale
    return Registration.of(matrix)


MENDS = {way: f"--flip {flip}" for way, flip in TURNED.items()} | {OTHER_BITS: "--bit_order big"}


def _words(capture: Capture, found: Alignment | None) -> str:
    """A fault that the coarse look found, with the option that mends it."""
    if found is None or not found.fault:
        return ""
    h, w = capture.spike.shape[1:]
    tall, wide = capture.frame
    known = found.best >= ENOUGH  # of another scene, whatever fits best mends nothing
    words = [MENDS[found.way]] if known and found.way else []
    if known and (max(map(abs, found.shift)) > 1 or found.scale != 1):
        # Where the mended TFP lies on the image: moved by the shift, scaled about its centre.
        down, right = found.shift[0] * tall / h, found.shift[1] * wide / w
        high, broad = round(tall * found.scale), round(wide * found.scale)
        top, left = round(down + (tall - high) / 2), round(right + (wide - broad) / 2)
        words.append(f"--crop={top},{left},{high},{broad}")  # '=': a negative TOP is no flag then
    if words:
        return f"{found.fault}; try {' '.join(words)}"
    return f"{found.fault}; is it the right stream, exposure (--exposure), spike size (--spike_size) and crop (--crop)?"


def _fit_words(found: Timing) -> str:
    return f"which leave {max(100 * found.unexplained, 0):.2f} % of the photo unexplained"
