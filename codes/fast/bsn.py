"""BSN for a CPU: half-plane convolutions without padded copies, and no more of the rotated squares than is wanted."""

import torch
from torch.nn import functional as F

from codes.fast.pieces import pieces
from codes.model import bsn_model
from codes.model.bsn_model import NEGATIVE_SLOPE, REACH_ASIDE, REACH_UP, mirror_index, rotate


class ShiftConv(bsn_model.ShiftConv):
    """The half-plane's convolution as a function of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` to ``(B, C', h, w)``."""
        weight = self.conv.weight
        if torch.is_autocast_enabled(x.device.type):  # which does not reach into a Function's backward
            x, weight = (t.to(torch.get_autocast_dtype(x.device.type)) for t in (x, weight))
        return _HalfPlane.apply(x, weight)


class _HalfPlane(torch.autograd.Function):
    """The plain :class:`codes.model.bsn_model.ShiftConv` without a padded copy of its input, forwards and backwards.

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


class BSN(bsn_model.BSN):
    """The four looks one by one, each of the rows and columns alone that matter to the image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the plain form."""
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
