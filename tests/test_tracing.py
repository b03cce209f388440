"""A network's forward pass is one graph: what torch.compile makes of it falls into no parts (``--compile``).

And every weight is in it, which DistributedDataParallel is told (:func:`codes.engine.distributed.wrap`).
"""

import pytest
import torch

from codes.baselines import adapters
from codes.fast import quicken
from codes.model.registry import NETWORKS, students
from codes.student import Sight
from tests.conftest import filled

pytestmark = pytest.mark.slow

SETTINGS = [
    ("ldn", {}),
    ("ldn", {"gain": True}),
    ("ldn", {"spike_input": "pyramid", "gain": True}),
    ("sdmnet", {}),
    ("sdmnet_light", {}),
    ("san", {"gain": True}),
    ("bsn", {}),
    ("edsr", {}),
    ("stir", {}),
    ("spkdeblurnet", {}),
]


def test_every_network_is_tried():
    assert {key for key, _ in SETTINGS} == set(NETWORKS)


def inputs(key, network):
    """What a network is given, as small as it takes."""
    side = 96 if key == "spkdeblurnet" else 64
    blur, spike = torch.rand(1, 3, side, side), (torch.rand(1, 137, side // 4, side // 4) < 0.4).to(torch.uint8)
    if key in students():
        return blur, Sight.of(network)(blur, spike, (44, 92))
    if key == "spkdeblurnet":
        return adapters.spkdeblurnet_input(network, blur, spike, 68)
    return ((torch.rand(2, 61, 64, 64) < 0.4).float(),) if key == "stir" else (torch.rand(1, 1, 16, 16),)


def parts(output):
    return output if isinstance(output, tuple | list) else [output]


HAVE_FAST_FORMS = ("bsn", "edsr", "ldn", "san")
CASES = [(*case, False) for case in SETTINGS] + [(*case, True) for case in SETTINGS if case[0] in HAVE_FAST_FORMS]


@pytest.mark.parametrize("key, settings, fast", CASES)
def test_a_network_is_one_graph_with_every_weight(key, settings, fast):
    """The backend 'eager' traces and compiles no kernel; fullgraph=True makes a break an error."""
    torch.manual_seed(0)
    network = filled(NETWORKS[key].load_class()(**settings)).train()
    network = quicken(network, torch.device("cpu")) if fast else network
    given = inputs(key, network)
    torch._dynamo.reset()
    traced = torch.compile(network, backend="eager", fullgraph=True)
    expected, outputs = parts(network(*given)), parts(traced(*given))
    for output, wanted in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output, wanted, rtol=1e-6, atol=1e-6)
    sum(output.square().mean() for output in outputs).backward()
    unused = any(weight.grad is None for weight in network.parameters() if weight.requires_grad)
    assert unused == getattr(network, "unused_parameters", False)
