"""SDMNet on scenes that are recorded anew: from captures to weights."""

import pytest
import torch

from codes.engine.weights import load_student
from codes.model.sdmnet_model import SDMNet, SDMNetLight
from tests.conftest import call, records, refused

pytestmark = pytest.mark.slow

SCRIPT = "scripts/train_robust.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Captures of 128x192 pixels, and scenes from them."""
    root = tmp_path_factory.mktemp("robust")
    call("scripts/make_demo_data.py", "--out", root / "GOPRO", "--size", "128x192", "--train", 2, "--test", 1)
    base = ["--base_folder", root / "GOPRO", "--out", root / "SCENES", "--shrink", 1.5, "--device", "cpu"]
    out, _ = call("scripts/make_scenes.py", *base, "--count", 3, "--render")
    assert "3 scenes" in out and len(list((root / "SCENES").glob("*/light.npy"))) == 3
    out, _ = call("scripts/make_scenes.py", *base, "--count", 4)
    assert "4 scenes" in out
    assert "another --seed" in refused("scripts/make_scenes.py", *base, "--count", 4, "--seed", 1)
    return root


def losses(folder):
    return [record["loss"] for record in records(folder, "train")]


def test_it_learns_and_resumes(made, tmp_path):
    base = ["--base_folder", made / "SCENES", "--roi_size", 32, "--bs", 2, "--workers", 0, "--device", "cpu"]
    base += ["--lr_schedule", "constant", "--log_every", 1, "--precision", "fp32"]
    more = ["--eval_folder", made / "GOPRO", "--eval_images", 0]
    out, _ = call(SCRIPT, *base, *more, "--save_folder", tmp_path / "whole", "--max_steps", 5)
    assert "SDMNet: ssim" in out and "Blur: ssim" in out
    for steps in (2, 5):
        call(SCRIPT, *base, "--save_folder", tmp_path / "cut", "--max_steps", steps)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole") and len(losses(tmp_path / "cut")) == 5
    path = tmp_path / "whole/test/ckpts/SDMNet_last.pth"
    assert isinstance(load_student(path), SDMNet) and load_student(path).ldn.resBlock1.conv_block[0].out_channels == 48
    assert "50 channels of the 48 inside" in refused(SCRIPT, *base, "--inner", 50, "--init_path", path)
    call(SCRIPT, *base, "--save_folder", tmp_path / "tuned", "--init_path", path, "--lr", 0, "--max_steps", 1)
    again = load_student(tmp_path / "tuned/test/ckpts/SDMNet_last.pth").state_dict()
    assert all(torch.equal(value, again[key]) for key, value in load_student(path).state_dict().items())

    light = [*base, "--student", "sdmnet_light", "--save_folder", tmp_path / "light"]
    assert "holds SDMNet; give weights of SDMNet light" in refused(SCRIPT, *light, "--init_path", path)
    assert "--inner has no effect with --student sdmnet_light" in refused(SCRIPT, *light, "--inner", 32)
    call(SCRIPT, *light, "--max_steps", 3)
    path = tmp_path / "light/test/ckpts/SDMNetLight_last.pth"
    assert isinstance(load_student(path), SDMNetLight)
    assert losses(tmp_path / "light")[0] == pytest.approx(losses(tmp_path / "whole")[0])  # both are the blurry image
    call(SCRIPT, *light[:-1], tmp_path / "more", "--init_path", path, "--max_steps", 1)
    assert "holds SDMNet light; give weights of SDMNet, or none" in refused(SCRIPT, *base, "--init_path", path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--test_mode"], "train_student.py --test_mode --student sdmnet --student_path"),
        (["--vth", 2], "--vth has no effect without --eval_folder"),
        (["--no-clip_output"], "--clip_output has no effect on scenes"),
        (["--roi_size", 136], "--roi_size is 136"),
        ([], "make_scenes.py makes them"),
    ],
)
def test_mistakes_in_one_line(words, message, tmp_path):
    base = ["--base_folder", tmp_path, "--save_folder", tmp_path / "exp", "--device", "cpu"]
    assert message in refused(SCRIPT, *base, *words)
