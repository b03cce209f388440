"""Frames that one motion joins: sharper than each of them alone.

A student computes every instant by itself. But the sharp frames of an exposure show one scene that moves, and together
they make the photograph (as in S-SDM's reblur loss, with the frames traced back to one of them):

    B = 1/N sum_t W_t S

S is the sharp image at the centre of the exposure and W_t moves it to where the scene was at t. The student's frames
and the spikes tell the motion (:mod:`codes.flow`, between 7 instants), and so the light that the motion has smeared
over the photograph, at the photograph's resolution, can be brought back: a deconvolution along each pixel's own path
(Tai, Tan and Brown, "Richardson-Lucy deblurring for scenes under a projective motion path", PAMI 2011), here by
conjugate gradients from the mean of the student's frames along the motion. Nothing is trained, and no sharp image is
read.

Where the flow to the centre and the flow back disagree, pixels come or go behind others and the equation does not hold:
there the photograph is not believed, and a frame is what the student made of it.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from codes.exposure import SCALE
from codes.flow import (
    UNLIKE,
    Joint,
    Watched,
    between,
    correction,
    enlarged,
    filled,
    flow,
    halved,
    interpolated,
    mean_along,
    quartered,
    told,
    trust,
    warp,
    with_slopes,
)
from codes.image import grey
from codes.spike import EXPOSURE, evenly

KEYS = 7
"""Instants between which the motion is measured."""
STEPS = 4
"""Conjugate gradient steps."""
PRIOR, DOUBT = 0.01, 8 / 255
"""Weight of the student's image, where the photograph weighs 1, is (noise / DOUBT)² but at least PRIOR."""
SPACING, FEWEST, MOST = 4.0, 9, 49
"""Image pixels between two positions on the path of the fastest pixels, and how many positions there are."""
AT_ONCE = 4
"""Positions that are computed together."""
SATURATED = 0.995
"""Photographs are not believed above: their light is cut off there."""
SMALLEST = 64
"""Shortest side in image pixels at which optical flow is looked for."""

Frames = Callable[[Sequence[int]], torch.Tensor]
"""From M instants to ``(M, 3, H, W)``."""


def noise_of(image: torch.Tensor) -> float:
    """Standard deviation of an image's noise, by the median of its finest diagonal details (Donoho, 1994).

    Those of the image and of half its size: resampling and JPEG take the finest away and leave the noise.

    Args:
        image: ``(1, C, H, W)``, sides multiples of 4.
    """

    def finest(x):
        first, second, third, fourth = (x[..., i::2, j::2] for i in (0, 1) for j in (0, 1))
        details = (first - second - third + fourth).abs().flatten() / 2
        return details[:: max(details.numel() // 1_000_000, 1)].median().item() / 0.6745

    return max(finest(image), finest(F.avg_pool2d(image, 2)))


def solved(right: torch.Tensor, times: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """``x`` of ``times(x) = right`` by conjugate gradients, where ``times`` is symmetric and positive."""
    found, rest = torch.zeros_like(right), right
    step, size = rest, rest.square().sum()
    for _ in range(STEPS):
        seen = times(step)
        curvature = (step * seen).sum()
        if not (size > 0 and curvature > 0):  # done; or not as symmetric as it should be
            break
        rate = size / curvature
        found = found + rate * step
        rest = rest - rate * seen
        before, size = size, rest.square().sum()
        step = rest + size / before * step
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

    Attributes:
        centre: the instant of :attr:`image`, the middle one of the keys.
        image: the sharp image there, ``(1, 3, H, W)``, not clipped.
    """

    unlike, least = UNLIKE, 0.0
    """By what share of white frames that the motion joins may differ (:func:`codes.flow.trust`), and how far the motion
    is trusted at least."""

    def __init__(self, blur: torch.Tensor, frames: Frames, exposure=EXPOSURE, spike: torch.Tensor | None = None):
        if blur.device.type == "mps":  # which has no bicubic grid_sample
            blur, spike = blur.cpu(), None if spike is None else spike.cpu()
        self.blur, self.frames = blur[None].float().nan_to_num(), frames
        self.small = min(blur.shape[1:]) < SMALLEST
        self.keys = evenly(exposure, min(KEYS, exposure.stop - exposure.start))
        self.centre = self.keys[len(self.keys) // 2]
        self.seen = {key: self._asked(key) for key in self.keys}
        self.quarter = quartered(self.seen[self.centre])
        self.joints = {key: self._joint(frame) for key, frame in self.seen.items()}
        self.watched = None if spike is None or self.small else Watched.of(self.blur, spike[None], exposure)
        if self.watched:
            self.slopes = with_slopes(self._mean({key: grey(frame) for key, frame in self.seen.items()}))
            self.joints = {key: self._corrected(key, self.seen[key], joint) for key, joint in self.joints.items()}
        self.image = self._deconvolved(self._mean(self.seen))

    def __call__(self, instants: Sequence[int]) -> torch.Tensor:
        """``(M, 3, H, W)``, clipped to [0, 1]."""
        return torch.cat([self._frame(instant) for instant in instants]).clamp_(0, 1)

    def _asked(self, instant: int) -> torch.Tensor:
        """The student's frame, ``(1, 3, H, W)``."""
        return self.frames([instant]).to(self.blur).nan_to_num()

    def _joint(self, frame: torch.Tensor) -> Joint:
        """How a frame ``(1, 3, H, W)`` and the centre's belong together."""
        still = torch.zeros_like(self.quarter[:, :2])
        if frame is self.seen[self.centre]:
            return Joint(still, still, still[:, :1] + 1, still[:, :1] + 1)
        if self.small:
            return Joint(still, still, still[:, :1], still[:, :1])
        small = quartered(frame)
        return self._judged(small, flow(small, self.quarter), flow(self.quarter, small))

    def _judged(self, small: torch.Tensor, there: torch.Tensor, back: torch.Tensor, believed=(None, None)) -> Joint:
        """A frame at a quarter and the centre's, joined by two flows; ``believed``: as for :func:`trust`."""
        forth = trust(small, self.quarter, there, back, believed[0], self.unlike)
        return Joint(there, back, forth, trust(self.quarter, small, back, there, believed[1], self.unlike))

    def _corrected(self, instant: int, frame: torch.Tensor, joint: Joint) -> Joint:
        """The same by what the spikes say."""
        light = self.watched.at(instant) if self.watched and instant != self.centre else None
        if light is None:
            return joint
        planes, brightest = self.slopes, self.watched.brightest
        change = correction(planes, joint.there, light, brightest)
        there, back = joint.there + change, joint.back - warp(change, joint.back / SCALE)
        seen = told(planes, brightest, there), told(planes, brightest)
        return self._judged(quartered(frame), filled(there, seen[0]), filled(back, seen[1]), seen)

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
            there, _, trusted, _ = self._corrected(instant, own, self._joint(own))
        trusted = self.least + (1 - self.least) * enlarged(trusted)
        return torch.lerp(own, warp(self.image, there, "bicubic"), trusted)

    def _between(self, instant: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What lies between two keys: (the student's frame as they tell it, flow to the centre, trust)."""
        after = next(index for index, key in enumerate(self.keys) if key > instant)
        first, second = self.keys[after - 1], self.keys[after]
        share = (instant - first) / (second - first)
        flows = torch.cat([joint.there for joint in self.joints.values()])
        there = interpolated(flows, between(self.keys, [instant]))
        # By the two keys' flows alone, which need no other key to be right; to first order: they are read where the
        # pixel is now, not where it was.
        near = torch.lerp(self.joints[first].there, self.joints[second].there, share)
        own = [warp(self.seen[key], near - self.joints[key].there) for key in (first, second)]
        return torch.lerp(*own, share), there, self._trusted()

    def _trusted(self) -> torch.Tensor:
        """``(1, 1, h, w)``: the least trust of all keys, since one bad flow spoils what is computed from all."""
        return torch.stack([joint.trust for joint in self.joints.values()]).amin(dim=0)

    def _mean(self, frames: dict[int, torch.Tensor]) -> torch.Tensor:
        """Frames at the keys, brought to the centre: less noise, and edges at several phases."""
        total, weight = torch.zeros_like(frames[self.centre]), torch.zeros_like(self.blur[:, :1])
        for key, joint in self.joints.items():
            share = enlarged(joint.trust_back)
            total = total + share * warp(frames[key], joint.back, "bicubic")
            weight = weight + share
        return total / weight

    def _deconvolved(self, image: torch.Tensor) -> torch.Tensor:
        """The sharp image at the centre: the mean of its colours, and at half the size how they differ from it."""
        to_centre, from_centre = (
            torch.cat(flows).contiguous(memory_format=torch.channels_last)  # as positions are computed
            for flows in zip(*((joint.there, joint.back) for joint in self.joints.values()), strict=True)
        )
        travelled = torch.hypot(*to_centre.diff(dim=0).unbind(dim=1)).sum(dim=0).flatten()
        fast = travelled[:: max(travelled.numel() // 100_000, 1)].quantile(0.95).item()
        first, last = self.keys[0], self.keys[-1]

        def along(x, flows):
            share = x.shape[-1] / self.blur.shape[-1]
            positions = min(max(int(share * fast / SPACING) + 2, FEWEST), MOST)
            middles = (np.arange(positions) + 0.5) / positions  # of as many parts of the exposure
            times = first - 0.5 + middles * (last - first + 1)
            parts = between(self.keys, times.clip(first, last)).split(AT_ONCE)
            return mean_along(x, (interpolated(flows, share * part) for part in parts))

        # The least trust nearby, else what is wrong at an edge rings around it.
        trusted = -F.max_pool2d(-self._trusted(), 5, stride=1, padding=2)
        believed = enlarged(trusted) * (self.blur.amax(dim=1, keepdim=True) < SATURATED)
        prior = max((noise_of(self.blur) / DOUBT) ** 2, PRIOR)

        def change(blur, image, believed):
            def smear(x):
                return along(x, to_centre)

            def gather(x):  # the adjoint of smear, as far as flow and flow back agree and the motion does not stretch
                return along(believed * x, from_centre)

            return solved(gather(blur - smear(image)), lambda x: gather(smear(x)) + prior * x)

        light, light_image = (x.mean(dim=1, keepdim=True) for x in (self.blur, image))
        brighter = change(light, light_image, believed)
        tint, tint_image = halved(self.blur[:, ::2] - light), halved(image[:, ::2] - light_image)
        blue, red = enlarged(change(tint, tint_image, halved(believed)), 2).split(1, dim=1)
        return image + brighter + torch.cat([blue, -blue - red, red], dim=1)


class JoinedOnce(Joined):
    """The same in the time of so many frames of a student, or less: it is asked at the centre alone.

    Rougher frames tell the motion, and are what a frame is where that cannot be trusted. So they are trusted less than
    a student's, and what they differ by means less. There is no mean of frames along the motion.

    Args:
        blur, frames, exposure, spike: as for :class:`Joined`.
        rough: the rougher frames, sharp where the student's are: the SDM's without a network.
    """

    unlike, least = 0.5, 0.3

    def __init__(self, blur: torch.Tensor, frames: Frames, rough: Frames, exposure=EXPOSURE, spike=None):
        self.rough = rough
        super().__init__(blur, frames, exposure, spike)

    def _asked(self, instant: int) -> torch.Tensor:
        within = self.keys[0] <= instant <= self.keys[-1] and instant != self.centre
        return (self.rough if within else self.frames)([instant]).to(self.blur).nan_to_num()

    def _mean(self, frames: dict[int, torch.Tensor]) -> torch.Tensor:
        return frames[self.centre]
