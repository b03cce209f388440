"""Figures of what the program does: the pipeline with real pictures in it, parts magnified. All uint8 B,G,R."""

import cv2
import numpy as np
import torch

from codes.image import enlarge_to, grid, label, to_uint8
from codes.sdm import Teacher, sdm
from codes.spike import EXPOSURE, tfp
from codes.student import Sight

INK, PAPER, LINES = (40, 40, 40), (255, 255, 255), ((180, 110, 30), (40, 120, 200), (60, 150, 60), (150, 60, 150))
CELL, GAP, CAPTION = (260, 146), (62, 74), 20


def write(canvas: np.ndarray, text: str, x: int, y: int, scale: float = 0.45, colour=INK) -> None:
    """Write a line of text with its lower left corner at (x, y)."""
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)


def busiest(image: np.ndarray, share: float = 0.22) -> tuple[slice, slice]:
    """The part of uint8 ``(H, W, 3)`` with the most detail, of ``share`` of each side: rows, columns."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)
    detail = np.abs(cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 1.5), cv2.CV_32F))
    height, width = (max(int(extent * share), 1) for extent in grey.shape)
    sums = cv2.boxFilter(detail, -1, (width, height), anchor=(0, 0), normalize=False)
    sums = sums[: grey.shape[0] - height + 1, : grey.shape[1] - width + 1]
    top, left = np.unravel_index(sums.argmax(), sums.shape)
    return slice(int(top), int(top) + height), slice(int(left), int(left) + width)


def magnified(cells: list[tuple[np.ndarray, str]], columns: int = 0) -> np.ndarray:
    """Captioned images side by side, below each the same part of it magnified, which is framed in the image.

    The part is the one with the most detail in the last image.

    Args:
        cells: (uint8 ``(H, W, 3)`` B,G,R, caption) each; all are brought to the largest size.
        columns: images in a row; 0 is all.
    """
    height, width = (max(image.shape[axis] for image, _ in cells) for axis in (0, 1))
    cells = [(enlarge_to(image, height, width), text) for image, text in cells]
    (rows, across), pictures = busiest(cells[-1][0]), []
    for image, text in cells:
        part = image[rows, across]
        scale = width / part.shape[1]
        below = cv2.resize(part, (width, round(part.shape[0] * scale)), interpolation=cv2.INTER_NEAREST)
        framed = label(image, text)
        thick = max(height // 240, 1)
        cv2.rectangle(framed, (across.start, rows.start), (across.stop, rows.stop), (60, 220, 255), thick)
        pictures.append((np.vstack([framed, below]), ""))
    return grid(pictures, columns or len(pictures))


def pipeline(sample: dict, bsn, sr, ldn, instant: int = 36) -> np.ndarray:
    """The pipeline on one sample: inputs, teacher and student, each box its real picture.

    Args:
        sample: ``blur`` ``(3, H, W)`` and ``spike`` ``(137, H/4, W/4)`` on the networks' device.
        bsn, sr, ldn: trained networks.
        instant: the spike frame that is reconstructed.
    """
    blur, spike = sample["blur"][None], sample["spike"][None]
    teacher = Teacher.cascade(bsn, sr)
    with torch.inference_mode():
        long, denoised = teacher.long(spike), teacher.denoised(spike, instant)
        short = teacher.enlarge(denoised).clamp(0, 1)
        student = ldn(blur, Sight.of(ldn)(blur, spike, [instant]))[:, 0]
        cells = {  # (row, column): caption, picture
            (0, 0): ("blurry photograph B", blur),
            (2, 0): (f"spike frame t = {instant}", spike[:, instant : instant + 1].float()),
            (1, 1): ("TFP of the 97 exposure frames", tfp(spike, EXPOSURE.centre, EXPOSURE.length)),
            (2, 1): ("TFP of 9 frames around t", tfp(spike, instant, 9)),
            (2, 2): ("BSN: blind-spot denoiser", denoised),
            (1, 3): ("EDSR x4: E_long", long),
            (2, 3): ("EDSR x4: E_short(t)", short),
            (1, 4): ("teacher: SDM = B E_short / E_long", sdm(blur, long, short)),
            (1, 5): ("student: LDN(B, spikes around t)", student),
        }
    (width, height), (across, down) = CELL, GAP
    canvas = np.full((3 * (height + CAPTION) + 4 * down, 6 * width + 7 * across, 3), PAPER, np.uint8)

    def corner(row, column):
        return across + column * (width + across), down + row * (height + CAPTION + down)

    for (row, column), (caption, picture) in cells.items():
        x, y = corner(row, column)
        image = to_uint8(picture[0])
        kind = cv2.INTER_AREA if image.shape[1] > width else cv2.INTER_NEAREST
        canvas[y : y + height, x : x + width] = cv2.resize(image, CELL, interpolation=kind)
        cv2.rectangle(canvas, (x - 1, y - 1), (x + width, y + height), INK, 1)
        write(canvas, caption, x, y + height + 16)

    def arrow(start, end, *between):
        points = [start, *between, end]
        for a, b in zip(points[:-2], points[1:-1], strict=True):
            cv2.line(canvas, a, b, LINES[1], 2, cv2.LINE_AA)
        cv2.arrowedLine(
            canvas,
            points[-2],
            end,
            LINES[1],
            2,
            cv2.LINE_AA,
            tipLength=12 / max(np.hypot(*np.subtract(end, points[-2])), 12),
        )

    def side(cell, where):  # the middle of a side of a cell
        x, y = corner(*cell)
        return {
            "left": (x - 4, y + height // 2),
            "right": (x + width + 4, y + height // 2),
            "top": (x + width // 2, y - 5),
            "bottom": (x + width // 2, y + height + CAPTION + 4),
        }[where]

    arrow(side((2, 0), "right"), side((2, 1), "left"))
    arrow(side((2, 1), "right"), side((2, 2), "left"))
    arrow(side((2, 2), "right"), side((2, 3), "left"))
    arrow(side((1, 1), "right"), side((1, 3), "left"))
    arrow(side((1, 3), "right"), side((1, 4), "left"))
    column = side((1, 4), "bottom")[0]
    arrow(side((2, 3), "right"), side((1, 4), "bottom"), (column, side((2, 3), "right")[1]))
    row = side((0, 0), "right")[1]
    arrow(side((0, 0), "right"), side((1, 4), "top"), (column, row))
    target = side((1, 5), "top")[0]
    arrow((column, row), side((1, 5), "top"), (target, row))
    bottom = side((2, 0), "bottom")[1] + 16
    arrow(side((2, 0), "bottom"), side((1, 5), "bottom"), (side((2, 0), "bottom")[0], bottom), (target, bottom))
    source = side((2, 0), "top")
    arrow(source, side((1, 1), "left"), (source[0], side((1, 1), "left")[1]))
    start, end = side((1, 4), "right"), side((1, 5), "left")
    cv2.line(canvas, start, end, LINES[0], 1, cv2.LINE_AA)
    write(canvas, "pseudo-", start[0], start[1] - 18, 0.42, LINES[0])
    write(canvas, "label", start[0], start[1] - 5, 0.42, LINES[0])
    return canvas
