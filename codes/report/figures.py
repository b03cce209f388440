"""Pictures of results: images side by side with their most detailed part magnified. All uint8 B,G,R."""

import cv2
import numpy as np

from codes.image import enlarge_to, grid, label


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
