"""EDSR: x4 super-resolution of one-channel TFP images.

Input ``(B, 1, h, w)`` in [0, 1], output ``(B, 1, 4h, 4w)``, unclipped. 1,515,265 trained parameters and two
fixed mean shifts (4 numbers, in the 1,515,269 of the published count).

Everything after the last residual block is linear: two convolutions with pixel shuffles and a third convolution, with
no activation between them. Together they are one 5x5 convolution from 64 channels to the 4x4 pixels that a TFP pixel
becomes, at 1/29 of the multiplications. Only the outermost TFP pixel, where the padding of the inner convolutions
matters, takes the long way.

Source: Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPRW 2017, in the
baseline size (16 blocks, 64 features); S-SDM, section 3.2.
"""

import torch
from torch import nn
from torch.nn import functional as F

from codes.fast.pieces import pieces

MEAN = 0.446
"""Mean grey level of DIV2K, which the network works around."""


class MeanShift(nn.Conv2d):
    """Adds a constant; a 1x1 convolution because the official state dict holds it as one. Never trained."""

    def __init__(self, channels: int, shift: float):
        super().__init__(channels, channels, 1)
        with torch.no_grad():
            self.weight.copy_(torch.eye(channels)[:, :, None, None])
            self.bias.fill_(shift)
        self.requires_grad_(False)


class ResBlock(nn.Module):
    """conv, ReLU, conv, plus the input."""

    def __init__(self, features: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(features, features, 3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, features, h, w)`` to the same."""
        return self.body(x).add_(x)


class Tail(nn.Sequential):
    """Enlarges x4: conv, PixelShuffle, conv, PixelShuffle, conv, computed as the one convolution that they are."""

    STRIP, SMALLEST = 3, 24
    """TFP pixels from the border that make the outermost one right by the long way; sides from which it is longer."""

    def __init__(self, features: int, color_num: int):
        upsample = nn.Sequential(
            nn.Conv2d(features, 4 * features, 3, padding=1),
            nn.PixelShuffle(2),
            nn.Conv2d(features, 4 * features, 3, padding=1),
            nn.PixelShuffle(2),
        )
        super().__init__(upsample, nn.Conv2d(features, color_num, 3, padding=1))

    def forward(self, x: torch.Tensor, joined: tuple[torch.Tensor, torch.Tensor] | None = None) -> torch.Tensor:
        """``(B, features, h, w)`` to ``(B, color_num, 4h, 4w)``; ``joined`` is what :meth:`joined` returned."""
        if joined is None:
            return self.step_by_step(x)
        strip = self.STRIP
        inner = F.pixel_shuffle(F.conv2d(x, *joined, padding=1), 4)
        left, right = (self.step_by_step(part) for part in (x[..., :strip], x[..., -strip:]))
        top, bottom = (self.step_by_step(part) for part in (x[..., :strip, :], x[..., -strip:, :]))
        inner = torch.cat([left[..., 4:-4, :4], inner, right[..., 4:-4, -4:]], dim=-1)
        return torch.cat([top[..., :4, :], inner, bottom[..., -4:, :]], dim=-2)

    def step_by_step(self, x: torch.Tensor) -> torch.Tensor:
        """The same, the long way."""
        return super().forward(x)

    def joined(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The convolution for pixels off the border: weight ``(16 * color_num, features, 5, 5)``, and bias."""
        first, second, last = self[0][0], self[0][2], self[1]

        def end(x):
            return F.conv2d(F.pixel_shuffle(F.conv2d(x, second.weight, padding=1), 2), last.weight, padding=1)

        def whole(x):
            return F.pixel_shuffle(
                F.conv2d(F.pixel_shuffle(F.conv2d(x, first.weight, padding=1), 2), half, padding=2), 2
            )

        with torch.autocast(first.weight.device.type, enabled=False):
            points = first.weight.new_zeros(first.in_channels, first.in_channels, 5, 5)
            points[range(len(points)), range(len(points)), 2, 2] = 1
            half = _kernel(end(points), 2)
            weight = _kernel(whole(points), 4)
            bias = F.pixel_unshuffle(self.step_by_step(torch.zeros_like(points[:1])), 4)[0, :, 2, 2]
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


class EDSR(nn.Module):
    """x4 super-resolution network; state-dict keys are the official ones.

    Args:
        color_num: image channels (1: a TFP image).
        blocks: residual blocks.
        features: channels inside.
    """

    def __init__(self, color_num: int = 1, blocks: int = 16, features: int = 64):
        super().__init__()
        self.sub_mean = MeanShift(color_num, -MEAN)
        self.add_mean = MeanShift(color_num, MEAN)
        self.head = nn.Sequential(nn.Conv2d(color_num, features, 3, padding=1))
        self.body = nn.Sequential(
            *(ResBlock(features) for _ in range(blocks)), nn.Conv2d(features, features, 3, padding=1)
        )
        self.tail = Tail(features, color_num)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Enlarge ``x`` ``(B, color_num, h, w)`` to ``(B, color_num, 4h, 4w)``."""
        joined = self.tail.joined() if min(x.shape[-2:]) >= Tail.SMALLEST else None
        count = pieces(x, 64 * x[0].numel(), len(x))
        return torch.cat([self._enlarge(piece, joined) for piece in x.split(count)])

    def _enlarge(self, x: torch.Tensor, joined) -> torch.Tensor:
        x = self.head(self.sub_mean(x))
        return self.add_mean(self.tail(self.body(x).add_(x), joined))
