"""What the tests of the fast forms share: a network against itself in its fast form, in value and gradient."""

import copy

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from codes.fast import FAST, quicken

CPU = torch.device("cpu")


def image(*shape):
    """float64 random numbers in [0, 1]: rounding could otherwise flip a ReLU or a maximum and hide a fault."""
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def fast_form(network):
    """A copy in its fast form."""
    found = quicken(copy.deepcopy(network), CPU)
    assert {type(module) for module in found.modules()} & set(FAST.values())
    return found


def results(network, run):
    """Output, and the gradients of a weighted sum of it by all inputs and parameters."""
    network.zero_grad()
    output, inputs = run(network)
    weights = torch.linspace(0.1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    (output * weights).sum().backward()
    slopes = [x.grad for x in (*inputs, *(p for p in network.parameters() if p.requires_grad))]
    assert len(slopes) > 4
    return [output.detach(), *slopes]


def agree(network, *inputs, call=None, rtol=1e-9):
    """The plain and the fast form give the same, in float64.

    Args:
        network: in its plain form.
        inputs: of the network; those with floating numbers get gradients.
        call: from the network and the inputs to one tensor; by default the network's own.
        rtol: largest difference, relative to the largest value of each tensor.
    """

    def run(net):
        leaves = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
        return (call or (lambda net, *given: net(*given)))(net, *leaves), [x for x in leaves if x.requires_grad]

    network = network.double()
    for mine, theirs in zip(results(fast_form(network), run), results(network, run), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=rtol * theirs.abs().max().item())
        assert theirs.abs().max() > 0


def agree_in_bf16(network, *inputs, call=None):
    """Under autocast the fast form is as near to float32 as the plain one is, in value and gradient."""

    def run(net):
        output = (call or (lambda net, *given: net(*given)))(net, *inputs)
        return output.float(), []

    exact = results(network, run)
    with torch.autocast("cpu", torch.bfloat16):
        coarse, fast = results(network, run), results(fast_form(network), run)

    def distance(found):
        return [((mine - theirs).norm() / theirs.norm()).item() for mine, theirs in zip(found, exact, strict=True)]

    for plain_error, fast_error in zip(distance(coarse), distance(fast), strict=True):
        assert fast_error < 2 * plain_error + 0.01


def multiplications(network, *inputs):
    """Multiply-adds of a call."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return counter.get_total_flops() / 2
