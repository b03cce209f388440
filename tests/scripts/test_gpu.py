"""scripts/gpu.sh with a stand-in for Python, which notes what it is asked for: parts, their ends, and going on."""

import shlex
import shutil
import subprocess

import pytest

from tests.conftest import ROOT
from tests.test_docs import known_flags

pytestmark = pytest.mark.slow

PARTS = ["machine", "suite", "benchmark_fp32", "benchmark_tf32", "benchmark_bf16", "forms", "data", "one_process"]
PARTS += ["ddp", "training", "memory"]
STAND_IN = """#!/usr/bin/env bash
case "$*" in
    "-c from importlib"*) ;;
    -c*) cat gpu ;;
    *) echo "$*" >>asked
       if grep -qs -- "$(cat fails)" <<<"$*"; then exit 3; fi
       case "$*" in *max_steps\\ 100000*) exit 124 ;; esac ;;
esac
"""


@pytest.fixture
def gpu(tmp_path):
    """Runs the script in a folder of its own; returns exit code, output and the commands that Python was given."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "gpu.sh", tmp_path / "scripts")
    (tmp_path / "python").write_text(STAND_IN)
    (tmp_path / "python").chmod(0o755)

    def run(*words, fails="nothing", there="gpu"):
        (tmp_path / "fails").write_text(fails)
        (tmp_path / "gpu").write_text(there)
        (tmp_path / "asked").write_text("")
        env = {"PATH": "/usr/bin:/bin", "PYTHON": str(tmp_path / "python")}
        done = subprocess.run(
            ["bash", "scripts/gpu.sh", *words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stdout + done.stderr, (tmp_path / "asked").read_text().splitlines()

    return run


def parts(out):
    return [line.split()[1].rstrip(":") for line in out.splitlines() if line.startswith("== ")][:-1]


def test_every_part_once(gpu, tmp_path):
    code, out, asked = gpu()
    assert code == 0 and parts(out) == PARTS and len(asked) == len(PARTS), out
    assert {path.stem for path in (tmp_path / "log/gpu").glob("*.txt")} == set(PARTS)
    code, out, asked = gpu()
    assert code == 0 and out.count("finished before") == len(PARTS) and asked == []


def test_a_part_that_fails_is_named_and_repeated_alone(gpu):
    code, out, asked = gpu(fails="exp_name ddp")
    assert code == 1 and "1 parts failed\nddp (exit code 3, see log/gpu/ddp.txt)" in out and len(asked) == len(PARTS)
    code, out, asked = gpu()
    assert code == 0 and len(asked) == 1 and "torch.distributed.run" in asked[0]


def test_without_a_gpu(gpu):
    assert gpu(there="")[:2] == (
        2,
        "gpu.sh: error: PyTorch finds no CUDA device here; --quick tries the script without\n",
    )
    code, out, asked = gpu("--quick", there="")
    assert code == 0 and parts(out) == [part for part in PARTS if part != "benchmark_tf32"]


def test_help(gpu, tmp_path):
    for word in ("--help", "-h"):
        code, out, asked = gpu(word)
        assert code == 0 and asked == [] and not (tmp_path / "log").exists()
        assert "bash scripts/gpu.sh [--quick]" in out and "set -euo" not in out and "#" not in out
    assert gpu("--fast")[:2] == (2, "gpu.sh: error: unknown option '--fast' (see --help)\n")


def test_the_commands_exist(gpu):
    """Every option is one that the script has."""
    for words in ([], ["--quick"]):
        for line in gpu(*words)[2]:
            script, *more = [word for word in shlex.split(line) if word.startswith("scripts/")] or [""]
            flags = {word for word in line[line.index(script) :].split() if word.startswith("--")} if script else set()
            assert not more and flags <= known_flags(script or "scripts/gpu.sh"), line
