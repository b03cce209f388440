"""Steps in a time."""

import time

import torch

from codes.engine.budget import seconds_of_step


def test_a_step_is_timed_with_its_batch_and_changes_nothing():
    class Slow(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            time.sleep(0.02)
            return {"name": str(index), "x": torch.ones(4)}

    network = torch.nn.Linear(4, 1)
    before = [value.clone() for value in network.parameters()]

    def loss(net, batch):
        time.sleep(0.05)
        assert batch["x"].shape == (2, 4)
        return net(batch["x"]).square().mean()

    assert 0.05 + 2 * 0.02 < seconds_of_step(network, Slow(), 2, loss, workers=0) < 1
    assert 0.05 < seconds_of_step(network, Slow(), 2, loss, workers=2) < 1
    assert all(torch.equal(value, now) for value, now in zip(before, network.parameters(), strict=True))
