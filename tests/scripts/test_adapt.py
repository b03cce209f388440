"""From captures to adapted weights in one command, interrupted and not."""

import json
import shutil

import numpy as np
import pytest
import torch

from codes.engine.run import Run
from codes.engine.weights import load_student
from codes.inference import Deblurrer
from codes.model.ldn_model import Deblur_Net
from codes.model.sdmnet_model import SDMNet
from tests.conftest import ROOT, call, refused

pytestmark = pytest.mark.slow
SCRIPT = "scripts/adapt.py"
SMALL = "--scenes 2 --bs 2 --roi_size 32 --workers 0 --device cpu --shown 1 --precision fp32".split()


@pytest.fixture(scope="module")
def captures(tmp_path_factory):
    root = tmp_path_factory.mktemp("captures") / "OWN"
    call("scripts/make_demo_data.py", "--out", root, "--size", "128x192", "--train", 2, "--test", 0)
    return root


@pytest.fixture(scope="module")
def adapted(captures, tmp_path_factory):
    out = tmp_path_factory.mktemp("adapted") / "out"
    said, _ = call(SCRIPT, captures, "--out", out, *SMALL, "--steps", 3)
    assert "2 captures are sound, 0 left out; Vth" in said and "withheld spikes" in said
    return out


def test_it_makes_weights_a_page_and_a_table(captures, adapted):
    path = adapted / "SDMNet_adapted.pth"
    assert isinstance(load_student(path), SDMNet)
    before = load_student(ROOT / "model/SDMNet_photo.pth").state_dict()
    assert any(not torch.equal(value, before[key]) for key, value in load_student(path).state_dict().items())
    name = next(iter(json.loads((adapted / "adapt.json").read_text())["before"]))
    image, stream = captures / f"train/blur_data/{name}.png", captures / f"train/spike_data/{name}.dat"
    assert Deblurrer("sdmnet", sdmnet_path=str(path))(image, stream, frames=1).shape == (1, 128, 192, 3)
    rows = json.loads((adapted / "adapted.json").read_text())["rows"]
    assert [row[""] for row in rows] == ["mean", name] and all(
        np.isfinite(list(row.values())[1:]).all() for row in rows
    )
    page = (adapted / "index.html").read_text()
    assert "Adapted" in page and len(list((adapted / "after" / name).glob("*.png"))) == 13


def test_no_sharp_image_is_read(captures, adapted, tmp_path):
    blind = shutil.copytree(captures, tmp_path / "OWN", ignore=shutil.ignore_patterns("sharp_data"))
    out = shutil.copytree(
        adapted, tmp_path / "out", ignore=shutil.ignore_patterns("training", "after", "before", "*.pth")
    )
    (out / "adapt.json").unlink()
    call(SCRIPT, blind, "--out", out, *SMALL, "--steps", 0)
    assert (out / "adapt.json").read_bytes() == (adapted / "adapt.json").read_bytes()


def test_an_interrupted_run_ends_with_the_same_weights(captures, adapted, tmp_path, monkeypatch):
    out = shutil.copytree(adapted, tmp_path / "out", ignore=shutil.ignore_patterns("training", "after", "*.pth"))
    update = Run.update

    def interrupted(run, rate):
        update(run, rate)
        run.stop.asked = run.step_count == 2

    monkeypatch.setattr(Run, "update", interrupted)
    said, _ = call(SCRIPT, captures, "--out", out, *SMALL, "--steps", 3, code=130)
    assert "stopped at step 2" in said and not (out / "SDMNet_adapted.pth").exists()
    monkeypatch.undo()
    call(SCRIPT, captures, "--out", out, *SMALL, "--steps", 3)
    whole, cut = (load_student(path / "SDMNet_adapted.pth").state_dict() for path in (adapted, out))
    assert all(torch.equal(value, cut[key]) for key, value in whole.items())
    assert (out / "adapted.csv").read_bytes() == (adapted / "adapted.csv").read_bytes()


def test_minutes_are_steps_that_stay(captures, adapted, tmp_path):
    out = shutil.copytree(adapted, tmp_path / "out", ignore=shutil.ignore_patterns("training", "after", "*.pth"))
    ldn = ["--minutes", 0.001]
    call(SCRIPT, captures, "--out", out, *SMALL, *ldn)
    seconds = json.loads((out / "adapt.json").read_text())["seconds"]
    lines = [json.loads(line) for line in (out / "training/metrics.jsonl").read_text().splitlines()]
    assert seconds > 0 and lines[-1]["step"] == max(round(0.06 / seconds), 1)


def test_an_ldn_stays_one(captures, tmp_path):
    init = ["--init_path", ROOT / "model/DeblurNet_photo.pth"]
    said, _ = call(SCRIPT, captures, "--out", tmp_path / "out", *SMALL, *init, "--steps", 1)
    assert "use it with --deblur_path" in said
    assert isinstance(load_student(tmp_path / "out/DeblurNet_adapted.pth"), Deblur_Net)


def test_mistakes_in_one_line(captures, adapted, checkpoints, tmp_path):
    assert "made otherwise (seed); choose another --out" in refused(
        SCRIPT, captures, "--out", adapted, *SMALL, "--seed", 1
    )
    assert "holds no captures" in refused(SCRIPT, tmp_path, "--out", tmp_path / "out", *SMALL)
    old = ["--init_path", checkpoints / "DeblurNet_100.pth"]
    assert "such a student cannot be adapted" in refused(SCRIPT, captures, "--out", tmp_path / "out", *SMALL, *old)
