"""EDSR for a CPU: what follows the last residual block as one convolution.

All of it is linear: two convolutions with pixel shuffles and a third convolution, with no activation between them.
Together they are one 5x5 convolution from 64 channels to the 4x4 pixels that a TFP pixel becomes, at 1/29 of the
multiplications. Only the outermost TFP pixel, where the padding of the inner convolutions matters, takes the long way.
"""

import torch
from torch import nn
from torch.nn import functional as F

from codes.fast.pieces import pieces
from codes.model import edsr_model

STRIP, SMALLEST = 3, 24
"""TFP pixels from the border that make the outermost one right by the long way; sides from which it is longer."""


class EDSR(edsr_model.EDSR):
    """The images of a batch a few at a time, their tail at once."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the plain form."""
        kernel = join(self.tail) if min(x.shape[-2:]) >= SMALLEST else None
        count = pieces(x, 64 * x[0].numel(), len(x))
        return torch.cat([self._enlarge(piece, kernel) for piece in x.split(count)])

    def _enlarge(self, x: torch.Tensor, kernel) -> torch.Tensor:
        x = self.head(self.sub_mean(x))
        return self.add_mean(enlarge(self.tail, self.body(x).add_(x), kernel))


def enlarge(tail: nn.Sequential, x: torch.Tensor, kernel: tuple[torch.Tensor, torch.Tensor] | None) -> torch.Tensor:
    """``tail(x)``: ``(B, features, h, w)`` to ``(B, C, 4h, 4w)``; ``kernel`` is what :func:`join` returned, if used."""
    if kernel is None:
        return tail(x)
    inner = F.pixel_shuffle(F.conv2d(x, *kernel, padding=1), 4)
    left, right = (tail(part) for part in (x[..., :STRIP], x[..., -STRIP:]))
    top, bottom = (tail(part) for part in (x[..., :STRIP, :], x[..., -STRIP:, :]))
    inner = torch.cat([left[..., 4:-4, :4], inner, right[..., 4:-4, -4:]], dim=-1)
    return torch.cat([top[..., :4, :], inner, bottom[..., -4:, :]], dim=-2)


def join(tail: nn.Sequential) -> tuple[torch.Tensor, torch.Tensor]:
    """The convolution for pixels off the border: weight ``(16 * C, features, 5, 5)``, and bias."""
    first, second, last = (layer for layer in tail.modules() if isinstance(layer, nn.Conv2d))

    def end(x):
        return F.conv2d(F.pixel_shuffle(F.conv2d(x, second.weight, padding=1), 2), last.weight, padding=1)

    def whole(x):
        return F.pixel_shuffle(F.conv2d(F.pixel_shuffle(F.conv2d(x, first.weight, padding=1), 2), half, padding=2), 2)

    with torch.autocast(first.weight.device.type, enabled=False):
        points = first.weight.new_zeros(first.in_channels, first.in_channels, 5, 5)
        points[range(len(points)), range(len(points)), 2, 2] = 1
        half = _kernel(end(points), 2)
        weight = _kernel(whole(points), 4)
        bias = F.pixel_unshuffle(tail(torch.zeros_like(points[:1])), 4)[0, :, 2, 2]
    return weight, bias


def _kernel(answers: torch.Tensor, scale: int) -> torch.Tensor:
    """The kernel behind a linear map's answers to one bright pixel in each channel.

    Args:
        answers: ``(features, C, scale * 5, scale * 5)``, each to the bright pixel in the middle of 5x5.
        scale: how much larger the answers are.

    Returns:
        ``(scale * scale * C, features, 5, 5)``, for PixelShuffle(scale) after the convolution.
    """
    return F.pixel_unshuffle(answers, scale).flip(-2, -1).transpose(0, 1)
