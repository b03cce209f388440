"""scripts/robustness.py: what it measures, what it keeps, what it refuses."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
import skimage.metrics

from codes.making.degradation import sample_of
from codes.making.synthesis import Scene
from tests.conftest import call, refused

pytestmark = pytest.mark.slow

NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
PHOTOS = [str(Path(skimage.__file__).parent / "data" / name) for name in NAMES]
SCRIPT, TINY = "scripts/robustness.py", ("--size", "64x96", "--samples", 1)


def rows_of(folder):
    with open(folder / "robustness.csv") as file:
        return {(row["factor"], row["value"], row["method"]): row for row in csv.DictReader(file)}


def test_command_line_goes_on_where_it_was(tmp_path):
    out = tmp_path / "out"
    few = ("--shift", "--ratio", "--motion", "--noise", 1, 8)
    methods = ("--methods", "blur", "sdm21")
    call(SCRIPT, "--out", out, *TINY, *methods, "--vth", 1, "--motion", "--shift", "--ratio", "--noise")
    rows = rows_of(out)
    image = np.stack(list(Scene(sample_of(0, 24.0, PHOTOS, (64, 96), 0))))[:, :64, :96]
    pair = (np.rint(255 * part).astype(np.uint8) for part in (image[68], image[20:117].mean(axis=0)))
    expected = skimage.metrics.peak_signal_noise_ratio(*pair)
    assert float(rows["vth", "1", "blur"]["psnr_db"]) == pytest.approx(expected, abs=0.01)
    assert float(rows["vth", "1", "sdm21"]["psnr_db"]) > expected + 1
    # A value that nobody measures shows that finished points are taken as they are.
    kept = json.loads((out / "robustness.json").read_text())
    (point,) = kept["psnr"].values()
    point["sdm21"]["0"] = 99.0
    (out / "robustness.json").write_text(json.dumps(kept))
    text, _ = call(SCRIPT, "--out", out, *TINY, *methods, "--vth", 1, 8, *few)
    rows = rows_of(out)
    assert float(rows["vth", "1", "sdm21"]["psnr_db"]) == float(rows["noise", "1", "sdm21"]["psnr_db"]) == 99
    assert len(rows) == 8 and float(rows["vth", "8", "sdm21"]["psnr_db"]) < 50
    assert (out / "robustness.md").read_text().splitlines()[0] in text and "99.00" in text
    picture = cv2.imread(str(out / "robustness.png"))
    assert picture.shape[1] > 800 and 0.005 < (picture < 128).any(axis=2).mean() < 0.5
    assert "size" in refused(SCRIPT, "--out", out, "--size", "64x64", "--methods", "blur")


def test_mistakes():
    assert "expected some of 4, 6, 8, 12, 24" in refused(SCRIPT, "--ratio", 5)
    assert "--shift is 25; it must be from 0 to 24" in refused(SCRIPT, "--shift", 25)
    assert "sdm22" in refused(SCRIPT, "--methods", "sdm22")
    assert "left out" in refused(SCRIPT, "--vth", "--noise", "--shift", "--ratio", "--motion")
