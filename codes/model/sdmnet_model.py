"""SDMNet: the Spike-guided Deblurring Model as a small network, a student that deblurs one instant.

The SDM says sharp = blur * short / long (S-SDM, arXiv 2403.09486, section 3.1). SDMNet keeps that form and learns what
spikes of a quarter of the image's sides leave open:

    sharp = blur * (1 + ratio) + light + tint * chroma

ratio and light are shared by the three colours, and chroma is the largest chroma of the blurry image nearby: where the
image is grey, so is the result, exactly. Most work is done at 1/4 of the sides, the rest at 1/2.

Inputs: the blurry image ``(B, 3, H, W)``, B,G,R in [0, 1], and the spike pyramid of the instant (:data:`WINDOWS`) made
as bright as the image, ``(B, 21, H/4, W/4)``, float. Output: the sharp image at that instant ``(B, 3, H, W)``,
unclipped. What belongs to the image alone is computed once for all instants (:meth:`SDMNet.encode`).
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from codes.errors import InputError

WINDOWS = (51, 20, 10, 5, 3, 2, 2, *(1,) * 7, 2, 2, 3, 5, 10, 20, 51)
"""Frames in each window of the pyramid, in the order of time; the middle one is the instant."""

COUNTS = (3, *WINDOWS[1:-1], 3)
"""Of 97 frames around the instant, how many each window holds."""

GREY = (0.11, 0.59, 0.3)
"""Weights of B, G and R in grey."""

DARK = 0.03
"""Added to what divides, so that ratios of darkness stay small."""

BRIGHT = 4.0
"""Light and ratios are cut here: what is brighter is a single spike of a high threshold."""

NEARLY_GREY = 2 / 255
"""Chroma up to here counts as none."""

NEARBY = 31
"""Side of the neighbourhood, in pixels at 1/4, from which colour may come."""


class Image(NamedTuple):
    """What belongs to the blurry image alone."""

    grey: torch.Tensor  # (B, 1, h, w), the image as a noise-free spike camera sees it
    quarter: torch.Tensor  # (B, C, h, w), features
    half: torch.Tensor  # (B, c, 2h, 2w), features
    chroma: torch.Tensor  # (B, 1, 2h, 2w), the largest nearby


class DilatedBlock(nn.Module):
    """conv, ReLU, conv, plus the input; the first convolution is dilated."""

    def __init__(self, channels: int, dilation: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        with torch.no_grad():  # begin near the identity: no normalisation keeps large rates in check
            self.conv2.weight.mul_(0.1)
            self.conv2.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` to the same."""
        return self.conv2(F.relu(self.conv1(x), inplace=True)).add_(x)


class SDMNet(nn.Module):
    """The network.

    Args:
        channels: features at 1/4.
        half_channels: features at 1/2.
        dilations: of the residual blocks at 1/4.
    """

    kind, gain, spike_dim = "pyramid", True, len(WINDOWS)

    def __init__(self, channels: int = 48, half_channels: int = 16, dilations: tuple[int, ...] = (1, 2, 4, 1)):
        super().__init__()
        self.image_quarter = nn.Conv2d(48, channels, 3, padding=1)
        self.image_half = nn.Conv2d(12, half_channels, 3, padding=1)
        self.spikes = nn.Conv2d(32, channels, 3, padding=1)
        self.sensor = nn.Linear(1, 2 * channels)
        self.blocks = nn.Sequential(*(DilatedBlock(channels, dilation) for dilation in dilations))
        self.up = nn.Conv2d(channels, 4 * half_channels, 3, padding=1)
        self.block_half = DilatedBlock(half_channels)
        self.last = nn.Conv2d(half_channels, 20, 3, padding=1)
        self.straight = nn.Conv2d(channels, 4 * 20, 1)
        with torch.no_grad():  # begin near the blurry image, and with the same features for every threshold
            self.last.weight.mul_(0.1)
            self.last.bias.zero_()
            for layer in (self.sensor, self.straight):
                layer.weight.zero_()
                layer.bias.zero_()

    def forward(self, blur: torch.Tensor, spike: torch.Tensor) -> torch.Tensor:
        """Deblur one instant, or several of one exposure at once.

        Args:
            blur: ``(B, 3, H, W)``, B,G,R in [0, 1]; H and W multiples of 4.
            spike: ``(B, 21, H/4, W/4)``, or ``(B, M, 21, H/4, W/4)`` for M instants.

        Returns:
            ``(B, 3, H, W)``, or ``(B, M, 3, H, W)``; not clipped.

        Raises:
            InputError: the sizes do not fit.
        """
        height, width = blur.shape[-2:]
        if spike.shape[-2:] != (height // 4, width // 4) or height % 4 or width % 4:
            raise InputError(
                f"an image of {height}x{width} pixels with spikes of {spike.shape[-2]}x{spike.shape[-1]}; "
                "the image must be 4 times as high and as wide as the spikes"
            )
        image = self.encode(blur)
        if spike.dim() == 4:
            return self.decode(blur, image, spike)
        instants = spike.shape[1]
        repeated = (x.repeat_interleave(instants, dim=0) for x in image)
        frames = self.decode(blur.repeat_interleave(instants, dim=0), Image(*repeated), spike.flatten(0, 1))
        return frames.unflatten(0, (-1, instants))

    def encode(self, blur: torch.Tensor) -> Image:
        """The image's part, the same for every instant."""
        grey = sum(weight * colour for weight, colour in zip(GREY, blur.split(1, dim=1), strict=True))
        seen = F.avg_pool2d(grey[..., 1:-1, 1:-1], 2, stride=4)  # the middle 2x2 pixels of each 4x4
        chroma = blur.amax(dim=1, keepdim=True) - blur.amin(dim=1, keepdim=True)
        nearby = F.max_pool2d(chroma, 4)
        for side in ((NEARBY, 1), (1, NEARBY)):
            nearby = F.max_pool2d(nearby, side, stride=1, padding=(side[0] // 2, side[1] // 2))
        nearby = F.interpolate(F.relu(nearby - NEARLY_GREY), scale_factor=2.0, mode="nearest")
        quarter, half = self.image_quarter(F.pixel_unshuffle(blur, 4)), self.image_half(F.pixel_unshuffle(blur, 2))
        return Image(seen, quarter, half, nearby)

    def decode(self, blur: torch.Tensor, image: Image, spike: torch.Tensor) -> torch.Tensor:
        """One instant of each image.

        Args:
            blur: ``(B, 3, H, W)``.
            image: what :meth:`encode` made of it.
            spike: ``(B, 21, H/4, W/4)``.

        Returns:
            ``(B, 3, H, W)``, not clipped.
        """
        scale, shift = self.sensor(self.quantum(spike))[..., None, None].chunk(2, dim=1)
        x = F.relu(self.spikes(self.seen(image.grey, spike)) * (1 + scale) + shift + image.quarter, inplace=True)
        x = self.blocks(x)
        half = F.relu(F.pixel_shuffle(self.up(x), 2).add_(image.half), inplace=True)
        outputs = self.last(self.block_half(half)).add_(F.pixel_shuffle(self.straight(x), 2))
        ratio, light, tint = outputs.split((4, 4, 12), dim=1)
        ratio, light = F.pixel_shuffle(ratio, 2), F.pixel_shuffle(light, 2)
        return blur + blur * ratio + light + F.pixel_shuffle(tint * image.chroma, 2)  # in the precision of blur

    @staticmethod
    def quantum(spike: torch.Tensor) -> torch.Tensor:
        """How bright one spike is, that is how noisy the stream: the logarithm, ``(B, 1)``, of the brightest frame."""
        middle = len(WINDOWS) // 2
        return spike[:, middle - 3 : middle + 4].float().amax(dim=(1, 2, 3)).clamp(min=0.1).log()[:, None]

    @staticmethod
    def seen(grey: torch.Tensor, spike: torch.Tensor) -> torch.Tensor:
        """The pyramid in the form of the SDM.

        Args:
            grey: the image as the spike camera sees it, ``(B, 1, h, w)``.
            spike: the pyramid, ``(B, 21, h, w)``; windows outside the stream are 0 everywhere.

        Returns:
            ``(B, 32, h, w)``: the pyramid (21); the light over growing spans around the instant (3: 7, 21 and 97
            frames); spans of 7, 21 and 51 frames against the longest, of 21 against the image, less 1 (4); whether the
            stream holds the outermost windows (4).
        """
        spike = spike.float()
        middle = len(WINDOWS) // 2
        held = (spike.amax(dim=(-2, -1)) > 0).to(spike)  # (B, 21)
        frames = torch.stack([window * count for window, count in zip(held.unbind(1), COUNTS, strict=True)], dim=1)
        frames[:, middle] = 1  # never nothing to divide by

        def around(reach: int) -> torch.Tensor:  # the mean of the windows up to this many away
            part = slice(middle - reach, middle + reach + 1)
            counts = frames[:, part, None, None]
            return (spike[:, part] * counts).sum(1, keepdim=True) / counts.sum(1, keepdim=True)

        least, short, middling, long = around(3), around(6), around(8), around(10)

        def against(light: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
            return (light - whole) / (whole + DARK)

        ratios = [against(least, long), against(short, long), against(middling, long), against(short, grey)]
        flags = torch.cat([held[:, :2], held[:, -2:]], dim=1)[..., None, None].expand(-1, -1, *spike.shape[-2:])
        return torch.cat([spike, least, short, long, *ratios, flags], dim=1).clamp(max=BRIGHT)
