"""scripts/dev/torture.py notices what it is there for: each fault is made by hand here."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from scripts.dev import torture
from tests.conftest import refused

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an undisturbed run of 6 steps leaves."""
    folder = tmp_path_factory.mktemp("whole")
    run = folder / "test"
    (run / "ckpts").mkdir(parents=True)
    (run / "imgs").mkdir()
    (run / "imgs" / "000_panel.png").write_bytes(b"picture")
    torch.save({"a": torch.arange(6.0), "b": torch.ones(2)}, run / "ckpts" / "SR_last.pth")
    torch.save({"step": 6}, run / "ckpts" / "state.pth")
    records = [{"kind": "train", "step": step, "seconds": 0.1 * step, "loss": 1 / step} for step in range(1, 7)]
    records.insert(3, {"kind": "eval", "step": 3, "row": "SDM", "psnr": 30.0})
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    lines = ["epoch 1, step 3: 2 samples, 17 ms each", "SDM: psnr: 30.000", f"finished at step 6; weights: {run}/ckpts"]
    (run / "results.txt").write_text("".join(line + "\n" for line in lines))
    write_events(run, range(1, 7))
    return folder


def write_events(run, steps, **options):
    with SummaryWriter(str(run / "tensorboard"), **options) as board:
        for step in steps:
            board.add_scalar("train/loss", 1 / step, step)
            if step == 3:
                board.add_scalar("psnr/SDM", 30.0, 3)


@pytest.fixture
def run(whole, tmp_path):
    """A copy to spoil; it names its own folder and its own seconds."""
    copy = shutil.copytree(whole, tmp_path / "cut") / "test"
    edit(copy / "results.txt", str(whole), str(tmp_path / "cut"))
    edit(copy / "results.txt", "17 ms", "5 ms")
    edit(copy / "metrics.jsonl", '"seconds": 0.1,', '"seconds": 7.5,')
    return copy


def edit(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def set_tensor(run, **tensors):
    path = run / "ckpts" / "SR_last.pth"
    torch.save(torch.load(path, weights_only=True) | tensors, path)


def repeat_line(path, number, times):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:number] + times * [lines[number]] + lines[number + 1 :]))


def new_events(run, steps):
    shutil.rmtree(run / "tensorboard")
    write_events(run, steps)


LOG, TEXT, WEIGHTS, PICTURE = "metrics.jsonl", "results.txt", "ckpts/SR_last.pth", "imgs/000_panel.png"
SPOILERS = {
    "a changed weight": (lambda run: set_tensor(run, b=torch.tensor([1, 1 + 1e-7])), f"{WEIGHTS} differs"),
    "another type": (lambda run: set_tensor(run, b=torch.ones(2).double()), f"{WEIGHTS} differs"),
    "no weights": (lambda run: (run / WEIGHTS).unlink(), f"{WEIGHTS} is missing"),
    "a missing step": (lambda run: repeat_line(run / LOG, 1, 0), f"{LOG}, line 2 differs"),
    "a double evaluation": (lambda run: repeat_line(run / LOG, 3, 2), f"{LOG}, line 9 is one too many"),
    "a torn record": (lambda run: edit(run / LOG, '"loss": 0.5}\n', '"lo'), f"{LOG}, line 2 differs"),
    "a torn end": (lambda run: (run / LOG).write_bytes((run / LOG).read_bytes()[:-1]), f"{LOG}, line 8 is missing"),
    "a torn line": (lambda run: edit(run / TEXT, "psnr: 30.000\n", "psnr: 30"), f"{TEXT}, line 2 differs"),
    "another picture": (lambda run: (run / PICTURE).write_bytes(b"!"), f"{PICTURE} differs"),
    "a lost event": (lambda run: new_events(run, [1, 2, 3, 5, 6]), "train/loss differs"),
    "a lost evaluation": (lambda run: new_events(run, [1, 2, 4, 5, 6]), "psnr/SDM is missing"),
    "no events": (lambda run: shutil.rmtree(run / "tensorboard"), "train/loss is missing"),
    "a temporary file": (lambda run: (run / "ckpts" / ".state.12.tmp.pth").touch(), "temporary file left"),
    "no run": (lambda run: shutil.rmtree(run), f"{LOG}, line 1 is missing"),
}


@pytest.mark.parametrize("name", SPOILERS)
def test_a_fault_in_a_run_is_noticed(name, whole, run):
    spoil, words = SPOILERS[name]
    spoil(run)
    faults = torture.differences(whole, run.parent)
    assert any(words in fault for fault in faults), faults


def test_what_an_interruption_may_change(whole, run):
    """A new event file that purges the end of the one before; more lines about the textures; no last line."""
    assert torture.differences(whole, run.parent) == []
    shutil.rmtree(run / "tensorboard")
    write_events(run, [1, 2, 3, 4, 5], filename_suffix=".0")
    write_events(run, [4, 5, 6], purge_step=4, filename_suffix=".1")
    lines = (run / "results.txt").read_text().splitlines(keepends=True)[:-1]
    cached = "teacher cache: 6 samples, 1.5 MB each, 0.0 GB; none to make, in a/0123456789abcdef\n"
    (run / "results.txt").write_text("".join([cached, lines[0], cached, *lines[1:]]))
    assert torture.differences(whole, run.parent) == []
    shutil.rmtree(run)
    assert torture.differences(run, run)  # an undisturbed run that holds nothing is no measure


def test_endings():
    assert torture.bad_ending(2, "train_sr.py: error: no room\n") == []
    assert torture.bad_ending(0, "train_sr.py: error: no room\n")
    assert torture.bad_ending(-9, "train_sr.py: error: no room\n")
    assert torture.bad_ending(2, "") and torture.bad_ending(1, "Traceback\nOSError\n")


def test_memory_of_gpus(tmp_path, monkeypatch):
    """The program that tells it is stood in for: two GPUs, an error, none at all."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert torture.gpu_memory() is None
    program = tmp_path / "nvidia-smi"
    for text, expected in (("echo 1024; echo 3", 1027.0), ("echo no devices; exit 9", None), ("echo '[N/A]'", None)):
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        assert torture.gpu_memory() == expected


def test_slope_is_that_of_the_second_half():
    steps = np.arange(0, 2000, 50.0)
    assert torture.slope(steps, 100 + 0.003 * steps) == pytest.approx(3)
    assert torture.slope(steps, 200 - 50 * np.exp(-steps / 40)) == pytest.approx(0, abs=1e-3)


WORKER = """
import os, sys, time
folder = sys.argv[1]
os.makedirs(folder, exist_ok=True)
for index in range(12):
    path = os.path.join(folder, f"{index}.txt")
    if not os.path.exists(path):
        temporary = os.path.join(folder, f".{index}.{KEY}.tmp.txt")
        with open(temporary if ATOMIC else path, "w") as file:
            file.write("half ")
            file.flush()
            time.sleep(0.04)
            file.write("whole")
        if ATOMIC:
            os.replace(temporary, path)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "atomic", "words"),
    [("0", True, []), ("{os.getpid()}", True, ["temporary file left"]), ("0", False, ["differs"])],
    ids=["careful", "leaves temporary files", "leaves half files"],
)
def test_a_script_that_is_killed(key, atomic, words, tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER.replace("{KEY}", key).replace("ATOMIC", str(atomic)))
    (tmp_path / "trial").mkdir()
    trial = torture.Trial(tmp_path / "trial", tmp_path / "none", 8, 0, np.random.default_rng(0))
    torture.kill_often(trial, f"{script} {{run}}", torture.made)
    if not words:
        assert trial.faults == []
    assert all(any(word in fault for fault in trial.faults) for word in words), trial.faults
    assert trial.measured["kills that hit a living process"] == 8 and len(trial.children) > 8
    assert all(child.poll() is not None for child in trial.children)


def test_processes_that_stay_are_noticed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text("import os, time\nos.fork()\ntime.sleep(60)\n")
    trial = torture.Trial(tmp_path, tmp_path, 1, 0, np.random.default_rng(0))
    child = trial.start(str(script), tmp_path)
    child.until(lambda: len(child.alive()) == 2)
    assert child.strike(group=False) and len(child.survivors(0.2)) == 1
    trial.sweep()
    assert "still alive" in trial.faults[0] and child.survivors() == []


def test_report_of_several_calls(tmp_path):
    assert "expected one of kill_bsn" in refused("scripts/dev/torture.py", "--only", "kill_nothing")
    result = {"verdict": "passed", "seconds": 1.0, "commit": "abc", "machine": "M", "versions": "V", "seed": 0}
    result |= {"note": "", "measured": {"kills": 3}, "faults": [], "commands": ["python x"]}
    failed = result | {"verdict": "failed", "faults": ["a step is missing"]}
    text = torture.report({"kill_sr": result, "data_demo": failed})
    assert "| kill_sr | passed | 1 | abc | kills: 3 |" in text and "| data_demo | **failed** |" in text
    assert "- a step is missing" in text and text.count("- machine: M\n") == 1
    (tmp_path / "torture.json").write_text("{")
    assert "is damaged" in refused("scripts/dev/torture.py", "--out", tmp_path, "--only", "orphans")
