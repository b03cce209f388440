"""Attention between channels instead of pixels, so that its cost grows with the image only linearly.

Source: Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022; used by
SpkDeblurNet and STIR, whose state-dict keys decide the names here.
"""

import torch
from torch import nn
from torch.nn import functional as F


class ChannelNorm(nn.Module):
    """Layer normalisation of each pixel over its channels, of an image with the channels in second place."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.LayerNorm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` to the same, in the channels-last layout."""
        return self.body(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def channel_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """softmax(temperature * cos(q, k)) v for each head, where cos compares whole channel images.

    Args:
        q: ``(B, C1, h, w)``; neighbouring channels form a head.
        k, v: ``(B, C2, h, w)``.
        temperature: ``(heads, 1, 1)``.

    Returns:
        ``(B, C1, h, w)``.
    """
    size = q.shape[-2:]
    q, k, v = (x.flatten(2).unflatten(1, (len(temperature), -1)) for x in (q, k, v))
    with torch.autocast(q.device.type, enabled=False):  # sums over all pixels want float32
        q, k = (x.float() if x.dtype in (torch.float16, torch.bfloat16) else x for x in (q, k))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        weights = torch.softmax(q @ k.transpose(-2, -1) * temperature, dim=-1)
    return (weights.to(v.dtype) @ v).flatten(1, 2).unflatten(-1, size)
