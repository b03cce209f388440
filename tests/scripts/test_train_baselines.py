"""The recipes of SpkDeblurNet and STIR."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from codes.baselines.adapters import spkdeblurnet_input
from codes.baselines.spkdeblurnet_model import SpkDeblurNet
from codes.baselines.stir_model import STIR
from codes.dataset import SpikeData
from codes.spike import write_dat
from tests.conftest import call, records, refused

pytestmark = pytest.mark.slow

SPK, STI = "scripts/baselines/train_spkdeblurnet.py", "scripts/baselines/train_stir.py"
CROPS = {SPK: 72, STI: 64}


def training(script, data, folder, *more):
    base = ["--base_folder", data, "--save_folder", folder, "--roi_size", CROPS[script], "--bs", 1, "--workers", 0]
    base += ["--no-perceptual"] if script == STI else []
    return [*base, *"--device cpu --eval_every 0 --log_every 1 --eval_samples 1 --eval_images 0".split(), *more]


def losses(folder):
    return [record["loss"] for record in records(folder, "train")]


def test_stir_learns_and_goes_on_where_it_stopped(larger, tmp_path):
    more = ["--lr", 1e-3, "--lr_schedule", "constant", "--no-clip_output", "--max_steps"]
    out, _ = call(STI, *training(STI, larger, tmp_path / "whole", *more, 30))
    found = losses(tmp_path / "whole")
    assert np.mean(found[-6:]) < 0.8 * np.mean(found[:6]) and "STIR: ssim:" in out
    for steps in (1, 3):
        call(STI, *training(STI, larger, tmp_path / "cut", *more, steps))
    assert losses(tmp_path / "cut") == found[:3]
    path = tmp_path / "whole/test/ckpts/STIR_last.pth"
    test = ["--test_mode", "--stir_path", path, "--base_folder", larger, "--workers", 0, "--device", "cpu"]
    call(STI, *test, "--save_folder", tmp_path, "--eval_images", 0)
    rows = json.loads((tmp_path / "test/test_mode/results.json").read_text())["rows"]
    assert list(rows) == ["TFP", "TFI", "STIR"] and all(row["psnr"] > 0 for row in rows.values())


def test_spkdeblurnet_learns_from_the_sequence(larger, tmp_path):
    more = ["--instants", "sequence", "--lr_schedule", "constant", "--max_steps", 8, "--use_small"]
    out, _ = call(SPK, *training(SPK, larger, tmp_path, *more))
    found = losses(tmp_path)
    assert np.mean(found[-2:]) < np.mean(found[:2])
    assert all(f"{row}: ssim:" in out for row in ("Blur", "SpkDeblurNet", "spike_recon", "quick_sharp"))


@pytest.mark.parametrize("script", [SPK, STI])
def test_a_step_by_hand(script, larger, tmp_path):
    """The first logged loss is that of the initial network on the first crop, computed apart."""
    more = ["--no-flips", "--max_steps", 1, "--instants", "centre", "--use_small", "--seed", 3]
    call(script, *training(script, larger, tmp_path, *more))
    torch.manual_seed(3)
    net = SpkDeblurNet() if script == SPK else STIR()
    crops = {"use_roi": True, "roi_size": CROPS[script], "seed": 3, "use_sharp": True, "use_small": True}
    sample = SpikeData(larger, "GOPRO", "train", **crops)[0, 0]
    sharp, spike = sample["sharp"][None], sample["spike"][None]
    if script == STI:
        light = (sharp * torch.tensor([0.11, 0.59, 0.3])[:, None, None]).sum(1, keepdim=True)
        target = light.unflatten(-1, (-1, 4)).unflatten(-3, (-1, 4))[..., 1:3, :, 1:3].mean((-1, -3))
        images = [image.clamp(0, 1) for image in net(spike[:, 38:99])]
        expected = (images[0] - target).abs().mean()
        for image, weight in zip(images[1:], (0.5, 0.25, 0.25, 0.25), strict=True):
            target = F.avg_pool2d(target, 2)
            expected = expected + weight / 4 * (image - target).abs().mean()
    else:
        rgb = sharp.flip(1)
        images = net(*spkdeblurnet_input(net, sample["blur"][None], spike, 68))
        grey = (rgb * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
        expected = sum((a - b).abs().mean() for a, b in zip(images, (rgb, grey, rgb), strict=True))
    assert losses(tmp_path)[0] == pytest.approx(expected.item(), rel=1e-5)


def test_spikes_of_half_the_size(larger, tmp_path):
    """A data set that was prepared with --scale 2."""
    half = tmp_path / "HALF"
    for split in ("train", "test"):
        for kind in ("blur_data", "sharp_data"):
            shutil.copytree(larger / split / kind, half / split / kind)
        for path in sorted((larger / split / "spike_data").glob("*/*.dat")):
            spikes = np.random.default_rng(0).random((137, 48, 64)) < 0.4
            write_dat(half / split / "spike_data" / path.parent.name / path.name, spikes)
    sample = SpikeData(half, "GOPRO", "test", scale=2, use_roi=True, roi_size=72)[0]
    assert sample["spike"].shape == (137, 36, 36) and sample["blur"].shape == (3, 72, 72)
    argv = training(SPK, half, tmp_path / "exp", "--max_steps", 1)
    assert "it holds spikes of 1/2 of the image's sides" in refused(SPK, *argv)
    call(SPK, *argv, "--spike_scale", 2)
    assert len(losses(tmp_path / "exp")) == 1


def test_stir_without_vgg_names_the_file(larger, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    argv = [word for word in training(STI, larger, tmp_path / "exp", "--max_steps", 1) if word != "--no-perceptual"]
    _, err = call(STI, *argv, code=2)
    error = err.splitlines()[-1]
    assert error.startswith("train_stir.py: error: ") and "vgg19-dcbb9e9d.pth and put it in" in error
