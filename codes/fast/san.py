"""SAN for a CPU: the implicit function's linear steps in the cheaper order, the deformable convolution in strips."""

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from codes.baselines import san_model
from codes.baselines.san_model import Axis

STRIP = 2**18
"""Numbers that a tap of the deformable convolution reads at once; four times as many bytes stay in the cache."""


class ImplicitFusion(san_model.ImplicitFusion):
    """Where nothing but sums stands between two linear steps they are taken in the cheaper order.

    The first layer is applied to the features before they are fetched, and the last one after the four answers are
    blended.
    """

    def forward(self, image: torch.Tensor, events: torch.Tensor) -> torch.Tensor:
        """As the plain form; in the channels-last layout."""
        rows, columns = (Axis(*sizes, image.device) for sizes in zip(image.shape[-2:], events.shape[-2:], strict=True))
        first, *inner, last = self.imnet["layers"].children()
        # The first layer's input is [events, offset of row and column, size of row and column, image].
        weights = first.weight.split([events.shape[1], 1, 1, 1, 1, image.shape[1]], dim=1)
        of_row, of_column, by_row, by_column = (weight[:, 0] for weight in weights[1:5])
        constant = first.bias + by_row * rows.cell + by_column * columns.cell
        events = F.linear(events.permute(0, 2, 3, 1), weights[0], constant)
        image = F.linear(image.permute(0, 2, 3, 1), weights[5])
        areas, answers = [], []
        for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
            down, aside = rows.offset[y, :, None], columns.offset[x]
            near_events = events[:, rows.events[y, :, None], columns.events[x]]
            near_image = image[:, rows.image[y, :, None], columns.image[x]]
            hidden = near_events + near_image + of_row * down[..., None] + of_column * aside[..., None]
            for layer in inner:
                hidden = layer(hidden)
            answers.append(hidden)
            areas.append((down * aside).abs() + 1e-9)
        # Each answer counts by the area on the far side, as in bilinear interpolation.
        shares = [area / sum(areas) for area in reversed(areas)]
        blended = sum(answer * share[..., None] for answer, share in zip(answers, shares, strict=True))
        return last(blended).permute(0, 3, 1, 2)


class DeformableConvolution(san_model.DeformableConvolution):
    """Tap by tap in strips of rows; where a gradient is wanted, what a tap read is read once more on the way back."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the plain form."""
        height, width = x.shape[-2:]
        taps = self.weight[0, 0].numel()
        offset, mask = self.conv_offset_mask(x).split([2 * taps, taps], dim=1)
        # In the precision of the weights, since places need it; two kinds of numbers would not go together either.
        x, offset, mask = (t.to(self.weight.dtype) for t in (x, offset, torch.sigmoid(mask)))
        # To sides that are powers of two (_rows); what is added is read as 0, like all that is outside.
        x = F.pad(x, (0, (1 << (width - 1).bit_length()) - width, 0, (1 << (height - 1).bit_length()) - height))
        # Without a gradient, in strips that stay in the cache; with one, each would bring a gradient of x's full size.
        strip = height if torch.is_grad_enabled() else max(1, STRIP // (x.shape[0] * x.shape[1] * width))
        pieces = zip(offset.split(strip, dim=2), mask.split(strip, dim=2), strict=True)
        return torch.cat([self._rows(x, *piece, index * strip) for index, piece in enumerate(pieces)], dim=2)

    def _rows(self, x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor, first: int) -> torch.Tensor:
        """The result for the rows of ``offset`` and ``mask``, of which the first is row ``first`` of the whole."""
        (high, wide), (height, width), side = x.shape[-2:], offset.shape[-2:], self.weight.shape[-1]
        rows, columns, taps = (torch.arange(n, device=x.device) for n in (height, width, side))
        down, aside = offset.unflatten(1, (side**2, 2)).unbind(2)
        row = down + (first + rows[:, None] + (taps - side // 2).repeat_interleave(side)[:, None, None])
        column = aside + (columns + (taps - side // 2).repeat(side)[:, None, None])
        # As grid_sample wants them, from -1 to 1. With sides that are powers of two nothing is rounded on the way there
        # and back where a place is a pixel, as all are at first.
        places = torch.stack([(2 * column + 1 - wide) / wide, (2 * row + 1 - high) / high], dim=-1)
        # Tap by tap: what all of them read would be as large as side**2 images.
        result = self.bias[:, None].expand(len(x), -1, height * width)
        for parts in zip(places.unbind(1), mask.split(1, dim=1), self.weight.flatten(2).unbind(2), strict=True):
            if torch.is_grad_enabled():  # read once more on the way back instead of kept
                result = result + checkpoint(self._tap, x, *parts, use_reentrant=False, preserve_rng_state=False)
            else:
                result = result + self._tap(x, *parts)
        return result.unflatten(2, (height, width))

    @staticmethod
    def _tap(x, places, mask, weight):
        read = F.grid_sample(x, places, padding_mode="zeros", align_corners=False)
        return torch.bmm(weight.expand(len(x), -1, -1), (read * mask).flatten(2))
