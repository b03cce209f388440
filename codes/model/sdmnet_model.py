"""SDMNet: the Spike-guided Deblurring Model around an LDN, a student that deblurs one instant.

The SDM says sharp = blur * short / long (S-SDM, arXiv 2403.09486, section 3.1). SDMNet keeps that form and learns what
spikes of a quarter of the image's sides leave open:

    sharp = blur * (1 + ratio) + light + gate * colour

An LDN (section 3.4) of more inputs and outputs tells ratio and light, which the three colours share, and colour. The
gate is 0 where the blurry image is grey nearby, and 1 where it is colourful: a grey image gives a grey result, exactly.
What the LDN is given besides the spikes is what the SDM would do with them, and how bright the brightest pixel is: of
single spikes, one of them, which tells which of the windows can be trusted.

Inputs: the blurry image ``(B, 3, H, W)``, B,G,R in [0, 1], and the pyramid of the instant (:data:`WINDOWS`), of light
by intervals or, in weights from before, of spikes, made as bright as the image, ``(B, 21, H/4, W/4)``, float. Output:
the sharp image at that instant ``(B, 3, H, W)``, unclipped. What belongs to the image alone is computed once for all
instants (:meth:`SDMNet.encode`).
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from codes.errors import InputError
from codes.model.ldn_model import SPIKE_INPUTS, Deblur_Net, ResnetBlock

WINDOWS = (51, 20, 10, 5, 3, 2, 2, *(1,) * 7, 2, 2, 3, 5, 10, 20, 51)
"""Frames in each window of the pyramid, in the order of time; the middle one is the instant."""

MIDDLE = len(WINDOWS) // 2
"""The window of the instant alone."""

COUNTS = (3, *WINDOWS[1:-1], 3)
"""Of 97 frames around the instant, how many each window holds."""

REACHES = (3, 6, 8, 10)
"""Windows to either side of the instant that make spans of 7, 21, 51 and 97 frames."""

GREY = (0.11, 0.59, 0.3)
"""Weights of B, G and R in grey."""

DARK = 0.03
"""Added to what divides, so that ratios of darkness stay small."""

BRIGHT = 4.0
"""Light and ratios are cut here: what is brighter is a single spike of a high threshold."""

NEARLY_GREY, COLOURFUL = 2 / 255, 34 / 255
"""Chroma up to which the gate is shut, and from which it is open."""


def zeros(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer, whose outputs are 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class SDMNet(nn.Module):
    """The network.

    Args:
        spike_input: what its pyramid is of, 'intervals' or, in weights from before, 'pyramid' (spikes).
        inner: channels inside the residual blocks; 48 in model/, 64 as in an LDN.
    """

    gain, spike_dim = True, len(WINDOWS)

    def __init__(self, spike_input: str = "intervals", inner: int = 64):
        super().__init__()
        self.kind = spike_input
        if spike_input != "pyramid":
            self.register_buffer("spike_input", torch.tensor([SPIKE_INPUTS.index(spike_input), 1]))
        self.ldn = Deblur_Net(len(WINDOWS) + 12)
        self.ldn.pred = zeros(nn.Conv2d(self.ldn.pred.in_channels, 5, 1))  # a training begins with the blurry image
        self.ldn.resBlock1, self.ldn.resBlock2 = ResnetBlock(64, inner), ResnetBlock(64, inner)
        away = (torch.arange(len(WINDOWS)) - MIDDLE).abs()
        spans = torch.stack([(away <= reach) * torch.tensor(COUNTS) for reach in REACHES])
        self.register_buffer("spans", spans.float(), persistent=False)

    @staticmethod
    def settings(state: dict[str, torch.Tensor]) -> dict:
        """The arguments of the constructor that a state dict tells, as :meth:`Deblur_Net.settings`."""
        settings = {"spike_input": Deblur_Net.settings(state).get("spike_input", "pyramid")}
        first = state.get("ldn.resBlock1.conv_block.0.weight")
        if first is not None and first.shape[1:] == (64, 3, 3):
            settings["inner"] = len(first)
        return settings

    @torch.no_grad()
    def begin_as(self, ldn: nn.Module) -> "SDMNet":
        """Take the weights of an LDN; where there is colour, the result is then the LDN's.

        Raises:
            InputError: it is no LDN, or sees something else than the pyramid with gain.
        """
        if not isinstance(ldn, Deblur_Net) or ldn.kind == "frames" or not ldn.gain:
            raise InputError("SDMNet can begin as an LDN with --student_spikes pyramid --spike_gain only")
        state = ldn.state_dict()
        state.pop("spike_input", None)
        first, last = state["spike_enc.0.weight"], state["pred.weight"].clone()
        more = self.ldn.spike_dim - first.shape[1]
        state["spike_enc.0.weight"] = F.pad(first, (0, 0, 0, 0, 0, more))
        last[:, :3, 0, 0] -= torch.eye(3)  # on top of the blurry image

        def outputs(x: torch.Tensor) -> torch.Tensor:  # ratio, light, colour
            light = x.mean(dim=0, keepdim=True)
            return torch.cat([torch.zeros_like(light), light, x - light])

        state["pred.weight"], state["pred.bias"] = outputs(last), outputs(state["pred.bias"])
        self.ldn.load_state_dict(state)
        return self

    @torch.no_grad()
    def narrowed(self, inner: int) -> "SDMNet":
        """With fewer channels inside the residual blocks: those whose weights on both sides are largest.

        Raises:
            InputError: there are not so many.
        """
        first = self.ldn.resBlock1.conv_block[0]
        if not 0 < inner <= first.out_channels:
            raise InputError(
                f"{inner} channels of the {first.out_channels} inside SDMNet's residual blocks; choose at most as many"
            )
        narrow = SDMNet(self.kind, inner)
        state = self.state_dict()
        for block in ("ldn.resBlock1.conv_block.", "ldn.resBlock2.conv_block."):
            into, out = state[block + "0.weight"], state[block + "3.weight"]
            strength = into.flatten(1).norm(dim=1) * out.transpose(0, 1).flatten(1).norm(dim=1)
            kept = strength.topk(inner).indices.sort().values
            state |= {block + "0.weight": into[kept], block + "0.bias": state[block + "0.bias"][kept]}
            state[block + "3.weight"] = out[:, kept]
        narrow.load_state_dict(state)
        return narrow

    def forward(self, blur: torch.Tensor, spike: torch.Tensor) -> torch.Tensor:
        """Deblur one instant, or several of one exposure at once.

        Args:
            blur: ``(B, 3, H, W)``, B,G,R in [0, 1]; H and W multiples of 4.
            spike: ``(B, 21, H/4, W/4)``, or ``(B, M, 21, H/4, W/4)`` for M instants.

        Returns:
            ``(B, 3, H, W)``, or ``(B, M, 3, H, W)``; not clipped.

        Raises:
            InputError: the sizes do not fit.
        """
        self.ldn.check(blur, spike)
        image = self.encode(blur)
        if spike.dim() == 4:
            return self.decode(blur, image, spike)
        blur, *image = (x.repeat_interleave(spike.shape[1], dim=0) for x in (blur, *image))
        return self.decode(blur, image, spike.flatten(0, 1)).unflatten(0, (-1, spike.shape[1]))

    def encode(self, blur: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The image's part, the same for every instant.

        Returns:
            ``(B, 1, H/4, W/4)``, the image as a noise-free spike camera sees it; likewise the gate; and the LDN's
            features, ``(B, 32, H/4, W/4)``.
        """
        rows = blur.unflatten(-2, (-1, 4))
        middle = (rows[..., 1, :] + rows[..., 2, :]).unflatten(-1, (-1, 4))
        middle = (middle[..., 1] + middle[..., 2]) / 4  # the middle 2x2 pixels of each 4x4
        seen = sum(weight * colour for weight, colour in zip(GREY, middle.split(1, dim=1), strict=True))
        chroma = blur.amax(dim=1, keepdim=True) - blur.amin(dim=1, keepdim=True)
        chroma = chroma.unflatten(-2, (-1, 4)).amax(dim=-2)  # several times as quick as pooling
        chroma = chroma.unflatten(-1, (-1, 4)).amax(dim=-1)
        cells = F.max_pool2d(F.pad(chroma, (0, 3, 0, 3)), 4)  # 16x16 px, the last ones cut off
        nearby = F.max_pool2d(cells, 5, stride=1, padding=2)  # within 32 to 48 px
        nearby = F.interpolate(nearby, scale_factor=4.0, mode="bilinear")
        for axis in (-2, -1):  # no slice: that it fits is beyond torch.export
            nearby = nearby.index_select(axis, torch.arange(seen.shape[axis], device=seen.device))
        gate = ((nearby - NEARLY_GREY) / (COLOURFUL - NEARLY_GREY)).clamp(0, 1)
        features = self.ldn.encode(blur)
        return seen.to(features), gate.to(features), features

    def features(self, image: Sequence[torch.Tensor], spike: torch.Tensor, brightest: torch.Tensor) -> torch.Tensor:
        """The LDN's features, ``(B, 64, H/4, W/4)``; ``brightest`` as in :meth:`seen`."""
        grey, _, features = image
        return self.ldn.features(features, self.seen(grey, spike, brightest))

    def decode(
        self,
        blur: torch.Tensor,
        image: Sequence[torch.Tensor],
        spike: torch.Tensor,
        brightest: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One instant of each image.

        Args:
            blur: ``(B, 3, H, W)``.
            image: what :meth:`encode` made of it.
            spike: ``(B, 21, H/4, W/4)``.
            brightest, weights: of the whole image, where this is a tile of it: the brightest of each window
                ``(B, 21)``, and the LDN's weights of its channels ``(B, 64, 1, 1)``.

        Returns:
            ``(B, 3, H, W)``, not clipped.
        """
        grey, gate, features = image
        seen = self.seen(grey, spike, brightest)
        gate = F.interpolate(gate, scale_factor=4.0, mode="bilinear").to(blur.dtype)

        def sharp(outputs: torch.Tensor, rows: slice) -> torch.Tensor:
            ratio, light, colour = outputs.to(blur.dtype).split((1, 1, 3), dim=1)
            part = blur[:, :, rows]
            return torch.addcmul(part, part, ratio).add_(light).addcmul_(colour, gate[:, :, rows])

        return self.ldn.decode(blur, features, seen, weights, sharp)

    def seen(self, grey: torch.Tensor, spike: torch.Tensor, brightest: torch.Tensor | None = None) -> torch.Tensor:
        """What the LDN is given of the spikes: the pyramid, and what the SDM makes of it.

        Args:
            grey: the image as the spike camera sees it, ``(B, 1, h, w)``.
            spike: the pyramid, ``(B, 21, h, w)``; windows outside the stream are 0 everywhere.
            brightest: the brightest pixel of each window, ``(B, 21)``; None: of these.

        Returns:
            ``(B, 33, h, w)``: the pyramid (21); the light over growing spans around the instant (3: 7, 21 and 97
            frames); spans of 7, 21 and 51 frames against the longest, of 21 against the image, less 1 (4); whether the
            stream holds the outermost windows (4); the logarithm of the brightest pixel in the middle windows (1).
        """
        brightest = spike.amax(dim=(-2, -1)) if brightest is None else brightest
        exact = torch.promote_types(spike.dtype, torch.float32)
        spike, grey, brightest = spike.to(exact), grey.to(exact), brightest.to(exact)
        held = (brightest > 0).to(exact)
        frames = held[:, None] * self.spans
        frames[..., MIDDLE] = 1  # never nothing to divide by
        with torch.autocast(spike.device.type, enabled=False):
            light = torch.einsum("bkn,bnhw->bkhw", frames / frames.sum(dim=2, keepdim=True), spike)
        least, short, middling, long = light.split(1, dim=1)

        def against(light: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
            return (light - whole) / (whole + DARK)

        ratios = [against(least, long), against(short, long), against(middling, long), against(short, grey)]
        quantum = brightest[:, MIDDLE - 3 : MIDDLE + 4].amax(dim=1, keepdim=True).clamp(min=0.1).log()
        planes = torch.cat([held[:, :2], held[:, -2:], quantum], dim=1)[..., None, None]
        planes = planes.expand(-1, -1, *spike.shape[-2:])
        return torch.cat([spike, least, short, long, *ratios, planes], dim=1).clamp_(max=BRIGHT)


class SDMNetLight(SDMNet):
    """SDMNet with a quarter of the work: half the channels, and ratio, light and colour at half the image's size.

    By itself it is less sharp. Its frames are there to be joined along the motion (:mod:`codes.motion`): those are
    sharper than the LDN's in as little time.

    Args:
        spike_input: as for :class:`SDMNet`.
    """

    def __init__(self, spike_input: str = "intervals"):
        super().__init__(spike_input)
        self.ldn = Deblur_Net(self.ldn.spike_dim, width=32)
        self.ldn.decoder1 = nn.Sequential(zeros(nn.Conv2d(32, 4 * 5, 3, padding=1)), nn.PixelShuffle(2))
        for name in ("decoder2", "pred"):  # there is no other half
            setattr(self.ldn, name, nn.Identity())

    @staticmethod
    def settings(state: dict[str, torch.Tensor]) -> dict:
        """As :meth:`SDMNet.settings`."""
        return {"spike_input": SDMNet.settings(state)["spike_input"]}

    def begin_as(self, ldn: nn.Module) -> "SDMNet":
        """Refused: an LDN has twice its channels."""
        raise InputError("SDMNet light cannot begin as an LDN, which has twice its channels; take SDMNet")

    def narrowed(self, inner: int) -> "SDMNet":
        """Refused: it is narrow."""
        raise InputError("SDMNet light is narrow already; take SDMNet")

    def encode(self, blur: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As :meth:`SDMNet.encode`, the gate at half the image's size."""
        grey, gate, features = super().encode(blur)
        return grey, F.interpolate(gate, scale_factor=2.0, mode="bilinear"), features

    def decode(self, blur, image, spike, brightest=None, weights=None):
        """As :meth:`SDMNet.decode`."""
        grey, gate, features = image
        seen = self.seen(grey, spike, brightest)
        outputs = self.ldn.trunk(features, seen, weights).to(blur.dtype).contiguous()
        ratio, light, colour = outputs.split((1, 1, 3), dim=1)
        outputs = torch.cat([ratio, torch.addcmul(light, gate.to(blur.dtype), colour)], dim=1)
        ratio, light = F.interpolate(outputs, scale_factor=2.0, mode="bilinear").split((1, 3), dim=1)
        return torch.addcmul(blur, blur, ratio).add_(light)
