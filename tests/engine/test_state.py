import dataclasses

import pytest
import torch

from codes.engine import device
from codes.engine.state import FORMAT, State
from codes.errors import InputError
from tests.conftest import call, refused
from tests.engine.test_run import MINI, mini


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """A run of one step: its state, and the options that go on with it."""
    folder = tmp_path_factory.mktemp("trained")
    argv = mini(tiny, folder, "--lr_schedule", "constant", "--log_every", 5, "--max_steps")
    call(MINI, *argv, 1)
    return folder / "test/ckpts/state.pth", argv


def test_a_state_comes_back_as_it_was(trained, tmp_path):
    state = State.read(trained[0])
    state.save(tmp_path / "a.pth")
    again = State.read(tmp_path / "a.pth")
    for field in dataclasses.fields(State):
        one, two = getattr(state, field.name), getattr(again, field.name)
        assert str(one) == str(two), field.name
    assert (state.step, state.total, state.epoch, state.batch, state.done) == (1, 1, 0, 1, True)
    assert set(state.run) == {"recipe", "ranks", "samples", "names"} and state.run["samples"] == 3
    content = torch.load(trained[0], weights_only=True)
    assert content["format"] == FORMAT and content["step"] == 1


OTHERS = {
    "step": [-5, True], "epoch": [-1], "batch": [99, -1], "total": [-1],
    "logs": [{"metrics.jsonl": -3}, {"results.txt": "x"}],
    "weights": [{}, {"a": torch.zeros(2)}], "rng": [{}, {"cpu": torch.zeros(3, dtype=torch.uint8)}, {"cpu": 3}],
    "optimiser": [{}, {"state": {}, "param_groups": []}], "sums": [{"loss": "x"}], "skipped": [{"a": "x"}],
    "run": [{}, {"recipe": {}, "ranks": 1, "samples": 3}], "format": [1, 3],
}  # fmt: skip


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(State)])
def test_a_damaged_state_is_refused(key, trained):
    """Each part of it missing, of another type or out of range: one line, and the file as it was."""
    path, argv = trained
    whole = path.read_bytes()
    state = torch.load(path, weights_only=True)
    spoilt = [{**state, key: value} for value in ("text", None, *OTHERS.get(key, []))]
    spoilt.append({name: value for name, value in state.items() if name != key})
    try:
        for damaged in spoilt:
            torch.save(damaged, path)
            before = path.read_bytes()
            err = refused(MINI, *argv, 2)
            assert "training state" in err or "of another version of this program" in err, (damaged.get(key), err)
            assert path.read_bytes() == before
    finally:
        path.write_bytes(whole)


def test_a_state_from_before_streams_had_a_purpose(trained, tmp_path):
    """Its crops and order were others: going on would be a third run, so it says why not."""
    state = torch.load(trained[0], weights_only=True)
    old = {key: state[key] for key in ("weights", "optimiser", "scaler", "step", "epoch", "batch", "sums", "seconds")}
    old |= {"recipe": {}, "samples": 3, "rng": torch.get_rng_state(), "done": False, "logs": state["logs"]}
    torch.save(old, tmp_path / "state.pth")
    with pytest.raises(InputError, match="another version of this program, which drew crops, order and instants from"):
        State.read(tmp_path / "state.pth")


@pytest.mark.parametrize("content", [[1, 2], {"a": torch.zeros(2)}])
def test_a_file_of_another_kind(content, tmp_path):
    torch.save(content, tmp_path / "state.pth")
    with pytest.raises(InputError, match="is no training state of this program"):
        State.read(tmp_path / "state.pth")


def test_every_devices_random_state_is_kept(monkeypatch):
    """Of a GPU that stands for one: its state is taken and put back, on its own device."""
    kept, cuda = {}, torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda where: torch.tensor([where.index], dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, where: kept.update({where: state.item()}))
    torch.manual_seed(5)
    states = device.random_states(cuda)
    expected = torch.rand(4)
    assert set(states) == {"cpu", "cuda"} and set(device.random_states(torch.device("cpu"))) == {"cpu"}
    device.restore_random_states(states, cuda)
    assert torch.equal(torch.rand(4), expected) and kept == {cuda: 1}
    device.restore_random_states({"cpu": states["cpu"]}, cuda)  # a run that was on a CPU before
    device.restore_random_states(states, torch.device("cpu"))
    assert torch.equal(torch.rand(4), expected)
