"""BSN: the blind-spot denoiser for short TFP images.

Input ``(B, 1, h, w)`` in [0, 1], output of the same shape, unclipped. No pixel of the output has seen the
input pixel at its own place, so the network can be trained on its own noisy input: independent noise
cannot be predicted, and what remains is the signal (Laine et al., "High-quality self-supervised deep
image denoising", NeurIPS 2019; S-SDM, section 3.2). 1,118,832 parameters.

How the blind spot comes about: a U-Net whose every layer looks only at rows above and at the pixel's own row is
run on the four rotations of the input; shifting its results down by one row leaves the half-plane strictly above,
and the four half-planes together see all but the centre.

For square inputs the spot is exactly blind. Others are mirrored to a square first, as officially, and the mirrored
border shows a pixel to itself there; training crops are square, full frames are not.
"""

import torch
from torch import nn
from torch.nn import functional as F

NEGATIVE_SLOPE = 0.1

REACH_UP, REACH_ASIDE = 76, 36
"""How far the U-Net sees: 73 rows up and 33 columns to each side, in multiples of its coarsest pixel."""


class ShiftConv(nn.Module):
    """3x3 convolution of the half-plane above, without bias, then LeakyReLU.

    Row i of the result reads the rows i-2, i-1 and i, with zero rows on top and the border columns doubled.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` to ``(B, C', h, w)``."""
        x = F.pad(F.pad(x, (0, 0, 1, 0)), (1, 1, 1, 1), mode="replicate")
        return F.leaky_relu(self.conv(x), NEGATIVE_SLOPE)[:, :, :-1]


def shift_pool(x: torch.Tensor) -> torch.Tensor:
    """Max-pool 2x2 after a shift of one row down, which keeps the half-plane property."""
    return F.max_pool2d(F.pad(x, (0, 0, 1, -1)), 2)


class Encoder(nn.Module):
    """Three convolutions, then pooling unless it is the bottom of the U."""

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int, pool: bool):
        super().__init__()
        self.conv1 = ShiftConv(in_channels, mid_channels)
        self.conv2 = ShiftConv(mid_channels, mid_channels)
        self.conv3 = ShiftConv(mid_channels, out_channels)
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` to ``(B, C', h, w)``, or half the size with pooling (rounded down)."""
        x = self.conv3(self.conv2(self.conv1(x)))
        return shift_pool(x) if self.pool else x


class Decoder(nn.Module):
    """Nearest x2, padded to the skip's size, joined with the skip, then four convolutions."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = ShiftConv(in_channels, out_channels)
        self.conv2 = ShiftConv(out_channels, out_channels)
        self.conv3 = ShiftConv(out_channels, out_channels)
        self.conv4 = ShiftConv(out_channels, out_channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """``(B, C, h/2, w/2)`` and a skip ``(B, S, h, w)`` to ``(B, C', h, w)``."""
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        rows, columns = skip.shape[-2] - x.shape[-2], skip.shape[-1] - x.shape[-1]
        x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return self.conv4(self.conv3(self.conv2(self.conv1(torch.cat([x, skip], dim=1)))))


class ShiftUNet(nn.Module):
    """The half-plane U-Net: ``(B, n_channels, h, w)`` to ``(B, 96, h, w)``."""

    def __init__(self, n_channels: int):
        super().__init__()
        self.enc1 = Encoder(n_channels, 48, 48, pool=True)
        self.enc2 = Encoder(48, 48, 48, pool=True)
        self.enc3 = Encoder(48, 96, 48, pool=False)
        self.dec2 = Decoder(96, 96)
        self.dec1 = Decoder(96 + n_channels, 96)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, n_channels, h, w)`` to ``(B, 96, h, w)``."""
        first = self.enc1(x)
        x_up = self.dec2(self.enc3(self.enc2(first)), first)
        return self.dec1(x_up, x)


def rotate(x: torch.Tensor, quarter: int) -> torch.Tensor:
    """Rotate clockwise by ``quarter`` quarter turns (90 degrees: transpose, then flip the columns)."""
    return torch.rot90(x, -quarter, dims=(-2, -1))


def mirror_index(size: int, target: int, device) -> torch.Tensor:
    """Indices that mirror ``size`` samples out to ``target``, an odd one after; the border itself is not doubled."""
    index = torch.arange(target, device=device) - (target - size) // 2
    if size == 1:
        return torch.zeros_like(index)
    index = index.remainder(2 * (size - 1))
    return torch.minimum(index, 2 * (size - 1) - index)


class BSN(nn.Module):
    """Blind-spot network; state-dict keys are the official ones.

    Args:
        n_channels: input channels (1: a TFP image).
        n_output: output channels.
    """

    def __init__(self, n_channels: int = 1, n_output: int = 1):
        super().__init__()
        self.unet = ShiftUNet(n_channels)
        self.nin_A = nn.Conv2d(384, 384, 1, bias=False)
        self.nin_B = nn.Conv2d(384, 96, 1, bias=False)
        self.nin_C = nn.Conv2d(96, n_output, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Denoise ``x`` ``(B, n_channels, h, w)``; both sides at least 4. Returns ``(B, n_output, h, w)``."""
        height, width = x.shape[-2:]
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        x = x.index_select(-2, mirror_index(height, side, x.device))
        x = x.index_select(-1, mirror_index(width, side, x.device))
        x = self.unet(torch.cat([rotate(x, quarter) for quarter in range(4)]))
        x = F.pad(x, (0, 0, 1, -1))  # one row down, which opens the blind spot
        x = torch.cat([rotate(look, -quarter) for quarter, look in enumerate(x.chunk(4))], dim=1)
        x = F.leaky_relu(self.nin_A(x), NEGATIVE_SLOPE)
        x = F.leaky_relu(self.nin_B(x), NEGATIVE_SLOPE)
        return self.nin_C(x)[..., top : top + height, left : left + width]
