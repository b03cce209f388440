"""A run as a whole, with the smallest recipe there is (mini.py)."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional as F

from codes.random import rng
from tests.conftest import ROOT, call, records, refused, same

MINI = ROOT / "tests" / "engine" / "mini.py"


def mini(data, folder, *more):
    base = ["--base_folder", data, "--save_folder", folder, "--roi_size", 16, "--bs", 2, "--workers", 0]
    return [*base, "--device", "cpu", "--log_every", 1, "--eval_every", 0, *more]


def weights(folder, label="last"):
    return torch.load(folder / f"test/ckpts/Mini_{label}.pth", weights_only=True)


def without_time(folder):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records(folder)]


def start(*argv):
    """The recipe as a process of its own, in a group of its own."""
    command = list(map(str, [sys.executable, MINI, *argv]))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, start_new_session=True, **pipes)


def wait_for_lines(folder, count):
    log, limit = folder / "test" / "metrics.jsonl", time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") >= count) and time.monotonic() < limit:
        time.sleep(0.01)


def test_what_a_run_writes(tiny, tmp_path):
    argv = mini(tiny, tmp_path, "--epochs", 3, "--eval_every", 2)
    out, _ = call(MINI, *argv)
    run = tmp_path / "test"
    names = {"ckpts", "imgs", "tensorboard", "opt.txt", "config.yml", "results.txt", "metrics.jsonl"}
    assert {path.name for path in run.iterdir()} == names
    files = {f"Mini_{label}.pth" for label in (0, 2, "last")} | {"state.pth"}
    assert {path.name for path in (run / "ckpts").iterdir()} == files
    assert [record["step"] for record in records(tmp_path, "train")] == [1, 2, 3, 4, 5, 6]
    assert [(record["epoch"], record["row"]) for record in records(tmp_path, "eval")] == [(0, "Mini"), (2, "Mini")]
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert {"train/lr", "psnr/Mini"} <= set(events.Tags()["scalars"]) and "sample/0" in events.Tags()["images"]
    assert (run / "imgs" / "002_0000_mini.png").is_file()
    assert "251 parameters to train, fp32 on cpu" in out and "step 0 of 6" in out
    assert "batches of 2, crop 16, 2 batches per epoch" in out and "epoch 2, step 6: 2 samples" in out

    before = weights(tmp_path)
    out, _ = call(MINI, *argv)
    assert "this run is finished" in out and same(weights(tmp_path), before)
    assert len(records(tmp_path, "train")) == 6


def test_interrupted_equals_uninterrupted(tiny, tmp_path):
    """In the middle of an epoch, at its end, and with another number of loader processes."""
    argv = ["--lr_schedule", "constant", "--grad_clip", 0.1, "--max_steps"]
    call(MINI, *mini(tiny, tmp_path / "whole", *argv, 7))
    for steps in (1, 2, 5, 7):
        call(MINI, *mini(tiny, tmp_path / "cut", *argv, steps, "--workers", int(steps == 5)))
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    trained = [[r for r in without_time(tmp_path / name) if r["kind"] == "train"] for name in ("whole", "cut")]
    assert trained[0] == trained[1]


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_as_if_nothing_had_been(tiny, tmp_path):
    """kill -9, several times, wherever it is; the weights and every logged step are those of an undisturbed run."""
    argv = "--lr_schedule onecycle --state_every 0 --eval_images 0 --eval_every 4 --eval_samples 1".split()
    argv += ["--max_steps", 40]
    call(MINI, *mini(tiny, tmp_path / "whole", *argv))
    chance, kills = random.Random(0), 0
    for lines in (6, 25):
        process = start(*mini(tiny, tmp_path / "cut", *argv, "--workers", 1))
        wait_for_lines(tmp_path / "cut", lines)
        time.sleep(chance.random() * 0.1)
        kills += process.poll() is None
        process.kill()
        process.wait()
    out, _ = call(MINI, *mini(tiny, tmp_path / "cut", *argv))
    assert kills and "finished at step 40" in out
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert without_time(tmp_path / "cut") == without_time(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_being_stopped_leaves_usable_weights(kind, tiny, tmp_path):
    """The signal goes to the whole group, loader processes included, as Ctrl-C in a terminal does."""
    process = start(*mini(tiny, tmp_path, "--max_steps", 100000, "--workers", 2))
    wait_for_lines(tmp_path, 4)
    os.killpg(process.pid, kind)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on" in out and "Traceback" not in err
    assert err.count("stopping after this batch") == 1 and err.endswith("mini.py: stopped\n")
    assert weights(tmp_path)["0.weight"].shape == (8, 3, 3, 3)
    done = records(tmp_path)[-1]["step"]
    out, _ = call(MINI, *mini(tiny, tmp_path, "--max_steps", done + 2))
    assert f"step {done} of {done + 2}" in out


def test_another_run_in_the_same_folder_is_refused(tiny, copy, tmp_path):
    """Another recipe, other samples; a data set that was moved is the same one."""
    call(MINI, *mini(tiny, tmp_path, "--max_steps", 1))
    before = (tmp_path / "test/config.yml").read_bytes()
    assert "holds a run with --width 8, not 9" in refused(MINI, *mini(tiny, tmp_path, "--max_steps", 2, "--width", 9))
    assert "holds a run with --lr 0.01, not 1.0" in refused(MINI, *mini(tiny, tmp_path, "--max_steps", 2, "--lr", 1))
    moved = mini(copy, tmp_path, "--max_steps")
    for folder in sorted((copy / "train").glob("*_data")):
        sequence = min(folder.iterdir())
        sequence.rename(sequence.with_name("zebra"))
    for steps in (1, 3):  # whether it is finished or not
        assert "holds a run on other samples than those of" in refused(MINI, *moved, steps)
    shutil.rmtree(copy / "train/spike_data/zebra")
    assert "holds a run on 3 samples, but the data set has 2" in refused(MINI, *moved, 3)
    assert (tmp_path / "test/config.yml").read_bytes() == before
    shutil.copytree(tiny, tmp_path / "moved")
    assert "finished at step 2" in call(MINI, *mini(tmp_path / "moved", tmp_path, "--max_steps", 2))[0]
    assert str(tmp_path / "moved") in (tmp_path / "test/config.yml").read_text()
    out, _ = call(MINI, *mini(tiny, tmp_path, "--max_steps", 1, "--lr", 1, "--overwrite"))
    (kept,) = tmp_path.glob("test_old_*")
    assert f"the earlier run is kept in {kept}" in out and (kept / "ckpts" / "Mini_last.pth").exists()


def test_more_steps_say_what_becomes_of_the_rate(tiny, tmp_path):
    argv = mini(tiny, tmp_path, "--lr_schedule", "cosine", "--max_steps")
    call(MINI, *argv, 4)
    out, _ = call(MINI, *argv, 8)
    assert "the run now has 8 steps instead of 4" in out
    assert "from step 4 on the rate is 5.00e-03 instead of 0.00e+00" in out
    assert [r["lr"] for r in records(tmp_path, "train")][4] == pytest.approx(5e-3)


def test_without_a_test_split_it_trains_and_says_so(copy, tmp_path):
    shutil.rmtree(copy / "test")
    out, _ = call(MINI, *mini(copy, tmp_path, "--max_steps", 1, "--eval_every", 1))
    assert "nothing is evaluated in training: no split 'test'" in out and weights(tmp_path)
    assert "no split 'train'" in refused(MINI, *mini(shutil.move(copy / "train", copy / "else") and copy, tmp_path))


def test_an_evaluation_that_failed_is_made_up_for(copy, tmp_path):
    """The last evaluation breaks on a bad picture; mended, the same command evaluates, and trains no further."""
    broken = sorted(copy.glob("test/blur_data/*/*.png"))[1]
    content = broken.read_bytes()
    broken.write_bytes(b"no image")
    argv = mini(copy, tmp_path, "--max_steps", 3)
    assert "no image that can be decoded" in refused(MINI, *argv)
    before = weights(tmp_path)
    broken.write_bytes(content)
    call(MINI, *argv)
    assert [r["step"] for r in records(tmp_path, "train")] == [1, 2, 3]
    assert [r["row"] for r in records(tmp_path, "eval")] == ["Mini"] and same(weights(tmp_path), before)


def test_bad_samples_are_skipped_and_counted(copy, tmp_path):
    """Of three samples two are bad: a picture that is none, and one that is gone."""
    paths = sorted(copy.glob("train/blur_data/*/*.png"))
    paths[0].write_bytes(b"no image")
    paths[1].unlink()
    names = [f"{path.parent.name}/{path.stem}" for path in paths[:2]]
    argv = mini(copy, tmp_path, "--bs", 1, "--lr_schedule", "constant", "--max_steps")
    err = refused(MINI, *argv, 1)
    assert names[1] in err and "has no blur_data" in err and not (tmp_path / "test").exists()
    # One good sample: a step an epoch; the others are met once an epoch, before it or after it.
    out, _ = call(MINI, *argv, 2, "--skip_bad_samples", "--state_every", 0)
    assert f"WARNING: skipped {names[0]}: " in out and "is no image that can be decoded" in out
    out, _ = call(MINI, *argv, 4, "--skip_bad_samples")
    assert f"WARNING: skipped {names[0]}" not in out  # said once
    order = [rng("order", 42, epoch).permutation(3).tolist() for epoch in range(4)]
    met = sum(order[epoch].index(bad) < order[epoch].index(2) or epoch < 3 for epoch in range(4) for bad in (0, 1))
    assert f"2 samples that could not be read skipped {met} times ({', '.join(sorted(names))})" in out
    assert [record["step"] for record in records(tmp_path, "train")] == [1, 2, 3, 4]
    assert sorted(record["sample"] for record in records(tmp_path, "skipped")) == sorted(names)
    paths[2].write_bytes(b"no image")
    assert "no sample of" in refused(MINI, *argv, 5, "--skip_bad_samples", "--workers", 1)


@pytest.fixture
def faulty(monkeypatch):
    """Makes the loss of chosen steps (counted from 0) no number; returns the function that chooses them."""
    real, chosen, count = F.mse_loss, set(), [0]

    def loss(*inputs):
        count[0] += 1
        return real(*inputs) * (np.nan if count[0] - 1 in chosen else 1)

    monkeypatch.setattr(F, "mse_loss", loss)
    return chosen.update


def test_a_loss_that_is_no_number_stops_the_run(tiny, tmp_path, faulty):
    faulty({3})
    err = refused(MINI, *mini(tiny, tmp_path, "--max_steps", 8, "--state_every", 0))
    state = torch.load(tmp_path / "test/ckpts/state.pth", weights_only=True)
    assert "the loss is nan at step 3, samples " in err and "the last good state, of step 3, is intact" in err
    assert state["step"] == 3 and all(value.isfinite().all() for value in state["weights"].values())
    assert not (tmp_path / "test/ckpts/Mini_last.pth").exists()


def test_dropped_steps_are_logged_and_counted(tiny, tmp_path, faulty):
    """The count outlives the process."""
    faulty({2, 3})
    argv = mini(tiny, tmp_path, "--lr_schedule", "constant", "--on_nan", "skip", "--max_steps")
    out, _ = call(MINI, *argv, 5)
    assert "2 steps dropped whose loss or gradient was not finite" in out and out.count("WARNING") == 2
    assert [("loss" in record) for record in records(tmp_path, "train")] == [True, True, False, False, True]
    assert [record["step"] for record in records(tmp_path, "dropped")] == [2, 3]
    assert len(records(tmp_path, "dropped")[0]["samples"]) in (1, 2)
    assert "2 steps dropped" in call(MINI, *argv, 6)[0]


def test_deterministic(tiny, tmp_path):
    before = torch.are_deterministic_algorithms_enabled()
    try:
        call(MINI, *mini(tiny, tmp_path, "--max_steps", 1, "--deterministic"))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(before)


def test_names_that_are_no_utf8_in_a_run(copy, tmp_path):
    """Of the data set, and of a bad sample that is skipped; that of the run itself is refused."""
    name = os.fsdecode(b"\xb2\xe2\xca\xd4")
    for kind in ("blur_data", "spike_data", "sharp_data"):
        sequence = sorted((copy / "train" / kind).iterdir())[0]
        sequence.rename(sequence.with_name(name))
    next((copy / "train/blur_data" / name).iterdir()).write_bytes(b"no image")
    argv = mini(copy.rename(tmp_path / name), tmp_path, "--max_steps", 3, "--skip_bad_samples")
    out, _ = call(MINI, *argv)
    assert "skipped \\xb2\\xe2\\xca\\xd4/000019: " in out and " times (\\xb2\\xe2\\xca\\xd4/000019)" in out
    assert [line["sample"] for line in records(tmp_path, "skipped")] == ["\\xb2\\xe2\\xca\\xd4/000019"]
    assert "\\xb2\\xe2\\xca\\xd4\n" in (tmp_path / "test/opt.txt").read_text(encoding="utf-8")
    assert "\\xb2\\xe2\\xca\\xd4 is no name in UTF-8" in refused(MINI, *argv, "--exp_name", name)
