import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from codes.engine.checkpoint import load_weights
from codes.engine.folder import Folder, Identity, batch_in_words
from codes.errors import InputError
from codes.files import remove_abandoned, replacing
from tests.conftest import ROOT

HOLD = """
import sys, time
from pathlib import Path
from codes.engine.folder import Folder
folder = Folder(Path(sys.argv[1]), "SR")
folder.claim()
print("held", flush=True)
time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that trains in the folder 'run'."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "run"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_one_process_trains_in_a_folder(holder, tmp_path):
    for overwrite in (False, True, False):  # whoever comes changes nothing
        with pytest.raises(InputError, match=rf"another process \(number {holder.pid}\) is training in .*run; choose"):
            Folder(tmp_path / "run", "SR").claim(overwrite)
    assert Folder(tmp_path / "other", "SR").claim() == []
    holder.kill()
    holder.wait()
    folder = Folder(tmp_path / "run", "SR")
    assert folder.claim() == []
    folder.release()


def test_the_lock_is_one_file_whatever_happens(tmp_path):
    """It is never removed or replaced, so no two processes can hold one lock each."""
    numbers = set()
    for overwrite in (False, True, True):
        folder = Folder(tmp_path / "run", "SR")
        folder.claim(overwrite)
        (folder.path / "a.txt").parent.mkdir(exist_ok=True)
        (folder.path / "a.txt").write_text("")
        numbers.add((tmp_path / ".run.lock").stat().st_ino)
        folder.release()
        numbers.add((tmp_path / ".run.lock").stat().st_ino)
    assert len(numbers) == 1 and (tmp_path / ".run.lock").read_text() == str(os.getpid())


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(code, tmp_path, monkeypatch):
    """Lustre with noflock, some NFS, sshfs: trains, and says so."""
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    folder = Folder(tmp_path / "run", "SR")
    (note,) = folder.claim()
    assert note.startswith(f"WARNING: {tmp_path} cannot be locked") and os.strerror(code) in note
    folder.release()
    (_, kept) = Folder(tmp_path / "run", "SR").claim(overwrite=True) if any(folder.path.iterdir()) else ("", "")
    assert (tmp_path / "run").is_dir() and not kept


def test_another_fault_of_the_lock_is_one(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_args):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Input/output"):
        Folder(tmp_path / "run", "SR").claim()


def test_overwrite_keeps_the_earlier_run(tmp_path):
    folder = Folder(tmp_path / "run", "SR")
    assert folder.claim(overwrite=True) == []  # nothing there to be kept
    (folder.path / "old.txt").write_text("old")
    folder.release()
    (note,) = folder.claim(overwrite=True)
    (kept,) = tmp_path.glob("run_old_*")
    assert note == f"the earlier run is kept in {kept}" and (kept / "old.txt").read_text() == "old"
    assert not folder.path.exists() or not any(folder.path.iterdir())
    folder.release()


def test_a_folder_is_rid_of_what_a_killed_process_left(tmp_path):
    folder = Folder(tmp_path / "run", "SR")
    folder.state.parent.mkdir(parents=True)
    (folder.state.parent / ".state.1.tmp.pth").write_bytes(b"half")
    folder.state.write_bytes(b"whole")
    folder.claim()
    folder.release()
    assert [path.name for path in folder.state.parent.iterdir()] == ["state.pth"]


def test_weights_and_description(tmp_path):
    folder, network = Folder(tmp_path / "run", "SR"), torch.nn.Linear(2, 3).to(memory_format=torch.preserve_format)
    folder.save_weights(network, 7)
    assert folder.weights(7) == tmp_path / "run" / "ckpts" / "SR_7.pth"
    again = load_weights(torch.nn.Linear(2, 3), folder.weights(7))
    assert torch.equal(again.weight, network.weight)
    values = {"lr": 1e-4, "metrics": ["psnr"], "cache": None}
    folder.describe(values, ["command: a", "commit: b"])
    text = (folder.path / "config.yml").read_text()
    assert text.startswith("# command: a\n# commit: b\n") and yaml.safe_load(text) == values
    assert (folder.path / "opt.txt").read_text() == "lr: 0.0001\nmetrics: ['psnr']\ncache: None\n"


NAMES = ["a/1", "a/2", "b/1"]


def identity(recipe=None, ranks=1, names=NAMES):
    options = {"lr": 0.1, "bs": 4, "later": False} | (recipe or {})
    return Identity(options, {"lr": 0.1, "bs": 4, "later": False}, ranks, names, Path("GOPRO/train"))


def test_the_same_run_goes_on():
    saved = identity().saved()
    identity().refuse_another(saved, Path("exp"))
    del saved["recipe"]["later"]  # of a program before this option
    identity().refuse_another(saved, Path("exp"))
    identity(ranks=2).refuse_another(saved, Path("exp"))  # the batch over all ranks is the same


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"recipe": {"lr": 0.2}}, "exp holds a run with --lr 0.1, not 0.2; choose another --exp_name"),
        ({"recipe": {"later": True}}, "with --later False, not True"),
        ({"recipe": {"bs": 8}}, "with --bs 4, not 8"),
        ({"recipe": {"bs": 8}, "ranks": 2}, "with --bs 4, not 4 on each of 2 ranks"),
        ({"names": NAMES[:2]}, "holds a run on 3 samples, but the data set has 2"),
        ({"names": [*NAMES[:2], "b/2"]}, "other samples than those of GOPRO/train; give that data set"),
        ({"names": NAMES[::-1]}, "other samples"),
    ],
)
def test_another_run_is_refused(own, words):
    with pytest.raises(InputError, match=words):
        identity(**own).refuse_another(identity().saved(), Path("exp"))


def test_batches_in_words():
    assert batch_in_words(4, 1) == "4" and batch_in_words(4, 2) == "2 on each of 2 ranks"


def test_a_lock_that_is_removed_before_it_is_held_is_none(tmp_path, monkeypatch):
    """Somebody removes the file between its opening and its locking: a lock on what is gone does not count.

    For the folder of a run, and for the temporary files of :func:`codes.files.replacing`.
    """
    fcntl = pytest.importorskip("fcntl")
    lock, taken = fcntl.flock, []

    def too_late(file, how):
        if not taken and how & fcntl.LOCK_EX:
            taken.extend(path for path in tmp_path.iterdir() if path.is_file())
            taken[0].unlink()
        return lock(file, how)

    monkeypatch.setattr(fcntl, "flock", too_late)
    folder = Folder(tmp_path / "run", "SR")
    with pytest.raises(InputError):  # it holds a file that is gone, which keeps nobody out
        folder.claim()
    assert taken == [tmp_path / ".run.lock"] and folder.claim() == [] and taken[0].exists()
    with pytest.raises(InputError, match="another process"):
        Folder(tmp_path / "run", "SR").claim()
    folder.release()
    taken[0].unlink()
    taken.clear()
    with replacing(tmp_path / "a.txt") as path:
        assert taken == [path] and path.exists()  # made anew
        remove_abandoned(tmp_path)
        assert path.exists()
        path.write_text("whole")
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_a_run_of_another_script_is_named_as_such():
    saved = identity(recipe={"bsn_len": 9}).saved()
    with pytest.raises(InputError, match="exp holds a run of another script or version: one with --bsn_len"):
        identity().refuse_another(saved, Path("exp"))
