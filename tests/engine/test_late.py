"""A step that reads its numbers late, as on a GPU, against one that reads them at once; both with the fused optimiser.

All is tried on the CPU: only the copies of :class:`codes.engine.step.Later` need a GPU.
"""

import copy
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from codes.engine import run as run_module
from codes.engine.state import State
from codes.engine.step import DROPPED_IN_A_ROW, Step, reads_late
from codes.errors import InputError
from codes.labels import Distilled, fixed_instants
from codes.losses import TeacherLoss, reblur_loss
from codes.model.ldn_model import Deblur_Net
from codes.sdm import Teacher
from codes.student import Sight
from tests.conftest import ROOT, call, refused
from tests.engine.test_distributed import succeed
from tests.engine.test_run import MINI, faulty, mini, records, same, weights, without_time  # noqa: F401
from tests.engine.test_step import CPU, FAULTS, linear, loss_of

pytestmark = pytest.mark.slow


def make(late, on_nan="skip", network=None):
    network, said = network or linear(), []
    optimiser = torch.optim.Adam(network.parameters(), lr=1.0, fused=True)
    return Step(network, optimiser, CPU, "fp32", on_nan, said.append, late), network, said


def go(step, loss, number, limit=0.5, noted=None):
    step.backward(loss)
    step.clip(limit)
    step.update(
        0.1, f"step {number}", "all is well", None if noted is None else lambda why: noted.append((number, why))
    )


class NoReading(TorchDispatchMode):
    """Refuses what would wait for a GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func._schema.name not in ("aten::_local_scalar_dense", "aten::nonzero"), f"{func} waits"
        return func(*args, **(kwargs or {}))


def test_where_it_reads_late():
    assert reads_late(torch.device("cuda:1"), "bf16") and not reads_late(torch.device("cuda"), "fp16")
    assert not reads_late(CPU, "fp32")
    with pytest.raises(ValueError, match="needs a fused optimiser"):
        network = linear()
        Step(network, torch.optim.Adam(network.parameters()), CPU, late=True)


@pytest.mark.parametrize("terms", ["ssim", "l1"])
def test_nothing_in_the_last_stage_waits(terms):
    """Labels, forward pass, loss, gradient, clipping and update."""
    ldn = Deblur_Net(spike_input="pyramid", gain=True)
    step, _, _ = make(True, network=ldn)
    sight, source = Sight.of(ldn), Distilled(Teacher.plain(), fixed_instants(48))
    spike = (torch.rand(2, 137, 16, 16) < 0.4).to(torch.uint8)
    batch, instants = {"blur": torch.rand(2, 3, 64, 64), "spike": spike}, source.instants(0)
    with NoReading():
        students = ldn(batch["blur"], sight(batch["blur"], spike, instants))
        loss = TeacherLoss(terms)(students.clamp(0, 1), source.labels(batch, instants))
        go(step, loss + reblur_loss(students, batch["blur"]), 0)
    with pytest.raises(AssertionError, match="waits"), NoReading():
        loss.item()


@pytest.mark.parametrize("kind", FAULTS)
def test_late_drops_what_reading_at_once_drops(kind):
    """Weights, moments and their counts, what is said and what is noted: all the same, by the bit."""
    fault, _ = FAULTS[kind]
    ends = []
    for late in (False, True):
        step, network, said = make(late)
        noted = []
        for number in range(6):
            loss = fault(network) if number in (1, 3, 4) else loss_of(network, number)
            go(step, loss, number, noted=noted)
        step.settle()
        ends.append((network.state_dict(), step.optimiser.state_dict()["state"], said, noted, step.trouble))
    assert same(ends[0][0], ends[1][0])
    for key, state in ends[0][1].items():
        assert same(state, ends[1][1][key])
    assert ends[0][2:] == ends[1][2:] and [number for number, _ in ends[1][3]] == [1, 3, 4]


def test_a_stop_comes_one_step_late_and_no_later():
    step, network, _ = make(True, "stop")
    go(step, loss_of(network), 0)
    before = copy.deepcopy(network.state_dict())
    go(step, loss_of(network) * math.nan, 1)
    assert same(network.state_dict(), before)
    other = copy.deepcopy(step._unread)
    with pytest.raises(InputError, match="the loss is nan at step 1; all is well; "):
        go(step, loss_of(network), 2)
    step._unread, step._in_a_row = other, 0
    with pytest.raises(InputError, match="the loss is nan at step 1; all is well; "):
        step.settle()  # as before anything is saved


def test_dropped_in_a_row():
    step, network, _ = make(True)
    with pytest.raises(InputError, match="at step 99, the 100th in a row"):
        for number in range(DROPPED_IN_A_ROW + 1):
            go(step, loss_of(network) * math.inf, number)


def test_a_gradient_of_zero_is_told():
    step, network, said = make(True)
    for number in range(3):
        go(step, loss_of(network) * 0, number)
    assert len(said) == 1 and "the gradient is exactly 0" in said[0]


@pytest.fixture
def late(monkeypatch):
    """Chooses how runs read from now on; always with the fused optimiser."""
    monkeypatch.setattr(run_module.Run, "fused", True)
    return lambda yes: monkeypatch.setattr(run_module, "reads_late", lambda *_: yes)


@pytest.mark.parametrize("log_every", [1, 3])
def test_a_run_that_reads_late_is_one_that_reads_at_once(log_every, tiny, tmp_path, late, faulty):  # noqa: F811
    """Its weights, every line of metrics.jsonl, and its state; also where it is interrupted between two lines."""
    argv = ["--log_every", log_every, "--on_nan", "skip", "--lr_schedule", "cosine", "--grad_clip", 0.1]
    faulty({2, 7 + 2})  # one in the first run, one in the second
    late(False)
    call(MINI, *mini(tiny, tmp_path / "once", *argv, "--max_steps", 7))
    late(True)
    call(MINI, *mini(tiny, tmp_path / "late", *argv, "--max_steps", 7))
    assert same(weights(tmp_path / "once"), weights(tmp_path / "late"))
    assert without_time(tmp_path / "once") == without_time(tmp_path / "late")
    assert [record["step"] for record in records(tmp_path / "late", "dropped")] == [2]
    one, two = (State.read(tmp_path / name / "test/ckpts/state.pth") for name in ("once", "late"))
    assert (one.sums, one.dropped, one.step) == (two.sums, two.dropped, two.step)


def test_interrupted_equals_uninterrupted(tiny, tmp_path, late):
    """Stopped by a full state in the middle of an epoch and of the lines of the log."""
    argv = ["--lr_schedule", "constant", "--log_every", 3, "--state_every", 0, "--max_steps"]
    late(True)
    call(MINI, *mini(tiny, tmp_path / "whole", *argv, 7))
    for steps in (1, 4, 7):
        call(MINI, *mini(tiny, tmp_path / "cut", *argv, steps))
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def read_at_once():
    run_module.Run.fused = True


def read_late():
    run_module.Run.fused, run_module.reads_late = True, lambda *_: True


def test_ranks_that_read_late_are_those_that_read_at_once(server, tiny, tmp_path):
    """A last batch of one sample, which one rank has and the other has not."""
    argv = ["--bs", 1, "--grad_clip", 0.1, "--log_every", 2, "--max_steps", 5]
    for setup in (read_at_once, read_late):
        succeed(server, 2, MINI.relative_to(ROOT), *mini(tiny, tmp_path / setup.__name__, *argv), setup=setup)
    one, two = tmp_path / "read_at_once", tmp_path / "read_late"
    assert same(weights(one), weights(two)) and without_time(one) == without_time(two)
    assert [record["step"] for record in records(two, "train")] == [2, 4, 5]


def test_a_bad_step_is_in_no_state(tiny, tmp_path, late, faulty):  # noqa: F811
    """With a state after every batch the run stops before the bad step is in one."""
    faulty({3})
    late(True)
    err = refused(MINI, *mini(tiny, tmp_path, "--max_steps", 8, "--state_every", 0))
    assert "the loss is nan at step 3, samples " in err and "the last good state, of step 3, is intact" in err
    assert State.read(tmp_path / "test/ckpts/state.pth").step == 3


def test_a_state_of_a_cpu_goes_on_with_a_fused_optimiser(tiny, tmp_path, monkeypatch, late):
    argv = ["--lr_schedule", "constant", "--max_steps"]
    with monkeypatch.context() as plain:
        plain.setattr(run_module.Run, "fused", None)
        call(MINI, *mini(tiny, tmp_path, *argv, 2))
    late(True)
    call(MINI, *mini(tiny, tmp_path, *argv, 4))
    assert [record["step"] for record in records(tmp_path, "train")] == [1, 2, 3, 4]
