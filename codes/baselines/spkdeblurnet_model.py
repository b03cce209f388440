"""SpkDeblurNet: one sharp image from a blurry one and the spikes of its exposure.

Inputs: the blurry image ``(B, 3, H, W)``, R,G,B in [0, 1]; the spikes of the exposure ``(B, S, H/2, W/2)``, zeros and
ones; and twice their middle TFI ``(B, 1, H/2, W/2)`` (:func:`codes.spike.middle_tfi`). Outputs, none of them clipped:
the sharp image in the middle of the exposure ``(B, 3, H, W)``, and beside it, for the loss, the grey image that the
spikes alone give and the sharp image that the blurry one alone gives. 13,464,684 parameters with 56 spike frames.

A branch of windowed transformers for the image and a smaller one for the spikes, at a quarter of the image's size, are
joined by attention between channels: first a picture of how far the image moved goes to the spikes, then the spikes to
the image.

The attention between channels and that picture's scale look at whole images, the scale even at the whole batch, so
tiles or a batch of several do not give exactly what whole images give one by one.

Source: Chen et al., "Enhancing Motion Deblurring in High-Speed Scenes with Spike Streams", NeurIPS 2023. The windowed
transformer is that of SwinIR (Liang et al., ICCVW 2021). Where paper and program differ this is the program, whose
weights it takes; in the text, "officially" marks such places.
"""

import torch
from torch import nn
from torch.nn import functional as F

from codes.baselines.channel_attention import ChannelNorm, channel_attention
from codes.errors import InputError

WINDOW, HEADS, BLOCKS = 8, 6, 6
"""Side of an attention window, heads, and transformer blocks in a group."""

GRID = 32
"""The grid of features is padded to multiples of this."""


def shift_mask(height: int, width: int, device=None) -> torch.Tensor:
    """What keeps apart the pixels that shifting round the border brought into one window.

    Returns:
        ``(windows, 64, 64)``: 0 where two pixels of a window are neighbours in the image, else -100.
    """
    ends = (torch.arange(n, 0, -1, device=device) for n in (height, width))  # 1 is the last row or column
    rows, columns = ((end <= WINDOW).int() + (end <= WINDOW // 2) for end in ends)
    region = windows((3 * rows[:, None] + columns)[None, :, :, None]).flatten(1)
    return torch.where(region[:, None] == region[:, :, None], 0.0, -100.0)


def windows(x: torch.Tensor) -> torch.Tensor:
    """Cut ``(B, h, w, C)`` into 8x8 windows, row by row: ``(B * windows, 64, C)``."""
    x = x.unflatten(1, (-1, WINDOW)).unflatten(3, (-1, WINDOW))
    return x.transpose(2, 3).flatten(0, 2).flatten(1, 2)


def joined(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Undo :func:`windows`."""
    x = x.unflatten(0, (-1, height // WINDOW, width // WINDOW)).unflatten(3, (WINDOW, WINDOW))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


class WindowAttention(nn.Module):
    """Attention between the pixels of a window, with a learned bias for each offset between two of them."""

    def __init__(self, channels: int):
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * WINDOW - 1) ** 2, HEADS))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        row, column = torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing="ij")
        offsets = [x.flatten()[:, None] - x.flatten() + WINDOW - 1 for x in (row, column)]
        self.register_buffer("relative_position_index", offsets[0] * (2 * WINDOW - 1) + offsets[1])
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """``(B * windows, 64, C)`` to the same; ``mask`` is that of :func:`shift_mask`, for shifted windows."""
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        shape = q.shape
        if mask is not None:  # one for each window: these and the heads count as heads, images as the batch
            bias = (bias + mask[:, None]).flatten(0, 1)
            q, k, v = (part.reshape(-1, *bias.shape[:2], part.shape[-1]) for part in (q, k, v))
        x = F.scaled_dot_product_attention(q, k, v, bias[None].to(q.dtype))
        return self.proj(x.reshape(shape).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with GELU between them, for each pixel."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., C)`` to the same."""
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """Attention in windows, then an MLP, both added to what they are given.

    Args:
        channels: of the features.
        shifted: whether the windows lie half a window further down and right.
        side: side of the grid whose mask the official state dict holds.
    """

    def __init__(self, channels: int, shifted: bool, side: int):
        super().__init__()
        self.shifted = shifted
        if shifted:  # held for the sake of the official keys; masks are computed for the grid at hand
            self.register_buffer("attn_mask", shift_mask(side, side))
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, 2 * channels)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """``(B, h, w, C)`` to the same, h and w multiples of 8; ``mask`` is that of this grid."""
        half = WINDOW // 2 if self.shifted else 0
        y = self.norm1(x)
        if half:
            y = y.roll((-half, -half), (1, 2))
        y = joined(self.attn(windows(y), mask if half else None), *x.shape[1:3])
        if half:
            y = y.roll((half, half), (1, 2))
        x = x + y
        return self.mlp(self.norm2(x)).add_(x)


class RSTB(nn.Module):
    """Residual Swin transformer group: six blocks, every second one shifted, a convolution, plus the input."""

    def __init__(self, channels: int, side: int):
        super().__init__()
        blocks = (SwinBlock(channels, bool(index % 2), side) for index in range(BLOCKS))
        self.residual_group = nn.ModuleDict({"blocks": nn.ModuleList(blocks)})
        self.last_layer = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` to the same."""
        y = x.permute(0, 2, 3, 1)
        for block in self.residual_group["blocks"]:
            y = block(y, mask)
        return self.last_layer(y.permute(0, 3, 1, 2)).add_(x)


class MotionMask(nn.Module):
    """CAMMM: where the blurry image and the spikes' texture agree, that is where little moved."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 32, 3, padding=1)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(33, 33, 1))
        self.conv2 = nn.Conv2d(33, 1, 1)

    def forward(self, grey: torch.Tensor, tfi: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W)`` and ``(B, 1, H/2, W/2)`` to a mask ``(B, 1, H, W)`` in (0, 1)."""
        pair = torch.cat([grey, F.interpolate(tfi, grey.shape[-2:], mode="bilinear", align_corners=False)], dim=1)
        x = torch.cat([self.conv1(pair), self.agreement(pair)], dim=1)
        return torch.sigmoid(self.conv2(x * self.sca(x)))

    @staticmethod
    @torch.no_grad()
    def agreement(pair: torch.Tensor) -> torch.Tensor:
        """1 where two grey images ``(B, 2, H, W)`` differ by at most a tenth of the largest difference, else 0.

        Officially the pixel with the largest difference of the whole batch is 1 as well.
        """
        difference = (pair[:, :1] - pair[:, 1:]).abs()
        low, high = difference.aminmax()
        difference = (difference - low) / (high - low)
        return ((difference <= 0.1) | (difference == 1)).to(pair.dtype)


class CrossAttention(nn.Module):
    """The q, k and v of :class:`FusionBlock`, and the attention between channels."""

    def __init__(self, channels: int, other: int, heads: int = 4):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        for name, size in (("q", channels), ("k", other), ("v", other)):
            self.add_module(name, nn.Conv2d(size, size, 1, bias=False))
        for name, size in (("q", channels), ("k", other), ("v", other)):
            self.add_module(f"{name}_dwconv", nn.Conv2d(size, size, 3, padding=1, groups=size, bias=False))
        self.project_out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)``, which asks, and ``(B, D, h, w)``, which answers, to ``(B, C, h, w)``."""
        q, k, v = self.q_dwconv(self.q(x)), self.k_dwconv(self.k(other)), self.v_dwconv(self.v(other))
        return self.project_out(channel_attention(q, k, v, self.temperature))


class FusionBlock(nn.Module):
    """TCAF: features of one branch look at those of the other; then an MLP."""

    def __init__(self, channels: int, other: int):
        super().__init__()
        self.norm1_model1 = ChannelNorm(channels)
        self.norm1_model2 = ChannelNorm(other)
        self.attn = CrossAttention(channels, other)
        self.norm1_model1_1 = ChannelNorm(channels)
        self.ffn = Mlp(channels, 4 * channels)

    def forward(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` and ``(B, D, h, w)`` to ``(B, C, h, w)``, in the channels-last layout."""
        x = x + self.attn(self.norm1_model1(x), self.norm1_model2(other))
        return self.ffn(self.norm1_model1_1(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2).add_(x)


def stem(in_channels: int, channels: int) -> nn.Sequential:
    """Two convolutions that take an image to a quarter of its size."""
    return nn.Sequential(nn.Conv2d(in_channels, channels, 3, 2, 1), nn.GELU(), nn.Conv2d(channels, channels, 3, 2, 1))


def shuffle_up(channels: int, out_channels: int) -> nn.Sequential:
    """A convolution and PixelShuffle that enlarge x4."""
    return nn.Sequential(nn.Conv2d(channels, 16 * out_channels, 3, padding=1), nn.PixelShuffle(4))


def padded(x: torch.Tensor) -> torch.Tensor:
    """Mirror ``(B, C, h, w)`` at the right and lower border, to multiples of 32."""
    x = F.pad(x, (0, -x.shape[-1] % GRID, 0, -x.shape[-2] % GRID), mode="reflect")
    return x.contiguous(memory_format=torch.channels_last)


class SpkDeblurNet(nn.Module):
    """The network; state-dict keys are the official ones.

    ``D_conv_reduce``, ``S_conv_reduce`` and ``S_layers`` 0 and 1 have weights that never matter (888,480 parameters),
    so DistributedDataParallel must look for unused parameters.

    Args:
        S_in_chs: spike frames of the exposure: 56 (GoPro), 65 or 33 (X4K1000FPS).
        tfi_gain: by what the middle TFI is to be multiplied, so that white is about 1
            (:func:`.adapters.spkdeblurnet_input`); another one than the official 2 is kept in the state dict.
    """

    unused_parameters = True
    """For DistributedDataParallel (:func:`codes.engine.distributed.wrap`)."""

    def __init__(self, S_in_chs: int = 56, tfi_gain: float = 2.0):  # noqa: N803 (the official name)
        super().__init__()
        self.spike_frames, self.gain = S_in_chs, tfi_gain
        if tfi_gain != 2:
            self.register_buffer("tfi_gain", torch.tensor(float(tfi_gain)))
        image, spikes = 180, 60
        self.D_conv_down = stem(3, image)
        self.conv_masked_blur = stem(1, spikes)
        self.D_conv_reduce = nn.Sequential(nn.Conv2d(image + spikes, image, 3, padding=1))
        self.D_layers = nn.ModuleList(RSTB(image, 32) for _ in range(6))
        self.D_mid_shuffle_up = shuffle_up(image, 3)
        self.D_last_shuffle_up = shuffle_up(image, 3)
        self.S_conv_down = nn.Sequential(nn.Conv2d(S_in_chs, spikes, 3, 2, 1))
        self.S_conv_reduce = nn.Sequential(nn.Conv2d(2 * spikes, spikes, 3, padding=1))
        self.S_layers = nn.ModuleList(RSTB(spikes, 16) for _ in range(4))
        self.S_shuffle_up = shuffle_up(spikes, 1)
        self.S_conv_after_body = nn.Conv2d(spikes, spikes, 3, padding=1)
        self.cross_attention_1 = FusionBlock(spikes, spikes)
        self.cross_attention_2 = FusionBlock(image, spikes)
        self.cammm = MotionMask()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    @staticmethod
    def settings(state: dict[str, torch.Tensor]) -> dict:
        """The arguments of the constructor that a state dict tells: number of spike frames, gain of the TFI."""
        first, gain = state.get("S_conv_down.0.weight"), state.get("tfi_gain")
        frames = first.shape[1] if first is not None and first.dim() == 4 and 1 <= first.shape[1] <= 137 else 56
        return {"S_in_chs": frames, "tfi_gain": 2.0 if gain is None else float(gain.float().mean())}

    def forward(
        self, blur: torch.Tensor, spike: torch.Tensor, tfi: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Deblur.

        Args:
            blur: ``(B, 3, H, W)``, R,G,B in [0, 1]; H and W even, at least 66.
            spike: ``(B, S_in_chs, H/2, W/2)``, zeros and ones, any dtype.
            tfi: ``(B, 1, H/2, W/2)``, the middle TFI of ``spike`` times ``tfi_gain``, officially twice, in (0, 2].

        Returns:
            The sharp image ``(B, 3, H, W)``, R,G,B; the grey image from the spikes ``(B, 1, H, W)``; the sharp image
            from the blurry one alone ``(B, 3, H, W)``. None is clipped.
        """
        self._check(blur, spike, tfi)
        height, width = blur.shape[-2:]
        features = padded(self.D_conv_down(blur))
        mask = shift_mask(*features.shape[-2:], blur.device)
        features = features + self._chain(features, mask, self.D_layers[:3])
        quick_sharp = self.D_mid_shuffle_up(features)[..., :height, :width]

        spikes = padded(self.S_conv_down(spike.to(blur.dtype)))
        spikes = spikes + self.S_layers[2](spikes, mask)  # officially the results of S_layers 0 and 1 are dropped
        red, green, blue = quick_sharp.split(1, dim=1)
        grey = 0.2989 * red + 0.587 * green + 0.114 * blue
        masked = padded(self.conv_masked_blur(self.cammm(grey, tfi) * grey))
        spikes = self.cross_attention_1(spikes, masked)
        deep = self.S_layers[3](spikes, mask)
        spike_recon = self.S_shuffle_up(self.S_conv_after_body(deep).add_(spikes))[..., :height, :width]

        features = self.cross_attention_2(features, deep)
        features = features + self._chain(features, mask, self.D_layers[3:])
        return self.D_last_shuffle_up(features)[..., :height, :width], spike_recon, quick_sharp

    @staticmethod
    def _chain(x: torch.Tensor, mask: torch.Tensor, layers) -> torch.Tensor:
        for layer in layers:
            x = layer(x, mask)
        return x

    def _check(self, blur: torch.Tensor, spike: torch.Tensor, tfi: torch.Tensor) -> None:
        batch, (height, width) = len(blur), blur.shape[-2:]
        expected = ((batch, 3, height, width), *((batch, c, height // 2, width // 2) for c in (self.spike_frames, 1)))
        if (blur.shape, spike.shape, tfi.shape) != expected or height % 2 or width % 2:
            raise InputError(
                f"an image of shape {tuple(blur.shape)} with spikes {tuple(spike.shape)} and TFI {tuple(tfi.shape)}; "
                f"expected (B, 3, H, W) with (B, {self.spike_frames}, H/2, W/2) and (B, 1, H/2, W/2): crop the image "
                "to even sides and give spikes of half its size"
            )
        for side in (height, width):
            grid = -(-side // 4)
            if -grid % GRID >= grid:
                raise InputError(
                    f"an image of {height}x{width} pixels is too small to be mirrored to a grid of {GRID}; "
                    f"give at least {2 * GRID + 2} pixels each way"
                )
