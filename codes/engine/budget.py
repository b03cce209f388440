"""How many optimiser steps a time is: timed once, at the beginning of a run that may then be continued."""

import copy
import time
from collections.abc import Callable

import torch
from torch import nn

from codes.engine.loader import BatchPlan, Feed

WARM, TIMED = 8, 16
"""Steps until the loader's processes are as far ahead as they will be, and steps that are timed."""


def seconds_of_step(
    network: nn.Module,
    dataset,
    batch_size: int,
    loss: Callable[[nn.Module, dict], torch.Tensor],
    workers: int = -1,
) -> float:
    """Seconds that a training step takes beside the loader's processes, by some steps of a copy of the network.

    Args:
        network: on its device; it is not changed.
        dataset: the training split.
        batch_size: samples in a batch.
        loss: of a network and a batch on the network's device.
        workers: loader processes, as for :func:`codes.engine.loader.loader`.
    """
    network, device = copy.deepcopy(network).train(), next(network.parameters()).device
    optimiser = torch.optim.Adam(network.parameters())
    plan = BatchPlan(len(dataset), batch_size, seed=0)
    feed = Feed(dataset, plan, device)
    feed.start(0, 0, workers)
    for step in range(WARM + TIMED):
        if step == WARM:
            start = time.perf_counter()
        batch, _ = feed.next(step % plan.batches)
        optimiser.zero_grad()
        value = loss(network, batch)
        value.backward()
        optimiser.step()
        float(value.detach())  # waits for the device
    seconds = (time.perf_counter() - start) / TIMED
    feed.stop()
    return seconds
