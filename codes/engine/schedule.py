"""The learning rate as a function of the step, so that nothing needs saving to continue a run."""

import math

from codes.errors import InputError

WARMUP_SHARE, START_SHARE = 0.1, 0.04
"""onecycle: the rate climbs over the first tenth of the steps, from 1/25 of its peak (Smith & Topin 2018)."""


def cosine(progress: float) -> float:
    """1 at progress 0, 0 at progress 1, and back to 1 at 2: half a period of a cosine."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def learning_rate(name: str, lr: float, step: int, total: int, official: float | None = None) -> float:
    """The rate of optimiser step ``step`` (from 0) of ``total``.

    Args:
        name: 'cosine' (to 0), 'onecycle' (up to ``lr``, then to 0), 'constant', or 'official'.
        lr: the largest rate.
        step, total: optimiser steps.
        official: that of the published recipe, which differs from stage to stage and stands in the recipes.
    """
    if name == "official" and official is not None:
        return official
    if name == "constant":
        return lr
    if name == "cosine":
        return lr * cosine(min(step / total, 1))
    if name == "onecycle":
        warmup = max(1, round(WARMUP_SHARE * total))
        if step < warmup:
            return lr * (START_SHARE + (1 - START_SHARE) * (1 - cosine(step / warmup)))
        return lr * cosine(min((step - warmup) / max(1, total - warmup), 1))
    raise InputError(f"learning-rate schedule '{name}'; expected official, cosine, onecycle or constant")


def change_of_end(name: str, lr: float, step: int, before: int, now: int) -> str:
    """What a run that goes on with another number of steps should know, in one line; '' if its rate stays.

    Args:
        name, lr: the schedule and its largest rate.
        step: where the run goes on.
        before, now: all steps then, and now.
    """
    if name not in ("cosine", "onecycle") or before == now or not step:
        return ""
    old, new = (learning_rate(name, lr, step, total) for total in (before, now))
    return (
        f"the run now has {now} steps instead of {before}, and --lr_schedule {name} with it: "
        f"from step {step} on the rate is {new:.2e} instead of {old:.2e}"
    )
