"""Several processes, with gloo on the CPU: they equal one process with the whole batch, and end together.

Most tests fork their processes and play torchrun's part themselves; one goes through the real torchrun.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import torch.distributed as dist

from codes.engine import distributed
from codes.engine.loader import BatchPlan
from codes.model.bsn_model import BSN
from codes.model.edsr_model import EDSR
from codes.model.ldn_model import Deblur_Net
from tests.conftest import ROOT, STAGES, Started, options, records, same, weights
from tests.engine.test_run import MINI, mini

pytestmark = pytest.mark.slow

NETWORKS = {"train_bsn.py": BSN, "train_sr.py": EDSR, "train_deblur.py": Deblur_Net}
LIMIT = 60


class Launch:
    """A script on some ranks, as torchrun starts them; one rank is an ordinary process without torchrun."""

    def __init__(self, server, ranks, script, *argv, own=(), setup=None, torchrun=False):
        """``own``: more words for each rank, which then is on a machine of its own; ``setup``: see :class:`Started`;
        ``torchrun``: one rank is torchrun's too."""
        self.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.ranks = []
        for rank in range(ranks):
            values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
            values |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": self.store.port, "TORCHELASTIC_RUN_ID": "test"}
            values |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}
            values |= {"LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1} if own else {}
            env = {key: str(value) for key, value in values.items()} if ranks > 1 or torchrun else {}
            words = own[rank] if own else ()
            self.ranks.append(Started(server, script, *argv, *words, env=env, setup=setup))

    def wait(self):
        """(exit code, stdout, stderr) of each rank; a rank that hangs fails the test."""
        try:
            limit = time.monotonic() + LIMIT
            return [rank.wait(max(0, limit - time.monotonic())) for rank in self.ranks]
        finally:
            for rank in self.ranks:
                rank.end()


def succeed(context, ranks, script, *argv, **options_):
    """Run to the end; only rank 0 prints. Returns what it prints."""
    (code, out, err), *others = Launch(context, ranks, script, *argv, **options_).wait()
    assert code == 0, err
    assert all(other == (0, "", "") for other in others), others
    return out


def refused(context, ranks, script, *argv):
    """Every rank ends with exit code 2, one of them with a line, which is returned."""
    ends = Launch(context, ranks, script, *argv).wait()
    err = "".join(err for _, _, err in ends)
    assert [code for code, _, _ in ends] == [2] * ranks, err
    assert err.count("\n") == 1 and err.startswith(f"{script}: error: "), err
    return err


@pytest.mark.parametrize("script", STAGES)
def test_ranks_equal_one_process_with_the_whole_batch(script, server, tiny, tmp_path):
    """The last batch has 3 samples: two ranks have 2 and 1 of them; of four ranks, one has none."""
    ranks, bs, steps = {"train_bsn.py": (2, 2, 7), "train_sr.py": (2, 2, 5), "train_deblur.py": (4, 1, 5)}[script]
    more = ["--max_steps", steps, "--log_every", 1, "--eval_every", 1, "--train_split", "train", "--no-clip_output"]
    out = succeed(server, ranks, script, *options(script, tiny, tmp_path / "many", *more, "--bs", bs))
    assert f"batches of {bs} on each of {ranks} ranks" in out
    out = succeed(server, 1, script, *options(script, tiny, tmp_path / "one", *more, "--bs", ranks * bs))
    assert "batches of 4, crop" in out
    assert ("batches per epoch of 5 steps each" in out) == (script == "train_bsn.py")

    torch.manual_seed(42)
    start = NETWORKS[script]().state_dict()
    one, many = (weights(tmp_path / name, script) for name in ("one", "many"))
    learned = sum((one[key] - start[key]).square().sum() for key in one).sqrt()
    apart = sum((one[key] - many[key]).square().sum() for key in one).sqrt()
    assert learned > 0.05 and apart < 1e-3 * learned

    logged, expected = records(tmp_path / "many"), records(tmp_path / "one")
    assert [r["step"] for r in logged if r["kind"] == "train"] == list(range(1, steps + 1))
    assert len(logged) == len(expected)
    for record, other in zip(logged, expected, strict=True):
        assert record.keys() == other.keys()
        for key in record.keys() - {"seconds"}:
            assert record[key] == (pytest.approx(other[key], rel=1e-4) if isinstance(other[key], float) else other[key])
    written = [
        {path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*") if "tensorboard" not in path.parts}
        for name in ("one", "many")
    ]
    assert written[0] == written[1] and len(list((tmp_path / "many/test/tensorboard").iterdir())) == 1


def test_test_mode_shares_the_samples_and_makes_the_same_table(server, tiny, tmp_path, checkpoints):
    """3 samples on 2 ranks, and on 4, of which one has none."""
    (tmp_path / "GOPRO").mkdir()
    (tmp_path / "GOPRO" / "test").symlink_to(tiny / "train")
    results, pictures = {}, {}
    for ranks in (1, 2, 4):
        argv = ["--test_mode", "--teacher", "sdm", "--base_folder", tmp_path / "GOPRO", "--workers", 0]
        argv += ["--save_folder", tmp_path / str(ranks), "--deblur_path", checkpoints / "DeblurNet_100.pth"]
        out = succeed(server, ranks, "train_deblur.py", *argv, "--device", "cpu", "--eval_images", 2)
        assert "3 samples, " in out
        folder = tmp_path / str(ranks) / "test" / "test_mode"
        rows = json.loads((folder / "results.json").read_text())["rows"]
        assert all(row.pop("ms") > 0 and len(row["per_sample"]) == 3 for row in rows.values())
        results[ranks] = json.dumps(rows)  # the order counts
        pictures[ranks] = {path.name: path.read_bytes() for path in (folder / "imgs").iterdir()}
    assert results[1] == results[2] == results[4]
    assert pictures[1] == pictures[2] == pictures[4] and len(pictures[1]) == 2 * 6


def test_teacher_cache_on_one_disk_and_on_two(server, tiny, tmp_path):
    """The same weights as of one process; where each machine has its own disk, all textures are on each."""
    script, caches = "train_deblur.py", [tmp_path / name for name in ("alone", "shared", "first", "second")]

    def argv(name, batch):
        words = ["--eval_every", 0, "--max_steps", 3, "--bs", batch, "--train_split", "train"]
        return options(script, tiny, tmp_path / name, *words)

    def textures(folder):
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.npy")}

    succeed(server, 1, script, *argv("one", 2), "--teacher_cache", caches[0])
    succeed(server, 2, script, *argv("two", 1), "--teacher_cache", caches[1])
    own = [("--teacher_cache", folder) for folder in caches[2:]]
    for _ in range(2):
        succeed(server, 2, script, *argv("apart", 1), own=own)
    assert len(textures(caches[0])) == 3 and all(textures(caches[0]) == textures(folder) for folder in caches)
    one, two, apart = (weights(tmp_path / name, script) for name in ("one", "two", "apart"))
    assert same(two, apart)
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=0, atol=1e-5)
    shutil.rmtree(next(caches[3].iterdir()))  # one disk is lost
    succeed(server, 2, script, *argv("again", 1), own=own)
    assert same(two, weights(tmp_path / "again", script)) and textures(caches[3]) == textures(caches[0])


def test_resume(server, tiny, tmp_path):
    """In the middle of an epoch; with another number of ranks only where the batch over all of them stays."""
    script = "train_sr.py"

    def argv(name, steps, *more):
        return options(script, tiny, tmp_path / name, "--eval_every", 0, "--max_steps", steps, "--bs", 1, *more)

    succeed(server, 2, script, *argv("whole", 6))
    succeed(server, 2, script, *argv("cut", 3))
    shutil.copytree(tmp_path / "cut", tmp_path / "other")
    out = succeed(server, 2, script, *argv("cut", 6))
    assert "step 3 of 6" in out
    assert same(weights(tmp_path / "whole", script), weights(tmp_path / "cut", script))

    err = refused(server, 1, script, *argv("other", 6))
    assert "holds a run with --bs 1 on each of 2 ranks, not 1; " in err
    assert "--lr 0.0002, not 1.0" in refused(server, 2, script, *argv("other", 6, "--lr", 1))
    out = succeed(server, 1, script, *argv("other", 6, "--bs", 2))
    assert "step 3 of 6" in out
    whole, other = (weights(tmp_path / name, script) for name in ("whole", "other"))
    assert max((whole[key] - other[key]).abs().max() for key in whole) < 1e-5


def test_one_line_says_why_all_ranks_ended(server, copy, tmp_path):
    """Whoever knows the reason: all, the rank that reads a broken picture, or rank 0, which owns the folder."""
    script = "train_sr.py"

    def argv(folder, *more):
        return options(script, copy, folder, "--max_steps", 20, "--eval_every", 0, "--bs", 1, *more)

    err = refused(server, 2, script, *argv(tmp_path / "nan", "--lr", 1e30, "--no-clip_output"))
    assert "the loss is" in err and "the last good state, of step 0, is intact" in err
    assert "with 2 processes; give auto or cuda" in refused(server, 2, script, *argv(tmp_path, "--device", "cuda:0"))
    assert "unknown flag --foo" in refused(server, 2, script, *argv(tmp_path, "--foo"))
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused(server, 2, script, *argv(tmp_path / "file"))
    sorted(copy.glob("train/blur_data/*/*.png"))[2].write_bytes(b"no image")
    assert "000019.png is no image that can be decoded" in refused(server, 2, script, *argv(tmp_path / "broken"))


def wait_for_lines(log, lines):
    limit = time.monotonic() + LIMIT
    while not (log.exists() and log.read_text().count("\n") >= lines) and time.monotonic() < limit:
        time.sleep(0.02)


def test_a_signal_to_one_rank_stops_all_and_a_killed_rank_ends_the_rest(server, tiny, tmp_path):
    script = "train_sr.py"
    argv = options(script, tiny, tmp_path, "--eval_every", 0, "--log_every", 1, "--bs", 1)
    launch = Launch(server, 2, script, *argv, "--max_steps", 100000)
    wait_for_lines(tmp_path / "test" / "metrics.jsonl", 4)
    launch.ranks[1].signal(signal.SIGTERM)
    ends = launch.wait()
    assert [code for code, _, _ in ends] == [130, 130]
    assert sorted(err for _, _, err in ends) == ["", f"\n{script}: stopped\n"]
    assert "the same command goes on" in ends[0][1]
    done = records(tmp_path)[-1]["step"]
    assert f"step {done} of {done + 2}" in succeed(server, 2, script, *argv, "--max_steps", done + 2)
    assert [r["step"] for r in records(tmp_path) if r["kind"] == "train"] == list(range(1, done + 3))

    launch = Launch(server, 2, script, *argv, "--max_steps", 100000)
    wait_for_lines(tmp_path / "test" / "metrics.jsonl", done + 5)
    launch.ranks.pop().end()
    ((code, _, err),) = launch.wait()
    assert code == 2 and err.count("\n") == 1 and "another process of this run ended" in err


def die_in_backward():
    """Rank 1 is killed within the gradient of the third step, before it is shared; where rank 0 waits for it."""
    real, calls = distributed.wrap, []

    def wrap(*args, **more):
        wrapped = real(*args, **more)
        weight = next(iter(wrapped.module.parameters()))

        def dies(gradient):
            calls.append(1)
            if len(calls) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return gradient

        if os.environ["RANK"] == "1":
            weight.register_hook(dies)
        return wrapped

    distributed.wrap = wrap


def test_a_rank_that_dies_in_backward_ends_the_others_at_once(server, tiny, tmp_path):
    argv = mini(tiny, tmp_path, "--bs", 1, "--max_steps", 100000)
    launch = Launch(server, 2, MINI.relative_to(ROOT), *argv, setup=die_in_backward)
    launch.ranks[1].process.join(LIMIT)
    dead, begun = launch.ranks.pop(), time.monotonic()
    assert dead.process.exitcode == -signal.SIGKILL
    ((code, _, err),) = launch.wait()
    assert time.monotonic() - begun < 30  # a loaded machine; alone it takes less than one
    assert code == 2 and err.count("\n") == 1 and "another process of this run ended" in err
    assert [r["step"] for r in records(tmp_path) if r["kind"] == "train"] == [1, 2]


def no_number():
    """The first and the fourth loss are none, on the rank that has a share of the batch."""
    real, count = torch.nn.functional.mse_loss, []

    def loss(*inputs):
        count.append(1)
        return real(*inputs) * (np.nan if len(count) in (1, 4) else 1)

    torch.nn.functional.mse_loss = loss


def test_steps_that_are_dropped_do_not_confuse_the_shared_gradient(server, tiny, tmp_path):
    """Forward passes without a gradient, the first of all too, with a last batch that one of two ranks has none of."""
    argv = ["--on_nan", "skip", "--max_steps", 7, "--lr_schedule", "constant"]
    for ranks in (1, 2):
        words = mini(tiny, tmp_path / str(ranks), *argv, "--bs", 2 // ranks)
        succeed(server, ranks, MINI.relative_to(ROOT), *words, setup=no_number)
    one, two = (torch.load(tmp_path / name / "test/ckpts/Mini_last.pth", weights_only=True) for name in "12")
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=0, atol=1e-5)
    dropped = [[r["step"] for r in records(tmp_path / name) if r["kind"] == "dropped"] for name in "12"]
    assert dropped == [[0, 3], [0, 3]]


def joined():
    """Fails where torchrun started this process and its network is not wrapped; or the other way round."""
    real = distributed.wrap

    def wrap(*args, **more):
        wrapped = real(*args, **more)
        assert isinstance(wrapped, torch.nn.parallel.DistributedDataParallel) == distributed.under_torchrun()
        return wrapped

    distributed.wrap = wrap


def test_one_process_of_torchrun_takes_the_way_of_several(server, tiny, tmp_path):
    """So that a single GPU tries it; with the weights of a process without torchrun."""
    ends = []
    for ranks in (0, 1):
        argv = mini(tiny, tmp_path / str(ranks), "--max_steps", 5)
        launch = Launch(server, 1, MINI.relative_to(ROOT), *argv, setup=joined, torchrun=ranks == 1)
        ((code, _, err),) = launch.wait()
        assert (code, err) == (0, "")
        ends.append(torch.load(tmp_path / str(ranks) / "test/ckpts/Mini_last.pth", weights_only=True))
    assert same(*ends)


def torchrun(script, *argv):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", ROOT / script]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, [*command, *argv])), **pipes, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_torchrun_is_interrupted(server, tiny, tmp_path):
    """Ctrl-C reaches torchrun, which hands it to every rank; what it prints itself is not ours."""
    script = "train_sr.py"
    argv = options(script, tiny, tmp_path / "cut", "--eval_every", 0, "--log_every", 1, "--bs", 1)
    process = torchrun(script, *argv, "--max_steps", 100000)
    wait_for_lines(tmp_path / "cut" / "test" / "metrics.jsonl", 3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode != 0 and out.count("the same command goes on") == 1 and ": error: " not in err
    done = records(tmp_path / "cut")[-1]["step"]
    for name in ("cut", "whole"):
        more = ["--eval_every", 0, "--log_every", 1, "--bs", 1, "--max_steps", done + 3]
        succeed(server, 2, script, *options(script, tiny, tmp_path / name, *more))
    assert same(weights(tmp_path / "cut", script), weights(tmp_path / "whole", script))


def test_shares_make_up_the_batch():
    """Whatever the number of ranks: the same samples, and shares that add up to 1."""
    for samples, batch_size, world in ((10, 4, 2), (11, 4, 2), (3, 4, 4), (9, 8, 4), (5, 6, 3)):
        whole = iter(BatchPlan(samples, batch_size, seed=1))
        plans = [BatchPlan(samples, batch_size, seed=1, rank=rank, world=world) for rank in range(world)]
        ranks = [iter(plan) for plan in plans]
        for step in range(7):
            batch = next(whole)
            parts, shares = [next(rank) for rank in ranks], [plan.share(step % plan.batches) for plan in plans]
            assert sum(shares) == pytest.approx(1)
            assert sorted(item for part, share in zip(parts, shares, strict=True) if share for item in part) == sorted(
                batch
            )
            for part, share in zip(parts, shares, strict=True):
                assert len(part) == max(1, round(share * len(batch))) and set(part) <= set(batch)


def test_devices(monkeypatch):
    """Each process takes the GPU of its number on its machine."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", lambda _number: None)
    assert distributed.local_device("cuda:1") == torch.device("cuda:1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    for key, value in {"WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2, "LOCAL_RANK": 1, "RANK": 3}.items():
        monkeypatch.setenv(key, str(value))
    assert distributed.local_device("auto") == distributed.local_device("cuda") == torch.device("cuda:1")
    assert distributed.local_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="--device cuda:0 with 4 processes; give auto or cuda"):
        distributed.local_device("cuda:0")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(ValueError, match="2 processes, but this machine offers 1 CUDA devices"):
        distributed.local_device("cuda")


def test_without_torchrun_there_is_no_group():
    network, values = torch.nn.Linear(2, 2), {"loss": np.pi}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")  # as some clusters set for everything
        distributed.start(torch.device("cpu"))
    assert not dist.is_initialized() and (distributed.rank(), distributed.world()) == (0, 1)
    assert distributed.wrap(network, torch.device("cpu")) is network and distributed.mean(values, 1.0) is values
    assert distributed.gather(1) == [1] and distributed.broadcast(1) == 1 and distributed.first_to_fail()
    assert distributed.any_rank(True) and not distributed.any_rank(False)
