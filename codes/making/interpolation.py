"""Frames between two frames of a video: the step before high-speed video becomes blur and spikes.

An interpolator is a class with one method, ``between(first, second, count)``, which returns ``count`` frames at equal
steps between two. Frames are uint8 ``(H, W, 3)``, B,G,R. The authors used XVFI, a network, whose results are read from
disk (scripts/prepare_gopro.py, ``--interp none``).
"""

import cv2
import numpy as np

from codes.errors import InputError

CONSISTENCY = 1.5
"""Pixels by which forward and backward flow may miss one another before a pixel counts for little."""
STRIP = 16
"""Rows blended at a time, so that what lies between stays in the processor's cache."""


class Linear:
    """The weighted mean of both frames."""

    def between(self, first: np.ndarray, second: np.ndarray, count: int) -> list[np.ndarray]:
        """``count`` frames at equal steps between two, uint8 ``(H, W, 3)``."""
        weights = [step / (count + 1) for step in range(1, count + 1)]
        return [cv2.addWeighted(first, 1 - weight, second, weight, 0) for weight in weights]


class Flow:
    """Both frames moved along the optical flow between them, and blended.

    Flow by DIS (Kroeger et al., ECCV 2016) in both directions. The flow from time t to each frame is put together from
    both as in Super SloMo (Jiang et al., CVPR 2018, equation 4). A frame's weight at a pixel falls with its distance in
    time, and where its flow and the other's do not lead back to the same place: there something is covered in the
    other frame.
    """

    def __init__(self):
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def between(self, first: np.ndarray, second: np.ndarray, count: int) -> list[np.ndarray]:
        """``count`` frames at equal steps between two, uint8 ``(H, W, 3)``."""
        height, width = first.shape[:2]
        if min(height, width) < 16:
            raise InputError(f"frames of {height}x{width} pixels are too small for optical flow; use --interp linear")
        grey = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in (first, second)]
        forward, backward = self._dis.calc(*grey, None), self._dis.calc(*reversed(grey), None)
        columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        grid = np.stack([columns, rows], axis=-1)
        pictures = []  # with how far each pixel can be trusted as fourth channel
        for frame, there, back in ((first, forward, backward), (second, backward, forward)):
            returned = cv2.remap(back, grid + there, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            miss = np.linalg.norm(there + returned, axis=-1)
            trust = np.exp(-((miss / CONSISTENCY) ** 2)) + 1e-3
            pictures.append(np.dstack([frame.astype(np.float32), trust.astype(np.float32)]))
        frames = [np.empty_like(first) for _ in range(count)]
        for top in range(0, height, STRIP):
            strip = slice(top, top + STRIP)
            for step, out in enumerate(frames, 1):
                t = step / (count + 1)
                to_first = grid[strip] - (1 - t) * t * forward[strip] + t * t * backward[strip]
                to_second = grid[strip] + (1 - t) ** 2 * forward[strip] - t * (1 - t) * backward[strip]
                before, after = (
                    cv2.remap(picture, way, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
                    for picture, way in zip(pictures, (to_first, to_second), strict=True)
                )
                weight = (1 - t) * np.maximum(before[..., 3:], 1e-4)
                other = t * np.maximum(after[..., 3:], 1e-4)
                blend = before[..., :3] * weight
                blend += after[..., :3] * other
                blend /= weight + other
                out[strip] = np.rint(np.clip(blend, 0, 255, out=blend), out=blend)
        return frames


INTERPOLATORS = {"flow": Flow, "linear": Linear}
