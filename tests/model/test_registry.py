"""One record for a network: everything else follows from it."""

import subprocess
import sys

import pytest
import torch

from codes.engine.checkpoint import looks_like, unwrapped
from codes.engine.weights import SHIPPED, load_network, load_student
from codes.errors import InputError
from codes.inference.methods import methods
from codes.model.ldn_model import Deblur_Net
from codes.model.registry import NETWORKS, method_names, method_of, network_of, student_of
from tests.conftest import filled, rnd


@pytest.mark.slow
@pytest.mark.parametrize("key", NETWORKS)
def test_a_file_is_recognised_by_its_keys(key, tmp_path):
    network = NETWORKS[key].load_class()()
    torch.save(network.state_dict(), tmp_path / "a.pth")
    assert looks_like(network.state_dict()) is NETWORKS[key]
    again = load_network(key, tmp_path / "a.pth")
    assert type(again) is type(network)
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


@pytest.mark.parametrize("key", [key for key, network in NETWORKS.items() if network.role == "student"])
def test_a_student_does_what_students_do(key):
    """forward is encode once and decode for each instant; spikes of several instants come in one tensor."""
    torch.manual_seed(0)
    student = filled(NETWORKS[key].load_class()())
    blur = rnd(2, 3, 64, 128)
    spike = (torch.rand(2, 2, student.spike_dim, 16, 32) < 0.4).float()
    with torch.no_grad():
        whole = student(blur, spike)
        image = student.encode(blur)
        parts = torch.stack([student.decode(blur, image, spike[:, m]) for m in range(2)], dim=1)
    assert whole.shape == (2, 2, 3, 64, 128)
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-5)


def test_shipped_weights_are_those_of_the_records():
    shipped = {path.name for path in SHIPPED.glob("*_photo.pth")}
    first = {network.files[0] for network in NETWORKS.values() if "_photo" in network.files[0]}
    assert shipped == first | {"BSN21_photo.pth"}  # of another window, so of no method


def test_the_registry_imports_no_torch():
    code = "import sys, codes.model.registry; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=SHIPPED.parent)


def test_unknown_keys_name_the_known_ones():
    with pytest.raises(InputError, match="student 'edsr'; expected one of ldn, sdmnet, sdmnet_light, san"):
        network_of("edsr", "student")


PLAIN = {"a.weight": torch.zeros(2), "b.bias": torch.ones(3)}


@pytest.mark.parametrize(
    "wrapped",
    [
        PLAIN,
        {f"module.{key}": value for key, value in PLAIN.items()},
        {f"module._orig_mod.{key}": value for key, value in PLAIN.items()},
        {f"_orig_mod.module.{key}": value for key, value in PLAIN.items()},
        {"params": PLAIN},
        {"params": {key: value + 1 for key, value in PLAIN.items()}, "params_ema": PLAIN},
        {"state_dict": {f"model.{key}": value for key, value in PLAIN.items()}, "epoch": 3, "hyper_parameters": {}},
        {"model": {"state_dict": PLAIN}, "optimizer": {}},
        {"recipe": {}, "weights": PLAIN, "optimiser": {}},
    ],
)
def test_what_other_programs_wrap_around_weights_is_taken_off(wrapped):
    found, taken = unwrapped(wrapped)
    assert bool(taken) == (wrapped is not PLAIN)
    assert found.keys() == PLAIN.keys() and all(torch.equal(found[key], PLAIN[key]) for key in PLAIN)


def test_what_is_no_wrapping_stays():
    for other in ({"net.a": torch.zeros(1), "b": torch.zeros(1)}, {}, [1], {"params": 3}, {1: torch.zeros(1)}):
        assert unwrapped(other)[0] is other


def test_a_wrapped_file_of_a_student(tmp_path, capsys):
    ldn = filled(Deblur_Net(21, "pyramid", gain=True))
    torch.save({"params_ema": {f"module.{k}": v for k, v in ldn.state_dict().items()}}, tmp_path / "a.pth")
    again = load_student(tmp_path / "a.pth")
    assert (again.kind, again.gain) == ("pyramid", True)
    assert torch.equal(again.pred.weight, ldn.pred.weight)
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == f"{tmp_path / 'a.pth'}: weights found behind ['params_ema'] 'module.'"
    )


def test_the_methods_are_those_of_the_registry():
    assert list(methods()) == method_names()


def test_who_deblurs_where_no_method_is_named():
    assert student_of([]) == student_of(["bsn"]) == student_of(["bsn", "sdmnet"]) == "sdmnet"
    assert student_of(["deblur"]) == "ldn"
    assert (method_of([]), method_of(["deblur"])) == ("sdmnet_motion", "ldn_motion")
    with pytest.raises(InputError, match=r"weights of LDN and SDMNet; say by which --method"):
        student_of(["sdmnet", "deblur"])
