"""What an evaluation measures and leaves behind."""

import math

import numpy as np
import pytest
import skimage.metrics
import torch

from codes.dataset import SpikeData
from codes.engine.options import EvalConfig
from codes.report.evaluation import Measured, Report, Row, measure, measure_rows


def images(seed, noise=0.1):
    rng = np.random.default_rng(seed)
    sharp = rng.random((3, 3, 16, 24)).astype(np.float32)
    return torch.from_numpy(sharp), torch.from_numpy(
        sharp + noise * rng.standard_normal(sharp.shape).astype(np.float32)
    )


def test_a_metric_is_the_mean_over_instants():
    sharp, noisy = images(0)
    row = Row("x", noisy, sharp, "x")
    pairs = [(a.numpy(), b.clip(0, 1).numpy()) for a, b in zip(sharp, noisy, strict=True)]
    expected = np.mean([skimage.metrics.peak_signal_noise_ratio(a, b, data_range=1) for a, b in pairs])
    assert measure(row, "psnr", "standard") == pytest.approx(expected, abs=1e-5)
    assert measure(row, "psnr", "official") == pytest.approx(expected, abs=1e-5)
    expected = np.mean([skimage.metrics.mean_squared_error(a, b) for a, b in pairs])
    assert measure(row, "mse", "standard") == pytest.approx(expected, rel=1e-5)
    assert measure(row, "mse", "official") == pytest.approx(4 * expected, rel=1e-5)


@pytest.mark.parametrize("convention", ["official", "standard"])
def test_identical_images_count_as_100_db(convention):
    """Each image by itself: of three, one identical, the others of a known error."""
    sharp = torch.full((3, 3, 16, 24), 0.25)
    row = Row("x", sharp + torch.tensor([0, 0.1, 0.01])[:, None, None, None], sharp, "x")
    assert measure(row, "psnr", convention) == pytest.approx((100 + 20 + 40) / 3, abs=1e-3)
    row = Row("x", torch.zeros(1, 3, 16, 24), torch.zeros(1, 3, 16, 24), "x")
    assert (measure(row, "psnr", convention), measure(row, "ssim", convention)) == (100, 1)
    assert math.isnan(measure(Row("x", torch.full((1, 3, 16, 24), torch.nan), sharp[:1], "x"), "psnr", convention))


def test_report(tmp_path):
    report = Report()
    for name, psnr in (("a/1", 20.0), ("a/2", 30.0)):
        report.add(Measured(name, {"Blur": {"psnr": psnr}, "Real": {}}, {"Blur": 0.002, "Real": 0.001}))
    report.add(Measured("a/3", fault="gone"))
    assert report.means() == {"Blur": {"psnr": 25}, "Real": {}}
    assert report.lines() == ["Blur: psnr: 25.000  ", "Real: no reference", "skipped a/3: gone"]
    assert report.times() == pytest.approx({"Blur": 2, "Real": 1}) and report.milliseconds == pytest.approx(3)
    report.write(tmp_path, {"device": "cpu"})
    assert (tmp_path / "results.csv").read_text() == "row,psnr,ms,samples\nBlur,25.0,2.0,2\nReal,,1.0,2\n"
    assert (tmp_path / "results.txt").read_text().splitlines() == report.lines()


def test_pictures_of_an_earlier_evaluation_go(tiny, tmp_path):
    """One prefix, one evaluation: what an epoch or a table showed before does not stay beside."""

    def evaluate(prefix, *kinds):
        data = SpikeData(tiny, "GOPRO", "test", use_sharp=True)
        cfg = EvalConfig(eval_images=1, workers=0)
        rows = lambda sample: (Row(kind, sample["blur"], sample["sharp"], kind) for kind in kinds)  # noqa: E731
        measure_rows(cfg, torch.device("cpu"), data, rows, tmp_path, prefix)
        return {path.name for path in tmp_path.iterdir()}

    first = {f"000_0000_{kind}.png" for kind in ("blur", "sdm", "sharp", "panel")}
    assert evaluate("000", "blur", "sdm") == first
    second = {f"005_0000_{kind}.png" for kind in ("blur", "sharp", "panel")}
    assert evaluate("005", "blur") == first | second
    assert evaluate("000", "blur") == first - {"000_0000_sdm.png"} | second
