"""A student's forward pass is one graph: what torch.compile makes of it falls into no parts (``--compile``)."""

import pytest
import torch

from codes.fast import quicken
from codes.model.registry import NETWORKS, students
from codes.student import Sight

pytestmark = pytest.mark.slow

SETTINGS = [
    ("ldn", {}),
    ("ldn", {"gain": True}),
    ("ldn", {"spike_input": "pyramid", "gain": True}),
    ("sdmnet", {}),
    ("san", {"gain": True}),
]


def test_every_student_is_tried():
    assert {key for key, _ in SETTINGS} == set(students())


@pytest.mark.slow
@pytest.mark.parametrize("fast", [False, True], ids=["plain", "fast"])
@pytest.mark.parametrize("key, settings", SETTINGS)
def test_a_student_is_one_graph(key, settings, fast):
    """The backend 'eager' traces and compiles no kernel; fullgraph=True makes a break an error."""
    torch.manual_seed(0)
    network = NETWORKS[key].load_class()(**settings)
    network = quicken(network, torch.device("cpu")) if fast else network
    blur, spike = torch.rand(1, 3, 64, 64), (torch.rand(1, 137, 16, 16) < 0.4).to(torch.uint8)
    seen = Sight.of(network)(blur, spike, (44, 92))
    torch._dynamo.reset()
    traced = torch.compile(network, backend="eager", fullgraph=True)
    expected, output = network(blur, seen), traced(blur, seen)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-6)
    output.square().mean().backward()
    assert all(weight.grad is not None for weight in network.parameters())
