"""A student that nobody has heard of: one file with its class, one record, and every script knows it."""

import json
import sys

import pytest
import torch

from codes.model import registry
from tests.conftest import call

FILE = '''
"""A network so small that a test can train it."""

import torch
from torch import nn


class ToyNet(nn.Module):
    """The blurry image, and a 1x1 convolution of the spikes enlarged to its size."""

    kind, spike_dim, gain = "pyramid", 21, True

    def __init__(self):
        super().__init__()
        self.toy_layer = nn.Conv2d(self.spike_dim, 3, 1)

    def forward(self, blur, spike):
        return torch.stack([self.decode(blur, self.encode(blur), one) for one in spike.unbind(1)], dim=1)

    def encode(self, blur):
        return blur

    def decode(self, blur, encoded, spike):
        return encoded + nn.functional.interpolate(self.toy_layer(spike), scale_factor=4)
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "toy_model.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    record = registry.Network(
        key="toy",
        title="ToyNet",
        build="toy_model:ToyNet",
        role="student",
        files=("ToyNet.pth",),
        flag="toy",
        reach=2,
        colour="BGR",
    )
    monkeypatch.setitem(registry.NETWORKS, "toy", record)
    yield record
    sys.modules.pop("toy_model", None)


@pytest.mark.slow
def test_a_new_student_trains_is_evaluated_is_a_row_and_a_method(toy, tiny, tmp_path):
    common = ["--base_folder", tiny, "--workers", 0, "--device", "cpu"]
    train = ["scripts/train_student.py", "--student", "toy", "--save_folder", tmp_path, "--exp_name", "run"]
    train += ["--train_vth", "1", *common, "--bs", 2, "--roi_size", 32, "--max_steps", 3, "--precision", "fp32"]
    call(*train)
    weights = next((tmp_path / "run" / "ckpts").glob("*_last.pth"))
    assert torch.load(weights, weights_only=True).keys() == {"toy_layer.weight", "toy_layer.bias"}

    call("scripts/train_student.py", "--test_mode", "--student", "toy", "--student_path", weights, *common,
         "--save_folder", tmp_path, "--exp_name", "test")  # fmt: skip
    results = json.loads((tmp_path / "test" / "test_mode" / "results.json").read_text())
    assert results["rows"]["ToyNet"]["psnr"] > 5

    given = ["--toy_path", weights]
    out, _ = call("scripts/tables.py", "--methods", "blur", "toy", *given, "--out", tmp_path / "t", *common)
    assert "Student ToyNet" in out

    one = ["--base_folder", tiny, "--limit", 1, "--frames", 1, "--device", "cpu"]
    call("scripts/deblur.py", *one, "--method", "toy", *given, "--out", tmp_path / "d")
    assert list((tmp_path / "d").rglob("068.png"))
