"""The command lines, as a user types them: training, resuming, test mode, comparison, benchmark."""

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import STAGES, call, options, paths_of

pytestmark = pytest.mark.slow

ROWS = {
    "train_bsn.py": ["Blur", "TFP", "BSN"],
    "train_sr.py": ["Blur", "SDM", "Blur_SR", "Blur_Resize", "BSN_SR", "BSN_Resize", "TFP_Resize"],
    "train_deblur.py": ["Blur", "SDM", "Deblur_Net"],
}


@pytest.mark.parametrize("script", STAGES)
def test_test_mode(script, tiny, tmp_path, checkpoints):
    flags = {"train_bsn.py": ["bsn"], "train_sr.py": ["bsn", "sr"], "train_deblur.py": ["bsn", "sr", "deblur"]}[script]
    argv = ["--base_folder", tiny, "--save_folder", tmp_path, *"--metrics ssim psnr mse".split()]
    out, _ = call(script, "--test_mode", *argv, *paths_of(checkpoints, *flags))
    folder = tmp_path / "test" / "test_mode"
    results = json.loads((folder / "results.json").read_text())
    assert list(results["rows"]) == ROWS[script] and results["samples"] == 2
    with open(folder / "results.csv") as file:
        table = list(csv.DictReader(file))
    assert [row["row"] for row in table] == ROWS[script]
    for row, values in results["rows"].items():
        assert f"{row}: ssim: {values['ssim']:.3f}  psnr: {values['psnr']:.3f}  mse: {values['mse']:.3f}  \n" in out
    assert "2 samples, " in out and "ms per sample" in out
    assert (folder / "imgs" / "000_0000_panel.png").is_file()
    assert not (tmp_path / "test" / "ckpts").exists()


def test_the_blur_row_against_scikit_image(tiny, tmp_path, checkpoints):
    import skimage.metrics

    call("train_deblur.py", "--test_mode", "--teacher", "sdm", "--base_folder", tiny, "--save_folder", tmp_path,
         "--deblur_path", checkpoints / "DeblurNet_100.pth", "--metrics", "ssim", "psnr", "mse")  # fmt: skip
    row = json.loads((tmp_path / "test" / "test_mode" / "results.json").read_text())["rows"]["Blur"]
    values = []
    for blur in sorted(tiny.glob("test/blur_data/*/000019.png")):
        pair = [
            cv2.imread(str(path)) / 127.5 - 1 for path in (blur, Path(str(blur).replace("blur_data", "sharp_data")))
        ]
        values.append(
            (
                skimage.metrics.structural_similarity(*pair, channel_axis=2, data_range=2),
                skimage.metrics.peak_signal_noise_ratio(*pair, data_range=2),
                skimage.metrics.mean_squared_error(*pair),
            )
        )
    np.testing.assert_allclose([row[m] for m in ("ssim", "psnr", "mse")], np.mean(values, axis=0), atol=1e-5)


def test_test_mode_builds_no_lpips(tiny, tmp_path, checkpoints, monkeypatch):
    import codes.metrics

    def forbidden(*_args, **_options):
        raise AssertionError("LPIPS was built")

    monkeypatch.setattr(codes.metrics, "lpips_network", forbidden)
    monkeypatch.setattr("codes.losses.lpips_network", forbidden)
    monkeypatch.setattr("codes.engine.run.lpips_network", forbidden)
    call("train_deblur.py", "--test_mode", "--base_folder", tiny, "--save_folder", tmp_path, *paths_of(checkpoints))


def test_real_captures_have_pictures_but_no_figures(tiny, tmp_path, checkpoints):
    root = tmp_path / "RSB"
    for kind in ("spike_data", "blur_data"):
        shutil.copytree(tiny / "test" / kind, root / kind)
    for script in STAGES:
        more = ["--data_type", "real", "--max_steps", 1, "--train_split", "test"]
        call(script, *options(script, root, tmp_path / script, *more))
    argv = ["--test_mode", "--data_type", "real", "--base_folder", root, "--save_folder", tmp_path / "exp"]
    out, _ = call("train_deblur.py", *argv, *paths_of(checkpoints))
    assert "no sharp images" in out and "Deblur_Net: no reference" in out
    folder = tmp_path / "exp" / "test" / "test_mode"
    assert (folder / "imgs" / "000_0001_deblur.png").is_file()
    assert set(json.loads((folder / "results.json").read_text())["rows"]["SDM"]) == {"ms", "per_sample"}
    argv = ["--data_type", "real", "--base_folder", root, "--out", tmp_path / "out", "--methods", "blur", "sdm"]
    out, _ = call("scripts/tables.py", *argv)
    assert "| Blur |" in out and "| PSNR" not in out
    assert (tmp_path / "out" / "imgs" / "methods_0001_blur.png").is_file()


def test_benchmark_runs_and_its_two_ways_agree(tmp_path):
    """--quick checks what is fast against the plain way, and stops where they differ."""
    options = ["--quick", "--repeats", 1, "--device", "cpu", "--no-memory"]
    call("scripts/dev/benchmark.py", *options, "--json", tmp_path / "b.json")
    lines = json.loads((tmp_path / "b.json").read_text())["lines"]
    assert len(lines) == 23 and all(line["seconds"] > 0 and line.get("ratio", 1) > 0 for line in lines)
