"""STIR: the grey image in the middle of a spike stream, from spikes alone.

Input: 61 consecutive spike frames ``(B, 61, H, W)``, zeros and ones. Output: the grey image at frame 30
``(B, 1, H, W)``, clamped to [0, 1]. 5,107,960 parameters.

The frames are cut into three overlapping blocks of 21. Each is turned into features of five sizes, H to H/16; at the
coarsest one the middle block asks the outer ones by attention between channels. From there upwards each level
estimates how far the outer blocks moved, warps their features to the middle by it, and predicts the image.

Source: Fan et al., "Spatio-Temporal Interactive Learning for Efficient Image Reconstruction of Spiking Cameras",
NeurIPS 2024. Where paper and program differ this is the program, whose weights it takes; in the text, "officially"
marks such places. The spelling "decorder" is the official one.
"""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F

from codes.baselines.channel_attention import ChannelNorm, channel_attention
from codes.errors import InputError

FRAMES, BLOCK, BLOCK_STEP = 61, 21, 20
"""Spike frames of the input; of each of the three blocks; and from the start of one block to the next."""

MEANS = (21, 17, 13, 9, 5)
"""Lengths of the windows in the middle of a block whose temporal means are features."""

CHANNELS = (16, 24, 32, 64, 96)
"""Channels of the features at H, H/2, H/4, H/8 and H/16."""

MULTIPLE = 16
"""What H and W are multiples of inside."""


def net(*layers: nn.Module) -> nn.Sequential:
    """``layers`` in a row, under the official key ``net``."""
    return nn.Sequential(OrderedDict(net=nn.Sequential(*layers)))


def conv(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size, or halves it with stride 2."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2)


def deconv(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """A transposed convolution that doubles the size."""
    return nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1)


class ResBlock(nn.Module):
    """conv, ReLU, conv, plus the input."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_block = nn.Sequential(
            net(conv(channels, channels), nn.ReLU(inplace=True)), net(conv(channels, channels))
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` to the same."""
        return self.conv_block(x).add_(x)


class Embedding(nn.Module):
    """What is learned of a block of 21 frames, 11 channels beside the five means."""

    def __init__(self):
        super().__init__()
        channels = CHANNELS[0] - len(MEANS)
        self.conv1 = conv(BLOCK, channels)
        self.conv2 = conv(channels, channels)
        self.conv3 = conv(BLOCK, channels, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, 21, H, W)`` to ``(B, 11, H, W)``."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.conv3(x), inplace=True)


class Encoder(nn.Module):
    """Features of a block at half, a quarter, an eighth and a sixteenth of its size."""

    def __init__(self):
        super().__init__()
        self.conv0 = self._conv(CHANNELS[0], CHANNELS[0], 7, 1)
        for level in range(1, 5):
            self.add_module(f"conv{level}", self._conv(CHANNELS[level - 1], CHANNELS[level], 3, 2))
            self.add_module(f"resblocks{level}", net(ResBlock(CHANNELS[level])))

    @staticmethod
    def _conv(*size: int) -> nn.Sequential:
        layer = conv(*size)
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
        return net(layer, nn.PReLU())

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """``(B, 16, H, W)`` to four features, the largest first."""
        x, features = self.conv0(x), []
        for level in range(1, 5):
            x = getattr(self, f"resblocks{level}")(getattr(self, f"conv{level}")(x))
            features.append(x)
        return features


class InteractiveAttention(nn.Module):
    """What the middle block finds in each of the outer ones, by attention between channels."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        double = 2 * channels
        self.temperature1 = nn.Parameter(torch.ones(heads, 1, 1))
        self.temperature2 = nn.Parameter(torch.ones(heads, 1, 1))
        for name in ("q", "kv1", "kv2"):
            self.add_module(name, nn.Conv2d(channels, double, 1, bias=False))
        # Officially each pair of q's channels is mixed, unlike those of k and v.
        for name, groups in (("q", channels), ("kv1", double), ("kv2", double)):
            self.add_module(f"{name}_dwconv", nn.Conv2d(double, double, 3, padding=1, groups=groups, bias=False))

    def forward(
        self, middle: torch.Tensor, first: torch.Tensor, last: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``(B, C, h, w)`` of the three blocks to two of the same shape."""
        q1, q2 = self.q_dwconv(self.q(middle)).chunk(2, dim=1)
        k1, v1 = self.kv1_dwconv(self.kv1(first)).chunk(2, dim=1)
        k2, v2 = self.kv2_dwconv(self.kv2(last)).chunk(2, dim=1)
        return channel_attention(q1, k1, v1, self.temperature1), channel_attention(q2, k2, v2, self.temperature2)


class FeedForward(nn.Module):
    """Restormer's gated network: one half of the channels weights the other."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` to the same."""
        gate, x = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * x)


class Transformer(nn.Module):
    """The symmetric interactive attention at the coarsest level; without residuals, as officially."""

    def __init__(self, channels: int = CHANNELS[-1], heads: int = 4, hidden: int = 255):
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.norm_kv1 = ChannelNorm(channels)
        self.norm_kv2 = ChannelNorm(channels)
        self.attn = InteractiveAttention(channels, heads)
        self.norm2 = ChannelNorm(channels)
        self.ffn = FeedForward(channels, hidden)

    def forward(self, first: torch.Tensor, middle: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` of the three blocks to ``(B, 3C, h, w)``."""
        found = self.attn(self.norm1(middle), self.norm_kv1(first), self.norm_kv2(last))
        before, after = (self.ffn(self.norm2(x)) for x in found)
        return torch.cat([before, middle, after], dim=1)


def warp(image: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """Fetch each pixel from where the flow points to, bilinearly, at the border from the border.

    Args:
        image: ``(B, C, h, w)``, both sides at least 2.
        flow: ``(B, 2, h, w)`` in pixels, x first.

    Returns:
        ``(B, C, h, w)``: at (x, y) the image at (x + flow_x, y + flow_y).
    """
    height, width = flow.shape[-2:]
    rows, columns = (torch.linspace(-1, 1, n, device=flow.device) for n in (height, width))
    x = columns + flow[:, 0] * (2 / (width - 1))
    y = rows[:, None] + flow[:, 1] * (2 / (height - 1))
    grid = torch.stack([x, y], dim=-1)  # float32 under autocast too, whose numbers are too coarse for positions
    moved = F.grid_sample(image.to(grid.dtype), grid, mode="bilinear", padding_mode="border", align_corners=True)
    return moved.to(image.dtype)


class Coarsest(nn.Module):
    """The decoder at H/16: a first image and a first flow to each outer block."""

    def __init__(self, channels: int):
        super().__init__()
        self.convrelu = nn.Sequential(conv(channels, channels), nn.PReLU(channels))
        self.resblocks = net(ResBlock(channels))
        self.predict_img_flow = conv(channels, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``(B, C, h, w)`` to the image (1 channel), the flows (4) and the hidden features (C)."""
        hidden = self.resblocks(self.convrelu(x))
        flows, image = self.predict_img_flow(hidden).split([4, 1], dim=1)
        return image, flows, hidden


class Level(nn.Module):
    """What the finer decoders share: from the level below to the hidden features of this one.

    Args:
        below: hidden channels of the level below.
        joined: channels of all that is joined.
        hidden: hidden channels of this level.
    """

    def __init__(self, below: int, joined: int, hidden: int):
        super().__init__()
        self.deconv_flow = deconv(4, 4)
        self.deconv_hidden = deconv(below, 8)
        self.convrelu = nn.Sequential(
            OrderedDict(
                conv1=nn.Sequential(conv(joined, joined), nn.PReLU(joined)),
                conv2=nn.Sequential(conv(joined, hidden), nn.PReLU(hidden)),
            )
        )
        self.resblocks = net(ResBlock(hidden))

    def _hidden(self, image, features, warped, below, flows) -> torch.Tensor:
        enlarged = F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
        parts = (enlarged, features, *warped, self.deconv_hidden(below), *flows)
        return self.resblocks(self.convrelu(torch.cat(parts, dim=1)))


class Middle(Level):
    """The decoder at H/8, H/4 or H/2: refines the flows, predicts the image anew."""

    def __init__(self, channels: int, below: int):
        super().__init__(below, 3 * channels + 13, 3 * channels)
        self.predict_img_flow = conv(3 * channels, 5)

    def forward(self, features, image: torch.Tensor, flows: torch.Tensor, below: torch.Tensor) -> tuple:
        """One level up.

        Args:
            features: ``(B, C, h, w)`` of the three blocks.
            image, flows, below: ``(B, 1, h/2, w/2)``, ``(B, 4, h/2, w/2)``, ``(B, below, h/2, w/2)``.

        Returns:
            Image, flows and hidden features at this level, and the enlarged flows from which it started.
        """
        first, middle, last = features
        start = self.deconv_flow(flows)
        warped = warp(first, start[:, :2]), warp(last, start[:, 2:])
        hidden = self._hidden(image, middle, warped, below, [start])
        change, image = self.predict_img_flow(hidden).split([4, 1], dim=1)
        return image, change + start, hidden, start


class Finest(Level):
    """The decoder at full size: three motions for each outer block, of which two start apart from the main one."""

    def __init__(self, channels: int, below: int):
        super().__init__(below, 7 * channels + 21, 3 * channels)
        self.predict_flow_group = conv(below, 8)
        self.deconv_flow_group = deconv(8, 8)
        self.predict_img = conv(3 * channels, 1)

    def forward(self, features, image, flows, below, start) -> torch.Tensor:
        """Like :class:`Middle`, whose ``start`` the two further motions start from; returns the image alone."""
        first, middle, last = features
        main = self.deconv_flow(flows)
        group = self.deconv_flow_group(self.predict_flow_group(below) + start.repeat(1, 2, 1, 1))
        motions = (main[:, :2], main[:, 2:], *group.split(2, dim=1))
        warped = [warp(last if index % 2 else first, motion) for index, motion in enumerate(motions)]
        return self.predict_img(self._hidden(image, middle, warped, below, [main, group]))


class STIR(nn.Module):
    """The network; state-dict keys are the official ones."""

    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.transformer = Transformer()
        self.decorder_5nd = Coarsest(3 * CHANNELS[4])
        self.decorder_4nd = Middle(CHANNELS[3], 3 * CHANNELS[4])
        self.decorder_3rd = Middle(CHANNELS[2], 3 * CHANNELS[3])
        self.decorder_2nd = Middle(CHANNELS[1], 3 * CHANNELS[2])
        self.decorder_1st = Finest(CHANNELS[0], 3 * CHANNELS[1])
        self.resnet = Embedding()

    def forward(self, spike: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Reconstruct.

        Args:
            spike: ``(B, 61, H, W)``, zeros and ones, any dtype. Sizes that are no multiples of 16 are padded with
                copies of the border inside, as the authors do; for training they are refused.

        Returns:
            ``(B, 1, H, W)`` in [0, 1]. In training mode the five images of the pyramid that
            :func:`.adapters.stir_loss` wants: ``(B, 1, H, W)``, ``(B, 1, H/2, W/2)``, to H/16; not clamped,
            which the official program does before the loss.
        """
        height, width = spike.shape[-2:]
        down, right = -height % MULTIPLE, -width % MULTIPLE
        if spike.dim() != 4 or spike.shape[1] != FRAMES:
            raise InputError(
                f"spikes of shape {tuple(spike.shape)}; expected (B, {FRAMES}, H, W): cut a window of {FRAMES} frames "
                "around the instant"
            )
        if self.training and (down or right):
            raise InputError(
                f"spikes of {height}x{width} pixels in training; expected multiples of {MULTIPLE}: crop them"
            )
        spike = spike.to(self.resnet.conv1.weight.dtype)
        top, left = down // 2, right // 2
        if down or right:
            spike = F.pad(spike, (left, right - left, top, down - top), mode="replicate")
        images = self._pyramid(spike)
        if self.training:
            return images
        return images[0][..., top : top + height, left : left + width].clamp(0, 1)

    def _pyramid(self, spike: torch.Tensor) -> list[torch.Tensor]:
        """The images, the largest first; not clamped."""
        embedded = self.embed(spike)
        levels = [x.chunk(3) for x in (embedded, *self.encoder(embedded))]
        image, flows, hidden = self.decorder_5nd(self.transformer(*levels[4]))
        images = [image]
        for decoder, features in zip(
            (self.decorder_4nd, self.decorder_3rd, self.decorder_2nd), levels[3:0:-1], strict=True
        ):
            image, flows, hidden, start = decoder(features, image, flows, hidden)
            images.append(image)
        return [self.decorder_1st(levels[0], image, flows, hidden, start), *reversed(images)]

    def embed(self, spike: torch.Tensor) -> torch.Tensor:
        """``(B, 61, H, W)`` to the 16 channels of each block, one block after the other: ``(3B, 16, H, W)``."""
        blocks = torch.cat([spike[:, start : start + BLOCK] for start in range(0, FRAMES - BLOCK + 1, BLOCK_STEP)])
        middles = (blocks[:, (BLOCK - length) // 2 : (BLOCK + length) // 2] for length in MEANS)
        means = [middle.mean(dim=1, keepdim=True) for middle in middles]
        return torch.cat([*means, self.resnet(blocks)], dim=1)
