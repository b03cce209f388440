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

STEPS = 6


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run folder as an undisturbed run leaves it."""
    run = tmp_path_factory.mktemp("whole") / "test"
    (run / "ckpts").mkdir(parents=True)
    (run / "imgs").mkdir()
    (run / "imgs" / "000_panel.png").write_bytes(b"picture")
    torch.save({"a": torch.arange(6.0), "b": torch.ones(2)}, run / "ckpts" / "SR_last.pth")
    torch.save({"step": STEPS}, run / "ckpts" / "state.pth")
    records = [{"kind": "train", "step": step, "seconds": 0.1 * step, "loss": 1 / step} for step in range(1, STEPS + 1)]
    records.insert(3, {"kind": "eval", "step": 3, "row": "SDM", "psnr": 30.0})
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    lines = ["epoch 1, step 3: 2 samples, 17 ms each", "SDM: psnr: 30.000", f"finished at step 6; weights: {run}/ckpts"]
    (run / "results.txt").write_text("".join(line + "\n" for line in lines))
    write_events(run, range(1, STEPS + 1))
    return run


def write_events(run, steps, **options):
    with SummaryWriter(str(run / "tensorboard"), **options) as board:
        for step in steps:
            board.add_scalar("train/loss", 1 / step, step)
            if step == 3:
                board.add_scalar("psnr/SDM", 30.0, 3)


@pytest.fixture
def run(whole, tmp_path):
    """A copy to spoil; it names its own folder and its own seconds."""
    copy = shutil.copytree(whole, tmp_path / "cut" / "test")
    for name, before, after in (
        ("results.txt", str(whole), str(copy)),
        ("results.txt", "17 ms", "5 ms"),
        ("metrics.jsonl", '"seconds": 0.1,', '"seconds": 7.5,'),
    ):
        edit(copy / name, before, after)
    return copy


def edit(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def set_tensor(run, **tensors):
    path = run / "ckpts" / "SR_last.pth"
    torch.save(torch.load(path, weights_only=True) | tensors, path)


def drop_line(path, number):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:number] + lines[number + 1 :]))


def double_line(path, number):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: number + 1] + lines[number:]))


def cut_end(path):
    path.write_bytes(path.read_bytes()[:-4])


def new_events(run, steps):
    shutil.rmtree(run / "tensorboard")
    write_events(run, steps)


SPOILERS = {
    "a changed weight": (lambda run: set_tensor(run, b=torch.tensor([1, 1 + 1e-7])), "tensors differ"),
    "another type": (lambda run: set_tensor(run, b=torch.ones(2).double()), "tensors differ"),
    "another key": (lambda run: set_tensor(run, c=torch.ones(1)), "other keys"),
    "no weights": (lambda run: (run / "ckpts" / "SR_last.pth").unlink(), "SR_last.pth is there in one run only"),
    "more weights": (lambda run: torch.save({}, run / "ckpts" / "SR_9.pth"), "SR_9.pth is there in one run only"),
    "a missing step": (lambda run: drop_line(run / "metrics.jsonl", 1), "1 of 6 steps are missing, first 2"),
    "a double step": (lambda run: double_line(run / "metrics.jsonl", 1), "1 steps are there twice, first 2"),
    "a missing evaluation": (lambda run: drop_line(run / "metrics.jsonl", 3), "6 records, expected 7"),
    "a double evaluation": (lambda run: double_line(run / "metrics.jsonl", 3), "8 records, expected 7"),
    "another loss": (lambda run: edit(run / "metrics.jsonl", "0.25", "0.26"), "line 5 differs"),
    "a torn record": (lambda run: edit(run / "metrics.jsonl", '"loss": 0.5}\n', '"lo'), "line 2 is broken"),
    "a torn last record": (lambda run: cut_end(run / "metrics.jsonl"), "is broken"),
    "a torn line": (lambda run: edit(run / "results.txt", "psnr: 30.000\n", "psnr: 30"), "results.txt: 2 lines"),
    "a torn last line": (lambda run: cut_end(run / "results.txt"), "does not end with a whole line"),
    "a double line": (lambda run: double_line(run / "results.txt", 1), "4 lines, expected 3"),
    "another picture": (lambda run: (run / "imgs" / "000_panel.png").write_bytes(b"!"), "000_panel.png differs"),
    "no picture": (lambda run: (run / "imgs" / "000_panel.png").unlink(), "000_panel.png is missing"),
    "a lost event": (lambda run: new_events(run, [1, 2, 3, 5, 6]), "train/loss lacks 1 of 6 steps [4]"),
    "a lost evaluation": (lambda run: new_events(run, [1, 2, 4, 5, 6]), "psnr/SDM lacks 1 of 1 steps [3]"),
    "a double event": (lambda run: new_events(run, [1, 2, 3, 3, 4, 5, 6]), "has 1 too many [3]"),
    "no events": (lambda run: shutil.rmtree(run / "tensorboard"), "train/loss lacks 6 of 6"),
    "a temporary file": (lambda run: (run / "ckpts" / ".state.12.tmp.pth").touch(), "temporary file left"),
    "one elsewhere": (lambda run: (run / "imgs" / ".000_panel.7.tmp.png").touch(), "temporary file left"),
    "no run": (lambda run: shutil.rmtree(run), "holds no run"),
}


@pytest.mark.parametrize("name", SPOILERS)
def test_a_fault_in_a_run_is_noticed(name, whole, run):
    assert torture.different_runs(whole, run, STEPS) == []
    spoil, words = SPOILERS[name]
    spoil(run)
    faults = torture.different_runs(whole, run, STEPS)
    assert any(words in fault for fault in faults), faults


def test_what_an_interruption_may_change(whole, run):
    """A new event file that purges the end of the one before; more lines about the textures; no last line."""
    shutil.rmtree(run / "tensorboard")
    write_events(run, [1, 2, 3, 4, 5], filename_suffix=".0")
    write_events(run, [4, 5, 6], purge_step=4, filename_suffix=".1")
    lines = (run / "results.txt").read_text().splitlines(keepends=True)[:-1]
    cached = "teacher cache: 6 samples, 1.5 MB each, 0.0 GB; none to make, in a/0123456789abcdef\n"
    (run / "results.txt").write_text("".join([cached, lines[0], cached, *lines[1:]]))
    assert torture.different_runs(whole, run, STEPS) == []


def test_an_undisturbed_run_that_holds_nothing_is_no_measure(whole, run):
    for path in (run / "ckpts").iterdir():
        path.unlink()
    assert torture.different_weights(run, run) and torture.different_trees(run / "ckpts", run / "ckpts")
    assert torture.wrong_steps([], 2, "log") and torture.wrong_steps([2, 1], 2, "log")


def test_trees(tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name / "x").mkdir(parents=True)
        (tmp_path / name / "x" / "1.dat").write_bytes(content)
    assert torture.different_trees(tmp_path / "a", tmp_path / "b") == []
    assert "1.dat differs" in torture.different_trees(tmp_path / "a", tmp_path / "c")[0]
    (tmp_path / "b" / "2.dat").touch()
    assert "one too many" in torture.different_trees(tmp_path / "a", tmp_path / "b")[0]
    assert "is missing" in torture.different_trees(tmp_path / "b", tmp_path / "a")[0]


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


pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

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
    trial = torture.Trial(tmp_path / "trial", tmp_path / "none", 8, np.random.default_rng(0))
    torture.kill_data(trial, [script])
    if not words:
        assert trial.faults == []
    assert all(any(word in fault for fault in trial.faults) for word in words), trial.faults
    assert trial.measured["kills that hit a living process"] == 8 and len(trial.children) > 8
    assert not any(child.running for child in trial.children)


def test_processes_that_stay_are_noticed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text("import os, time\nos.fork()\ntime.sleep(60)\n")
    trial = torture.Trial(tmp_path, tmp_path, 1, np.random.default_rng(0))
    child = trial.start([script])
    child.until(lambda: len(torture.alive(child.pid)) == 2)
    assert child.kill(group=False) and len(child.survivors(0.2)) == 1
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
