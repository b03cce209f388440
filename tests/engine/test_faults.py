"""What goes wrong during a run: bad samples, numbers that are not finite, what a killed process leaves."""

import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional as F

from codes.cache import ArrayCache, stamp
from codes.files import remove_abandoned, replacing
from codes.image import write_image
from codes.making.preparation import SpikeRecorder
from codes.spike import write_dat
from tests.conftest import ROOT, call, options, refused

SHORT = ["--eval_every", 0, "--log_every", 1]


def records(folder, kind):
    lines = (folder / "test" / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def spoil(copy, split="train"):
    """A picture that is none, and one that is gone; of the names of the two samples."""
    paths = sorted(copy.glob(f"{split}/blur_data/*/*.png"))
    paths[0].write_bytes(b"no image")
    paths[1].unlink()
    return [f"{path.parent.name}/{path.stem}" for path in paths[:2]]


def test_bad_samples_are_skipped_and_counted(copy, tmp_path):
    names = spoil(copy)
    argv = options("train_sr.py", copy, tmp_path, *SHORT, "--bs", 1, "--lr_schedule", "constant")
    err = refused("train_sr.py", *argv, "--max_steps", 1)
    assert names[1] in err and "has no blur_data" in err and not (tmp_path / "test").exists()
    # One good sample of three: a step an epoch; the others are met once an epoch, before it or after it.
    out, _ = call("train_sr.py", *argv, "--skip_bad_samples", "--max_steps", 2, "--state_every", 0)
    assert f"WARNING: skipped {names[0]}: " in out and "is no image that can be decoded" in out
    out, _ = call("train_sr.py", *argv, "--skip_bad_samples", "--max_steps", 4)
    assert f"WARNING: skipped {names[0]}" not in out  # said once
    order = [np.random.default_rng((42, epoch)).permutation(3).tolist() for epoch in range(4)]
    met = sum(order[epoch].index(bad) < order[epoch].index(2) or epoch < 3 for epoch in range(4) for bad in (0, 1))
    assert f"2 samples that could not be read skipped {met} times ({', '.join(sorted(names))})" in out
    assert [record["step"] for record in records(tmp_path, "train")] == [1, 2, 3, 4]
    assert sorted(record["sample"] for record in records(tmp_path, "skipped")) == sorted(names)


def test_a_data_set_of_bad_samples_ends(copy, tmp_path):
    for path in copy.glob("train/blur_data/*/*.png"):
        path.write_bytes(b"no image")
    argv = options("train_sr.py", copy, tmp_path, *SHORT, "--skip_bad_samples", "--max_steps", 2, "--workers", 1)
    assert "no sample of" in refused("train_sr.py", *argv)


def test_bad_samples_of_a_test(tiny, copy, tmp_path, checkpoints):
    argv = ["--test_mode", "--data_type", "GOPRO", "--bsn_path", checkpoints / "BSN_1000.pth", "--workers", 0]
    call("train_bsn.py", *argv, "--base_folder", tiny, "--save_folder", tmp_path / "whole")
    bad = sorted(copy.glob("test/sharp_data/*/*.png"))
    path = copy / "test/spike_data" / sorted(p.parent.name for p in copy.glob("test/spike_data/*/*.dat"))[0]
    (dat,) = path.glob("*.dat")
    dat.write_bytes(dat.read_bytes()[:-7])
    assert bad and "truncated" in refused("train_bsn.py", *argv, "--base_folder", copy, "--save_folder", tmp_path / "a")
    out, _ = call("train_bsn.py", *argv, "--base_folder", copy, "--save_folder", tmp_path / "b", "--skip_bad_samples")
    name = f"{dat.parent.name}/{dat.stem}"
    assert f"skipped {name}: " in out and "1 samples, " in out
    read = lambda run: json.loads((tmp_path / run / "test/test_mode/results.json").read_text())  # noqa: E731
    whole, rest = read("whole"), read("b")
    assert list(rest["skipped"]) == [name] and whole["skipped"] == {} and rest["samples"] == 1
    for row, values in rest["rows"].items():
        (other,) = values["per_sample"]
        assert other != name and values["per_sample"][other] == whole["rows"][row]["per_sample"][other]
        assert values["psnr"] == pytest.approx(whole["rows"][row]["per_sample"][other]["psnr"])


@pytest.fixture
def faulty(monkeypatch):
    """Makes the loss of chosen steps (counted from 0) something else; returns the function that chooses them."""
    real, chosen, count = F.mse_loss, {}, [0]

    def loss(*inputs):
        value = real(*inputs)
        value = chosen.get(count[0], lambda v: v)(value)
        count[0] += 1
        return value

    monkeypatch.setattr(F, "mse_loss", loss)
    return chosen.update


def bad_gradient(value):
    """A loss that is finite, with a gradient that is not: the square root at 0."""
    return value + (value - value.detach()).sqrt() * 0.5


def test_a_loss_that_is_no_number_stops_the_run(tiny, tmp_path, faulty):
    faulty({3: lambda value: value * math.nan})
    argv = options("train_sr.py", tiny, tmp_path, *SHORT, "--max_steps", 8, "--state_every", 0)
    err = refused("train_sr.py", *argv)
    state = torch.load(tmp_path / "test/ckpts/state.pth", weights_only=True)
    assert "the loss is nan at step 3, samples " in err and "the last good state, of step 3, is intact" in err
    assert state["step"] == 3 and all(value.isfinite().all() for value in state["weights"].values())
    assert not (tmp_path / "test/ckpts/SR_last.pth").exists()


@pytest.mark.parametrize("fault", [lambda value: value * math.nan, lambda value: value + math.inf, bad_gradient])
def test_dropped_steps(fault, tiny, tmp_path, faulty):
    """The weights are those of the steps that were made; the dropped ones are logged and counted."""
    argv = options("train_sr.py", tiny, tmp_path, *SHORT, "--lr_schedule", "constant", "--on_nan", "skip")
    argv += ["--bs", 3, "--use_small", "--save_every", 1, "--max_steps"]  # one sample, one step an epoch
    faulty({2: fault, 3: fault})
    out, _ = call("train_sr.py", *argv, 5)
    assert "2 steps dropped whose loss or gradient was not finite" in out and out.count("WARNING") == 2
    read = lambda epoch: torch.load(tmp_path / f"test/ckpts/SR_{epoch}.pth", weights_only=True)  # noqa: E731
    same = lambda one, two: all(torch.equal(value, two[key]) for key, value in one.items())  # noqa: E731
    assert same(read(1), read(2)) and same(read(2), read(3)) and not same(read(3), read(4))
    assert all(value.isfinite().all() for value in read(4).values())
    assert [("loss" in record) for record in records(tmp_path, "train")] == [True, True, False, False, True]
    assert [record["step"] for record in records(tmp_path, "dropped")] == [2, 3]
    assert "2 steps dropped" in call("train_sr.py", *argv, 6)[0]  # the count outlives the process


def test_a_run_that_does_not_recover_ends(tiny, tmp_path, faulty):
    faulty({step: lambda value: value * math.nan for step in range(200)})
    argv = options("train_sr.py", tiny, tmp_path, *SHORT, "--max_steps", 150, "--on_nan", "skip")
    assert "at step 99, samples" in refused("train_sr.py", *argv)


def test_overflows_of_fp16_are_counted(tiny, tmp_path, monkeypatch, faulty):
    """A scaler whose first scale is too large for float32 has to come down before it lets a step pass."""
    faulty({step: lambda value: value * 2.0**20 for step in range(30)})
    make = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *_, **__: make("cpu", init_scale=2.0**127, enabled=True))
    argv = options("train_sr.py", tiny, tmp_path, *SHORT, "--max_steps", 30, "--save_every", 1)
    out, _ = call("train_sr.py", *argv)
    state = torch.load(tmp_path / "test/ckpts/state.pth", weights_only=True)
    count = round(math.log2(2.0**127 / state["scaler"]["scale"]))  # halved at each
    assert 5 < count < 30 and f"{count} steps without an update for an overflow of fp16" in out


def write_recorded(path):
    recorder = SpikeRecorder((16, 24), 137, 1.0, 0, noise=True)
    for _ in range(137):
        recorder.expose(np.full((16, 24), 0.3, np.float32))
    recorder.write(path)


RNG = np.random.default_rng(0)
PICTURE, SPIKES = RNG.integers(0, 256, (40, 48, 3), dtype=np.uint8), RNG.random((137, 16, 24)) < 0.4
WRITERS = {
    "dat": lambda path: write_dat(path.with_suffix(".dat"), SPIKES),
    "png": lambda path: write_image(path.with_suffix(".png"), PICTURE),
    "recorded": lambda path: write_recorded(path.with_suffix(".dat")),
    "cached": lambda path: ArrayCache(path.parent).write(__file__, PICTURE, stamp(__file__)),
}


@pytest.mark.parametrize("missing", [1, 100, 3000])
@pytest.mark.parametrize("kind", WRITERS)
def test_a_disk_that_is_full_at_the_last_bytes(kind, missing, tmp_path):
    """A limit on the size of files stands for it. NumPy's tofile does not notice."""
    resource = pytest.importorskip("resource")
    files = lambda: [path for path in tmp_path.rglob("*") if path.is_file()]  # noqa: E731
    WRITERS[kind](tmp_path / "a")
    (path,) = files()
    size = path.stat().st_size
    path.unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, before[1]))
        with pytest.raises(OSError):
            WRITERS[kind](tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not files()


@pytest.mark.parametrize("on_nan", ["stop", "skip"])
def test_a_gradient_that_no_scale_makes_finite(on_nan, tiny, tmp_path, monkeypatch, faulty):
    """fp16's scaler alone would leave out every step to the end, and save the weights that it began with."""
    faulty({step: bad_gradient for step in range(3, 200)})
    make = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *_, **__: make("cpu", enabled=True))
    argv = options("train_sr.py", tiny, tmp_path, *SHORT, "--max_steps", 150, "--on_nan", on_nan)
    err = refused("train_sr.py", *argv)
    assert "norm is nan whatever the scale of fp16 at step 102, samples" in err and "the 100th in a row" in err
    assert "--precision fp32\n" in err


def test_a_run_goes_on_with_its_own_data_alone(copy, tmp_path):
    """A moved data set is the same one; others are refused: of as many samples with other names, or of fewer."""
    moved, argv = tmp_path / "moved", options("train_sr.py", tmp_path / "moved", tmp_path, *SHORT, "--max_steps")
    call("train_sr.py", *options("train_sr.py", copy, tmp_path, *SHORT, "--max_steps", 1))
    shutil.copytree(copy, moved)
    assert "finished at step 2" in call("train_sr.py", *argv, 2)[0]
    assert str(moved) in (tmp_path / "test/config.yml").read_text()
    before = (tmp_path / "test/config.yml").read_bytes()
    for folder in sorted((moved / "train").glob("*_data")):
        sequence = min(folder.iterdir())
        sequence.rename(sequence.with_name("zebra"))
    for steps in (2, 4):  # whether it is finished or not
        assert "holds a run on other samples than those of" in refused("train_sr.py", *argv, steps)
    shutil.rmtree(moved / "train/spike_data/zebra")
    assert "holds a run on 3 samples, but the data set has 2" in refused("train_sr.py", *argv, 4)
    assert (tmp_path / "test/config.yml").read_bytes() == before


def test_deterministic(tiny, tmp_path):
    before = torch.are_deterministic_algorithms_enabled()
    try:
        call("train_sr.py", *options("train_sr.py", tiny, tmp_path, *SHORT, "--max_steps", 1, "--deterministic"))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(before)


def test_what_a_killed_process_left_is_removed(tmp_path):
    """Not what a living one writes at the moment, nor what another file's writer left."""
    for name in ("a.[1].txt", "b.txt"):
        program = f"import os; from codes.files import replacing\nwith replacing({str(tmp_path / name)!r}) as path:\n"
        program += "    path.write_text('half')\n    os.kill(os.getpid(), 9)"
        subprocess.run([sys.executable, "-c", program], cwd=ROOT)
    assert len(list(tmp_path.iterdir())) == 2
    with replacing(tmp_path / "a.[1].txt") as path:
        assert {p.name for p in tmp_path.glob(".a*")} == {path.name} and len(list(tmp_path.glob(".b*"))) == 1
        path.write_text("whole")
        living = subprocess.run(
            [sys.executable, "-c", f"from codes.files import remove_abandoned; remove_abandoned({str(tmp_path)!r})"],
            cwd=ROOT,
        )
        assert living.returncode == 0 and path.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a.[1].txt"] and (tmp_path / "a.[1].txt").read_text() == "whole"
    remove_abandoned(tmp_path)
    assert (tmp_path / "a.[1].txt").exists()


def test_a_run_folder_is_rid_of_what_was_left(tiny, tmp_path):
    folder = tmp_path / "test/ckpts"
    folder.mkdir(parents=True)
    (folder / ".state.1.tmp.pth").write_bytes(b"half")
    call("train_sr.py", *options("train_sr.py", tiny, tmp_path, *SHORT, "--max_steps", 1))
    assert sorted(path.name for path in folder.iterdir()) == ["SR_0.pth", "SR_last.pth", "state.pth"]


def test_a_data_set_that_vanishes(copy, tmp_path):
    """In the middle of training: one line, and the same command goes on when it is back."""
    argv = options("train_sr.py", copy, tmp_path, *SHORT, "--state_every", 0, "--max_steps", 400, "--workers", 1)
    command = list(map(str, [sys.executable, ROOT / "train_sr.py", *argv]))
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "step 0 of 400" in line:
            break
    shutil.move(copy, tmp_path / "away")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and err.count("\n") == 1 and "No such file" in err
    state = torch.load(tmp_path / "test/ckpts/state.pth", weights_only=True)
    shutil.move(tmp_path / "away", copy)
    argv[argv.index("--max_steps") + 1] = state["step"] + 1
    out, _ = call("train_sr.py", *argv)
    assert f"step {state['step']} of {state['step'] + 1}" in out and "finished at step" in out


def test_an_evaluation_that_is_made_again_stands_once_in_tensorboard(tiny, tmp_path):
    """A state of a full epoch, whose evaluation was logged, but not that it was made: as a kill may leave it."""
    argv = options(
        "train_sr.py", tiny, tmp_path, *SHORT[2:], "--lr_schedule", "constant", "--eval_every", 1, "--use_small"
    )
    argv += ["--max_steps"]  # one sample, so that each step is an epoch
    call("train_sr.py", *argv, 2)
    path = tmp_path / "test/ckpts/state.pth"
    state = torch.load(path, weights_only=True)
    lines = (tmp_path / "test/metrics.jsonl").read_text().splitlines(keepends=True)
    kept = max(index for index, line in enumerate(lines) if '"train"' in line) + 1
    state |= {
        "done": False,
        "epoch": 1,
        "batch": 1,
        "logs": {**state["logs"], "metrics.jsonl": len("".join(lines[:kept]))},
    }
    torch.save(state, path)
    call("train_sr.py", *argv, 3)
    events = EventAccumulator(str(tmp_path / "test/tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    for tag in ("psnr/Blur_SR", "train/loss", "train/lr"):
        assert [event.step for event in events.Scalars(tag)] == [1, 2, 3], tag


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """A run of one step, and the options that go on with it."""
    folder = tmp_path_factory.mktemp("trained")
    argv = options("train_sr.py", tiny, folder, *SHORT, "--lr_schedule", "constant", "--ema", 0.5, "--max_steps")
    call("train_sr.py", *argv, 1)
    return folder / "test/ckpts/state.pth", argv


@pytest.mark.parametrize("key", ["recipe", "samples", "weights", "optimiser", "scaler", "rng", "step", "epoch", "batch",
                                 "sums", "seconds", "done", "logs", "average", "trouble"])  # fmt: skip
def test_a_damaged_training_state_is_refused(key, trained, tmp_path):
    """Each part of it missing, of another type or out of range: one line, and the file as it was."""
    path, argv = trained
    whole = path.read_bytes()
    state = torch.load(path, weights_only=True)
    others = {"step": [-5], "epoch": [-1], "batch": [99, -1], "logs": [{}, {"metrics.jsonl": -3, "results.txt": 0}],
              "weights": [{}, {"a": torch.zeros(2)}], "rng": [torch.zeros(3, dtype=torch.uint8)],
              "optimiser": [{}, {"state": {}, "param_groups": []}], "sums": [{"loss": "x"}],
              "scaler": [], "average": [[]], "trouble": [(1, 2)]}  # fmt: skip
    spoilt = [{**state, key: value} for value in ("text", None, *others.get(key, []))]
    if key != "trouble":  # which older states lack
        spoilt.append({name: value for name, value in state.items() if name != key})
    try:
        for damaged in spoilt:
            torch.save(damaged, path)
            before = path.read_bytes()
            err = refused("train_sr.py", *argv, 2)
            assert "training state" in err or "holds a run" in err, (damaged[key] if key in damaged else None, err)
            assert path.read_bytes() == before
    finally:
        path.write_bytes(whole)
