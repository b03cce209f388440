"""The Spike-guided Deblurring Model and the teacher built on it.

The SDM says what a sharp frame looks like when the light during the exposure is known (S-SDM, section 3.1):

    L(t) = B * E_short(t) / E_long

B is the blurry image, E_short(t) the light at the instant t and E_long the light over the whole exposure, both
measured by spikes. The teacher makes the two from a spike stream: BSN takes the noise from the short TFP, EDSR brings
both to the size of the image.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from codes.errors import InputError
from codes.spike import EXPOSURE, mirrored_windows, tfp, tfp_long


def sdm(blur: torch.Tensor, tfp_long: torch.Tensor, tfp_short: torch.Tensor, clip: bool = True) -> torch.Tensor:
    """The Spike-guided Deblurring Model (S-SDM, equation 4): blur * tfp_short / tfp_long.

    Args:
        blur: ``(..., 3, H, W)``, B,G,R in [0, 1].
        tfp_long: ``(..., 1, H, W)``, the texture of the whole exposure, shared by the three colours.
        tfp_short: ``(..., 1, H, W)``, the texture at the instant.

    Returns:
        ``(..., 3, H, W)``; 0 wherever ``tfp_long`` is 0.
    """
    tfp_long, tfp_short = tfp_long.float(), tfp_short.float()  # half precision overflows in the quotient
    dark = tfp_long == 0
    ratio = torch.where(dark, 0.0, tfp_short / tfp_long.masked_fill(dark, 1.0))
    sharp = blur * ratio
    return sharp.clamp(0, 1) if clip else sharp


class Teacher(nn.Module):
    """Pseudo-labels from a blurry image and its spikes; frozen, in eval mode.

    E_long = enlarge(tfp_long(spike)) and E_short(t) = enlarge(denoise(tfp(spike, t, length))), both clipped, then
    the SDM. Which teacher it is depends on the two steps: :meth:`cascade` is the official one, :meth:`plain`
    has no network at all.

    Args:
        denoise: takes ``(B, 1, h, w)`` to the same shape.
        enlarge: takes ``(B, 1, h, w)`` to ``(B, 1, 4h, 4w)``.
        length: frames of the short window (``--spike_bsn_len``).
        raw: give ``denoise`` the frames of the short window themselves, ``(B, length, h, w)``, mirrored at the ends of
            the stream, instead of their mean: for STIR in BSN's place.
    """

    def __init__(self, denoise: nn.Module, enlarge: nn.Module, length: int = 9, raw: bool = False):
        super().__init__()
        self.denoise, self.enlarge, self.length, self.raw = denoise, enlarge, length, raw
        self.requires_grad_(False).eval()

    @classmethod
    def cascade(cls, bsn: nn.Module, sr: nn.Module, length: int = 9, raw: bool = False) -> "Teacher":
        """The official teacher, BSN -> EDSR -> SDM; another network may stand in for BSN."""
        return cls(bsn, sr, length, raw)

    @classmethod
    def plain(
        cls, length: int = 21, enlarge: str = "bilinear", denoise: nn.Module | None = None, raw: bool = False
    ) -> "Teacher":
        """A teacher without super-resolution network: ``enlarge`` is 'nearest' or 'bilinear'."""
        return cls(denoise or nn.Identity(), Enlarge(enlarge), length, raw)

    def train(self, mode: bool = True) -> "Teacher":
        """Stays in eval mode whatever is asked: it is frozen."""
        return super().train(False)

    @torch.no_grad()
    def long(self, spike: torch.Tensor, exposure=EXPOSURE) -> torch.Tensor:
        """E_long ``(B, 1, 4h, 4w)`` in [0, 1] of ``spike`` ``(B, T, h, w)``; once per sample."""
        return self.enlarge(tfp_long(spike, exposure)).clamp(0, 1)

    @torch.no_grad()
    def short(self, spike: torch.Tensor, instants: Sequence[int]) -> torch.Tensor:
        """E_short(t) ``(B, M, 4h, 4w)`` in [0, 1] at M instants of ``spike`` ``(B, T, h, w)``."""
        noisy = self._windows(spike, instants)
        short = self.enlarge(self.denoise(noisy.flatten(0, 1)).clamp(0, 1)).clamp(0, 1)
        return short.unflatten(0, noisy.shape[:2]).squeeze(2)

    @torch.no_grad()
    def denoised(self, spike: torch.Tensor, instant: int) -> torch.Tensor:
        """The denoised short TFP ``(B, 1, h, w)`` in [0, 1] at an instant."""
        return self.denoise(self._windows(spike, [instant])[:, 0]).clamp(0, 1)

    def _windows(self, spike: torch.Tensor, instants: Sequence[int]) -> torch.Tensor:
        """What ``denoise`` is given: ``(B, M, 1, h, w)``, or with ``raw`` ``(B, M, length, h, w)``."""
        if self.raw:
            return mirrored_windows(spike, instants, self.length)
        return torch.stack([tfp(spike, instant, self.length) for instant in instants], dim=1)

    @torch.no_grad()
    def textures(self, spike: torch.Tensor, instants: Sequence[int]) -> torch.Tensor:
        """E_long, then E_short(t) at M instants: ``(B, 1 + M, 4h, 4w)`` in [0, 1] of ``spike`` ``(B, T, h, w)``."""
        noisy = self._windows(spike, instants)
        short = self.denoise(noisy.flatten(0, 1)).clamp(0, 1).unflatten(0, noisy.shape[:2])
        both = torch.cat([tfp_long(spike)[:, None], short], dim=1)
        return self.enlarge(both.flatten(0, 1)).clamp(0, 1).unflatten(0, both.shape[:2]).squeeze(2)

    @staticmethod
    def labels(blur: torch.Tensor, textures: torch.Tensor) -> torch.Tensor:
        """Pseudo-labels ``(B, M, 3, H, W)`` of ``blur`` ``(B, 3, H, W)`` and what :meth:`textures` returned."""
        return sdm(blur[:, None], textures[:, :1, None], textures[:, 1:, None])

    @torch.no_grad()
    def forward(self, blur: torch.Tensor, spike: torch.Tensor, instants: Sequence[int]) -> torch.Tensor:
        """Pseudo-labels at several instants: :meth:`labels` of :meth:`textures`.

        Args:
            blur: ``(B, 3, H, W)``, B,G,R in [0, 1].
            spike: ``(B, T, H/4, W/4)``, zeros and ones.

        Returns:
            ``(B, M, 3, H, W)`` in [0, 1] for M instants.
        """
        return self.labels(blur, self.textures(spike, instants))


class Enlarge(nn.Module):
    """x4 enlarging without a network: 'nearest' (official for its comparison rows) or 'bilinear'."""

    def __init__(self, mode: str, scale: int = 4):
        super().__init__()
        if mode not in ("nearest", "bilinear"):
            raise InputError(f"enlarging '{mode}'; expected 'nearest' or 'bilinear'")
        self.mode, self.scale = mode, scale

    def extra_repr(self) -> str:
        """The settings, for ``str()``."""
        return f"{self.mode}, x{self.scale}"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` to ``(B, C, 4h, 4w)``; bilinear has half-pixel centres."""
        if self.mode == "nearest":
            return F.interpolate(x, scale_factor=self.scale, mode="nearest")
        return F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
