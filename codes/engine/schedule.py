"""The learning rate as a function of the step, so that nothing needs saving to continue a run."""

import math

from codes.errors import InputError

WARMUP_SHARE, START_SHARE = 0.1, 0.04
"""onecycle: the rate climbs over the first tenth of the steps, from 1/25 of its peak (Smith & Topin 2018)."""


def cosine(progress: float) -> float:
    """1 at progress 0, 0 at progress 1, and back to 1 at 2: half a period of a cosine."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def learning_rate(name: str, lr: float, step: int, total: int) -> float:
    """The rate of optimiser step ``step`` (from 0) of ``total``.

    Args:
        name: 'cosine' (to 0), 'onecycle' (up to ``lr``, then to 0) or 'constant'. The official schedules differ from
            stage to stage and stand in the train scripts.
        lr: the largest rate.
        step, total: optimiser steps.
    """
    if name == "constant":
        return lr
    if name == "cosine":
        return lr * cosine(min(step / total, 1))
    if name == "onecycle":
        warmup = max(1, round(WARMUP_SHARE * total))
        if step < warmup:
            return lr * (START_SHARE + (1 - START_SHARE) * (1 - cosine(step / warmup)))
        return lr * cosine(min((step - warmup) / max(1, total - warmup), 1))
    raise InputError(f"learning-rate schedule '{name}'; expected cosine, onecycle or constant")
