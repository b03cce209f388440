"""How much a network computes at once."""

import torch

PIECE = 2**22
"""Numbers in the largest tensor on a CPU, 16 MB: small enough to stay near the caches and to be used again."""


def pieces(x: torch.Tensor, numbers: int, total: int) -> int:
    """How many of ``total`` parts to compute at once when each has a tensor of ``numbers``: on a GPU all.

    Args:
        x: tells the device.
        numbers: elements of the largest tensor of one part.
        total: parts, such as the images of a batch.
    """
    return max(1, min(total, PIECE // numbers)) if x.device.type == "cpu" else total
