import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from codes.engine.step import DROPPED_IN_A_ROW, Step
from codes.errors import InputError

CPU = torch.device("cpu")


def linear():
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def make(network=None, precision="fp32", on_nan="stop", said=None):
    network = network or linear()
    said = [] if said is None else said
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    return Step(network, optimiser, CPU, precision, on_nan, said.append), network


def loss_of(network, seed=0):
    return network(torch.from_numpy(np.random.default_rng(seed).random((5, 4), np.float32))).square().sum()


def bad_gradient(network):
    """A loss that is finite, with a gradient that is not: the square root at 0."""
    value = loss_of(network)
    return value + (value - value.detach()).sqrt()


def go(step, loss, rate=0.1, limit=0.0):
    step.backward(loss)
    step.clip(limit)
    made = step.update(rate, "step 3, samples a, b", "the last good state is intact")
    step.settle()
    return made.fault


@pytest.mark.parametrize("limit", [0.0, 0.5, 1e6])
def test_a_step_is_that_of_plain_torch(limit):
    step, network = make()
    plain = copy.deepcopy(network)
    for index in range(3):
        assert go(step, loss_of(network, index), 0.1, limit) == ""
        optimiser = torch.optim.SGD(plain.parameters(), lr=0.1)
        optimiser.zero_grad()
        loss_of(plain, index).backward()
        if limit:
            nn.utils.clip_grad_norm_(plain.parameters(), limit)
        optimiser.step()
    for one, two in zip(network.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_norm_is_that_of_all_gradients():
    step, network = make()
    step.backward(loss_of(network))
    expected = math.sqrt(sum(p.grad.double().square().sum() for p in network.parameters()))
    assert step.clip(0.25) == pytest.approx(expected, rel=1e-5)
    clipped = math.sqrt(sum(p.grad.double().square().sum() for p in network.parameters()))
    assert clipped == pytest.approx(0.25, rel=1e-4)


FAULTS = {
    "nan": (lambda network: loss_of(network) * math.nan, "the loss is nan"),
    "inf": (lambda network: loss_of(network) + math.inf, "the loss is inf"),
    "gradient": (bad_gradient, "the gradient's norm is nan"),
}


@pytest.mark.parametrize("limit", [0.0, 1.0])
@pytest.mark.parametrize("kind", FAULTS)
def test_what_is_not_finite_stops_or_is_dropped(kind, limit):
    fault, words = FAULTS[kind]
    step, network = make()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(InputError, match=f"{words} at step 3, samples a, b; the last good .*--on_nan skip$"):
        go(step, fault(network), limit=limit)
    said = []
    step, network = make(network, on_nan="skip", said=said)
    assert go(step, fault(network), limit=limit) == words == step.fault
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert said == [f"WARNING: {words} at step 3, samples a, b: the step is dropped"]
    assert go(step, loss_of(network)) == "" and step.dropped == 1
    assert step.trouble == ["1 steps dropped whose loss or gradient was not finite"]
    assert any(not torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_steps_dropped_in_a_row_end_the_run():
    step, network = make(on_nan="skip")
    for _ in range(DROPPED_IN_A_ROW - 1):
        go(step, loss_of(network) * math.nan)
    go(step, loss_of(network))  # one that is made begins the count anew
    for _ in range(DROPPED_IN_A_ROW - 1):
        go(step, loss_of(network) * math.nan)
    with pytest.raises(InputError, match="the 100th in a row; .*--precision fp32$"):
        go(step, loss_of(network) * math.nan)


def test_a_gradient_of_zero_is_told_once():
    said = []
    step, network = make(said=said)
    for _ in range(3):
        step.backward(loss_of(network) * 0)
        assert step.clip(0.0) == 0
        step.update(0.1, "", "")
    assert len(said) == 1 and "the gradient is exactly 0" in said[0] and "--no-clip_output" in said[0]


@pytest.fixture
def scaler(monkeypatch):
    """A scaler for the CPU, as fp16 has one on a GPU."""
    real = torch.amp.GradScaler

    def use(scale):
        monkeypatch.setattr(torch.amp, "GradScaler", lambda *_, **__: real("cpu", init_scale=scale, enabled=True))

    return use


def test_overflows_of_fp16_lower_the_scale_and_are_counted(scaler):
    """Too large a first scale comes down before it lets a step pass; the step that passes is that of fp32."""
    scaler(2.0**127)
    step, network = make(precision="fp16")
    plain = copy.deepcopy(network)
    count = 0
    while step.overflows == count:
        assert go(step, loss_of(network) * 2.0**10) == ""
        count += 1
    count -= 1  # the last one was made
    assert count == round(math.log2(2.0**127 / step.scaler.get_scale())) == step.overflows > 3 and step.dropped == 0
    loss = loss_of(plain) * 2.0**10
    loss.backward()
    torch.optim.SGD(plain.parameters(), lr=0.1).step()
    for one, two in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("on_nan", ["stop", "skip"])
def test_a_gradient_that_no_scale_makes_finite(on_nan, scaler):
    """fp16's scaler alone would leave out every step to the end."""
    scaler(2.0**16)
    step, network = make(precision="fp16", on_nan=on_nan)
    for _ in range(DROPPED_IN_A_ROW - 1):
        assert go(step, bad_gradient(network)) == ""
    with pytest.raises(InputError, match="norm is nan whatever the scale of fp16 at .*100th in a row.*fp32$"):
        go(step, bad_gradient(network))
