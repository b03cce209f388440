"""Images: the colour order, grey, reading, writing, and pictures that stand side by side.

The one place where the colour order is decided: **B, G, R everywhere**, as OpenCV reads it and as the
official weights expect it. Images are float32 ``(3, H, W)`` or ``(B, 3, H, W)`` in [0, 1].
"""

import contextlib
import re
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from codes.errors import InputError, readable
from codes.files import disguise, replacing, write_bytes

GREY_WEIGHTS = (0.11, 0.59, 0.3)
"""Weights of B, G and R in the official grey (not Rec. 601's 0.114, 0.587, 0.299)."""
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
"""Suffixes of image files, in any case."""
BT709 = (1, 1, 1, 1)
"""Range (16 to 235), matrix, primaries and curve, by the numbers of ITU-T H.273."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""Begins a segment; not the bytes that stand for an 0xFF among the pixels, nor restarts."""


def grey(bgr, axis: int = -3):
    """Grey image of a B,G,R image (tensor or array); ``axis`` is the colour axis and keeps length 1."""
    parts = np.split(bgr, 3, axis) if isinstance(bgr, np.ndarray) else bgr.split(1, axis)
    return sum(part * weight for part, weight in zip(parts, GREY_WEIGHTS, strict=True))


def read_image(path) -> np.ndarray:
    """Read any image file as uint8 ``(H, W, 3)``, B,G,R; of 16 bits the upper 8, without alpha, turned as Exif says.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is no image that OpenCV can decode.
    """
    if Path(path).is_fifo():
        raise InputError(f"{path} is no image{disguise(path)}")  # reading one waits for who writes it
    encoded = np.fromfile(path, np.uint8)  # unlike cv2.imread this says why a file cannot be read
    # OpenCV and libpng would write lines of their own beside the one that the program ends with.
    (cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel)(0)  # OpenCV 4, 5: silent
    start = encoded[:8].tobytes()
    broken = not encoded.size or (start == PNG_SIGNATURE and is_broken_png(encoded))
    broken = broken or (start[:3] == JPEG_SIGNATURE and is_cut_jpeg(encoded))
    try:
        image = None if broken else cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    except cv2.error:  # a header that asks for more pixels than OpenCV allows
        image = None
    if image is None:
        what = disguise(path) or _other_numbers(encoded) or "; replace or remove it"
        raise InputError(f"{path} is no image that can be decoded ({encoded.size} bytes){what}")
    return image


def _other_numbers(encoded: np.ndarray) -> str:
    """Of a TIFF that is refused for its kind of numbers: which they are."""
    if encoded[:4].tobytes() not in (b"II*\0", b"MM\0*"):
        return ""
    with contextlib.suppress(cv2.error):
        if (image := cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)) is not None:
            return f"; its numbers are {image.dtype}: save it with 8 or 16 bits"
    return ""


def is_broken_png(encoded: np.ndarray) -> bool:
    """Whether the end is missing, or the checksum of a chunk that a decoder needs is wrong.

    Args:
        encoded: uint8, a file that begins with the signature. One of 1.5 MB takes 0.6 ms, its decoding 15.
    """
    content, place = encoded.data, len(PNG_SIGNATURE)
    while place + 12 <= len(content):  # length, kind, data, checksum
        kind = bytes(content[place + 4 : place + 8])
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        checked, said = content[place + 4 : end - 4], content[end - 4 : end]
        if kind[:1].isupper() and zlib.crc32(checked) != int.from_bytes(said, "big"):
            return True
        if kind == b"IEND":
            return False
        place = end
    return True


def is_cut_jpeg(encoded: np.ndarray) -> bool:
    """Whether the end marker is missing: some versions of OpenCV fill the rest with grey and say nothing."""
    content, place = encoded.tobytes(), 2
    while found := JPEG_MARKER.search(content, place):
        if found[0] == b"\xff\xd9":
            return False
        place = found.end() + int.from_bytes(content[found.end() : found.end() + 2], "big")
    return True


def to_float(image: np.ndarray) -> np.ndarray:
    """uint8 ``(H, W, C)`` to float32 ``(C, H, W)`` in [0, 1]."""
    return np.divide(np.ascontiguousarray(image.transpose(2, 0, 1)), np.float32(255), dtype=np.float32)


def to_uint8(image) -> np.ndarray:
    """Float ``(C, H, W)`` in [0, 1] (tensor or array, C 1 or 3) to uint8 ``(H, W, 3)``, clipped, rounded; NaN is 0."""
    if not isinstance(image, np.ndarray):
        image = image.detach().float().cpu().numpy()
    image = np.rint(np.clip(np.nan_to_num(image), 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def write_image(path, image: np.ndarray) -> None:
    """Write uint8 ``(H, W, 3)`` B,G,R; the suffix chooses the format. The file appears whole or not at all."""
    with replacing(path) as temporary:
        try:
            done, encoded = cv2.imencode(Path(path).suffix, image)
        except cv2.error:  # of a suffix that it does not know
            done = False
        if not done:
            raise InputError(f"{path}: OpenCV writes no such format")
        write_bytes(temporary, encoded)


def label(image: np.ndarray, text: str) -> np.ndarray:
    """A copy of uint8 ``(H, W, 3)`` with a caption on a dark strip in its upper left corner; not ASCII is '?'."""
    image, text = image.copy(), readable(text).encode("ascii", "replace").decode()
    scale = min(max(image.shape[0] / 700, 0.35), 1.2)
    thickness = 2 if scale > 0.8 else 1
    (width, height), baseline = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    cv2.rectangle(image, (0, 0), (width + 8, height + baseline + 6), (0, 0, 0), -1)
    cv2.putText(image, text, (4, height + 4), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), thickness, cv2.LINE_AA)
    return image


def enlarge_to(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Uint8 ``(H, W, 3)`` brought to another size, pixels kept square-edged (nearest)."""
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)


def grid(cells: list[tuple[np.ndarray, str]], columns: int) -> np.ndarray:
    """Join captioned images to one picture.

    Args:
        cells: (uint8 ``(H, W, 3)`` B,G,R, caption) each, in reading order; all are brought to the largest size.
        columns: images in a row.

    Returns:
        uint8 ``(rows * H, columns * W, 3)``; places left over are black.
    """
    height = max(image.shape[0] for image, _ in cells)
    width = max(image.shape[1] for image, _ in cells)
    pictures = [enlarge_to(image, height, width) for image, _ in cells]
    pictures = [label(picture, text) if text else picture for picture, (_, text) in zip(pictures, cells, strict=True)]
    pictures += [np.zeros((height, width, 3), np.uint8)] * (-len(pictures) % columns)
    return np.vstack([np.hstack(pictures[start : start + columns]) for start in range(0, len(pictures), columns)])


class AnimationWriter:
    """An MP4 (PyAV: H.264, which browsers and slides play) written frame by frame, so that a long one needs no memory.

    It appears whole or not at all. Its colours are BT.709's, said in the file.

    Raises:
        InputError: the suffix names no format that holds H.264.
    """

    def __init__(self, path, fps: float = 12, wanted: bool = True):
        self.path, self.fps, self.wanted = Path(path), fps, wanted
        self.stream: Any = None

    def __enter__(self) -> "AnimationWriter":
        self._stack = contextlib.ExitStack()
        if self.wanted:
            import av

            temporary = self._stack.enter_context(replacing(self.path))
            try:
                self.container = self._stack.enter_context(av.open(str(temporary), "w"))
            except ValueError:
                raise InputError(f"{self.path}: no known kind of video; expected a name that ends in .mp4") from None
        return self

    def add(self, frame: np.ndarray) -> None:
        """Append uint8 ``(H, W, 3)``, B,G,R; all must be of one size. An odd last row or column is dropped."""
        if not self.wanted:
            return
        import av

        height, width = (extent // 2 * 2 for extent in frame.shape[:2])  # the codec halves the colours' size
        if self.stream is None:
            self.stream = self.container.add_stream("libx264", rate=Fraction(self.fps).limit_denominator(1001))
            self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, "yuv420p"
            self.stream.options = {"crf": "16", "preset": "fast"}
            context = self.stream.codec_context
            context.color_range, context.colorspace, context.color_primaries, context.color_trc = BT709
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="bgr24")
        picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        self.container.mux(self.stream.encode(picture))

    def __exit__(self, *error) -> None:
        if self.stream is not None and error[0] is None:
            self.container.mux(self.stream.encode())
        self._stack.__exit__(*error)


def write_gif(path, frames: list[np.ndarray], fps: float = 12) -> None:
    """Write uint8 ``(H, W, 3)`` B,G,R frames as an endless GIF (Pillow)."""
    from PIL import Image  # comes with scikit-image

    with replacing(path) as temporary:
        # Median cut, Pillow's default, takes the colour from what is small and saturated.
        images = {id(frame): Image.fromarray(frame[..., ::-1]) for frame in frames}
        middle = images[id(frames[len(frames) // 2])].copy()
        middle.thumbnail((320, 320))
        # Of a small one for all: to find it takes longest.
        palette = middle.quantize(64, method=Image.Quantize.MAXCOVERAGE, kmeans=2)
        small = {key: image.quantize(palette=palette, dither=Image.Dither.NONE) for key, image in images.items()}
        pictures = [small[id(frame)] for frame in frames]
        pictures[0].save(temporary, save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0)
