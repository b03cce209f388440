"""Motion between the images of one exposure: optical flow, what the spikes say of it, and warping along it.

Flow between images that a student made is too short: what it could not deblur stands still in all of them. Spikes see
things where they are. So each flow is corrected by one step of Lucas and Kanade (IJCAI 1981) that compares a sharp
image, warped, with the light that the spike camera saw (:class:`Watched`).

Flows are float32 ``(1, 2, H/4, W/4)``, (right, down) in pixels of the whole image, on the grid of the spikes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from codes.exposure import SCALE
from codes.image import grey
from codes.spike import Intervals, tfp_long

SMOOTHNESS = 30
"""Of the flow; OpenCV's 20 follows noise in large images, 60 misses small things in small ones."""
ASTRAY, UNLIKE = 3.0, 0.2
"""Image pixels by which flow and flow back may disagree, and by what share of white the images that they join."""
REACH = 8
"""Frames to either side of an instant in which the spike camera's light is taken to be that of the instant."""
CELL, CELLS, EXPECTED = 4, 5, 0.7
"""Spike pixels along a cell, cells along the window of a correction, and image pixels that it is expected to have."""
CLIPPED = 0.9
"""Share of the brightest light that spikes can tell above which they are not asked, nor students believed."""
OUTLIER = 2.0
"""Differences count half at so many times their root mean square."""
RARE, BRIGHT, FEWEST = 0.7, 0.97, 16
"""Pixels that fire in less than this share of frames and are darker than this tell how bright a spike is; so many of
them at least."""
NOTICED, FURTHEST, CERTAIN, SETTLED = 0.35, 3.0, 5.0, 0.005
"""Image pixels by which a photograph may lie off the spikes before it is moved, those beyond which more than a shift is
wrong, how many standard errors the distance must have, and pixels of the last step to it."""


AT_ONCE, KEPT = 2**18, 2**25
"""Places on a path that are computed at once, and of a path that are kept: 8 bytes each."""


def halved(image: torch.Tensor) -> torch.Tensor:
    """``(1, C, H, W)`` at half the size, means of 2 x 2 pixels."""
    upper, lower = image[..., ::2, :], image[..., 1::2, :]
    return (upper[..., ::2] + upper[..., 1::2] + lower[..., ::2] + lower[..., 1::2]) / 4  # quicker than avg_pool2d


def quartered(image: torch.Tensor) -> torch.Tensor:
    """``(1, C, H, W)`` at a quarter of its sides, the spikes' size: means of 4 x 4 pixels."""
    return halved(halved(image))


def nearby(image: torch.Tensor, side: int) -> torch.Tensor:
    """Means of ``side`` x ``side`` pixels around each of ``(1, C, h, w)``; beyond the border, the border's pixels."""
    height, width = image.shape[-2:]
    padded = F.pad(image, (side // 2,) * 4, mode="replicate")  # sums of slices are several times as quick as avg_pool2d
    rows = sum((padded[..., i : i + height, :] for i in range(1, side)), padded[..., :height, :])
    return sum((rows[..., i : i + width] for i in range(1, side)), rows[..., :width]) / side**2


def enlarged(image: torch.Tensor, times: int = SCALE) -> torch.Tensor:
    """``(1, C, h, w)`` at several times the size."""
    return F.interpolate(image, scale_factor=times, mode="bilinear", align_corners=False)


def flow(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Where the pixels of one image lie in another: DIS flow (Kroeger et al., ECCV 2016).

    Args:
        first, second: :func:`quartered` images, ``(1, 3, H/4, W/4)``, B,G,R in [0, 1].

    Returns:
        float32 ``(1, 2, H/4, W/4)``, (right, down) in pixels of the whole image, on the grid of ``first``.
    """
    small = grey(torch.cat([first, second]))
    small = small / small.amax().clamp(min=1e-6)  # a dark scene has 8 bits too
    bytes_ = (255 * small[:, 0]).round().byte().cpu().numpy()
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)  # not at half of these images
    search.setPatchStride(4)
    search.setGradientDescentIterations(12)
    search.setVariationalRefinementAlpha(SMOOTHNESS)
    search.setVariationalRefinementIterations(4)
    return SCALE * torch.from_numpy(np.nan_to_num(search.calc(*bytes_, None))).permute(2, 0, 1)[None].to(first)


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
    if image.device.type != "cpu":
        return sampled(image, moved, mode)
    height, width = image.shape[-2:]  # OpenCV is several times as quick
    rows = moved.shape[2]
    wide = cv2.resize(moved[0].permute(1, 2, 0).numpy(), (width, rows), interpolation=cv2.INTER_NEAREST)
    strips = torch.from_numpy(wide)  # one row for all that share a path
    strips[..., 0] += torch.arange(width)
    strips[..., 1] += torch.arange(0, height, height // rows)[:, None]
    further = torch.zeros(height // rows, width, 2)
    further[..., 1] = torch.arange(height // rows)[:, None]
    at = (strips[:, None] + further).view(height, width, 2).numpy()
    how, maps = cv2.INTER_LINEAR, (at, None)
    if mode == "bicubic":  # to 1/32 pixel
        how, maps = cv2.INTER_CUBIC, cv2.convertMaps(at, None, cv2.CV_16SC2)
    pixels = image[0].permute(1, 2, 0).contiguous().numpy()  # all planes at once, which is quicker
    seen = torch.from_numpy(cv2.remap(pixels, *maps, how, None, cv2.BORDER_REPLICATE))
    return seen.view(1, height, width, -1).permute(0, 3, 1, 2).contiguous()


def sampled(image: torch.Tensor, moved: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
    """:func:`warp` on a GPU."""
    height, width = image.shape[-2:]
    moved = F.interpolate(moved, (height, width))
    x, y = (torch.arange(side, device=image.device) for side in (width, height))
    grid = torch.stack([(2 * (moved[:, 0] + x) + 1) / width, (2 * (moved[:, 1] + y[:, None]) + 1) / height], dim=-1)
    return F.grid_sample(image, grid - 1, mode, "border", align_corners=False)


class Path:
    """Means of images along each pixel's path, as of :func:`warp` at N positions; prepared once for one size.

    On a CPU the pixels that share a path are moved together. An image becomes a table of all its blocks of as many
    pixels, wherever they begin, and a mean is a weighted sum of its rows: contiguous reads, several times as quick as
    looking up pixels.

    Args:
        flows: at the keys, ``(keys, 2, h, w)``, (right, down) in pixels of the images.
        weights: of the keys at each position, ``(N, keys)`` (:func:`between`).
        scale: pixels of the images per pixel of the flows, each way.
    """

    def __init__(self, flows: torch.Tensor, weights: torch.Tensor, scale: int):
        self.flows, self.weights, self.scale = flows, weights.to(flows), scale
        self.rows, self.columns = flows.shape[-2:]
        places = 4 * len(weights) * self.rows
        self.strips = range(0, self.columns, max(1, AT_ONCE // places))
        self.kept = []
        if flows.device.type == "cpu" and places * self.columns <= KEPT:
            self.kept = [self.places(range(self.columns))]

    def places(self, columns: range) -> tuple[torch.Tensor, torch.Tensor]:
        """Of some of the flows' columns: rows of the table (:meth:`blocks`), and their weights.

        Returns:
            int32 and float32 ``(pixels, 4 N)``, the pixels column by column.
        """
        count, high = len(self.weights), self.scale * self.rows + self.scale + 2
        places = torch.empty(len(columns) * self.rows, 4, count, dtype=torch.int32)
        shares = torch.empty(places.shape)
        for strip in range(0, len(columns), self.strips.step):
            part = columns[strip : strip + self.strips.step]
            (column, x), (row, y) = self.positions(part)
            to = slice(strip * self.rows, (strip + len(part)) * self.rows)
            first, right, above = column.mul_(high).add_(row), x.div_(count), 1 - y
            left = 1 / count - right
            for corner, (step, across, down) in enumerate(
                ((0, left, above), (1, left, y), (high, right, above), (high + 1, right, y))
            ):
                torch.add(first, step, out=places[to, corner])
                torch.mul(across, down, out=shares[to, corner])
        return places.flatten(1), shares.flatten(1)

    def positions(self, columns: range) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Where the blocks begin that a strip's pixels are means of, to the right and down.

        Returns:
            Of each, int32 and float32 ``(pixels, N)``: whole pixels of the table, and what is left.
        """
        scale, found = self.scale, []
        flows = self.flows[..., columns.start : columns.stop].permute(1, 3, 2, 0).flatten(1, 2)  # (2, pixels, keys)
        right, down = (scale * torch.arange(part.start + 1.0, part.stop + 1) for part in (columns, range(self.rows)))
        begins = torch.meshgrid(right, down, indexing="ij")
        for flow, begin, side in zip(flows, begins, (self.columns, self.rows), strict=True):
            with torch.autocast("cpu", enabled=False):  # bfloat16 would be half a pixel off
                at = torch.addmm(begin.reshape(-1, 1), flow, self.weights.T)
            at = at.clamp_(0, scale * (side + 1))  # beyond, there are the border's pixels alone
            whole = at.floor()
            found.append((whole.int(), at.sub_(whole)))
        return found

    def blocks(self, image: torch.Tensor) -> torch.Tensor:
        """The table of an image: one row for each block, column by column, from one block before the border on."""
        scale, planes = self.scale, image.shape[1]
        padded = F.pad(image, (scale, scale + 1) * 2, mode="replicate")[0].permute(2, 1, 0).contiguous()
        wide, high = (side - scale + 1 for side in padded.shape[:2])
        strips = padded.unfold(0, scale, 1).flatten(2).contiguous()  # so wide as a block: below each other lie its rows
        size = (wide, high, scale * planes * scale)
        return strips.as_strided(size, (strips.stride(0), strips.stride(1), 1)).reshape(-1, size[2])

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """``(1, C, scale h, scale w)`` to the same."""
        if image.device.type != "cpu":
            return self.warped(image)
        blocks, scale = self.blocks(image), self.scale
        strips = (range(start, min(start + self.strips.step, self.columns)) for start in self.strips)
        parts = self.kept or map(self.places, strips)
        means = [F.embedding_bag(places, blocks, mode="sum", per_sample_weights=shares) for places, shares in parts]
        pixels = torch.cat(means) if len(means) > 1 else means[0]
        pixels = pixels.view(self.columns, self.rows, scale, -1, scale).permute(3, 1, 2, 0, 4)
        return pixels.reshape(image.shape)

    def warped(self, image: torch.Tensor) -> torch.Tensor:
        """The same on a GPU: a warp to each position."""
        moved = (interpolated(self.flows, weights[None]) for weights in self.weights)
        return sum((warp(image, flow) for flow in moved), torch.zeros_like(image)) / len(self.weights)


class Joint(NamedTuple):
    """How a frame and the centre's belong together: flow to the centre and back, and how far each is to be trusted.

    ``small``: the frame, :func:`quartered`.
    """

    small: torch.Tensor
    there: torch.Tensor
    back: torch.Tensor
    trust: torch.Tensor
    trust_back: torch.Tensor


def gap(there: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
    """How far from its beginning one arrives, going there and back: ``(1, 1, h, w)`` of flows, in image pixels."""
    returned = warp(back, there / SCALE)  # a pixel of the flows is four of the image
    return torch.hypot(*(there + returned).split(1, dim=1))


def trust(
    first: torch.Tensor,
    second: torch.Tensor,
    there: torch.Tensor,
    back: torch.Tensor,
    believed: torch.Tensor | None = None,
) -> torch.Tensor:
    """How far two images show the same thing, where a flow leads.

    Args:
        first, second: :func:`quartered`, ``(1, 3, H/4, W/4)``.
        there: ``(1, 2, H/4, W/4)``, the flow from the first to the second.
        back: from the second to the first.
        believed: how far the first image is to be (:func:`told`), ``(1, 1, H/4, W/4)`` in [0, 1]; None: everywhere.

    Returns:
        ``(1, 1, H/4, W/4)``, weights in [0, 1] on the grid of the first.
    """
    apart = nearby(first - warp(second, there / SCALE), 5).abs().amax(dim=1, keepdim=True)
    apart = apart if believed is None else believed * apart
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


def line_of(blur: torch.Tensor, rate: torch.Tensor) -> tuple[float, float] | None:
    """Spikes per frame as light of the photograph: gain * light + dark, since noise fires in the dark too.

    Args:
        blur: the photograph, ``(1, 3, H, W)``.
        rate: of the spikes during the exposure, ``(1, 1, H/4, W/4)``.

    Returns:
        (gain, dark); None where spikes do not get more as the photograph gets brighter.
    """
    light = seen_by_spikes(grey(blur))
    rate, light = (x[(rate < RARE) & (light < BRIGHT)].double() for x in (rate, light))
    if len(rate) < FEWEST:
        return None
    gain = (light - light.mean()).mul(rate - rate.mean()).mean() / (light - light.mean()).square().mean()
    return (gain.item(), (rate.mean() - gain * light.mean()).item()) if gain > 1e-3 else None


class Watched(NamedTuple):
    """What a spike camera saw of an exposure, to be compared with the photograph.

    ``light``: in spikes per frame, near the exposure; ``dark``, ``gain``: how many of them the photograph's black
    fires, and how many more its white; ``brightest``: the photograph's light where each frame has a spike.
    """

    light: Intervals
    gain: float
    dark: float
    brightest: float

    @classmethod
    def of(cls, blur: torch.Tensor, spike: torch.Tensor, exposure) -> "Watched | None":
        """Of what both cameras saw during the exposure.

        Args:
            blur: the photograph, ``(1, 3, H, W)``, B,G,R in [0, 1].
            spike: ``(1, T, H/4, W/4)``, zeros and ones or means of some.
            exposure: anything with ``start`` and ``stop``.

        Returns:
            None where spikes do not get brighter as the photograph does.
        """
        line = line_of(blur, tfp_long(spike, exposure))
        if not line:
            return None
        gain, dark = line
        return cls(Intervals(spike, exposure.start, exposure.stop - 1), gain, dark, (1 - dark) / gain)

    def at(self, instant: int) -> torch.Tensor | None:
        """The light around an instant, as bright as the photograph, ``(1, 1, H/4, W/4)``; None: far away."""
        window = instant - REACH, instant + REACH + 1
        return (self.light.means([window]) - self.dark) / self.gain if self.light.keeps(*window) else None


def seen_by_spikes(planes: torch.Tensor, moved: torch.Tensor | None = None) -> torch.Tensor:
    """Images as the spike camera sees them: the middle 2x2 pixels of each 4x4.

    Args:
        planes: ``(1, C, H, W)``.
        moved: what lies so far away instead, ``(1, 2, H/4, W/4)``, (right, down) in image pixels.

    Returns:
        ``(1, C, H/4, W/4)``.
    """
    if moved is None:
        return F.avg_pool2d(planes[..., 1:-1, 1:-1], 2, stride=SCALE)
    height, width = planes.shape[-2:]
    x, y = (SCALE * torch.arange(side, device=planes.device) + SCALE / 2 for side in (moved.shape[3], moved.shape[2]))
    places = torch.stack([(x + moved[:, 0]) * (2 / width) - 1, (y[:, None] + moved[:, 1]) * (2 / height) - 1], dim=-1)
    return F.grid_sample(planes, places, "bilinear", "border", align_corners=False)


def with_slopes(light: torch.Tensor) -> torch.Tensor:
    """``(1, 3, H, W)``: a grey image ``(1, 1, H, W)`` and its slopes to the right and down, light per pixel."""
    padded = F.pad(light, (1, 1, 1, 1), mode="replicate")
    right = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    return torch.cat([light, right, down], dim=1)


def correction(planes: torch.Tensor, there: torch.Tensor, light: torch.Tensor, brightest: float) -> torch.Tensor:
    """What to add to a flow, so that what it leads to is what spikes saw.

    Args:
        planes: :func:`with_slopes` of the image that the flow leads to.
        there: the flow.
        light: the spike camera's at the flow's beginning, ``(1, 1, H/4, W/4)`` (:meth:`Watched.at`).
        brightest: the brightest light that it can tell.

    Returns:
        As ``there``. Where spikes say little, little: least squares with a prior that expects no correction.
    """
    image, right, down = seen_by_spikes(planes, there).split(1, dim=1)
    known = (image < CLIPPED * brightest).to(image)
    apart = known * (light - image)
    noise = apart.square().sum() / known.sum().clamp(min=1)
    weight = known / (1 + apart.square() / (OUTLIER**2 * noise).clamp(min=1e-12))
    terms = torch.cat([right * right, right * down, down * down, right * apart, down * apart], dim=1) * weight
    cells = F.interpolate(terms, [-(-side // CELL) for side in terms.shape[2:]], mode="area")
    cells = F.avg_pool2d(cells, CELLS, stride=1, padding=CELLS // 2, count_include_pad=False)
    prior = (noise / (CELLS * CELL * EXPECTED) ** 2).clamp(min=1e-12)
    xx, xy, yy, x, y = cells.split(1, dim=1)
    xx, yy = xx + prior, yy + prior
    step = torch.cat([yy * x - xy * y, xx * y - xy * x], dim=1) / (xx * yy - xy * xy)
    return F.interpolate(step.clamp(-SCALE, SCALE), there.shape[2:], mode="bilinear", align_corners=False)


def told(planes: torch.Tensor, brightest: float, there: torch.Tensor | None = None) -> torch.Tensor:
    """Where spikes can tell the light, and what a student makes of it is more than a guess.

    Args:
        planes, brightest: as in :func:`correction`.
        there: the flow to that image from the one that is asked about; None: itself.

    Returns:
        ``(1, 1, H/4, W/4)`` in [0, 1].
    """
    image = seen_by_spikes(planes[:, :1], there)
    known = (image < CLIPPED * brightest).to(image)
    return nearby(known, 3)


def filled(there: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """A flow that goes on as around there where nothing is known: saturated things move with what they belong to.

    Args:
        there: the flow.
        known: weights in [0, 1], ``(1, 1, H/4, W/4)`` (:func:`told`).

    Returns:
        As ``there``; unchanged where all is known, or nothing.
    """

    def pulled(coarse, known):  # to ever coarser grids until something is known, and back (Gortler et al., 1996)
        if min(known.shape[2:]) < 4:
            mean = (known * coarse).sum(dim=(2, 3), keepdim=True) / known.sum().clamp(min=1e-6)
            return torch.lerp(mean.expand_as(coarse), coarse, known)
        share = F.avg_pool2d(known, 2, ceil_mode=True, count_include_pad=False)
        means = F.avg_pool2d(known * coarse, 2, ceil_mode=True, count_include_pad=False) / share.clamp(min=1e-6)
        around = pulled(means, (2 * share).clamp(max=1))
        return torch.lerp(F.interpolate(around, known.shape[2:], mode="bilinear"), coarse, known)

    if (known == 1).all() or not known.any():
        return there
    return torch.lerp(pulled(there, known), there, known)


def shift(blur: torch.Tensor, spike: torch.Tensor, exposure) -> torch.Tensor | None:
    """By how much the spike camera looks too far, by Lucas and Kanade's steps between what both saw of the exposure.

    Args:
        blur, spike, exposure: as in :meth:`Watched.of`.

    Returns:
        (right, down) in image pixels, ``(1, 2, 1, 1)``; None where it is small, or not to be told.
    """
    if blur.device.type == "mps":  # which has no float64
        blur, spike = blur.cpu(), spike.cpu()
    blur, rate = blur.float().nan_to_num(), tfp_long(spike, exposure)
    line, found = line_of(blur, rate), blur.new_zeros(1, 2, 1, 1)
    if not line:
        return None
    light, planes = (rate - line[1]) / line[0], with_slopes(grey(blur))
    for _ in range(5):
        image, *slopes = seen_by_spikes(planes, found.expand(-1, -1, *rate.shape[2:])).split(1, dim=1)
        known = (rate < RARE) & (image < BRIGHT)
        # In float64, which autocast leaves alone.
        apart, slopes = (light - image)[known].double(), torch.stack([slope[known] for slope in slopes]).double()
        matrix = slopes @ slopes.T
        step = torch.linalg.pinv(matrix) @ (slopes @ apart)
        found = found + step.view(1, 2, 1, 1).to(found)
        if step.abs().max() < SETTLED:
            break
    error = (torch.linalg.pinv(matrix).diagonal().sum() * apart.square().mean()).sqrt()
    distance = torch.hypot(*found.flatten())
    return found if max(NOTICED, CERTAIN * error) < distance < FURTHEST and step.abs().max() < 10 * SETTLED else None
