import pytest
import torch

from codes.engine.device import autocast, choose_device, compiled, describe, place, settled
from codes.engine.options import CropsConfig


def test_choices():
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("auto").type == best
    assert choose_device("cpu") == torch.device("cpu") and "threads" in describe(torch.device("cpu"))
    for name in ("gpu", "cpu:1", "cuda:x", "cuda:²", ""):
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
    with pytest.raises(ValueError, match="tf32 needs an NVIDIA GPU, not cpu"):
        autocast(torch.device("cpu"), "tf32")


@pytest.mark.parametrize("native", [False, True])
def test_precision_that_suits_the_device(native, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    for kind in ("cpu", "cuda"):
        found = settled(CropsConfig(precision="auto"), torch.device(kind))
        assert found == CropsConfig(precision="bf16" if native else "fp32")
        assert settled(CropsConfig(precision="fp16"), torch.device(kind)).precision == "fp16"
    assert settled(CropsConfig(precision="auto"), torch.device("mps")).precision == "fp32"


@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize("precision, rounds", [("fp32", False), ("tf32", True), ("bf16", True), ("fp16", True)])
def test_what_float32_products_are_rounded_to(precision, rounds):
    """It holds after the context too, where the gradient is computed; on a CPU nothing is touched."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    try:
        for given in (True, False):
            cudnn.allow_tf32 = matmul.allow_tf32 = given
            with autocast(torch.device("cpu"), "fp32"):
                pass
            assert (cudnn.allow_tf32, matmul.allow_tf32) == (given, given)
            context = autocast(torch.device("cuda"), precision)
            assert (cudnn.allow_tf32, matmul.allow_tf32) == (rounds, rounds)
            assert isinstance(context, torch.autocast) == (precision in ("bf16", "fp16"))
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def test_placing_changes_the_layout_not_the_weights():
    network = torch.nn.Conv2d(4, 4, 3)
    before = network.weight.detach().clone()
    assert place(network, torch.device("cpu")).weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(network.weight, before)


@pytest.mark.parametrize(("precision", "last"), [("fp32", False), ("tf32", True), ("bf16", True)])
def test_the_layout_of_a_gpu(precision, last, monkeypatch):
    """Measured on an H200: EDSR's step in fp32 takes 147 ms channels-last, 34 ms otherwise."""
    network = torch.nn.Conv2d(4, 4, 3)
    monkeypatch.setattr(
        network, "to", lambda device, memory_format: torch.nn.Module.to(network, memory_format=memory_format)
    )
    placed = place(network, torch.device("cuda"), precision)
    assert placed.weight.is_contiguous(memory_format=torch.channels_last) == last
    assert placed.weight.is_contiguous() != last


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


@pytest.mark.slow
def test_compiled_falls_back_where_the_gradient_alone_cannot_be_compiled(monkeypatch):
    """A backend that runs graphs as they are, but has no way for those of gradients."""
    config = pytest.importorskip("torch._functorch.config")
    if not hasattr(config, "force_non_lazy_backward_lowering"):
        pytest.skip("this PyTorch compiles gradients within backward()")
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    def fails(_graph, _inputs):
        raise RuntimeError("no Triton")

    backend = aot_autograd(fw_compiler=lambda graph, _inputs: make_boxed_func(graph.forward), bw_compiler=fails)
    compile_, said = torch.compile, []
    monkeypatch.setattr(torch, "compile", lambda network: compile_(network, backend=backend))
    linear = torch.nn.Linear(3, 2)
    compiled(linear, said.append)(torch.ones(1, 3)).sum().backward()
    assert torch.equal(linear.weight.grad, torch.ones(2, 3)) and len(said) == 1 and "no Triton" in said[0]


def test_a_gpu_by_number_is_the_current_one(monkeypatch):
    """Stand-ins for two GPUs."""
    current = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert choose_device("cuda:1") == torch.device("cuda", 1) and current == [1]
    assert choose_device("cuda") == torch.device("cuda") and current == [1]
