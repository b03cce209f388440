"""Exposures of any length for networks that know 97 frames.

A longer exposure is cut into 97 equal spans, and so is what lies before and after it: the mean over each is a frame of
rates, with less noise than a single frame has. Where a span begins or ends within a frame, it gets that share of it.
"""

import cv2
import numpy as np

from codes.spike import EXPOSURE

LONGEST = 120
"""Frames up to which an exposure is given to the networks as it is; shorter ones always are."""


class Clock:
    """How frames of a stream become the frames that the networks are given.

    Args:
        exposure: frames [start, stop) of the stream.
        total: frames of the stream.
    """

    def __init__(self, exposure: slice, total: int):
        length = exposure.stop - exposure.start
        self.total, self.span = total, 1.0 if length <= LONGEST else length / EXPOSURE.length
        before = int(exposure.start / self.span)
        after = int((total - exposure.stop) / self.span)
        self.first = exposure.start - before * self.span  # where the first span begins
        spans = length if self.span == 1 else EXPOSURE.length
        self.frames, self.exposure = before + spans + after, slice(before, before + spans)

    def streams(self, spike: np.ndarray) -> np.ndarray:
        """``(T, h, w)`` to float32 ``(frames, h, w)``, means over the spans; the stream itself if it stays as it is."""
        if self.span == 1:
            return spike
        edges = self.first + self.span * np.arange(self.frames + 1)
        result = np.empty((self.frames, *spike.shape[1:]), np.float32)
        for index in range(self.frames):
            start, stop = edges[index], min(edges[index + 1], self.total)
            inside = slice(int(np.ceil(start - 1e-9)), int(np.floor(stop + 1e-9)))
            total = spike[inside].sum(axis=0, dtype=np.float32)
            for share, frame in ((inside.start - start, inside.start - 1), (stop - inside.stop, inside.stop)):
                if share > 1e-9 and 0 <= frame < self.total:
                    total += np.float32(share) * spike[frame]
            np.divide(total, np.float32(self.span), out=result[index])
        return result

    def instant(self, frame: int) -> int:
        """The networks' frame in which a frame of the stream lies."""
        at = (frame + 0.5 - self.first) / self.span
        return min(max(int(at), 0), self.frames - 1)


def fired(rates: np.ndarray) -> np.ndarray:
    """Rates ``(T, h, w)`` as zeros and ones, uint8, of the same sums: for what looks at single spikes."""
    if rates.dtype == np.uint8:
        return rates
    level, result = np.full(rates.shape[1:], 0.5, np.float32), np.empty(rates.shape, np.uint8)
    for frame, spikes in zip(rates, result, strict=True):
        level += frame
        spikes[:] = level >= 1
        level -= spikes
    return result


def on_grid(spike: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A stream at another size: means over whole areas where it is smaller, else between pixels.

    Args:
        spike: ``(T, h, w)``, zeros and ones or rates.
        size: (height, width).

    Returns:
        float32 ``(T, height, width)``; ``spike`` itself where it has this size.
    """
    if spike.shape[1:] == tuple(size):
        return spike
    way = cv2.INTER_AREA if size[0] < spike.shape[1] else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame.astype(np.float32), size[::-1], interpolation=way) for frame in spike])
