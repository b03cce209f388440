"""Captures of other domains, and how they are measured."""

import cv2
import numpy as np
import pytest

from tests.conftest import ROOT, call

pytestmark = pytest.mark.slow
SCRIPT = "scripts/dev/shifted.py"


def test_three_domains_with_known_frames(tmp_path):
    rng = np.random.default_rng(0)
    texture = cv2.resize(rng.integers(0, 256, (30, 50, 3), np.uint8), (400, 240), interpolation=cv2.INTER_CUBIC)
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos/a.png"), texture)
    out = tmp_path / "out"
    base = ["--out", out, "--count", 1, "--size", "96x144", "--device", "cpu", "--instants", 1]
    call(SCRIPT, *base, "--photos", tmp_path / "photos")
    spikes = {name: np.load(out / name / "spike_data/000.npy") for name in ("tilted", "pattern", "night")}
    assert {name: one.shape for name, one in spikes.items()} == {
        "tilted": (137, 32, 48),
        "pattern": (137, 24, 36),
        "night": (137, 24, 36),
    }
    assert spikes["night"].mean() < 0.3 * spikes["pattern"].mean()
    assert len(list(out.glob("*/sharp/000/*.png"))) == 3 * 7
    said, _ = call(SCRIPT, *base, "--domains", "pattern", "--weights", ROOT / "model/SDMNet_photo.pth")
    rows = [line.split("|") for line in said.splitlines()]
    blur, sharp = (cv2.imread(str(out / f"pattern/{place}.png")) for place in ("blur_data/000", "sharp/000/068"))
    expected = cv2.PSNR(blur, sharp)
    assert [row[2].strip() for row in rows] == ["blurry input", str(ROOT / "model/SDMNet_photo.pth")]
    assert float(rows[0][3]) == pytest.approx(expected, abs=0.01) and float(rows[1][3]) > 10
