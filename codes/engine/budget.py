"""How many optimiser steps a time is: timed once, at the beginning of a run that may then be continued."""

import copy
import os
import time
from collections.abc import Callable
from statistics import fmean

import torch
from torch import nn

TIMED = 3
"""Steps that are timed, after one that is not."""


def seconds_of_step(
    network: nn.Module, dataset, batch_size: int, loss: Callable[[nn.Module, dict], torch.Tensor]
) -> float:
    """Seconds that a training step takes, its batch included, by a few steps of a copy of the network.

    Args:
        network: on its device; it is not changed.
        dataset: of dictionaries of tensors and names.
        batch_size: samples in a batch.
        loss: of a network and a batch on the network's device.
    """
    network, device = copy.deepcopy(network).train(), next(network.parameters()).device
    optimiser = torch.optim.Adam(network.parameters())
    loading, learning = [], []
    for step in range(1 + TIMED):
        start = time.perf_counter()
        indices = [(step * batch_size + i) % len(dataset) for i in range(batch_size)]
        batch = torch.utils.data.default_collate([dataset[index] for index in indices])
        middle = time.perf_counter()
        batch = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
        optimiser.zero_grad()
        value = loss(network, batch)
        value.backward()
        optimiser.step()
        float(value.detach())  # waits for the device
        loading.append(middle - start)
        learning.append(time.perf_counter() - middle)
    # Loader processes share the cores with the training.
    return fmean(learning[1:]) + fmean(loading[1:]) / min(os.cpu_count() or 1, 4)
