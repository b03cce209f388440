"""SAN, the scale-aware network of GEM: deblurs an image with events of any smaller or larger resolution.

Inputs: events, or what stands for them, ``(B, 96, h, w)``; the blurry image ``(B, 3, H, W)`` in [0, 1], its colour
order that of training. Outputs: the sharp image ``(B, 3, H, W)``, not clipped, and the ratio by which the blurry image
was multiplied for it, positive. 2,421,882 parameters.

Image and events are encoded at five sizes each. At every size the two are joined by an implicit function: a small
network that is asked at each pixel of the image, wherever that lies between the event pixels, so that any ratio of
their sizes will do. A deformable convolution makes up for what remains out of place.

Source: Zhang et al., "Generalizing Event-Based Motion Deblurring in Real-World Scenarios", ICCV 2023 (GEM). The
implicit function is that of LIIF (Chen et al., CVPR 2021), the convolution DCNv2 (Zhu et al., CVPR 2019).
"""

import torch
from torch import nn
from torch.nn import functional as F

from codes.errors import InputError

CHANNELS = (16, 32, 64, 128, 128)
"""Channels of the features at H, H/2, H/4, H/8 and H/16."""

KERNELS = (7, 5, 3, 3, 3)
"""Kernel sizes of the encoders at these sizes."""

NUDGE = 1e-6
"""By how much of half the image a position moves so that it never lies between two pixels."""


class Convolutions(nn.Module):
    """Two convolutions of one kernel size, each with ReLU."""

    def __init__(self, in_channels: int, channels: int, kernel: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2)
        self.conv2 = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` to ``(B, C', h, w)``."""
        return F.relu(self.conv2(F.relu(self.conv1(x), inplace=True)), inplace=True)


class Encoder(Convolutions):
    """Features of five sizes, each half the one before (rounded down)."""

    def __init__(self, in_channels: int):
        super().__init__(in_channels, CHANNELS[0], KERNELS[0])
        for level in range(1, 5):
            block = Convolutions(CHANNELS[level - 1], CHANNELS[level], KERNELS[level])
            self.add_module(f"down{level}", block)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """``(B, in_channels, H, W)`` to five features, the largest first."""
        features = [super().forward(x)]
        for level in range(1, 5):
            features.append(getattr(self, f"down{level}")(F.avg_pool2d(features[-1], 2)))
        return features


class Axis:
    """Where the pixels of an image lie among those of its events, along one side.

    Positions run from -1 to 1. Each pixel asks at two places, half an event pixel before it and after it.

    Args:
        pixels: image pixels.
        cells: event pixels.
        device: where the results lie.

    Attributes:
        image: indices of the image pixels at the two places, ``(2, pixels)``.
        events: those of the event pixels, ``(2, pixels)``.
        offset: how far the pixel is from the middle of that event pixel, in halves of one, float32 ``(2, pixels)``.
        cell: size of an image pixel in halves of an event pixel.
    """

    def __init__(self, pixels: int, cells: int, device: torch.device):
        # In double precision, which an Apple GPU does not have; there they are brought over, for which it waits.
        made = torch.device("cpu") if device.type == "mps" else device
        middles = (2 * torch.arange(pixels, dtype=torch.float64, device=made) + 1) / pixels - 1
        places = torch.stack([middles - 1 / cells, middles + 1 / cells]) + NUDGE
        places.clamp_(-1 + NUDGE, 1 - NUDGE)
        image, events = (((places + 1) * (n / 2)).long() for n in (pixels, cells))
        offset = (middles + 1) * cells - (2 * events + 1)
        self.image, self.events, self.offset = image.to(device), events.to(device), offset.float().to(device)
        self.cell = 2 / pixels * cells


class ImplicitFusion(nn.Module):
    """A small network asked at each pixel, four times, with the features of image and events near it.

    Its inputs are the event pixel's features, how far it is, how large an image pixel is, and the image's features.
    """

    def __init__(self, channels: int):
        super().__init__()
        layers = [nn.Linear(2 * channels + 4, channels)]
        for _ in range(3):
            layers += [nn.ReLU(inplace=True), nn.Linear(channels, channels)]
        self.imnet = nn.ModuleDict({"layers": nn.Sequential(*layers)})

    def forward(self, image: torch.Tensor, events: torch.Tensor) -> torch.Tensor:
        """``(B, C, H, W)`` and ``(B, C, h, w)`` to ``(B, C, H, W)``."""
        (height, width), cells = image.shape[-2:], events.shape[-2:]
        rows, columns = (Axis(*sizes, image.device) for sizes in zip((height, width), cells, strict=True))
        # The four places of a pixel are pixels of an image with twice the sides: both halves of rows, both of columns.
        near_events, near_image = (
            x.index_select(2, down.flatten()).index_select(3, aside.flatten()).permute(0, 2, 3, 1)
            for x, down, aside in ((events, rows.events, columns.events), (image, rows.image, columns.image))
        )
        down, aside = torch.broadcast_tensors(rows.offset.flatten()[:, None], columns.offset.flatten())
        sizes = (torch.full_like(down, axis.cell) for axis in (rows, columns))
        places = torch.stack([down, aside, *sizes], dim=-1).to(image.dtype).expand(image.shape[0], -1, -1, -1)
        answers = self.imnet["layers"](torch.cat([near_events, places, near_image], dim=-1))
        areas = ((down * aside).abs() + 1e-9).reshape(2, height, 2, width)
        # Each answer counts by the area on the far side, as in bilinear interpolation.
        shares = areas.flip(0, 2) / areas.sum((0, 2), keepdim=True)
        blended = (answers.reshape(-1, 2, height, 2, width, answers.shape[-1]) * shares[..., None]).sum((1, 3))
        return blended.permute(0, 3, 1, 2)


class DeformableConvolution(nn.Module):
    """DCNv2: a convolution that decides at each pixel where each of its taps reads and how much that counts."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.kaiming_normal_(self.weight)
        self.conv_offset_mask = nn.Conv2d(channels, 3 * kernel**2, kernel, padding=kernel // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` to the same."""
        (height, width), side = x.shape[-2:], self.weight.shape[-1]
        x, taps = x.to(self.weight.dtype), torch.arange(side**2, device=x.device)[:, None, None]
        offset, mask = self.conv_offset_mask(x).split([2 * side**2, side**2], dim=1)
        # Places count pixels, for which 16 bits are too few.
        exact = torch.promote_types(self.weight.dtype, torch.float32)
        x, offset, mask = (t.to(exact) for t in (x, offset, torch.sigmoid(mask)))
        # To sides that are powers of two, with which grid_sample rounds no place that is a pixel, as all are at first;
        # what is added is read as 0, like all that is outside. In an export sides are free, and none is added.
        high, wide = (n if isinstance(n, torch.SymInt) else 1 << (n - 1).bit_length() for n in (height, width))
        x = F.pad(x, (0, wide - width, 0, high - height))
        rows, columns = (torch.arange(n, device=x.device) for n in (height, width))
        row = rows[:, None] + taps // side - side // 2 + offset[:, 0::2]
        column = columns + taps % side - side // 2 + offset[:, 1::2]
        places = torch.stack([(2 * column + 1 - wide) / wide, (2 * row + 1 - high) / high], dim=-1)
        result = self.bias[:, None, None]
        # One row of taps after another: what all of them read would be as large as side**2 images.
        for place, part, weight in zip(places.split(side, 1), mask.split(side, 1), self.weight.unbind(2), strict=True):
            read = F.grid_sample(x, place.flatten(1, 2), padding_mode="zeros", align_corners=False)
            read = (read.unflatten(2, (side, height)) * part[:, None]).to(weight.dtype)
            result = result + torch.einsum("oct,bcthw->bohw", weight, read)
        return result


class Fusion(nn.Module):
    """MSFF: joins the features of image and events of one size."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.mlp = ImplicitFusion(channels)
        self.dcn = DeformableConvolution(channels, kernel)

    def forward(self, image: torch.Tensor, events: torch.Tensor) -> torch.Tensor:
        """``(B, C, H, W)`` and ``(B, C, h, w)`` to ``(B, C, H, W)``."""
        return self.dcn(self.mlp(image, events))


class Up(nn.Module):
    """Doubles the size and adds the joined features there."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` and ``(B, C', 2h, 2w)`` to ``(B, C', 2h, 2w)``."""
        x = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
        x = F.relu(self.conv1(x), inplace=True) + skip
        return F.relu(self.conv2(x), inplace=True)


class Decoder(nn.Module):
    """From the joined features of five sizes to an image."""

    def __init__(self, out_channels: int):
        super().__init__()
        for level in range(1, 5):
            self.add_module(f"up{level}", Up(CHANNELS[5 - level], CHANNELS[4 - level]))
        self.conv = nn.Conv2d(CHANNELS[0], out_channels, 3, padding=1)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Five features, the largest first, to ``(B, out_channels, H, W)``."""
        *finer, x = features
        for level, skip in enumerate(reversed(finer), 1):
            x = getattr(self, f"up{level}")(x, skip)
        return self.conv(x)


class SAN(nn.Module):
    """The network; state-dict keys are the official ones.

    Args:
        im_in: channels of the image.
        out: channels of the result, 1 or those of the image.
        ev_in: channels of the events.
    """

    def __init__(self, im_in: int = 3, out: int = 3, ev_in: int = 96):
        super().__init__()
        self.im_in, self.ev_in = im_in, ev_in
        self.im_enc = Encoder(im_in)
        self.ev_enc = Encoder(ev_in)
        self.dec = Decoder(out)
        for level, channels in enumerate(CHANNELS, 1):
            self.add_module(f"msff{level}", Fusion(channels, 5 if level == 1 else 3))
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                nn.init.zeros_(module.bias)
                if name.endswith("conv_offset_mask"):  # at first a plain convolution, at half its strength
                    nn.init.zeros_(module.weight)
                else:
                    nn.init.kaiming_normal_(module.weight)

    def forward(self, events: torch.Tensor, blur: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Deblur.

        Args:
            events: ``(B, ev_in, h, w)``, both sides at least 16.
            blur: ``(B, im_in, H, W)`` in [0, 1]; H and W multiples of 16.

        Returns:
            The sharp image ``(B, out, H, W)``, not clipped, and the ratio of it and ``blur``.
        """
        height, width = blur.shape[-2:]
        if blur.shape != (len(blur), self.im_in, height, width) or height % 16 or width % 16:
            raise InputError(
                f"an image of shape {tuple(blur.shape)}; expected (B, {self.im_in}, H, W) with H and W multiples of "
                "16: crop or pad it"
            )
        return self.deblur(events, blur, self.encode(blur))

    def encode(self, blur: torch.Tensor) -> list[torch.Tensor]:
        """The features of the image, the same for every instant, for :meth:`deblur`."""
        return self.im_enc(2 * blur - 1)

    def deblur(
        self, events: torch.Tensor, blur: torch.Tensor, image: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What :meth:`forward` does once the image is encoded; ``image`` is what :meth:`encode` returned."""
        if events.dim() != 4 or events.shape[:2] != (blur.shape[0], self.ev_in) or min(events.shape[-2:]) < 16:
            raise InputError(
                f"events of shape {tuple(events.shape)} for {len(blur)} images; expected ({len(blur)}, {self.ev_in}, "
                "h, w), at least 16 pixels each way: give a larger cut-out with as many channels as the weights want"
            )
        pairs = zip(image, self.ev_enc(events.to(blur.dtype)), strict=True)
        joined = [getattr(self, f"msff{level}")(image, event) for level, (image, event) in enumerate(pairs, 1)]
        ratio = F.softplus(self.dec(joined))
        return blur * ratio, ratio
