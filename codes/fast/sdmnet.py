"""SDMNet for a CPU: put together in the strips of its LDN."""

import torch

from codes.model import sdmnet_model


class SDMNet(sdmnet_model.SDMNet):
    """The last lines of :meth:`decode`, some rows at a time."""

    def decode(
        self,
        blur: torch.Tensor,
        image: torch.Tensor,
        spike: torch.Tensor,
        brightest: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As the plain form."""
        x = self.features(image, spike, spike.amax(dim=(-2, -1)) if brightest is None else brightest)
        gate = self.gate(image)
        strips = [
            self.sharp(blur[:, :, rows], gate[:, :, rows], self.ldn.predict(blur[:, :, rows], part))
            for rows, part in self.ldn.strips(x, weights)
        ]
        return torch.cat(strips, dim=2)
