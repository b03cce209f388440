import pytest
import torch

from codes.device import autocast, choose_device, describe, place


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
