"""What goes wrong during a run: bad samples, numbers that are not finite, what a killed process leaves."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from codes.cache import ArrayCache, stamp
from codes.files import remove_abandoned, replacing
from codes.image import write_image
from codes.making.preparation import SpikeRecorder
from codes.spike import write_dat
from tests.conftest import ROOT, call, options, refused

pytestmark = pytest.mark.slow

SHORT = ["--eval_every", 0, "--log_every", 1]


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


def test_what_a_killed_process_left_is_removed(tmp_path):
    """Not what a living one writes at the moment, nor what another file's writer left."""
    for name in ("a.[1].txt", "b.txt"):
        program = f"import os; from codes.files import replacing\nwith replacing({str(tmp_path / name)!r}) as path:\n"
        program += "    path.write_text('half')\n    os.kill(os.getpid(), 9)"
        subprocess.run([sys.executable, "-c", program], cwd=ROOT)
    assert len(list(tmp_path.iterdir())) == 2
    elsewhere = tmp_path / ".a.[1].another-machine.12.tmp.txt"  # whose locks this one may not see
    elsewhere.touch()
    with replacing(tmp_path / "a.[1].txt") as path:
        assert {p.name for p in tmp_path.glob(".a*")} == {path.name, elsewhere.name} and len(
            list(tmp_path.glob(".b*"))
        ) == 1
        path.write_text("whole")
        living = subprocess.run(
            [sys.executable, "-c", f"from codes.files import remove_abandoned; remove_abandoned({str(tmp_path)!r})"],
            cwd=ROOT,
        )
        assert living.returncode == 0 and path.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a.[1].txt"] and (tmp_path / "a.[1].txt").read_text() == "whole"
    remove_abandoned(tmp_path)
    assert (tmp_path / "a.[1].txt").exists()


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
