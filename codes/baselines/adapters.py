"""What the neighbouring networks are given of this program's data, and what their papers train by.

The networks are :class:`codes.baselines.spkdeblurnet_model.SpkDeblurNet`, :class:`codes.baselines.stir_model.STIR` and
:class:`codes.baselines.san_model.SAN` (as a student: :class:`codes.baselines.san_student.SANStudent`). Losses are those
of the published programs. To compare networks with one another use :mod:`codes.metrics`.
"""

import pickle
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from codes.baselines.spkdeblurnet_model import SpkDeblurNet
from codes.baselines.stir_model import FRAMES
from codes.errors import InputError, one_line
from codes.spike import middle_tfi, mirrored_windows

STIR_WEIGHTS = (0.5, 0.25, 0.25, 0.25)
"""Weights of STIR's images at H/2, H/4, H/8 and H/16 in the program (the paper has 1/2, 1/4, 1/8, 1/16)."""

STIR_PERCEPTUAL = 0.2
"""Weight of STIR's perceptual loss."""


def spkdeblurnet_input(
    network: SpkDeblurNet, blur: torch.Tensor, spike: torch.Tensor, instant: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What SpkDeblurNet is given for the sharp image at an instant.

    It wants R,G,B, spikes of half the image's size, as many frames around the instant as its weights have (56 or 65),
    and their middle TFI. Where the data's spikes are smaller, each is repeated 2x2 (or 4x4 ...) times; a data set with
    spikes of half the size is made by ``scripts/prepare_gopro.py --scale 2``. Windows that leave the stream see it
    mirrored. Officially the exposure is the window; here the window's middle is the instant wherever that lies in the
    exposure, whose 97 frames it does not cover.

    Args:
        network: decides the number of frames and the TFI's gain. The official gain, 2, makes white about 1 at the
            paper's Vth 2; at Vth 1 it takes 1.
        blur: ``(B, 3, H, W)``, B,G,R in [0, 1].
        spike: ``(B, T, h, w)`` with h = H/2, H/4, ..., zeros and ones, any dtype.
        instant: frame index.

    Returns:
        The three inputs of the network: ``(B, 3, H, W)`` R,G,B, ``(B, S, H/2, W/2)``, ``(B, 1, H/2, W/2)``.

    Raises:
        ValueError: spikes of another size.
    """
    factor = blur.shape[-1] // (2 * spike.shape[-1])
    if factor < 1 or (blur.shape[-2], blur.shape[-1]) != tuple(2 * factor * side for side in spike.shape[-2:]):
        raise InputError(
            f"an image of {blur.shape[-2]}x{blur.shape[-1]} with spikes of {spike.shape[-2]}x{spike.shape[-1]}; "
            "SpkDeblurNet takes spikes of half or a quarter of the image's sides"
        )
    frames = mirrored_windows(spike, [instant], network.spike_frames)[:, 0]
    tfi = network.gain * middle_tfi(frames, network.spike_frames // 2)
    if factor > 1:
        frames, tfi = (x.repeat_interleave(factor, -1).repeat_interleave(factor, -2) for x in (frames, tfi))
    return blur.flip(1), frames.to(blur.dtype), tfi


def stir_instants(total: int, instants) -> list[int]:
    """Those of several instants around which a stream of ``total`` frames holds STIR's 61 in full."""
    return [instant for instant in instants if FRAMES // 2 <= instant < total - FRAMES // 2]


def stir_images(stir: Callable[[torch.Tensor], torch.Tensor], spike: torch.Tensor, instants) -> torch.Tensor:
    """STIR's grey images at several instants: ``(B, T, h, w)`` to ``(B, M, h, w)`` in [0, 1].

    It reads the 61 frames around the instant (of a stream that is mirrored at its ends, where they do not suffice) and
    returns the light at the size of the spikes, as bright as the firing rate is.
    """
    return torch.cat([stir(mirrored_windows(spike, [instant], FRAMES)[:, 0]) for instant in instants], dim=1)


def spkdeblurnet_loss(outputs: tuple[torch.Tensor, ...], sharp: torch.Tensor, grey: torch.Tensor) -> torch.Tensor:
    """The sum of the L1 distances of SpkDeblurNet's three images.

    Args:
        outputs: sharp image, image from the spikes, image from the blurry one, as the network returns them.
        sharp: ``(B, 3, H, W)``, R,G,B in [0, 1].
        grey: ``(B, 1, H, W)`` in [0, 1], officially Rec. 601 of the 8-bit ``sharp``.
    """
    deblurred, from_spikes, from_blur = outputs
    return F.l1_loss(deblurred, sharp) + F.l1_loss(from_spikes, grey) + F.l1_loss(from_blur, sharp)


def stir_loss(images: list[torch.Tensor], sharp: torch.Tensor, perceptual: nn.Module | None = None) -> torch.Tensor:
    """STIR's loss at one instant, or at several that lie side by side in the batch: their mean, as officially.

    Args:
        images: the five images of the network in training mode, the largest first.
        sharp: ``(B, 1, H, W)``, grey in [0, 1].
        perceptual: :class:`VGGDistance`, or none.
    """
    loss = F.l1_loss(images[0], sharp)
    if perceptual is not None:
        loss = loss + STIR_PERCEPTUAL * perceptual(images[0], sharp)
    for image, weight in zip(images[1:], STIR_WEIGHTS, strict=True):
        sharp = F.avg_pool2d(sharp, 2)
        loss = loss + weight / len(STIR_WEIGHTS) * F.l1_loss(image, sharp)
    return loss


class VGGDistance(nn.Module):
    """Mean squared difference of the features relu5_1 of VGG-19, as STIR uses it.

    Officially the images are taken for ones in [-1, 1] and so brought to [0.5, 1] first.

    Args:
        pretrained: random weights if not, for tests and timing.

    Raises:
        ValueError: torchvision or the weights cannot be had; says which file to fetch and where to put it.
    """

    def __init__(self, pretrained: bool = True):
        super().__init__()
        try:
            from torchvision.models import VGG19_Weights, vgg19
        except ImportError as error:
            raise InputError(f"STIR's perceptual loss needs torchvision ({error}); pip install torchvision") from None
        try:
            network = vgg19(weights=VGG19_Weights.IMAGENET1K_V1 if pretrained else None)
        except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
            raise InputError(
                f"STIR's perceptual loss needs the weights of VGG-19, which could not be loaded "
                f"({one_line(error)[:100]}); fetch https://download.pytorch.org/models/vgg19-dcbb9e9d.pth and put it "
                f"in {torch.hub.get_dir()}/checkpoints/, or train without this term"
            ) from None
        self.features = network.features[:30].requires_grad_(False).eval()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def forward(self, image: torch.Tensor, sharp: torch.Tensor) -> torch.Tensor:
        """A scalar for ``(B, 1, H, W)`` twice, grey in [0, 1], at least 16 pixels each way."""
        with torch.no_grad():
            target = self._features(sharp)
        return F.mse_loss(self._features(image), target)

    def _features(self, image: torch.Tensor) -> torch.Tensor:
        return self.features(((image + 1) / 2 - self.mean) / self.deviation)
