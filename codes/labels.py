"""Where a student's labels come from: the teacher, its kept textures, or known sharp frames.

Each kind is an object with two methods: ``instants(step)``, the frame indices of a training step, and
``labels(batch, instants)``, ``(B, M, 3, H, W)`` in [0, 1] at them. ``wants`` tells the data set what a batch must hold
besides image and spikes.
"""

from collections.abc import Callable, Sequence

import torch

from codes.random import rng
from codes.sdm import Teacher
from codes.spike import EXPOSURE

Instants = Callable[[int], tuple[int, ...]]
"""From the number of a step to its instants."""


def fixed_instants(step: int = 24) -> Instants:
    """Officially every ``step``-th frame of the exposure, the same in every training step: 20, 44, 68, 92, 116."""
    instants = EXPOSURE.instants(step)
    return lambda _: instants


class Distilled:
    """Pseudo-labels (S-SDM, section 3.3): the teacher's images, made crop by crop in every step.

    Args:
        teacher: BSN -> EDSR -> SDM, or the SDM alone.
        instants: of a step.
    """

    wants: dict = {}

    def __init__(self, teacher: Teacher, instants: Instants):
        self.teacher, self.instants = teacher, instants

    def labels(self, batch: dict, instants: Sequence[int]) -> torch.Tensor:
        """``(B, M, 3, H, W)`` in [0, 1]."""
        return self.teacher(batch["blur"], batch["spike"], instants)


class Kept:
    """Pseudo-labels of textures that the teacher made once and a folder keeps; the batch holds them.

    Args:
        instants: at which they were made, the same in every step.
    """

    wants: dict = {}

    def __init__(self, instants: Instants):
        self.instants = instants

    def labels(self, batch: dict, instants: Sequence[int]) -> torch.Tensor:
        """``(B, M, 3, H, W)`` in [0, 1]."""
        return Teacher.labels(batch["blur"], batch["textures"])


class KnownSharp:
    """The sharp frames of a data set that was made from captures (scripts/resimulate.py): no teacher at all.

    Args:
        count: instants of a step, drawn from the 7 of the sequence protocol.
        seed: of the draws.
    """

    wants = {"use_sharp": "sequence"}

    def __init__(self, count: int, seed: int):
        self.count, self.seed = count, seed

    def instants(self, step: int) -> tuple[int, ...]:
        """``count`` of the 7 instants, in order."""
        known = EXPOSURE.sequence_instants
        chosen = rng("instants", self.seed, step).permutation(len(known))[: self.count]
        return tuple(known[index] for index in sorted(chosen))

    def labels(self, batch: dict, instants: Sequence[int]) -> torch.Tensor:
        """``(B, M, 3, H, W)`` in [0, 1]."""
        return batch["sharps"][:, [EXPOSURE.sequence_instants.index(instant) for instant in instants]]
