"""What several tests share: the golden files, filled weights, and a tiny data set."""

import contextlib
import io
import json
import multiprocessing
import os
import runpy
import shutil
import signal
import sys
import traceback
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from codes.engine.checkpoint import save
from codes.fast import quicken
from codes.model.bsn_model import BSN
from codes.model.edsr_model import EDSR
from codes.model.ldn_model import Deblur_Net

ROOT = Path(__file__).resolve().parents[1]
STAGES = {"train_bsn.py": "BSN", "train_sr.py": "SR", "train_deblur.py": "DeblurNet"}
COMPACT = ROOT / "tests" / "golden"
FULL = Path(os.environ.get("SSDM_GOLDEN", ROOT.parent / "shared" / "golden"))


def known(path):
    """The arrays of a golden file by name; of one that is thinned out, what is not known is masked."""
    with np.load(path) as file:
        arrays = dict(file)
    for key in [key for key in arrays if key.endswith(":thinned")]:
        name, (step, *shape) = key.removesuffix(":thinned"), arrays.pop(key)
        values = arrays[name]
        arrays[name] = np.ma.masked_all(shape, values.dtype)
        arrays[name].reshape(-1)[::step] = values
    return arrays


@pytest.fixture(scope="session")
def golden_folder():
    """The golden files: all of them where they are, else the compact copy."""
    return FULL if FULL.is_dir() else COMPACT


@pytest.fixture(scope="session")
def golden_full():
    """The full folder, which has weights; skips where it is not."""
    if not FULL.is_dir():
        pytest.skip(f"no weights of the authors in {FULL}; set SSDM_GOLDEN to the folder of all golden files")
    return FULL


@pytest.fixture(scope="session")
def golden(golden_folder):
    """Loads arrays of the reference programs by file name, from s-sdm unless it names a folder."""
    return lambda name: known(golden_folder / f"{name if '/' in name else 's-sdm/' + name}.npz")


def by_intervals(spikes: np.ndarray) -> np.ndarray:
    """Spikes ``(B, T, H, W)``, each spread over the frames since the one before: by its description, loops only."""
    return np.apply_along_axis(_spread, 1, spikes.astype(float))


def _spread(spikes: np.ndarray) -> np.ndarray:
    ends = [frame + 1 for frame, spike in enumerate(spikes) if spike > 0]
    light = np.zeros(len(spikes))
    if ends:
        lengths = [stop - start for start, stop in zip([0, *ends], ends, strict=False)]
        behind = max(lengths[-1], len(spikes) - ends[-1])
        lengths[0] = max(lengths[0], lengths[1] if len(ends) > 1 else behind)
        for start, stop, length in zip([0, *ends], ends, lengths, strict=False):
            light[start:stop] = spikes[stop - 1] / length
        light[ends[-1] :] = spikes[ends[-1] - 1] / behind
    return light


def filled(network):
    """Fill a network as the golden files' README says; in eval mode."""
    state = network.state_dict()
    for key in sorted(state):
        if key.startswith(("sub_mean", "add_mean", "spike_input")):
            continue
        shape = tuple(state[key].shape)
        z = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
        scale = np.sqrt(1 / np.prod(shape[1:])) if len(shape) > 1 else 0.01
        state[key] = torch.from_numpy(np.asarray(z * scale, np.float32))
    network.load_state_dict(state)
    return network.eval()


def rnd(*shape):
    return torch.from_numpy(np.random.default_rng(0).random(shape).astype(np.float32))


def run_script(script, *argv):
    """Run a script in this process, which saves the seconds that importing torch takes; (exit code, stdout, stderr)."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = [str(ROOT / script), *map(str, argv)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_path(sys.argv[0], run_name="__main__")
        ended = 0
    except SystemExit as stop:
        ended = stop.code or 0
    finally:
        sys.argv = before
    return ended, out.getvalue(), err.getvalue()


def call(script, *argv, code=0):
    """Run a script in this process, which must end with the exit code ``code``; returns (stdout, stderr)."""
    ended, out, err = run_script(script, *argv)
    assert ended == code, out + err
    return out, err


@pytest.fixture(scope="session")
def server():
    """Forks processes that have imported torch already, which saves each of them four seconds."""
    context = multiprocessing.get_context("forkserver")
    # torch imports the last one, which takes the longest, when an optimiser is made.
    context.set_forkserver_preload(["tests.conftest", "torch.utils.tensorboard", "torch._dynamo"])
    return context


class Started:
    """A script in a process of its own, forked by the server, which leads a group: a test may kill it.

    Args:
        server: the fixture.
        argv: script and words.
        env: variables that it shall have.
        setup: called first; a function of a module.
    """

    def __init__(self, server, script, *argv, env=(), setup=None):
        self.pipe, there = server.Pipe()
        self.process = server.Process(target=_serve, args=(there, dict(env), setup, script, list(map(str, argv))))
        self.process.start()
        there.close()
        self.pid = self.process.pid

    def signal(self, number=signal.SIGKILL):
        """To the whole group."""
        os.killpg(self.pid, number)

    def wait(self, limit=60):
        """(exit code, stdout, stderr) at its end; a hanging process fails the test, as does one that was killed."""
        try:
            assert self.pipe.poll(limit), "it hangs"
            return self.pipe.recv()
        finally:
            self.end()

    def end(self):
        """Kill it, if it lives."""
        self.process.kill()
        self.process.join()


def _serve(pipe, env, setup, script, argv):
    os.setpgrp()
    os.environ.update(env)
    torch.set_num_threads(1)
    try:
        if setup:
            setup()
        pipe.send(run_script(script, *argv))
    except BaseException:
        pipe.send((1, "", traceback.format_exc()))


def records(folder, kind=""):
    """What the run 'test' in a folder has logged, all or of one kind."""
    lines = (folder / "test" / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == (kind or record["kind"])]


def weights(folder, script):
    """The last weights of the run 'test' in a folder."""
    return torch.load(folder / "test" / "ckpts" / f"{STAGES[script]}_last.pth", weights_only=True)


def same(one, two):
    """Whether two state dicts hold the same tensors."""
    return all(torch.equal(value, two[key]) for key, value in one.items())


def refused(script, *argv):
    """A script called with a mistake: one line that names the script, and exit code 2."""
    _, err = call(script, *argv, code=2)
    assert err.count("\n") == 1 and err.startswith(f"{Path(script).name}: error: "), err
    return err


def options(script, data, folder, *more):
    """Options of a tiny training run."""
    extra = ["--teacher", "sdm", "--tea_loss", "l1"] if script == "train_deblur.py" else []
    sizes = ["--roi_size", 32, "--bs", 2, "--workers", 0, "--device", "cpu"]
    return ["--base_folder", data, "--save_folder", folder, *sizes, *extra, *more]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Random weights under the official names."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    for name, network in (("BSN_1000", BSN()), ("SR_70", EDSR()), ("DeblurNet_100", Deblur_Net())):
        save(network.state_dict(), folder / f"{name}.pth")
    return folder


def paths_of(checkpoints, *flags):
    """--bsn_path, --sr_path, --deblur_path of these weights, or some of them."""
    files = {"bsn": "BSN_1000", "sr": "SR_70", "deblur": "DeblurNet_100"}
    return [word for flag in flags or files for word in (f"--{flag}_path", checkpoints / f"{files[flag]}.pth")]


@pytest.fixture(params=["plain", "fast"])
def form(request):
    """Brings a network to a form."""
    return lambda network: quicken(network, torch.device("cpu" if request.param == "fast" else "meta"))


@pytest.fixture(scope="session")
def larger(tmp_path_factory):
    """3 training and 2 test samples of 96x128 pixels, at Vth 1 and 2, for networks that need more; read only."""
    root = tmp_path_factory.mktemp("data") / "GOPRO"
    call("scripts/make_demo_data.py", "--out", root, *"--size 96x128 --train 3 --test 2 --vth 1 2".split())
    return root


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A data set of 3 training and 2 test samples of 64x96 pixels; read only."""
    root = tmp_path_factory.mktemp("data") / "GOPRO"
    call("scripts/make_demo_data.py", "--out", root, "--size", "64x96", "--train", 3, "--test", 2)
    return root


@pytest.fixture
def copy(tiny, tmp_path):
    """A copy of the tiny data set that a test may spoil."""
    return Path(shutil.copytree(tiny, tmp_path / "GOPRO"))
