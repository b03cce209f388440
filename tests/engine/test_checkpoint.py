import random

import pytest
import torch

from codes.engine.checkpoint import load_weights, read, save
from codes.model.bsn_model import BSN
from codes.model.edsr_model import EDSR
from codes.model.ldn_model import Deblur_Net
from codes.model.registry import network_of

NOISE = random.Random(0).randbytes(5000)


def test_another_network_is_named(tmp_path):
    save(EDSR().state_dict(), tmp_path / "a.pth")
    words = r"a.pth does not fit BSN: it looks like the weights of EDSR; it lacks keys unet\S+ and \d+ more; [^\n]*$"
    with pytest.raises(ValueError, match=words):
        load_weights(BSN(), tmp_path / "a.pth")


@pytest.mark.parametrize(("wanted", "given"), [("sdmnet_light", "sdmnet"), ("sdmnet", "sdmnet_light")])
def test_a_relative_is_named(wanted, given, tmp_path):
    wanted, given = network_of(wanted), network_of(given)
    save(given.load_class()().state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=f"it looks like the weights of {given.title};"):
        load_weights(wanted.load_class()(), tmp_path / "a.pth")


def test_other_shapes_and_keys_are_named(tmp_path):
    save(Deblur_Net(spike_dim=11).state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"spike_enc.0.weight has shape \(16, 11, 3, 3\), expected \(16, 21, 3, 3\)$"):
        load_weights(Deblur_Net(), tmp_path / "a.pth")
    state = BSN().state_dict()
    state["extra"] = state.pop("nin_C.weight")
    save(state, tmp_path / "b.pth")
    with pytest.raises(ValueError, match="it lacks key nin_C.weight; it has the unknown key extra"):
        load_weights(BSN(), tmp_path / "b.pth")


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"PK\x03\x04 broken", NOISE, b"<html>404</html>", b"\x80\x02.", b"PK\x05\x06" + bytes(18)],
)
def test_no_checkpoint(content, tmp_path):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match="a.pth (is no PyTorch checkpoint|holds)"):
        load_weights(BSN(), tmp_path / "a.pth")


@pytest.mark.parametrize("content", [{}, [1], {"a": 1}, torch.zeros(3), {"state_dict": {"a": 1}}])
def test_no_state_dict(content, tmp_path):
    save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        load_weights(BSN(), tmp_path / "a.pth")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*; fetch it"):
        read(tmp_path / "none.pth", "fetch it")


def test_a_failed_save_leaves_the_old_file(tmp_path):
    save({"a": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(AttributeError):
        save({"a": lambda: 0}, tmp_path / "a.pth")  # a local function cannot be pickled
    assert torch.equal(read(tmp_path / "a.pth")["a"], torch.ones(2))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]
