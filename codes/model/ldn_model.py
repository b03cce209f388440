"""LDN, officially ``Deblur_Net``: the lightweight student that deblurs one instant.

Inputs: the blurry image ``(B, 3, H, W)``, B,G,R in [0, 1], and the spikes around the instant ``(B, 21, H/4, W/4)``,
float zeros and ones. Output: the sharp image at that instant ``(B, 3, H, W)``, unclipped. 234,158 parameters.

Source: S-SDM (arXiv 2403.09486), section 3.4; the attention is CBAM (Woo et al., ECCV 2018).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from codes.errors import InputError

SPIKE_INPUTS = ("frames", "pyramid", "intervals")

Finish = Callable[[torch.Tensor, slice], torch.Tensor]
"""From some rows of the last layer's outputs, and which they are, to the same rows of the result."""


def unchanged(outputs: torch.Tensor, rows: slice) -> torch.Tensor:
    """The outputs are the result."""
    return outputs


def encoder(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Sequential:
    """A convolution that keeps the size, or halves it with stride 2, and ReLU."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2), nn.ReLU(inplace=True))


def decoder(in_channels: int, out_channels: int) -> nn.Sequential:
    """A transposed 5x5 convolution that doubles the size, and ReLU."""
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, out_channels, 5, stride=2, padding=2, output_padding=1), nn.ReLU(inplace=True)
    )


class ChannelAttention(nn.Module):
    """Weights the channels by what a small network makes of their global mean and maximum."""

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Conv2d(channels, channels // reduction, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // reduction, channels, 1, bias=False),
        )

    def weights(self, mean: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
        """The weights ``(B, C, 1, 1)`` in (0, 1) of the channels with this mean and maximum, ``(B, C, 1, 1)``."""
        return torch.sigmoid(self.fc(mean) + self.fc(peak))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` to the same."""
        mean, peak = x.mean(dim=(-2, -1), keepdim=True), x.amax(dim=(-2, -1), keepdim=True)
        return x * self.weights(mean, peak)


class SpatialAttention(nn.Module):
    """Weights the pixels by a 7x7 convolution of their mean and maximum over channels."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` to the same."""
        maps = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.conv1(maps))


class ResnetBlock(nn.Module):
    """conv, ReLU, conv, plus the input; ``inner``: channels between the two, officially as many as there are."""

    def __init__(self, channels: int, inner: int | None = None):
        super().__init__()
        inner = inner or channels
        self.conv_block = nn.Sequential(
            nn.Conv2d(channels, inner, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Identity(),  # keeps the second convolution at the official place 3
            nn.Conv2d(inner, channels, 3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` to the same."""
        return self.conv_block(x).add_(x)


class Deblur_Net(nn.Module):  # noqa: N801 (the official name)
    """Lightweight Deblurring Network; state-dict keys are the official ones.

    Args:
        spike_dim: spike frames around the instant (``--spike_deblur_len``).
        spike_input: what the network is given of a stream (:class:`codes.student.Sight`): 'frames', officially
            the frames around the instant, or the whole stream in 21 windows: 'pyramid', or 'intervals'.
        gain: whether spikes are made as bright as the image first, so that one set of weights serves every firing
            threshold.
        width: channels of the residual blocks.

    Where the last two are not the official ones, the state dict says so under the key ``spike_input``.
    """

    def __init__(self, spike_dim: int = 21, spike_input: str = "frames", gain: bool = False, width: int = 64):
        super().__init__()
        if spike_input not in SPIKE_INPUTS:
            raise InputError(f"spike input '{spike_input}'; expected one of {', '.join(SPIKE_INPUTS)}")
        if spike_input != "frames" and spike_dim != 21:
            raise InputError(f"a spike pyramid has 21 channels, not {spike_dim}")
        self.spike_dim, self.kind, self.gain = spike_dim, spike_input, gain
        if spike_input != "frames" or gain:
            self.register_buffer("spike_input", torch.tensor([SPIKE_INPUTS.index(spike_input), int(gain)]))
        half, quarter = width // 2, width // 4
        self.blur_enc = encoder(3, quarter, 5, 2)
        self.blur_enc2 = encoder(quarter, half, 5, 2)
        self.spike_enc = encoder(spike_dim, quarter, 3, 1)
        self.spike_enc2 = encoder(quarter, half, 3, 1)
        self.resBlock1 = ResnetBlock(width)
        self.resBlock2 = ResnetBlock(width)
        self.ca = ChannelAttention(width)
        self.sa = SpatialAttention()
        self.decoder1 = decoder(width, half)
        self.decoder2 = decoder(half, quarter)
        self.pred = nn.Conv2d(3 + quarter, 3, 1)

    @staticmethod
    def settings(state: dict[str, torch.Tensor]) -> dict:
        """The arguments of the constructor that a state dict tells.

        Raises:
            InputError: it asks for a spike input that this version does not know.
        """
        settings: dict[str, Any] = {}
        first, kind = state.get("spike_enc.0.weight"), state.get("spike_input")
        if first is not None and first.numel() and first.shape[2:] == (3, 3) and first.shape[1] % 2:
            settings["spike_dim"] = first.shape[1]  # odd, as windows are
        if kind is not None:
            if kind.shape != (2,) or not 0 <= kind[0] < len(SPIKE_INPUTS):
                raise InputError("the weights ask for a spike input that this version does not know; update it")
            settings |= {"spike_input": SPIKE_INPUTS[int(kind[0])], "gain": bool(kind[1])}
        return settings

    def forward(self, blur: torch.Tensor, spike: torch.Tensor) -> torch.Tensor:
        """Deblur one instant, or several of one exposure at once; the image is then encoded once for all.

        Args:
            blur: ``(B, 3, H, W)``, B,G,R in [0, 1]; H and W multiples of 4.
            spike: ``(B, spike_dim, H/4, W/4)``, or ``(B, M, spike_dim, H/4, W/4)`` for M instants; zeros and ones, any
                dtype.

        Returns:
            ``(B, 3, H, W)``, or ``(B, M, 3, H, W)``; not clipped.
        """
        self.check(blur, spike)
        image = self.encode(blur)
        if spike.dim() == 4:
            return self.decode(blur, image, spike)
        instants = spike.shape[1]
        blur, image = (x.repeat_interleave(instants, dim=0) for x in (blur, image))
        return self.decode(blur, image, spike.flatten(0, 1)).unflatten(0, (-1, instants))

    @staticmethod
    def check(blur: torch.Tensor, spike: torch.Tensor) -> None:
        """Refuse an image that is not 4 times as high and as wide as the spikes."""
        height, width = blur.shape[-2:]
        if spike.shape[-2:] != (height // 4, width // 4) or height % 4 or width % 4:
            raise InputError(
                f"an image of {height}x{width} pixels with spikes of {spike.shape[-2]}x{spike.shape[-1]}; "
                "the image must be 4 times as high and as wide as the spikes"
            )

    def encode(self, blur: torch.Tensor) -> torch.Tensor:
        """The image's branch, the same for every instant: ``(B, 3, H, W)`` to ``(B, width / 2, H/4, W/4)``."""
        return self.blur_enc2(self.blur_enc(blur))

    def features(self, image: torch.Tensor, spike: torch.Tensor) -> torch.Tensor:
        """What :meth:`encode` returned, joined with the spikes' branch: ``(B, width, H/4, W/4)``."""
        events = self.spike_enc2(self.spike_enc(spike.to(image.dtype)))
        return torch.cat([image, events], dim=1)

    def decode(
        self,
        blur: torch.Tensor,
        image: torch.Tensor,
        spike: torch.Tensor,
        weights: torch.Tensor | None = None,
        finish: Finish = unchanged,
    ) -> torch.Tensor:
        """One instant of each image: for long sequences, frame by frame, with little memory.

        Args:
            blur: ``(B, 3, H, W)``.
            image: what :meth:`encode` made of it.
            spike: ``(B, spike_dim, H/4, W/4)``.
            weights: of the channels, ``(B, width, 1, 1)``: those of the whole image, where this is a tile of it.
            finish: what is done with the last layer's outputs, pixel by pixel.

        Returns:
            ``(B, 3, H, W)``, not clipped.
        """
        x = self.decoder2(self.trunk(image, spike, weights))
        return finish(self.pred(torch.cat([blur, x], dim=1)), slice(None))

    def trunk(self, image: torch.Tensor, spike: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """:meth:`decode` up to half the image's size: ``(B, width / 2, H/2, W/2)``."""
        x = self.features(image, spike)
        x = self.sa(self.ca(x) if weights is None else x * weights)
        return self.decoder1(self.resBlock2(self.resBlock1(x)))
