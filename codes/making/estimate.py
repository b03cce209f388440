"""What spike camera made one's own captures: estimated from them, and draws around it.

Photograph and long TFP saw the same light over the same time. So how often a pixel fires, against the light that the
photograph has there, tells the threshold (the slope) and the noise (what is left in the dark); and what a pixel fires
too much or too little in one capture after another tells how thresholds differ from pixel to pixel. No sharp image is
needed, and it does not matter how the scene moved.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import cv2
import numpy as np

from codes.errors import InputError
from codes.making.draws import Draw
from codes.making.sensor import GAIN, NOISE_GAP_MEAN, VTH_UNIT

BINS = 24
"""Levels of light at which firing rates are averaged."""

SMOOTH = 1.5
"""Spike pixels over which both are smoothed before, as they do not lie on one another exactly."""

BRIGHT, SATURATED = 0.95, 0.8
"""Light from which on a photograph may be clipped, and firing rate from which on pixels may miss spikes."""

DARK_ENOUGH = 0.5
"""The noise is told where the darkest level has less than this share of the brightest one's light."""

SATURATES = 1.15
"""Spikes per frame and light from which on moving highlights saturate: neither they nor the noise can be told then."""

LIT = 0.05
"""Firing rate from which on a pixel tells its threshold."""

AROUND = 5
"""Side of the neighbourhood with which a pixel is compared."""


@dataclass(frozen=True)
class Response:
    """How the spike camera of one capture answers to the photograph's light.

    Args:
        vth: threshold for that light, in the paper's unit: V where the spike camera gets as much light as the
            photograph, more where it gets less.
        noise: multiple of the paper's inherent noise.
        excess: float32 ``(h, w)``, by what share a pixel fires more than those around it would at its light; NaN where
            it is too dark, or saturated.
    """

    vth: float
    noise: float
    excess: np.ndarray


def response(light: np.ndarray, rate: np.ndarray) -> Response:
    """How often pixels fire, against the light of the photograph.

    Args:
        light: what the spike camera sees of the photograph, linear, grey, float ``(h, w)`` in [0, 1].
        rate: spikes per frame of the exposure, float ``(h, w)`` in [0, 1].

    Raises:
        InputError: there is no light, or the more light, the fewer spikes.
    """
    smooth, fires = (cv2.GaussianBlur(np.float32(x), (0, 0), SMOOTH) for x in (light, rate))
    use = (cv2.dilate(np.float32(light), np.ones((3, 3))) < BRIGHT) & (fires < SATURATED)
    if use.sum() < 2 * BINS:
        raise InputError("photograph or spikes are saturated nearly everywhere")
    order = np.argsort(smooth[use], kind="stable")
    levels, rates = (np.array([part.mean() for part in np.array_split(x[use][order], BINS)]) for x in (smooth, fires))
    slope, dark = np.polyfit(levels, rates, 1, w=1 / (rates + 0.02))  # the dark tells the noise
    if levels[0] > DARK_ENOUGH * levels[-1] or slope > SATURATES:
        dark, some = 1 / NOISE_GAP_MEAN, slice(0, BINS // 6 if slope > SATURATES else BINS)
    else:
        dark, some = max(dark, 0.0), slice(0, BINS)
    slope = (levels * (rates - dark))[some].sum() / max(np.square(levels[some]).sum(), 1e-12)
    if slope <= 0:
        raise InputError("pixels do not fire more often where the photograph is brighter")
    slope = slope / (1 - dark)  # in a frame with a noise spike, another one is not seen
    expected = dark + (1 - dark) * np.minimum(slope * light, 1)
    known = (expected > LIT) & (expected < SATURATED) & (light < BRIGHT)
    excess = np.where(known, np.clip(rate / np.maximum(expected, LIT) - 1, -1, 1), 0).astype(np.float32)
    around = cv2.blur(excess, (AROUND, AROUND)) / np.maximum(cv2.blur(np.float32(known), (AROUND, AROUND)), 1e-6)
    vth, noise = GAIN / (VTH_UNIT * slope), dark * NOISE_GAP_MEAN
    return Response(float(vth), float(noise), np.where(known, excess - around, np.nan).astype(np.float32))


def pattern(maps: Sequence[np.ndarray]) -> float:
    """Spread of the pixels' thresholds, in natural logarithms: what their excess has in common in several captures.

    Args:
        maps: :attr:`Response.excess` of each capture; those of another size than the first are left out. What the
            photograph's pixels do not tell of the light differs from capture to capture, so that it does not count.

    Returns:
        0 for a single capture.
    """
    same = [one for one in maps if one.shape == maps[0].shape]
    shared, count = 0.0, 0
    for one, other in itertools.combinations(same, 2):
        products = one * other
        known = np.isfinite(products)
        shared, count = shared + float(products[known].sum(dtype=np.float64)), count + int(known.sum())
    taken_off = 1 - 1 / AROUND**2  # by the comparison with the neighbours
    return float(np.sqrt(max(shared / max(count, 1) / taken_off, 0.0)))


@dataclass(frozen=True)
class SensorEstimate:
    """The spike camera of one's captures, as the network meets it.

    Args:
        vth: least and greatest threshold of the captures (:attr:`Response.vth`).
        noise: multiple of the paper's inherent noise.
        pattern: spread of the pixels' thresholds, in natural logarithms.
        misalignment: what registration leaves, in image pixels.
        ratio: image pixels per spike pixel, each way; both as the network is given them.
        enlarged: by what the photograph is enlarged for the network.
        stretch: frames of the exposure, in multiples of the official 97.
        tone: of the photographs.
        grey: whether they are grey.
    """

    vth: tuple[float, float] = (1.0, 1.0)
    noise: float = 1.0
    pattern: float = 0.0
    misalignment: float = 0.0
    ratio: float = 4.0
    enlarged: float = 1.0
    stretch: float = 1.0
    tone: str = "linear"
    grey: bool = False

    @classmethod
    def of(cls, captures: Sequence[dict]) -> "SensorEstimate":
        """That of several captures.

        Args:
            captures: of each, ``light`` and ``rate`` (:func:`response`), ``misalignment``, ``ratio``, ``enlarged``,
                ``stretch``, ``tone`` and ``grey``.

        Raises:
            InputError: as in :func:`response`, where no capture tells anything.
        """

        def middle(name: str) -> float:
            return float(np.median([one[name] for one in captures]))

        responses, trouble = [], None
        for one in captures:
            try:
                responses.append(response(one["light"], one["rate"]))
            except InputError as error:
                trouble = error
        if not responses:
            raise trouble or InputError("no captures")
        thresholds = [one.vth for one in responses]
        return cls(
            vth=(min(thresholds), max(thresholds)),
            noise=float(np.median([one.noise for one in responses])),
            pattern=pattern([one.excess for one in responses]),
            misalignment=min(middle("misalignment"), 1.0),
            ratio=middle("ratio"),
            enlarged=max(middle("enlarged"), 1.0),
            stretch=max(middle("stretch"), 1.0),
            tone=Counter(one["tone"] for one in captures).most_common(1)[0][0],
            grey=all(one["grey"] for one in captures),
        )

    @classmethod
    def read(cls, values: dict) -> "SensorEstimate":
        """From what :meth:`values` gave."""
        return cls(**values | {"vth": tuple(values["vth"])})

    def values(self) -> dict:
        """As JSON holds it."""
        return asdict(self)

    def __str__(self) -> str:
        low, high = self.vth
        vth = f"{low:.2f}" if high < 1.02 * low else f"{low:.2f} to {high:.2f}"
        return (
            f"Vth {vth}, noise x {self.noise:.1f}, thresholds spread by {self.pattern:.1%}, misaligned by "
            f"{self.misalignment:.2f} px, {self.ratio / self.enlarged:.2f} image pixels per spike pixel, "
            f"tone {self.tone}" + (", grey" if self.grey else "")
        )

    def draw(self, rng: np.random.Generator) -> Draw:
        """A camera like it: what was estimated, give or take what an estimate errs by."""
        low, high = np.log(self.vth[0] / 1.1), np.log(self.vth[1] * 1.1)
        coarse = abs(self.ratio - 4) > 0.1
        corners = self.misalignment * (rng.uniform(-1, 1, 2) + rng.uniform(-1, 1, (4, 2)))
        return Draw(
            vth=float(np.exp(rng.uniform(low, high))),
            noise=self.noise * float(rng.uniform(0.7, 1.3)),
            pattern=self.pattern * float(rng.uniform(0.8, 1.2)),
            ratio=self.ratio if coarse else 4.0,
            phase=tuple(rng.uniform(0, self.ratio, 2).tolist()) if coarse else (0.0, 0.0),
            smooth=True,
            corners=tuple(map(tuple, corners.tolist())),
            stretch=self.stretch,
            settled=bool(rng.random() < 0.5),
            grey=self.grey or bool(rng.random() < 1 / 10),
            enlarged=self.enlarged,
            tone=self.tone,
        )
