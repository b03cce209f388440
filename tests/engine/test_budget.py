"""Steps in a time."""

import os
import time

import pytest
import torch

from codes.engine.budget import TIMED, seconds_of_step


class Slow(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        time.sleep(0.02)
        return {"name": str(index), "x": torch.ones(4), "process": os.getpid()}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_step_is_timed_with_its_batch_and_changes_nothing(workers):
    """Batches come from where they will come from in training."""
    network, processes = torch.nn.Linear(4, 1), []
    before = [value.clone() for value in network.parameters()]

    def loss(net, batch):
        time.sleep(0.01)
        assert batch["x"].shape == (2, 4)
        processes.append(batch["process"][0].item())
        return net(batch["x"]).square().mean()

    seconds = seconds_of_step(network, Slow(), 2, loss, workers)
    assert seconds > (0.01 if workers else 2 * 0.02 + 0.01)  # what sleeps alone take; ahead of them a loader may be
    assert len(processes) > TIMED and len(set(processes)) == 1 and (processes[0] == os.getpid()) == (workers == 0)
    assert all(torch.equal(value, now) for value, now in zip(before, network.parameters(), strict=True))
