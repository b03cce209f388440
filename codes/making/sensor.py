"""The spike camera's sensor: light in, spikes out.

Every pixel gathers light into a voltage. When the voltage passes the firing threshold, the pixel fires
and keeps the remainder. Sensor noise adds spikes that no light has caused.

Thresholds are in the paper's unit: Vth = 1 is the official program's constant 2.0, at which a white
pixel fires about every frame; the paper's Vth = 2 and 4 are the constants 4 and 8.

Source: S-SDM (arXiv 2403.09486), section 4.1, with the constants of the official simulator.
"""

import cv2
import numpy as np

from codes.image import grey

# The official simulator's factors. It publishes the product, not a derivation; the units are our reading.
FULL_SCALE_ILLUMINANCE = 250.0  # light on the sensor at grey level 1
FRAME_INTERVAL = 2e-7  # s, integration time of a frame
PHOTO_CURRENT = 1.09e-13  # A per unit of light
VOLTAGE_STEP = 1.83e-4  # V, one unit of voltage below
PIXEL_CAPACITANCE = 15e-15  # F
GAIN = FULL_SCALE_ILLUMINANCE * (FRAME_INTERVAL * PHOTO_CURRENT) / (VOLTAGE_STEP * PIXEL_CAPACITANCE)
"""Voltage that a frame of grey level 1 adds to a pixel: about 1.98543."""

VTH_UNIT = 2.0
"""Voltage of the paper's Vth = 1."""

NOISE_GAP_MEAN, NOISE_GAP_STD = 140.0, 50.0
"""Gaps between noise spikes, in slots of the cube laid out as (H, W, T): about 0.7 % of all slots."""


def seen_by_spike_camera(frame: np.ndarray, scale: int) -> np.ndarray:
    """What the spike camera sees of a frame: bilinear at half-pixel centres without antialiasing, grey.

    That is the mean of the central 2x2 pixels of each block, of an odd scale the central pixel.

    Args:
        frame: uint8, or float32 in [0, 1], ``(H, W, 3)``, B,G,R; both sides are multiples of ``scale``.
        scale: pixels of the frame per pixel of the spike camera, each way.

    Returns:
        float32 ``(H / scale, W / scale)`` in [0, 1].
    """
    size = frame.shape[1] // scale, frame.shape[0] // scale
    small = cv2.resize(frame.astype(np.float32, copy=False), size, interpolation=cv2.INTER_LINEAR)
    if frame.dtype == np.uint8:
        small = small / np.float32(255)
    return np.ascontiguousarray(grey(small, axis=-1)[..., 0])


def integrate_and_fire(frames: np.ndarray, warmup: np.ndarray, vth: float = 1.0) -> np.ndarray:
    """Turn light into spikes, without noise.

    Args:
        frames: float32 ``(T, H, W)``, grey, in [0, 1].
        warmup: float32 ``(H, W)`` in [0, 1], a first frame whose spikes are dropped: it gives every
            pixel the voltage it happens to have when the stream begins.
        vth: firing threshold in the paper's unit (> 0).

    Returns:
        uint8 ``(T, H, W)`` of zeros and ones; a pixel fires at most once per frame.
    """
    frames, warmup = np.asarray(frames, np.float32), np.asarray(warmup, np.float32)
    sensor = Sensor(warmup, vth)
    spikes = np.empty(frames.shape, bool)
    for frame, fired in zip(frames, spikes, strict=True):
        sensor.expose(frame, fired)
    return spikes.view(np.uint8)


class Sensor:
    """The pixels' state between frames, for light that comes frame by frame.

    Args:
        warmup: float32 ``(H, W)`` in [0, 1], as in :func:`integrate_and_fire`.
        vth: firing threshold in the paper's unit (> 0).
    """

    def __init__(self, warmup: np.ndarray, vth: float = 1.0):
        self.threshold = np.float32(vth * VTH_UNIT)
        self.voltage, self.charge = np.zeros_like(warmup), np.empty_like(warmup)
        self.expose(warmup, np.empty(warmup.shape, bool))

    def expose(self, light: np.ndarray, fired: np.ndarray) -> None:
        """Gather the light of one frame, float32 ``(H, W)``, and say in ``fired``, bool ``(H, W)``, who fires."""
        voltage, charge, threshold = self.voltage, self.charge, self.threshold
        np.multiply(light, np.float32(GAIN), out=charge)
        voltage += charge
        np.greater(voltage, threshold, out=fired)
        # v mod Vth: one subtraction does it while a frame adds at most one threshold.
        np.multiply(fired, threshold, out=charge)
        voltage -= charge
        if voltage.max() > threshold:
            np.fmod(voltage, threshold, out=voltage, where=voltage > threshold)


def inherent_noise(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Spikes that the sensor fires by itself.

    The cube is laid out as one line in the order (H, W, T). Gaps between noise spikes along that line
    are Gaussian; a spike's position is the truncated running sum.

    Args:
        shape: ``(T, H, W)``.

    Returns:
        bool ``(T, H, W)``, true at about 0.7 % of the slots.
    """
    frames, height, width = shape
    slots = frames * height * width
    line = np.zeros(slots, bool)
    position = 0.0
    while position < slots:
        count = int((slots - position) / NOISE_GAP_MEAN * 1.02) + 16
        sums = position + np.cumsum(rng.normal(NOISE_GAP_MEAN, NOISE_GAP_STD, count))
        inside = sums[(sums >= 0) & (sums < slots)].astype(np.int64)
        line[inside] = True
        position = sums[-1]
    return line.reshape(height, width, frames).transpose(2, 0, 1)


def spikes_from_frames(frames: np.ndarray, seed, vth: float = 1.0, noise: bool = True) -> np.ndarray:
    """The whole sensor: a random state when the stream begins, integrate and fire, inherent noise.

    Args:
        frames: float32 ``(T, H, W)``, grey, in [0, 1].
        seed: anything that ``numpy.random.default_rng`` takes; the same seed gives the same spikes.
        vth: firing threshold in the paper's unit.

    Returns:
        uint8 ``(T, H, W)`` of zeros and ones.
    """
    rng = np.random.default_rng(seed)
    warmup = rng.random(np.shape(frames)[1:], dtype=np.float32)
    spikes = integrate_and_fire(frames, warmup, vth)
    if noise:
        spikes |= inherent_noise(spikes.shape, rng)
    return spikes
