"""Colours that a blurry image does not justify are held back.

Spikes are grey: all that is known of colour is in the blurry image. What of a sharp frame differs from its own grey may
therefore not differ more, or otherwise, than the blurry image does within reach of the motion; a grey photograph
gives grey frames.
"""

import cv2
import numpy as np

from codes.image import GREY_WEIGHTS

REACH = 96
"""Image pixels within which a colour may have come from."""

SLACK = 0.25
"""Share of the range of what is seen there by which a sharp frame may pass it: blur mixes colours, which makes them
paler."""

WEIGHTS = np.array(GREY_WEIGHTS, np.float32)


class Palette:
    """The colours of a blurry image.

    Args:
        blur: float32 ``(H, W, 3)``, B,G,R in [0, 1], linear light.
    """

    def __init__(self, blur: np.ndarray):
        height, width = blur.shape[:2]
        small = cv2.resize(blur, (max(width // 4, 1), max(height // 4, 1)), interpolation=cv2.INTER_AREA)
        chroma = small - (small @ WEIGHTS)[..., None]
        side = 2 * (REACH // 4) + 1
        kernel = np.ones((side, side), np.uint8)
        low, high = cv2.erode(chroma, kernel), cv2.dilate(chroma, kernel)
        slack = SLACK * (high - low)
        self.grey = bool(np.array_equal(blur[..., 0], blur[..., 1]) and np.array_equal(blur[..., 1], blur[..., 2]))
        self.low, self.high = (cv2.resize(x, (width, height)) for x in (low - slack, high + slack))

    def hold(self, frame: np.ndarray) -> np.ndarray:
        """A sharp frame, float32 ``(H, W, 3)`` in [0, 1], with no other colours than these; its grey stays."""
        light = (frame @ WEIGHTS)[..., None]
        if self.grey:
            return np.broadcast_to(light, frame.shape)
        return light + np.clip(frame - light, self.low, self.high)
