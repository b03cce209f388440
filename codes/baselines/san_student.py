"""SAN in the LDN's place, to compare with (S-SDM's table of students)."""

import torch
from torch.nn import functional as F

from codes.baselines.san_model import SAN
from codes.model.ldn_model import SPIKE_INPUTS


class SANStudent(SAN):
    """SAN (:mod:`codes.baselines.san_model`) in the LDN's place, with the same inputs and outputs and SAN's own keys.

    SAN wants 96 channels of event counts: 16 spans of the exposure, 2 polarities, before, within and after the instant.
    Spikes have no polarity, and how S-SDM gave them to SAN is not known. Here the 96 channels are the 96 spike frames
    around the instant, about the length of the exposure, of a stream mirrored at its ends. Sizes that are no multiples
    of 16 are padded inside with copies of the border. B,G,R, as all students.

    Args:
        gain: whether spikes are made as bright as the image first, as in :class:`Deblur_Net`; the state dict then says
            so under the same key.
    """

    kind, spike_dim, multiple = "mirrored", 96, 16

    def __init__(self, gain: bool = False):
        super().__init__(ev_in=self.spike_dim)
        self.gain = gain
        if gain:
            self.register_buffer("spike_input", torch.tensor([SPIKE_INPUTS.index("frames"), 1]))

    @staticmethod
    def settings(state: dict[str, torch.Tensor]) -> dict:
        """The argument of the constructor that a state dict tells."""
        return {"gain": "spike_input" in state}

    def forward(self, blur: torch.Tensor, spike: torch.Tensor) -> torch.Tensor:
        """``(B, 3, H, W)`` and spikes ``(B, M, 96, h, w)`` of M instants to ``(B, M, 3, H, W)``, not clipped."""
        image = self.encode(blur)
        return torch.stack([self.decode(blur, image, one) for one in spike.unbind(1)], dim=1)

    def encode(self, blur: torch.Tensor) -> list[torch.Tensor]:
        """The image's branch, the same for every instant."""
        return super().encode(self._padded(blur))

    def decode(self, blur: torch.Tensor, image: list[torch.Tensor], spike: torch.Tensor) -> torch.Tensor:
        """One instant of each image, spikes ``(B, 96, h, w)``: ``(B, 3, H, W)``, not clipped."""
        height, width = blur.shape[-2:]
        down, right = -height % 16 * spike.shape[-2] // height, -width % 16 * spike.shape[-1] // width
        spike = F.pad(spike.to(blur.dtype), (0, right, 0, down), mode="replicate")
        return self.deblur(spike, self._padded(blur), image)[0][..., :height, :width]

    @staticmethod
    def _padded(blur: torch.Tensor) -> torch.Tensor:
        return F.pad(blur, (0, -blur.shape[-1] % 16, 0, -blur.shape[-2] % 16), mode="replicate")
