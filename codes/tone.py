"""The tone curve between light and the numbers of a photograph.

Spikes are linear in light. Photographs mostly are not: cameras code light with a power of about 1/2.2, or with the
curve of sRGB. The SDM and the students compare the two, so a photograph is brought to linear light before them and its
curve is put on again afterwards.

:func:`estimate` finds the curve from a photograph and the long TFP of its spikes. Both saw the same light over the same
time, so their brightnesses have the same distribution once the curve is undone, wherever the pixels lie: quantiles are
compared, and a misalignment of image and spikes does no harm.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from codes.errors import InputError
from codes.image import grey

NAMES = ("linear", "srgb")


@dataclass(frozen=True)
class Tone:
    """A tone curve.

    Args:
        name: 'linear', 'srgb', or 'gamma:G': light is the number to the power G.
    """

    name: str = "linear"

    def __post_init__(self):
        kind, colon, power = self.name.partition(":")
        if kind == "gamma" and colon:
            try:
                if 0.2 <= float(power) <= 5:
                    return
            except ValueError:
                pass
        elif self.name in NAMES:
            return
        raise InputError(f"tone '{self.name}'; expected linear, srgb, or gamma:G with G from 0.2 to 5, as gamma:2.2")

    @property
    def gamma(self) -> float:
        """G; of sRGB the power that its curve is close to."""
        return {"linear": 1.0, "srgb": 2.2}.get(self.name) or float(self.name.partition(":")[2])

    def linear(self, image):
        """Numbers in [0, 1] (array or tensor) to linear light."""
        if self.name == "linear":
            return image
        if self.name != "srgb":
            return image**self.gamma
        low = image <= 0.04045
        return low * (image / 12.92) + ~low * ((image + 0.055) / 1.055) ** 2.4

    def coded(self, light):
        """Linear light in [0, 1] (array or tensor) to numbers: the inverse of :meth:`linear`."""
        if self.name == "linear":
            return light
        if self.name != "srgb":
            return light ** (1 / self.gamma)
        low = light <= 0.0031308
        return low * (light * 12.92) + ~low * (1.055 * light ** (1 / 2.4) - 0.055)


@dataclass(frozen=True)
class Estimate:
    """The tone curve of a photograph as its spikes tell it.

    Args:
        tone: the curve.
        gamma: the power that fits best.
        low, high: powers that fit nearly as well.
        sure: whether they are few enough to act on.
        why: in words, where not.
    """

    tone: Tone
    gamma: float
    low: float
    high: float
    sure: bool
    why: str = ""


POWERS = np.geomspace(0.6, 3.4, 141)
QUANTILES = np.linspace(0.02, 0.98, 193)
PIXELS = 100_000
NOISE = np.outer((1, -2, 1), (1, -2, 1)).astype(np.float32) / 6
"""Filter that passes noise as it is and next to nothing of a smooth picture (Immerkaer 1996)."""

CLEAR = 5.0
"""Contrast of the rates in standard deviations of their noise, which widens their distribution (by 2 % then)."""

NARROW = 0.3
"""Widest range of powers, as a share of the best one, that is sure enough."""


def estimate(image: np.ndarray, tfp_long: np.ndarray) -> Estimate:
    """The tone curve of a photograph.

    Args:
        image: uint8 ``(H, W, 3)``, B,G,R.
        tfp_long: mean of the spikes over the exposure, float ``(h, w)`` in [0, 1], of the same scene.
    """
    share = min(1.0, (PIXELS / tfp_long.size) ** 0.5)  # quantiles do not need them all
    h, w = (max(int(extent * share), 1) for extent in tfp_long.shape)
    tfp_long = cv2.resize(np.float32(tfp_long), (w, h), interpolation=cv2.INTER_AREA)
    coded = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    rate = np.quantile(cv2.GaussianBlur(np.float32(tfp_long), (0, 0), 1), QUANTILES)
    clipped = np.quantile(coded.max(axis=-1), QUANTILES) > 0.97
    use = (rate > 0.02) & (rate < 0.97) & ~clipped
    linear = Tone("linear")
    noise = cv2.filter2D(tfp_long, -1, NOISE).std() * 0.28  # a Gaussian of one pixel leaves 0.28 of it
    if use.sum() < 20 or np.std(rate[use]) < CLEAR * noise:
        return Estimate(linear, 1.0, POWERS[0], POWERS[-1], False, "too little contrast between dark and bright")
    errors = []
    for power in POWERS:
        light = np.quantile(cv2.GaussianBlur(grey(coded**power, -1)[..., 0], (0, 0), 1), QUANTILES)[use]
        errors.append(min(_misfit(np.maximum(light, 1e-4), rate[use] - dark) for dark in DARK if dark < rate[use][0]))
    errors = np.array(errors)
    best = int(errors.argmin())
    alike = 0.01 * min(np.ptp(np.log(rate[use])), 1.0)  # a faint picture errs less, too
    near = POWERS[errors < 1.5 * errors[best] + alike]
    gamma, low, high = float(POWERS[best]), float(near[0]), float(near[-1])
    inside = 0 < best < len(POWERS) - 1
    sure = inside and high - low < NARROW * gamma and errors[best] < 0.1
    why = "" if sure else f"powers from {low:.2f} to {high:.2f} fit alike"
    usual = [curve for power, curve in USUAL.items() if low <= power <= high]
    tone = Tone(usual[0] if len(usual) == 1 else f"gamma:{gamma:.2f}")
    return Estimate(tone, gamma, low, high, sure, why)


USUAL = {1.0: "linear", 1.8: "gamma:1.8", 2.2: "srgb"}
"""Curves that cameras have; one of them is taken where it alone fits."""

DARK = (0.0, 0.0035, 0.007, 0.0105)
"""Firing rates of a pixel in the dark that are tried; the paper's sensor has 0.007."""


def _misfit(light: np.ndarray, rate: np.ndarray) -> float:
    """How far the quantiles of the light are from those of the firing rate, by any factor, in natural logarithms."""
    difference = np.log(light) - np.log(rate)
    weights = np.gradient(np.log(rate))  # dark and bright count alike, however many pixels they have
    weights = np.maximum(weights, 0) / max(weights.clip(0).sum(), 1e-9)
    mean = (weights * difference).sum()
    return float(np.sqrt((weights * (difference - mean) ** 2).sum()))
