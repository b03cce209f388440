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

from codes.fast.pieces import pieces

NEGATIVE_SLOPE = 0.1

REACH_UP, REACH_ASIDE = 76, 36
"""How far the U-Net sees: 73 rows up and 33 columns to each side, in multiples of its coarsest pixel."""


class ShiftConv(nn.Module):
    """3x3 convolution of the half-plane above, without bias, then LeakyReLU.

    Officially: one zero row on top, replicate-pad 1 on all sides, convolve, drop the last row. Row i of the
    result then reads the rows i-2, i-1 and i, with two zero rows on top and the border columns doubled.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` to ``(B, C', h, w)``."""
        weight = self.conv.weight
        if torch.is_autocast_enabled(x.device.type):  # which does not reach into a Function's backward
            x, weight = (t.to(torch.get_autocast_dtype(x.device.type)) for t in (x, weight))
        return _HalfPlane.apply(x, weight)


class _HalfPlane(torch.autograd.Function):
    """:class:`ShiftConv` without a padded copy of its input, forwards and backwards.

    The convolution pads with zeros by itself, two rows above and below, of whose results the last two are dropped.
    What the doubled columns add to the first and last column is a matrix product of these columns. Only input and
    output are kept for the gradient; the sign of the output is that of what LeakyReLU was given.
    """

    @staticmethod
    def forward(ctx, x, weight):
        y = F.conv2d(x, weight, padding=(2, 1))[:, :, : x.shape[-2]]
        for column, part in zip((0, -1), torch.bmm(_column_rows(x), _column_weights(weight)), strict=True):
            y[..., column] += part.unflatten(0, (len(x), -1)).transpose(1, 2)
        F.leaky_relu_(y, NEGATIVE_SLOPE)
        ctx.save_for_backward(x, weight, y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        x, weight, y = ctx.saved_tensors
        batch, channels, height, width = y.shape
        g = y.new_empty(batch, height + 2, width, channels).permute(0, 3, 1, 2)
        g[:, :, height:] = 0
        torch.ops.aten.leaky_relu_backward.grad_input(gradient, y, NEGATIVE_SLOPE, True, grad_input=g[:, :, :height])
        gx = gw = None
        if ctx.needs_input_grad[0]:
            gx = _convolution_backward(g, x, weight, 2, (True, False, False))[0]
        if ctx.needs_input_grad[1]:
            # With a padding of 1, one row later: oneDNN is three times as slow with 2. The first row is left over.
            gw = _convolution_backward(g[:, :, 1:-1], x, weight, 1, (False, True, False))[1]
            shifted = F.pad(x[:, :, 0], (1, 1)).unfold(2, width, 1)  # (B, C, 3, w)
            gw[:, :, 2] += torch.einsum("bow,bckw->ock", g[:, :, 0], shifted)
        columns = torch.stack([g[:, :, :height, side].transpose(1, 2).flatten(0, 1) for side in (0, -1)])
        if gw is not None:
            by_side = torch.bmm(_column_rows(x).transpose(1, 2), columns)
            for side, part in zip((0, -1), by_side, strict=True):
                gw[..., side] += part.view(3, -1, channels).permute(2, 1, 0)
        if gx is not None:
            by_side = torch.bmm(columns, _column_weights(weight).transpose(1, 2))
            for side, part in zip((0, -1), by_side, strict=True):
                taps = part.view(batch, height, 3, -1).permute(2, 0, 3, 1)  # (3, B, C, h)
                column = gx[..., side]
                column += taps[2]
                column[..., :-1] += taps[1][..., 1:]
                column[..., :-2] += taps[0][..., 2:]
        return gx, gw


def _convolution_backward(gradient, x, weight, rows: int, mask) -> tuple:
    """torch's gradient of a 3x3 convolution with ``rows`` of zeros above and below, one column on the sides."""
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, None, (1, 1), (rows, 1), (1, 1), False, (0, 0), 1, mask
    )


def _column_rows(x: torch.Tensor) -> torch.Tensor:
    """What the first and the last column show to a 3x1 kernel: ``(B, C, h, w)`` to ``(2, B * h, 3 * C)``."""
    columns = F.pad(torch.stack([x[..., 0], x[..., -1]]).transpose(2, 3), (0, 0, 2, 0))  # (2, B, h + 2, C)
    return columns.unfold(2, 3, 1).transpose(3, 4).flatten(3).flatten(1, 2)


def _column_weights(weight: torch.Tensor) -> torch.Tensor:
    """The kernels' first and last columns as matrices ``(2, 3 * C, C')``."""
    return torch.stack([weight[..., 0], weight[..., 2]]).permute(0, 3, 2, 1).flatten(1, 2)


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
        if height < side:
            x = x.index_select(-2, mirror_index(height, side, x.device))
        if width < side:
            x = x.index_select(-1, mirror_index(width, side, x.device))
        top, left = (side - height) // 2, (side - width) // 2
        bottom, right = side - top - height, side - left - width
        # What of the rotated square is wanted: rows from, rows to, columns from, columns to.
        boxes = (
            (top, side - bottom, left, side - right),
            (left, side - right, bottom, side - top),
            (bottom, side - top, right, side - left),
            (right, side - left, top, side - bottom),
        )
        looks = [rotate(x, quarter) for quarter in range(4)]
        if height == width:
            parts = self._look_up(torch.cat(looks), *boxes[0]).chunk(4)
        else:
            parts = [self._look_up(look, *box) for look, box in zip(looks, boxes, strict=True)]
        parts = [rotate(part, -quarter) for quarter, part in enumerate(parts)]
        rows = pieces(parts[0], 384 * len(x) * width, height)
        strips = zip(*(part.split(rows, -2) for part in parts), strict=True)
        return torch.cat([self._join(strip) for strip in strips], dim=-2)

    def _look_up(self, x: torch.Tensor, top: int, bottom: int, left: int, right: int) -> torch.Tensor:
        """The U-Net's features of the box, each of the rows above it alone; the network sees no more than it needs."""
        above, before = max(0, top - REACH_UP) // 4 * 4, max(0, left - REACH_ASIDE) // 4 * 4
        x = x[..., above : -(-bottom // 4) * 4, before : -(-(right + REACH_ASIDE) // 4) * 4]
        x = x.contiguous(memory_format=torch.channels_last)
        x = torch.cat([self.unet(piece) for piece in x.split(pieces(x, 96 * x[0].numel(), len(x)))])
        # One row down, which opens the blind spot.
        x = x[..., max(0, top - above - 1) : bottom - above - 1, left - before : right - before]
        return F.pad(x, (0, 0, 1, 0)) if top == above else x

    def _join(self, parts: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """The 1x1 convolutions over the four looks at some rows."""
        x = torch.cat(parts, dim=1).permute(0, 2, 3, 1)
        for layer in (self.nin_A, self.nin_B):
            x = F.leaky_relu_(F.linear(x, layer.weight.flatten(1)), NEGATIVE_SLOPE)
        return F.linear(x, self.nin_C.weight.flatten(1)).permute(0, 3, 1, 2)
