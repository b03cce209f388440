"""The recipe of the weights in model/: a student on known sharp frames."""

import numpy as np
import pytest
import torch

from codes.engine.checkpoint import save
from codes.engine.weights import load_student
from codes.image import read_image
from codes.model.ldn_model import Deblur_Net
from codes.spike import read_dat
from tests.conftest import call, filled, records

pytestmark = pytest.mark.slow

SCRIPT = "scripts/train_student.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """3 training and 2 test samples of 48x64 pixels, at Vth 1 and 2."""
    root = tmp_path_factory.mktemp("data") / "GOPRO"
    call("scripts/make_demo_data.py", "--out", root, "--size", "48x64", "--train", 3, "--test", 2, "--vth", 1, 2)
    return root


def argv(data, folder, *more):
    base = ["--base_folder", data, "--save_folder", folder, "--roi_size", 32, "--bs", 2, "--workers", 0]
    return [*base, "--device", "cpu", "--train_vth", 1, 2, "--eval_images", 0, "--log_every", 1, *more]


def test_the_recipe(data, tmp_path):
    """It learns, resumes, tells what the student sees, is evaluated, and can be gone on with by another run."""
    more = ["--lr_schedule", "constant", "--max_steps"]
    call(SCRIPT, *argv(data, tmp_path / "whole", *more, 40))
    losses = [record["loss"] for record in records(tmp_path / "whole", "train")]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])
    for steps in (1, 3):
        call(SCRIPT, *argv(data, tmp_path / "cut", *more, steps))
    assert [record["loss"] for record in records(tmp_path / "cut", "train")] == losses[:3]
    (row,) = [record for record in records(tmp_path / "whole", "eval") if record["row"] == "Deblur_Net"]
    assert 5 < row["psnr"] < 60
    path = tmp_path / "whole/test/ckpts/DeblurNet_last.pth"
    student = load_student(path)
    assert (student.kind, student.gain) == ("pyramid", True)
    call(SCRIPT, *argv(data, tmp_path / "tuned", "--init_path", path, "--lr", 0, "--max_steps", 1))
    again = load_student(tmp_path / "tuned/test/ckpts/DeblurNet_last.pth").state_dict()
    assert all(torch.equal(value, again[key]) for key, value in student.state_dict().items())
    test = ["--test_mode", "--student_path", path, "--base_folder", data, "--save_folder", tmp_path, "--workers", 0]
    out, _ = call(SCRIPT, *test, "--device", "cpu", "--precision", "fp32")
    assert "Deblur_Net: ssim" in out and "SDM: ssim" in out


@pytest.mark.parametrize(
    "student, more, file", [("ldn", ["--student_spikes", "intervals"], "DeblurNet"), ("sdmnet", [], "SDMNet")]
)
def test_students_of_light_by_intervals(student, more, file, tiny, tmp_path):
    base = ["--base_folder", tiny, "--save_folder", tmp_path, "--train_vth", 1, "--workers", 0, "--device", "cpu"]
    call(SCRIPT, *base, "--student", student, *more, "--roi_size", 32, "--bs", 1, "--max_steps", 1)
    assert load_student(tmp_path / f"test/ckpts/{file}_last.pth").kind == "intervals"


def test_another_student(tiny, tmp_path):
    base = ["--base_folder", tiny, "--save_folder", tmp_path, "--train_vth", 1, "--workers", 0, "--device", "cpu"]
    more = ["--student", "san", "--roi_size", 64, "--bs", 1, "--max_steps", 1, "--precision", "fp32"]
    out, _ = call(SCRIPT, *base, *more, "--eval_images", 0, "--eval_samples", 1)
    assert (tmp_path / "test/ckpts/SAN_last.pth").is_file() and "SANStudent: ssim" in out


def test_the_loss_is_the_distance_to_the_known_frames(data, tmp_path):
    """One step of all 7 instants against the definition, wherever the crop was."""
    ldn = filled(Deblur_Net())
    save(ldn.state_dict(), tmp_path / "ldn.pth")
    more = ["--init_path", tmp_path / "ldn.pth", "--use_small", "--instants", 7, "--max_steps", 1, "--no-flips"]
    more += ["--precision", "fp32", "--train_vth", 1, "--roi_size", 48]
    words = [word for word in argv(data, tmp_path, *more)]
    at = words.index("--train_vth")
    call(SCRIPT, *words[:at], *words[at + 3 :])
    (logged,) = [record["loss"] for record in records(tmp_path, "train")]
    name = min(path.parent.name for path in (data / "train/spike_data").glob("*/*.dat"))
    spikes = torch.from_numpy(read_dat(data / "train/spike_data" / name / "000019.dat", 12, 16))
    to = lambda path: torch.from_numpy(read_image(path) / np.float32(255)).permute(2, 0, 1)  # noqa: E731
    blur, losses = to(data / "train/blur_data" / name / "000019.png"), []
    for left in range(0, 17, 4):
        distances = []
        for number, instant in zip(range(13, 26, 2), range(20, 117, 16), strict=True):
            sharp = to(data / "train/sharp_data" / name / f"{number:06}.png")
            with torch.no_grad():
                image = ldn(blur[None, :, :, left : left + 48].contiguous(),
                            spikes[None, instant - 10 : instant + 11, :, left // 4 : left // 4 + 12])  # fmt: skip
            distances.append((image[0] - sharp[:, :, left : left + 48]).abs().mean().item())
        losses.append(np.mean(distances))
    assert min(abs(loss - logged) for loss in losses) < 1e-5
