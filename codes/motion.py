"""Frames that one motion joins: sharper than each of them alone.

A student computes every instant by itself. But the sharp frames of an exposure show one scene that moves, and together
they make the photograph (as in S-SDM's reblur loss, with the frames traced back to one of them):

    B = 1/N sum_t W_t S

S is the sharp image at the centre of the exposure and W_t moves it to where the scene was at t. The student's frames
tell the motion (optical flow between 7 of them), and so the light that the motion has smeared over the photograph, at
the photograph's resolution, can be brought back: a deconvolution along each pixel's own path (Tai, Tan and Brown,
"Richardson-Lucy deblurring for scenes under a projective motion path", PAMI 2011), here by conjugate gradients from the
mean of the student's frames along the motion. Nothing is trained, and no sharp image is read.

Where the flow to the centre and the flow back disagree, pixels come or go behind others and the equation does not hold:
there the photograph is not believed, and a frame is what the student made of it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from codes.image import grey
from codes.spike import EXPOSURE, evenly

KEYS = 7
"""Instants between which the motion is measured."""
LARGE, PATCH, SMOOTHNESS = 256, 16, 60
"""Shorter side of the flow's images from which on its windows have this side and it is so smooth: OpenCV's 8 and 20
follow noise. Smaller images have smaller things."""
STEPS = 4
"""Conjugate gradient steps."""
PRIOR, DOUBT = 0.01, 8 / 255
"""Weight of the student's image, where the photograph weighs 1, is (noise / DOUBT)² but at least PRIOR."""
ASTRAY, UNLIKE = 3.0, 0.2
"""Image pixels by which flow and flow back may disagree, and by what share of white the images that they join."""
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


def halved(image: torch.Tensor) -> torch.Tensor:
    """``(1, C, H, W)`` at half the size, means of 2 x 2 pixels."""
    upper, lower = image[..., ::2, :], image[..., 1::2, :]
    return (upper[..., ::2] + upper[..., 1::2] + lower[..., ::2] + lower[..., 1::2]) / 4  # quicker than avg_pool2d


def doubled(image: torch.Tensor) -> torch.Tensor:
    """``(1, C, h, w)`` at twice the size."""
    return F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)


def flow(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Where the pixels of one image lie in another: DIS flow (Kroeger et al., ECCV 2016).

    Args:
        first, second: images at half their size, ``(1, 3, H/2, W/2)``, B,G,R in [0, 1].

    Returns:
        float32 ``(1, 2, H/2, W/2)``, (right, down) in pixels of the whole image, on the grid of ``first``.
    """
    small = grey(torch.cat([first, second]))
    small = small / small.amax().clamp(min=1e-6)  # a dark scene has 8 bits too
    bytes_ = (255 * small[:, 0]).round().byte().cpu().numpy()
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    if min(small.shape[2:]) >= LARGE:
        search.setPatchSize(PATCH)
        search.setPatchStride(PATCH // 2)
        search.setGradientDescentIterations(16)
        search.setVariationalRefinementAlpha(SMOOTHNESS)
        search.setVariationalRefinementIterations(10)
    return 2 * torch.from_numpy(np.nan_to_num(search.calc(*bytes_, None))).permute(2, 0, 1)[None].to(first)


def warp(image: torch.Tensor, moved: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
    """An image as seen from another instant: at each pixel what lies ``moved`` away.

    Args:
        image: ``(1, C, H, W)``.
        moved: float32 ``(1, 2, H, W)``, or coarser by a whole number that divides both sides; (right, down) in image
            pixels.
        mode: 'bilinear' or 'bicubic'.

    Returns:
        ``(1, C, H, W)``; beyond the border, the border's pixels.
    """
    return mean_along(image, [moved], mode)


def mean_along(image: torch.Tensor, path: Iterable[torch.Tensor], mode: str = "bilinear") -> torch.Tensor:
    """The mean of :func:`warp` over a path's positions, each as ``moved`` there; several may come as one tensor."""
    if image.device.type == "cpu":
        return _mean_along_on_cpu(image, path, mode)
    height, width = image.shape[-2:]
    x, y = ((2 * torch.arange(side, device=image.device) + 1) / side - 1 for side in (width, height))
    total, positions = torch.zeros_like(image), 0
    for moved in path:
        grid = F.interpolate(moved * moved.new_tensor([2 / width, 2 / height])[:, None, None], (height, width))
        grid[:, 0] += x
        grid[:, 1] += y[:, None]
        images = image.expand(len(moved), -1, -1, -1)
        seen = F.grid_sample(images, grid.permute(0, 2, 3, 1), mode, "border", align_corners=False)
        total += seen.sum(dim=0, keepdim=True)
        positions += len(moved)
    return total / positions


def _mean_along_on_cpu(image: torch.Tensor, path: Iterable[torch.Tensor], mode: str) -> torch.Tensor:
    """The same by OpenCV, on the coarser grid: pixels that share a motion are parts of as many coarse images."""
    how, sums, positions = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}[mode], None, 0
    for moved in path:
        if sums is None:
            rows, columns = moved.shape[-2:]
            scale = image.shape[-2] // rows
            # Each part begins at another pixel; the first ones are repeated, that all parts see the same border.
            planes = F.pad(image, (scale - 1, 0, scale - 1, 0), mode="replicate")[0].numpy()
            here = scale * np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).astype(np.float32) + scale - 1
            parts = list(np.ndindex(len(planes), scale, scale))
            sums = np.zeros((len(planes), scale, scale, rows, columns), np.float32)
            seen = np.empty((rows, columns), np.float32)
        for places in moved.permute(0, 2, 3, 1).numpy():
            at = here + places
            for c, i, j in parts:
                sums[c, i, j] += cv2.remap(planes[c, i:, j:], at, None, how, seen, cv2.BORDER_REPLICATE)
        positions += len(moved)
    return torch.from_numpy(sums.transpose(0, 3, 1, 4, 2).reshape(image.shape)) / positions


class Joint(NamedTuple):
    """How a frame and the centre's belong together: flow to the centre and back, and how far each is to be trusted."""

    there: torch.Tensor
    back: torch.Tensor
    trust: torch.Tensor
    trust_back: torch.Tensor


def gap(there: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
    """How far from its beginning one arrives, going there and back: ``(1, 1, h, w)`` of flows, in image pixels."""
    returned = warp(back, there / 2)  # a pixel of the flows is two of the image
    return torch.hypot(*(there + returned).split(1, dim=1))


def trust(first: torch.Tensor, second: torch.Tensor, there: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
    """How far two images show the same thing, where a flow leads.

    Args:
        first, second: at half their size, ``(1, 3, H/2, W/2)``.
        there: ``(1, 2, H/2, W/2)``, the flow from the first to the second.
        back: from the second to the first.

    Returns:
        ``(1, 1, H/2, W/2)``, weights in [0, 1] on the grid of the first.
    """
    apart = halved(first - warp(second, there / 2))
    apart = F.avg_pool2d(apart, 5, stride=1, padding=2, count_include_pad=False)
    apart = doubled(apart.abs().amax(dim=1, keepdim=True))
    return torch.exp(-((gap(there, back) / ASTRAY) ** 2) - (apart / UNLIKE) ** 2)


def between(keys: Sequence[int], times) -> torch.Tensor:
    """``(len(times), len(keys))``: what to multiply values at ``keys`` by for the polynomial through them at times."""
    middle, half = (keys[0] + keys[-1]) / 2, max((keys[-1] - keys[0]) / 2, 1)

    def powers(at):
        return ((np.asarray(at, float)[:, None] - middle) / half) ** np.arange(len(keys))

    return torch.from_numpy(powers(times) @ np.linalg.inv(powers(keys))).float()


def interpolated(flows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """``(n, 2, h, w)`` of flows at the keys ``(keys, 2, h, w)`` and weights ``(n, keys)`` (:func:`between`)."""
    pairs = flows.permute(0, 2, 3, 1)
    with torch.autocast(flows.device.type, enabled=False):  # bfloat16 would be half a pixel off
        found = weights.to(flows) @ pairs.flatten(1)
    return found.view(-1, *pairs.shape[1:]).permute(0, 3, 1, 2)


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

    Attributes:
        centre: the instant of :attr:`image`, the middle one of the keys.
        image: the sharp image there, ``(1, 3, H, W)``, not clipped.
    """

    def __init__(self, blur: torch.Tensor, frames: Frames, exposure=EXPOSURE):
        if blur.device.type == "mps":  # which has no bicubic grid_sample
            blur = blur.cpu()
        self.blur, self.frames = blur[None].float().nan_to_num(), frames
        self.small = min(blur.shape[1:]) < SMALLEST
        self.keys = evenly(exposure, min(KEYS, exposure.stop - exposure.start))
        self.centre = self.keys[len(self.keys) // 2]
        self.seen = {key: self._asked(key) for key in self.keys}
        self.half = halved(self.seen[self.centre])
        self.joints = {key: self._joint(frame) for key, frame in self.seen.items()}
        self.image = self._deconvolved(self._mean())

    def __call__(self, instants: Sequence[int]) -> torch.Tensor:
        """``(M, 3, H, W)``, clipped to [0, 1]."""
        return torch.cat([self._frame(instant) for instant in instants]).clamp_(0, 1)

    def _asked(self, instant: int) -> torch.Tensor:
        """The student's frame, ``(1, 3, H, W)``."""
        return self.frames([instant]).to(self.blur).nan_to_num()

    def _joint(self, frame: torch.Tensor) -> Joint:
        """How a frame ``(1, 3, H, W)`` and the centre's belong together."""
        still = torch.zeros_like(self.half[:, :2])
        if frame is self.seen[self.centre]:
            return Joint(still, still, still[:, :1] + 1, still[:, :1] + 1)
        if self.small:
            return Joint(still, still, still[:, :1], still[:, :1])
        half, centre = halved(frame), self.half
        there, back = flow(half, centre), flow(centre, half)
        return Joint(there, back, trust(half, centre, there, back), trust(centre, half, back, there))

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
            there, _, trusted, _ = self._joint(own)
        return torch.lerp(own, warp(self.image, there, "bicubic"), doubled(trusted))

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

    def _mean(self) -> torch.Tensor:
        """The student's frames at the keys, brought to the centre: less noise, and edges at several phases."""
        total, weight = torch.zeros_like(self.blur), torch.zeros_like(self.blur[:, :1])
        for key, joint in self.joints.items():
            share = doubled(joint.trust_back)
            total = total + share * warp(self.seen[key], joint.back, "bicubic")
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
        trusted = -F.max_pool2d(-self._trusted(), 9, stride=1, padding=4)
        believed = doubled(trusted) * (self.blur.amax(dim=1, keepdim=True) < SATURATED)
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
        blue, red = doubled(change(tint, tint_image, halved(believed))).split(1, dim=1)
        return image + brighter + torch.cat([blue, -blue - red, red], dim=1)
