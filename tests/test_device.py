import pytest
import torch

from codes.device import autocast, choose_device, compiled, describe, place


def test_choices():
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("auto").type == best
    assert choose_device("cpu") == torch.device("cpu") and "threads" in describe(torch.device("cpu"))
    for name in ("gpu", "cpu:1", "cuda:x", ""):
        with pytest.raises(ValueError, match="expected auto, cpu"):
            choose_device(name)
    with pytest.raises(ValueError, match="CUDA device"):
        choose_device("cuda:99")


def test_precisions():
    a = torch.ones(4, 4)
    for precision, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with autocast(torch.device("cpu"), precision):
            assert (a @ a).dtype == kind
    with pytest.raises(ValueError, match="needs a GPU"):
        autocast(torch.device("cpu"), "fp16")


def test_placing_changes_the_layout_not_the_weights():
    network = torch.nn.Conv2d(4, 4, 3)
    before = network.weight.detach().clone()
    assert place(network, torch.device("cpu")).weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(network.weight, before)


def test_compiled_falls_back_and_says_so(monkeypatch):
    """A failure of the compiler costs one line; an error of the network itself still shows."""
    said = []

    def broken(_network):
        def call(_x):
            raise RuntimeError("no C++ compiler\nfound")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    net = compiled(torch.nn.Linear(3, 2), said.append)
    assert net(torch.zeros(1, 3)).shape == (1, 2) and net(torch.zeros(4, 3)).shape == (4, 2)
    assert said == ["--compile: torch.compile failed, the run goes on without it (no C++ compiler found)"]
    with pytest.raises(RuntimeError, match="shapes"):
        net(torch.zeros(1, 4))


def test_compiled_is_used(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network: lambda x: 10 * network(x))
    linear = torch.nn.Linear(3, 2)
    x = torch.rand(1, 3)
    assert torch.equal(compiled(linear, print)(x), 10 * linear(x))
