"""A sensor's own marks: pixels that are dead or fire by themselves, found from the whole stream and filled.

A scene moves over the pixels, so that over the whole stream a pixel fires about as often as those around it. One that
fires far less or far more than all of them, in each part of the stream, does so by itself.
"""

import cv2
import numpy as np

PARTS = 4
"""Parts of the stream in each of which a bad pixel must stand out."""

DARKER, BRIGHTER = 0.35, 1.0
"""By what share of its neighbourhood a bad pixel fires less, or more."""

SPIKES, USUAL = 4.0, 12.0
"""By how many spikes of a part it must differ, and by how many times what is usual around it."""

SILENT = 0.05
"""A pixel that fires so little beside its neighbours is dead whatever is usual."""

ALONE = 0.92
"""It fires at most this share of what its darkest good neighbour does, or more than the brightest by as much, and in no
part is one of them darker, or brighter: a thin thing goes on in a neighbour."""

MOST = 0.0025
"""Share of bad pixels from which on they are no sensor's marks, and left alone."""


def find_bad_pixels(spike: np.ndarray) -> np.ndarray:
    """Which pixels of a stream are bad: single ones, or lines no more than two pixels wide.

    Args:
        spike: ``(T, h, w)``, zeros and ones.

    Returns:
        bool ``(h, w)``.
    """
    total = len(spike)
    bad = np.ones((2, *spike.shape[1:]), bool)
    if total < 8 * PARTS or min(spike.shape[1:]) < 8:
        return np.zeros(spike.shape[1:], bool)
    block, counted = np.ones((3, 3), np.uint8), []
    for part in range(PARTS):
        counts = spike[part * total // PARTS : (part + 1) * total // PARTS].sum(axis=0, dtype=np.float32)
        counted.append(counts)
        for kind, (operation, share) in enumerate(((cv2.MORPH_CLOSE, DARKER), (cv2.MORPH_OPEN, BRIGHTER))):
            around = cv2.morphologyEx(counts, operation, block, borderType=cv2.BORDER_REFLECT)
            apart = np.abs(counts - around)
            usual = cv2.blur(np.minimum(apart, SPIKES), (15, 15))
            silent = (counts <= SILENT * around) & (around > SPIKES)
            bad[kind] &= (apart > share * around) & (apart > SPIKES) & (apart > USUAL * usual) | silent
    if bad.any(axis=0).mean() > MOST:
        return np.zeros(bad.shape[1:], bool)
    good = ~bad
    ring = block - np.pad(np.ones((1, 1), np.uint8), 1)
    for counts, share in [*((part, 1.0) for part in counted), (sum(counted), ALONE)]:
        bad[0] &= counts <= share * cv2.erode(np.where(good[0], counts, np.float32(total)), ring)
        bad[1] &= share * counts >= cv2.dilate(np.where(good[1], counts, np.float32(0)), ring)
    return bad[0] | bad[1]


def fill(spike: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """A stream whose bad pixels fire as often as their good neighbours do on average, zeros and ones as before.

    Args:
        spike: uint8 ``(T, h, w)``.
        bad: bool ``(h, w)``.

    Returns:
        ``spike`` itself where none is bad, else a copy.
    """
    if not bad.any():
        return spike
    spike = spike.copy()
    for y, x in np.argwhere(bad):
        for reach in range(1, 8):
            rows, columns = slice(max(y - reach, 0), y + reach + 1), slice(max(x - reach, 0), x + reach + 1)
            good = ~bad[rows, columns]
            if good.any():
                rate = spike[:, rows, columns][:, good].mean(axis=1, dtype=np.float64)
                spike[:, y, x] = np.diff(np.floor(np.cumsum(rate) + 0.5), prepend=0)
                break
    return spike
