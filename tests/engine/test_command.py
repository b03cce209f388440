"""Mistakes of the user: each ends in one line that names the script, exit code 2, and nothing half-written."""

import os
import shlex
import subprocess
import sys

import pytest
import torch

from codes.engine.command import command
from tests.conftest import ROOT, options, refused


def test_bad_flags(tiny, tmp_path):
    assert "did you mean --lambda_reblur?" in refused("train_deblur.py", "--lamda_reblur", 3)
    (tmp_path / "c.yml").write_text("lambda_reblurr: 3\n")
    assert "did you mean lambda_reblur?" in refused("train_deblur.py", "--config", tmp_path / "c.yml")
    assert "larger than the image" in refused("train_bsn.py", "--base_folder", tiny, "--save_folder", tmp_path / "exp")
    if not torch.cuda.is_available():
        assert "no CUDA device" in refused("train_bsn.py", "--base_folder", tiny, "--device", "cuda")
    assert "expected auto, cpu" in refused("train_bsn.py", "--base_folder", tiny, "--device", "gpu")
    assert "needs a GPU" in refused("train_bsn.py", "--base_folder", tiny, "--device", "cpu", "--precision", "fp16")
    assert not (tmp_path / "exp").exists()


def test_bad_checkpoints(tiny, tmp_path, checkpoints):
    common = ["--test_mode", "--base_folder", tiny, "--save_folder", tmp_path / "exp"]
    assert "looks like the weights of EDSR" in refused("train_bsn.py", *common, "--bsn_path", checkpoints / "SR_70.pth")
    (tmp_path / "a.pth").write_bytes(b"no checkpoint")
    assert "is no PyTorch checkpoint" in refused("train_bsn.py", *common, "--bsn_path", tmp_path / "a.pth")
    assert "no checkpoint at" in refused("train_bsn.py", *common, "--bsn_path", tmp_path / "none.pth")
    assert "or give --teacher sdm" in refused(
        "train_deblur.py", "--base_folder", tiny, "--bsn_path", tmp_path / "none.pth"
    )
    assert not (tmp_path / "exp").exists()


def test_unwritable_output(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    err = refused("train_sr.py", *options("train_sr.py", tiny, tmp_path / "file", "--max_steps", 1))
    assert str(tmp_path / "file") in err


@pytest.mark.slow
def test_full_disk(tiny, tmp_path):
    """A limit on the size of files stands for a full disk: one line, and nothing half-written."""
    argv = options("train_sr.py", tiny, tmp_path, "--max_steps", 3, "--eval_every", 0)
    words = " ".join(shlex.quote(str(word)) for word in [sys.executable, ROOT / "train_sr.py", *argv])
    result = subprocess.run(["bash", "-c", f"ulimit -f 300; exec {words}"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 and "state.pth could not be written" in result.stderr
    assert not list((tmp_path / "test" / "ckpts").iterdir())


@pytest.mark.slow
def test_damaged_vgg(tiny, tmp_path, monkeypatch):
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "vgg16-397923af.pth").write_bytes(b"damaged")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    argv = ["--teacher", "sdm", "--base_folder", tiny, "--save_folder", tmp_path / "exp", "--roi_size", 32]
    assert "vgg16-397923af.pth and put it in" in refused("train_deblur.py", *argv)
    assert not (tmp_path / "exp").exists()


def test_demo_options():
    for argv, says in (
        (["--foo"], "unknown option '--foo'"),
        (["--size"], "--size needs a value"),
        (["--bsn_steps", "x"], "expected a whole number above 0"),
        (["--skip", "bsn,foo"], "no stage 'foo'"),
    ):
        result = subprocess.run(["bash", ROOT / "scripts" / "demo.sh", *argv], capture_output=True, text=True)
        assert result.returncode == 2 and says in result.stderr and result.stderr.count("\n") == 1


def test_out_of_memory(monkeypatch, capsys):
    """What PyTorch says of it, asked for more than any machine has; and what it says elsewhere."""

    def fails(error):
        with pytest.raises(SystemExit) as ended:
            command(error)
        assert ended.value.code == 2
        return capsys.readouterr().err

    def killed():
        raise RuntimeError(
            "DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that dataloader's"
        )

    def on_device(kind, text):
        def raise_():
            raise kind(text)

        return raise_

    monkeypatch.setattr(sys, "argv", ["train_sr.py"])
    err = fails(lambda: torch.empty(10**15))
    assert err.startswith("train_sr.py: error: out of memory (") and "smaller --bs" in err and err.count("\n") == 1
    assert "a loader process ended (" in (err := fails(killed)) and "--shm-size" in err and err.count("\n") == 1
    for kind, text in (
        (torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB"),
        (RuntimeError, "MPS backend out of memory (MPS allocated: 9.00 GB)"),
        (RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ):
        assert "out of memory on the device (" in (err := fails(on_device(kind, text))) and err.count("\n") == 1
    for text in ("Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback", "size mismatch"):
        with pytest.raises(RuntimeError):  # any other is a mistake of the program
            command(on_device(RuntimeError, text))


def test_mistakes_end_in_a_line_and_bugs_in_a_traceback(tmp_path):
    """A ValueError of the language itself is a bug: it must not look like a user's mistake."""
    program = """
import sys
sys.path.insert(0, {root!r})
from codes.engine.command import command
from codes.errors import InputError, MissingFileError

def main():
    {body}

command(main)
"""
    for body, code, says in (
        ("dict(zip([1], [1, 2], strict=True))", 1, ["Traceback", "in main", "ValueError: zip()"]),
        ("raise KeyError('x')", 1, ["Traceback", "KeyError"]),
        ("raise InputError('first\\nsecond')", 2, ["main.py: error: first second\n"]),
        ("raise MissingFileError('no such thing')", 2, ["main.py: error: no such thing\n"]),
        ("open('none.txt')", 2, ["main.py: error: none.txt: No such file or directory\n"]),
        ("raise KeyboardInterrupt", 130, ["main.py: stopped\n"]),
        ("pass", 0, []),
    ):
        (tmp_path / "main.py").write_text(program.format(root=str(ROOT), body=body))
        result = subprocess.run([sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert result.returncode == code and all(text in result.stderr for text in says)
        assert code in (1, 130) or result.stderr.count("\n") == len(says)


SPOKEN = """
import sys
sys.path.insert(0, {root!r})
from codes.engine.command import command
command(lambda: [print({text!a}, flush=True) for _ in range(5000)])
"""


@pytest.mark.parametrize(
    ("text", "locale", "shown"),
    [("a\udcb2\udce2", "C.UTF-8", b"a\\xb2\\xe2"), ("a\udcb2é", "C", b"a\\xb2\\xe9"), ("写", "C", b"\\u5199")],
)
def test_what_a_terminal_cannot_show_is_readable(text, locale, shown):
    env = os.environ | {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", SPOKEN.format(root=str(ROOT), text=text)], capture_output=True, env=env
    )
    assert done.returncode == 0 and done.stdout.splitlines()[0] == shown, done.stderr


@pytest.mark.parametrize(
    ("closed", "code", "says"), [("| head -1", 2, "nobody reads"), (">&-", 0, ""), ("2>&- >&-", 0, "")]
)
def test_outputs_that_are_closed(closed, code, says, tmp_path):
    (tmp_path / "main.py").write_text(SPOKEN.format(root=str(ROOT), text="x" * 100))
    line = f"{sys.executable} main.py {closed}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code and says in done.stderr and done.stderr.count("\n") == bool(says), done.stderr
