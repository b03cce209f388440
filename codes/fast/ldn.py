"""The LDN for a CPU: in pieces that stay near the caches, and its last layer without joining its two inputs."""

import torch
from torch.nn import functional as F

from codes.fast.pieces import pieces
from codes.model import ldn_model


class Deblur_Net(ldn_model.Deblur_Net):  # noqa: N801 (the official name)
    """Instants a few at a time, the decoder's end in strips."""

    def forward(self, blur: torch.Tensor, spike: torch.Tensor) -> torch.Tensor:
        """As the plain form; the image is looked up for each instant instead of repeated."""
        self.check(blur, spike)
        height, width = blur.shape[-2:]
        image = self.encode(blur)
        if spike.dim() == 4:
            return self.decode(blur, image, spike)
        instants = spike.shape[1]
        spike = spike.flatten(0, 1)
        count = pieces(blur, 16 * height * width, len(spike))
        frames = []
        for indices in torch.arange(len(spike), device=blur.device).split(count):
            parts = (x.index_select(0, indices // instants) for x in (blur, image))
            frames.append(self.decode(*parts, spike[indices]))
        return torch.cat(frames).unflatten(0, (-1, instants))

    def features(self, image: torch.Tensor, spike: torch.Tensor) -> torch.Tensor:
        """As the plain form."""
        events = self.spike_enc2(self.spike_enc(spike.to(image.dtype)))
        return torch.cat([image.contiguous(memory_format=torch.channels_last), events], dim=1)

    def decode(
        self,
        blur: torch.Tensor,
        image: torch.Tensor,
        spike: torch.Tensor,
        weights: torch.Tensor | None = None,
        finish: ldn_model.Finish = ldn_model.unchanged,
    ) -> torch.Tensor:
        """As the plain form."""
        x = self.trunk(image, spike, weights)
        height = x.shape[-2]
        step = pieces(x, 64 * len(x) * x.shape[-1], height)
        if step == height:
            return finish(self._predict(blur, self.decoder2(x)), slice(None))
        strips = []
        for start in range(0, height, step):  # two rows of the result for each, which see its neighbours on both sides
            stop, above = min(start + step, height), min(start, 1)
            rows = self.decoder2(x[:, :, start - above : stop + 1])[:, :, 2 * above :][:, :, : 2 * (stop - start)]
            strip = slice(2 * start, 2 * stop)
            strips.append(finish(self._predict(blur[:, :, strip], rows), strip))
        return torch.cat(strips, dim=2)

    def _predict(self, blur: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """``pred`` of both inputs, without joining them first."""
        weight = self.pred.weight
        return F.conv2d(x, weight[:, 3:]).add_(F.conv2d(blur, weight[:, :3], self.pred.bias))
