import contextlib
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from codes.dataset import SpikeData
from codes.engine.textures import cached_textures
from codes.model.bsn_model import BSN
from codes.model.edsr_model import EDSR
from codes.sdm import Teacher
from codes.spike import read_dat
from tests.conftest import call, filled, options, refused
from tests.test_cache import make_data

pytestmark = pytest.mark.slow

INSTANTS = (20, 68, 116)


def fake_run(folder, precision="fp32"):
    lines = []
    cfg = SimpleNamespace(teacher_cache=str(folder), precision=precision)
    device = torch.device("cpu")
    return SimpleNamespace(cfg=cfg, device=device, autocast=contextlib.nullcontext, say=lines.append, lines=lines)


class Counting(Teacher):
    """Notes which streams it was asked for."""

    def textures(self, spike, instants):
        self.asked = [*getattr(self, "asked", []), spike]
        return super().textures(spike, instants)


def counting():
    return Counting.plain(9, "nearest")


@pytest.fixture(scope="module")
def networks():
    return filled(BSN()), filled(EDSR())


def brute_labels(blur, cube):
    """Labels of the plain teacher (9 frames, nearest) from a whole frame, in plain arithmetic."""
    labels = []
    for instant in INSTANTS:
        long, short = cube[20:117].mean(0, dtype=np.float32), cube[instant - 4 : instant + 5].mean(0, dtype=np.float32)
        ratio = np.divide(short, long, out=np.zeros_like(long), where=long > 0)
        labels.append(np.clip(blur * np.kron(ratio, np.ones((4, 4), np.float32)), 0, 1))
    return np.stack(labels)


@pytest.mark.parametrize("size", [(64, 96), (36, 100)])
def test_labels_of_crops_are_those_of_whole_frames(size, tmp_path):
    root = make_data(tmp_path / "data", *size)
    data = SpikeData(root, "GOPRO", "train", use_roi=True, roi_size=32, cache=tmp_path / "images")
    whole = SpikeData(root, "GOPRO", "train")
    data.textures = cached_textures(fake_run(tmp_path / "cache"), counting(), data, INSTANTS)
    for index in range(2):
        frame = whole[index]
        everything = brute_labels(frame["blur"].numpy(), read_dat(data.spike_paths[index], size[0] // 4, size[1] // 4))
        for epoch in range(4):
            sample = data[index, epoch]
            assert sample["textures"].shape == (4, 32, 32) and sample["textures"].dtype == torch.float16
            top, left = next(
                (y, x)
                for y in range(0, size[0] - 31, 4)
                for x in range(0, size[1] - 31, 4)
                if torch.equal(frame["blur"][:, y : y + 32, x : x + 32], sample["blur"])
            )
            labels = Teacher.labels(sample["blur"][None], sample["textures"][None])[0]
            expected = everything[..., top : top + 32, left : left + 32]
            np.testing.assert_allclose(labels, expected, rtol=2e-3, atol=1e-6)


def test_textures_are_the_teachers_of_the_whole_frame(networks, tmp_path):
    """The cascade against its definition, within the rounding of float16."""
    bsn, sr = networks
    root = make_data(tmp_path / "data", 48, 64, samples=1)
    data = SpikeData(root, "GOPRO", "train", use_roi=True, roi_size=16)
    cache = cached_textures(fake_run(tmp_path / "cache"), Teacher.cascade(bsn, sr, 9), data, INSTANTS)
    cube = torch.from_numpy(read_dat(data.spike_paths[0], 12, 16)).float()
    with torch.no_grad():
        expected = [sr(cube[20:117].mean(0)[None, None]).clamp(0, 1)]
        for instant in INSTANTS:
            denoised = bsn(cube[instant - 4 : instant + 5].mean(0)[None, None]).clamp(0, 1)
            expected.append(sr(denoised).clamp(0, 1))
    found = cache.read(data.spike_paths[0])
    assert found.shape == (4, 48, 64) and found.dtype == np.float16
    # With these weights the networks see values far beyond 1; one by one or in a batch, float32 differs by up to 1e-4.
    np.testing.assert_allclose(found, torch.cat(expected)[:, 0], rtol=2**-10, atol=2e-4)


def test_everything_that_textures_depend_on_is_in_the_key(networks, tmp_path):
    root = make_data(tmp_path / "data", 32, 32, samples=1)
    data = SpikeData(root, "GOPRO", "train")
    bsn, sr = networks
    other_bsn, other_sr = filled(BSN()), filled(EDSR())
    for network in (other_bsn, other_sr):
        next(network.parameters()).data.view(-1)[0] += 1e-3

    def folder(teacher, instants=INSTANTS, precision="fp32"):
        return cached_textures(fake_run(tmp_path / "cache", precision), teacher, data, instants).folder

    folders = [
        folder(Teacher.cascade(bsn, sr, 9)),
        folder(Teacher.cascade(other_bsn, sr, 9)),
        folder(Teacher.cascade(bsn, other_sr, 9)),
        folder(Teacher.cascade(bsn, sr, 11)),
        folder(Teacher.cascade(bsn, sr, 9), (20, 68)),
        folder(Teacher.cascade(bsn, sr, 9), precision="bf16"),
        folder(Teacher.plain(9, "nearest")),
        folder(Teacher.plain(9, "bilinear")),
        folder(Teacher.plain(21, "bilinear")),
    ]
    assert len(set(folders)) == len(folders)
    assert folder(Teacher.cascade(filled(BSN()), filled(EDSR()), 9)) == folders[0]
    about = json.loads((folders[3] / "about.json").read_text())
    assert about["instants"] == list(INSTANTS) and "11 frames" in about["E_short"] and "BSN" in about["denoise"]


def test_only_what_is_missing_or_changed_is_made(tmp_path):
    root = make_data(tmp_path / "data", 32, 32, samples=3)
    data = SpikeData(root, "GOPRO", "train")
    paths = data.spike_paths

    def fill():
        run, teacher = fake_run(tmp_path / "cache"), counting()
        return cached_textures(run, teacher, data, INSTANTS), getattr(teacher, "asked", []), run.lines[0]

    cache, asked, line = fill()
    assert len(asked) == 3 and "teacher cache: 3 samples, 0.0 MB each, 0.0 GB; 3 to make" in line
    assert fill()[1] == [] and "; none to make" in fill()[2]
    times = [cache.path(path).stat().st_mtime_ns for path in paths]
    cache.path(paths[1]).unlink()
    _, asked, _ = fill()
    assert len(asked) == 1 and np.array_equal(asked[0][0], read_dat(paths[1], 8, 8))
    assert [cache.path(paths[i]).stat().st_mtime_ns == times[i] for i in range(3)] == [True, False, True]
    os.utime(paths[2], ns=(0, 10**18))
    _, asked, _ = fill()
    assert len(asked) == 1 and np.array_equal(asked[0][0], read_dat(paths[2], 8, 8))
    content = bytearray(paths[0].read_bytes())
    content[:1000] = bytes(1000)
    paths[0].write_bytes(content)
    data.textures = cache
    data.use_roi, data.roi_size = True, 16
    with pytest.raises(ValueError, match="no textures of .* as it is now; the same command makes them"):
        data[0]
    data.textures, asked, _ = fill()
    assert len(asked) == 1 and data[0]["textures"].shape == (4, 16, 16)


def test_a_disk_without_room(tmp_path, monkeypatch):
    data = SpikeData(make_data(tmp_path / "data", 32, 32), "GOPRO", "train")
    needed = 2 * 4 * 32 * 32 * 2  # samples, textures, pixels, bytes
    for free in (needed - 1, needed):
        monkeypatch.setattr("shutil.disk_usage", lambda _folder, free=free: SimpleNamespace(free=free))
        teacher = counting()
        if free < needed:
            with pytest.raises(OSError, match="the teacher cache needs 0.0 GB more, but .* has 0.0 GB free; make room"):
                cached_textures(fake_run(tmp_path / "cache"), teacher, data, INSTANTS)
            assert not (tmp_path / "cache").exists() and not hasattr(teacher, "asked")
        else:
            cached_textures(fake_run(tmp_path / "cache"), teacher, data, INSTANTS)


def weights(folder):
    return torch.load(folder / "test" / "ckpts" / "DeblurNet_last.pth", weights_only=True)


def test_training(tiny, tmp_path):
    """Interrupted equals uninterrupted; that there is a cache is part of the recipe, its folder is not."""

    def argv(name, steps, *more):
        short = ["--max_steps", steps, "--eval_every", 0, "--eval_samples", 1, "--log_every", 1]
        return options("train_deblur.py", tiny, tmp_path / name, *short, *more)

    cache = ["--teacher_cache", tmp_path / "cache", "--workers", 1]
    assert "; 2 to make" in call("train_deblur.py", *argv("whole", 4, *cache))[0]
    assert "; none to make" in call("train_deblur.py", *argv("cut", 2, *cache))[0]
    call("train_deblur.py", *argv("cut", 4, "--teacher_cache", tmp_path / "other", "--cache", tmp_path / "images"))
    assert all(torch.equal(weights(tmp_path / "cut")[key], value) for key, value in weights(tmp_path / "whole").items())
    message = refused("train_deblur.py", *argv("cut", 9))
    assert "holds a run with --teacher_cache True, not False" in message

    call("train_deblur.py", *argv("direct", 1))
    logs = [(tmp_path / name / "test" / "metrics.jsonl").read_text() for name in ("direct", "whole")]
    losses = [json.loads(log.splitlines()[0])["tea"] for log in logs]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)  # bilinear enlarging differs at the edge of the crop alone


def test_training_with_the_cascade(tiny, tmp_path, checkpoints):
    argv = options("train_deblur.py", tiny, tmp_path, "--max_steps", 1, "--eval_samples", 1, "--precision", "bf16")
    argv += ["--teacher", "cascade", "--teacher_cache", tmp_path / "cache"]
    argv += ["--bsn_path", checkpoints / "BSN_1000.pth", "--sr_path", checkpoints / "SR_70.pth"]
    out, _ = call("train_deblur.py", *argv)
    assert "; 2 to make" in out and "Deblur_Net: " in out
    (about,) = (tmp_path / "cache").glob("*/about.json")
    assert json.loads(about.read_text())["precision"] == "bf16"
