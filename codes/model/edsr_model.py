"""EDSR: x4 super-resolution of one-channel TFP images.

Input ``(B, 1, h, w)`` in [0, 1], output ``(B, 1, 4h, 4w)``, unclipped. 1,515,265 trained parameters and two
fixed mean shifts (4 numbers, in the 1,515,269 of the published count).

Source: Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPRW 2017, in the
baseline size (16 blocks, 64 features); S-SDM, section 3.2.
"""

import torch
from torch import nn

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
        upsample = nn.Sequential(
            nn.Conv2d(features, 4 * features, 3, padding=1),
            nn.PixelShuffle(2),
            nn.Conv2d(features, 4 * features, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.tail = nn.Sequential(upsample, nn.Conv2d(features, color_num, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Enlarge ``x`` ``(B, color_num, h, w)`` to ``(B, color_num, 4h, 4w)``."""
        x = self.head(self.sub_mean(x))
        return self.add_mean(self.tail(self.body(x) + x))
