"""Frames that one motion joins: sharper than each of them alone.

A student computes every instant by itself. But the sharp frames of an exposure show one scene that moves, and together
they make the photograph (as in S-SDM's reblur loss, with the frames traced back to one of them):

    B = 1/N sum_t W_t S

S is the sharp image at the centre of the exposure and W_t moves it to where the scene was at t. The student's frames
and the spikes tell the motion (:mod:`codes.flow`, at 7 or 5 instants), and so the light that the motion has smeared
over the photograph, at the photograph's resolution, can be brought back: a deconvolution along each pixel's own path
(Tai, Tan and Brown, "Richardson-Lucy deblurring for scenes under a projective motion path", PAMI 2011), here by
conjugate gradients from the mean of the student's frames along the motion. Nothing is trained, and no sharp image is
read.

Where the flow to the centre and the flow back disagree, pixels come or go behind others and the equation does not hold:
there the photograph is not believed, and a frame is what the student made of it.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from codes.exposure import SCALE
from codes.flow import (
    Joint,
    Path,
    Watched,
    between,
    correction,
    enlarged,
    filled,
    flow,
    halved,
    interpolated,
    quartered,
    told,
    trust,
    warp,
    with_slopes,
)
from codes.image import grey
from codes.spike import EXPOSURE, evenly


class Plan(NamedTuple):
    """How thoroughly frames are joined.

    ``keys``: of 7 instants, evenly over the exposure, those between which the motion is measured; a polynomial through
    few values wants them nearer to the ends. ``coarse``: conjugate gradient steps at half the size. ``spacing``,
    ``fewest``: image pixels between two positions on the path of the fastest pixels, and how many positions there are
    at least.
    """

    keys: tuple[int, ...]
    coarse: int
    spacing: float
    fewest: int


PLANS = {7: Plan((0, 1, 2, 3, 4, 5, 6), 5, 6.0, 9), 5: Plan((0, 1, 3, 5, 6), 4, 7.0, 7)}
"""By the number of keys: a thorough one, and a quick one."""
FINE = 2
"""Conjugate gradient steps at full size."""
MOST = 33
"""Positions on a path, however long it is."""
PRIOR, DOUBT = 0.01, 8 / 255
"""Weight of the student's image, where the photograph weighs 1, is (noise / DOUBT)² but at least PRIOR."""
SATURATED = 0.995
"""Photographs are not believed above: their light is cut off there."""
SMALLEST = 64
"""Shortest side in image pixels at which optical flow is looked for."""

Linear = Callable[[torch.Tensor], torch.Tensor]
Frames = Callable[[Sequence[int]], torch.Tensor]
"""From M instants to ``(M, 3, H, W)``."""


def noise_of(image: torch.Tensor) -> float:
    """Standard deviation of an image's noise, by the median of its finest diagonal details (Donoho, 1994).

    Those of the image and of half its size: resampling and JPEG take the finest away and leave the noise.

    Args:
        image: ``(1, C, H, W)``, sides multiples of 4.
    """

    def finest(x):
        apart = 2 * math.ceil(math.sqrt(x.numel() / 1_000_000))  # of the 2x2 pixels that are looked at
        first, second, third, fourth = (x[..., i::apart, j::apart] for i in (0, 1) for j in (0, 1))
        return (first - second - third + fourth).abs().median().item() / 2 / 0.6745

    return max(finest(image), finest(F.avg_pool2d(image, 2)))


def solved(
    seen: torch.Tensor, weight: torch.Tensor, smear: Linear, gather: Linear, prior: float, steps: int
) -> torch.Tensor:
    """``x`` for which ``weight |seen - smear(x)|^2 + prior |x|^2`` is least, by conjugate gradients (CGLS).

    Args:
        seen: ``(1, C, H, W)``.
        weight: of its pixels, in [0, 1], to be broadcast.
        smear, gather: linear, the second the adjoint of the first.
        prior: of the second term.
        steps: conjugate gradient steps.

    Returns:
        As ``seen``.
    """
    rest, found = seen, torch.zeros_like(seen)
    step = gather(weight * rest)
    size = step.square().sum()
    for left in reversed(range(steps)):
        smeared = smear(step)
        curvature = (weight * smeared.square()).sum() + prior * step.square().sum()
        if not (size > 0 and curvature > 0):  # done
            break
        rate = size / curvature
        found = found + rate * step
        if left:
            rest = rest - rate * smeared
            slope = gather(weight * rest) - prior * found
            before, size = size, slope.square().sum()
            step = slope + size / before * step
    return found


class Joined:
    """The sharp frames of one photograph, joined along the motion.

    The student computes the keys, and what is asked for beyond the exposure; between two keys the motion tells.

    Args:
        blur: the photograph, ``(3, H, W)``, B,G,R in [0, 1], linear light as the student sees it, sides
            multiples of 4.
        frames: the student's frames, from M instants to ``(M, 3, H, W)`` in [0, 1].
        exposure: anything with ``start`` and ``stop``, frame indices.
        spike: the stream ``(T, H/4, W/4)``, zeros and ones or means of some; None: frames alone tell the motion.
        keys: at how many instants the student is asked, 7 or 5 (:data:`PLANS`).

    Attributes:
        centre: the instant of :attr:`image`, the middle one of the keys.
        image: the sharp image there, ``(1, 3, H, W)``, not clipped.
    """

    def __init__(self, blur: torch.Tensor, frames: Frames, exposure=EXPOSURE, spike=None, keys: int = 7):
        if blur.device.type == "mps":  # which has no bicubic grid_sample
            blur, spike = blur.cpu(), None if spike is None else spike.cpu()
        self.blur, self.frames = blur[None].float().nan_to_num(), frames
        self.small = min(blur.shape[1:]) < SMALLEST
        self.plan, times = PLANS[keys], evenly(exposure, min(7, exposure.stop - exposure.start))
        self.keys = tuple(times[index] for index in self.plan.keys) if len(times) == 7 else times
        self.centre = self.keys[len(self.keys) // 2]
        self.seen = {key: self._asked(key) for key in self.keys}
        self.quarter = quartered(self.seen[self.centre])
        self.joints = {key: self._joint(frame) for key, frame in self.seen.items()}
        self.watched = None if spike is None or self.small else Watched.of(self.blur, spike[None], exposure)
        if self.watched:
            self.slopes = with_slopes(self._mean({key: grey(frame) for key, frame in self.seen.items()}, "bilinear"))
            self.known = told(self.slopes, self.watched.brightest)
            self.joints = {key: self._corrected(key, joint) for key, joint in self.joints.items()}
        image = self._deconvolved(self._mean(self.seen))
        self.image = image.contiguous(memory_format=torch.channels_last)  # as warp wants it, once for all frames

    def __call__(self, instants: Sequence[int]) -> torch.Tensor:
        """``(M, 3, H, W)``, clipped to [0, 1]."""
        result = self.image.new_empty(len(instants), *self.image.shape[1:])
        for instant, frame in zip(instants, result, strict=True):
            torch.clamp(self._frame(instant)[0], 0, 1, out=frame)
        return result

    def _asked(self, instant: int) -> torch.Tensor:
        """The student's frame, ``(1, 3, H, W)``."""
        return self.frames([instant]).to(self.blur).nan_to_num()

    def _joint(self, frame: torch.Tensor) -> Joint:
        """How a frame ``(1, 3, H, W)`` and the centre's belong together."""
        small, still = quartered(frame), torch.zeros_like(self.quarter[:, :2])
        if frame is self.seen[self.centre]:
            return Joint(small, still, still, still[:, :1] + 1, still[:, :1] + 1)
        if self.small:
            return Joint(small, still, still, still[:, :1], still[:, :1])
        return self._judged(small, flow(small, self.quarter), flow(self.quarter, small))

    def _judged(self, small: torch.Tensor, there: torch.Tensor, back: torch.Tensor, believed=(None, None)) -> Joint:
        """A frame at a quarter and the centre's, joined by two flows; ``believed``: as for :func:`trust`."""
        forth = trust(small, self.quarter, there, back, believed[0])
        return Joint(small, there, back, forth, trust(self.quarter, small, back, there, believed[1]))

    def _told(self, instant: int, there: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """A flow to the centre as spikes correct it, and where they can (:func:`told`); None: they say nothing."""
        light = self.watched.at(instant) if self.watched and instant != self.centre else None
        if light is None:
            return None
        there = there + correction(self.slopes, there, light, self.watched.brightest)
        return there, told(self.slopes, self.watched.brightest, there)

    def _corrected(self, instant: int, joint: Joint) -> Joint:
        """How two images belong together, by what the spikes say."""
        if not (found := self._told(instant, joint.there)):
            return joint
        there, seen = found
        back = joint.back - warp(there - joint.there, joint.back / SCALE)
        return self._judged(joint.small, filled(there, seen), filled(back, self.known), (seen, self.known))

    def _frame(self, instant: int) -> torch.Tensor:
        if instant == self.centre:
            return self.image
        if instant in self.seen:
            joint = self.joints[instant]
            own, there, trusted = self.seen[instant], joint.there, joint.trust
        elif self.keys[0] < instant < self.keys[-1] and not self.small:
            own, there, trusted = self._between(instant)
        else:
            own = self._asked(instant)
            _, there, _, trusted, _ = self._corrected(instant, self._joint(own))
        return torch.lerp(own, warp(self.image, there, "bicubic"), enlarged(trusted))

    def _between(self, instant: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What lies between two keys: (the student's frame as they tell it, flow to the centre, trust)."""
        after = next(index for index, key in enumerate(self.keys) if key > instant)
        first, second = self.keys[after - 1], self.keys[after]
        share = (instant - first) / (second - first)
        flows = torch.cat([joint.there for joint in self.joints.values()])
        there, trusted = interpolated(flows, between(self.keys, [instant])), self._trusted()
        # By the two keys' flows alone, which need no other key to be right; to first order: they are read where the
        # pixel is now, not where it was.
        near = torch.lerp(self.joints[first].there, self.joints[second].there, share)
        own = [warp(self.seen[key], near - self.joints[key].there) for key in (first, second)]
        # One bad flow spoils what is computed from all: there spikes begin with the two keys' alone.
        if found := self._told(instant, torch.lerp(near, there, trusted)):
            there, trusted = filled(*found), torch.minimum(self.joints[first].trust, self.joints[second].trust)
        return torch.lerp(*own, share), there, trusted

    def _trusted(self) -> torch.Tensor:
        """``(1, 1, h, w)``: the least trust of all keys."""
        return torch.stack([joint.trust for joint in self.joints.values()]).amin(dim=0)

    def _mean(self, frames: dict[int, torch.Tensor], mode: str = "bicubic") -> torch.Tensor:
        """Frames at the keys, brought to the centre: less noise, and edges at several phases."""
        total, weight = frames[self.centre].clone(), torch.ones_like(self.blur[:, :1])
        for key, joint in self.joints.items():
            if key != self.centre:
                share = enlarged(joint.trust_back)
                total.addcmul_(share, warp(frames[key], joint.back, mode))
                weight += share
        return total / weight

    def _deconvolved(self, image: torch.Tensor) -> torch.Tensor:
        """The sharp image at the centre: at half its size, then what the mean of its colours lacks at full size."""
        to_centre, from_centre = (
            torch.cat(flows)
            for flows in zip(*((joint.there, joint.back) for joint in self.joints.values()), strict=True)
        )
        travelled = torch.hypot(*to_centre.diff(dim=0).unbind(dim=1)).sum(dim=0).flatten()
        fast = travelled[:: max(travelled.numel() // 100_000, 1)].quantile(0.95).item()
        positions = min(max(int(fast / self.plan.spacing) + 2, self.plan.fewest), MOST)
        middles = (np.arange(positions) + 0.5) / positions  # of as many parts of the exposure
        first, last = self.keys[0], self.keys[-1]
        weights = between(self.keys, (first - 0.5 + middles * (last - first + 1)).clip(first, last))
        # The least trust nearby, else what is wrong at an edge rings around it.
        trusted = -F.max_pool2d(-self._trusted(), 5, stride=1, padding=2)
        believed = enlarged(trusted) * (self.blur.amax(dim=1, keepdim=True) < SATURATED)
        prior = max((noise_of(self.blur) / DOUBT) ** 2, PRIOR)

        def change(blur, image, believed, steps):
            scale = SCALE * blur.shape[-1] // self.blur.shape[-1]
            # The second is the adjoint, as far as flow and flow back agree and the motion does not stretch.
            smear, gather = (Path(flows * (scale / SCALE), weights, scale) for flows in (to_centre, from_centre))
            return solved(blur - smear(image), believed, smear, gather, prior, steps)

        image = image + enlarged(change(halved(self.blur), halved(image), halved(believed), self.plan.coarse), 2)
        light, light_image = (x.mean(dim=1, keepdim=True) for x in (self.blur, image))
        return image + change(light, light_image, believed, FINE)
