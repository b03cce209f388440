"""Large images in overlapping tiles, with the same result as in one piece.

A tile is computed with as much around it as the network sees, of which nothing is kept. Two things need care: BSN
halves the size twice, from each of four sides, so that tiles must lie on the same grid of 4; and the
students weight channels by their mean and maximum over the whole image, which are gathered over all tiles first.
"""

from collections.abc import Iterator

import torch
from torch import nn

from codes.metrics import wide_float
from codes.model.bsn_model import mirror_index
from codes.model.ldn_model import Deblur_Net
from codes.model.registry import NETWORKS
from codes.model.sdmnet_model import SDMNet


def cut(extent: int, core: int, reach: int) -> Iterator[tuple[slice, slice, slice]]:
    """Cut one side of an image into tiles, which share it evenly.

    All tiles are of one size, core + 2 * reach or more, so that squares stay squares; at the borders they are moved
    inside.

    Args:
        extent: pixels of the side.
        core: pixels that a tile contributes, or up to a third more or less; tiles begin at multiples of 4, and end at
            multiples of 4 from the other end.
        reach: pixels around it.

    Yields:
        (what to compute, which part of that to keep, where it goes).
    """
    count = max(round(extent / core), 1)  # a last tile of a few rows would cost as much as the others
    core = -(-extent // (4 * count)) * 4
    size = core + 2 * (-(-reach // 4) * 4)
    size = min(size + (extent - size) % 4, extent)
    for start in range(0, extent, core):
        stop = min(start + core, extent)
        first = min(max(start - (size - core) // 8 * 4, 0), extent - size)
        yield slice(first, first + size), slice(start - first, stop - first), slice(start, stop)


class Tiled(nn.Module):
    """A network without a view of the whole, such as BSN or EDSR, computed in tiles.

    Args:
        network: takes ``(B, 1, h, w)`` to ``(B, 1, scale * h, scale * w)``.
        core: side of the tiles without what lies around them, in pixels of the input.
        reach: how far the network sees.
        square: mirror the input to a square first, as BSN does itself.
    """

    def __init__(self, network: nn.Module, core: int, reach: int, scale: int = 1, square: bool = False):
        super().__init__()
        self.network, self.core, self.reach, self.scale, self.square = network, core, reach, scale, square

    @classmethod
    def bsn(cls, network: nn.Module, core: int) -> "Tiled":
        """BSN in tiles."""
        return cls(network, core, NETWORKS["bsn"].reach, square=True)

    @classmethod
    def edsr(cls, network: nn.Module, core: int) -> "Tiled":
        """EDSR in tiles."""
        return cls(network, core, NETWORKS["edsr"].reach, scale=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, 1, h, w)`` to ``(B, 1, scale * h, scale * w)``."""
        height, width = x.shape[-2:]
        top = left = 0
        if self.square:
            side = max(height, width)
            top, left = (side - height) // 2, (side - width) // 2
            x = x.index_select(-2, mirror_index(height, side, x.device))
            x = x.index_select(-1, mirror_index(width, side, x.device))
        scale, whole = self.scale, None
        for rows, kept_rows, to_rows in cut(x.shape[-2], self.core, self.reach):
            for columns, kept_columns, to_columns in cut(x.shape[-1], self.core, self.reach):
                if not (to_rows.stop > top and to_rows.start < top + height):
                    continue  # mirrored rows alone
                if not (to_columns.stop > left and to_columns.start < left + width):
                    continue
                tile = self.network(x[:, :, rows, columns])[:, :, _times(kept_rows, scale), _times(kept_columns, scale)]
                if whole is None:
                    whole = tile.new_empty(*tile.shape[:2], scale * x.shape[-2], scale * x.shape[-1])
                whole[:, :, _times(to_rows, scale), _times(to_columns, scale)] = tile
        return whole[:, :, _times(slice(top, top + height), scale), _times(slice(left, left + width), scale)]


def decode_tiles(
    student: nn.Module, blur: torch.Tensor, spike: torch.Tensor, side: int, reach: int, encoded: dict | None = None
) -> torch.Tensor:
    """A student's image at one instant, computed in tiles.

    Args:
        blur: ``(B, 3, H, W)``.
        spike: what the student sees at the instant, ``(B, spike_dim, H/4, W/4)``, of the whole image.
        side: of the tiles without what lies around them, in image pixels.
        reach: how far the student sees, in spike pixels.
        encoded: what the student makes of the image alone is kept here, for other instants of the same image.

    Returns:
        ``(B, 3, H, W)``, not clipped.
    """
    height, width = spike.shape[-2:]
    tiles = [(rows, columns) for rows in cut(height, side // 4, reach) for columns in cut(width, side // 4, reach)]

    encoded = {} if encoded is None else encoded

    def parts(rows, columns):
        part, key = blur[..., _times(rows[0], 4), _times(columns[0], 4)], (rows[0].start, columns[0].start)
        if key not in encoded:
            encoded[key] = student.encode(part)
        return part, encoded[key], spike[..., rows[0], columns[0]]

    more = _of_the_whole(student, tiles, parts, spike)
    whole = torch.empty_like(blur, memory_format=torch.contiguous_format)
    for rows, columns in tiles:
        tile = student.decode(*parts(rows, columns), *more)
        whole[..., _times(rows[2], 4), _times(columns[2], 4)] = tile[..., _times(rows[1], 4), _times(columns[1], 4)]
    return whole


def _of_the_whole(student: nn.Module, tiles, parts, spike: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What a student's ``decode`` must be told of the whole image: what follows from means and maxima."""
    if isinstance(student, SDMNet):
        brightest = spike.amax(dim=(-2, -1))
        return brightest, _channel_weights(student.ldn, student.features, tiles, parts, spike, brightest)
    if isinstance(student, Deblur_Net):
        return (_channel_weights(student, student.features, tiles, parts, spike),)
    return ()


def _channel_weights(ldn: Deblur_Net, features, tiles, parts, spike: torch.Tensor, *more) -> torch.Tensor:
    """The LDN's weights of its channels, from their mean and maximum over all tiles."""
    total, peak = 0.0, None
    for rows, columns in tiles:
        x = features(*parts(rows, columns)[1:], *more)[..., rows[1], columns[1]].float()
        total = total + x.sum(dim=(-2, -1), keepdim=True, dtype=wide_float(x.device))
        most = x.amax(dim=(-2, -1), keepdim=True)
        peak = most if peak is None else torch.maximum(peak, most)
    return ldn.ca.weights((total / spike[0, 0].numel()).to(peak.dtype), peak)


def _times(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)
