import os

import pytest
import torch

from codes.engine.checkpoint import load_weights, read, save
from codes.model.bsn_model import BSN
from codes.model.edsr_model import EDSR
from codes.model.ldn_model import Deblur_Net


def test_authors_and_reference_files(golden_full):
    load_weights(Deblur_Net(), golden_full / "official" / "DeblurNet_100.pth")
    for name, network in (("BSN", BSN()), ("SR", EDSR()), ("LDN", Deblur_Net())):
        path = golden_full / "reference_run" / f"{name}.pth"
        state = torch.load(path, weights_only=True)
        for key, value in load_weights(network, path).state_dict().items():
            assert torch.equal(value, state[key])


def test_module_prefix_is_stripped(tmp_path):
    network = Deblur_Net()
    save({"module." + key: value for key, value in network.state_dict().items()}, tmp_path / "a.pth")
    loaded = load_weights(Deblur_Net(), tmp_path / "a.pth").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in network.state_dict().items())


def test_another_network_is_named(tmp_path):
    save(EDSR().state_dict(), tmp_path / "a.pth")
    with pytest.raises(
        ValueError, match=r"a.pth does not fit BSN: it looks like the weights of EDSR; it lacks keys unet"
    ) as error:
        load_weights(BSN(), tmp_path / "a.pth")
    assert "\n" not in str(error.value)


def test_other_shapes_and_keys_are_named(tmp_path):
    save(Deblur_Net(spike_dim=11).state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"spike_enc.0.weight has shape \(16, 11, 3, 3\), expected \(16, 21, 3, 3\)$"):
        load_weights(Deblur_Net(), tmp_path / "a.pth")
    state = BSN().state_dict()
    state["extra"] = state.pop("nin_C.weight")
    save(state, tmp_path / "b.pth")
    with pytest.raises(ValueError, match="it lacks key nin_C.weight; it has the unknown key extra"):
        load_weights(BSN(), tmp_path / "b.pth")


class Trap:
    """Makes a folder when unpickled by a loader that executes code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_executed(zipped, tmp_path):
    torch.save(
        {"nin_A.weight": Trap(str(tmp_path / "trap"))}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(ValueError, match="Python objects"):
        load_weights(BSN(), tmp_path / "a.pth")
    assert not (tmp_path / "trap").exists()
    torch.load(tmp_path / "a.pth", weights_only=False)  # the trap works
    assert (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"PK\x03\x04 broken", os.urandom(5000), b"<html>404</html>", b"\x80\x02.", b"PK\x05\x06" + bytes(18)],
)
def test_no_checkpoint(content, tmp_path):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match="a.pth (is no PyTorch checkpoint|holds)"):
        load_weights(BSN(), tmp_path / "a.pth")


def test_truncated_checkpoint(tmp_path):
    save(BSN().state_dict(), tmp_path / "a.pth")
    content = (tmp_path / "a.pth").read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / "a.pth").write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match="damaged"):
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
