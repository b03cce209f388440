"""scripts/export_onnx.py: what the files compute, and what they say."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from codes.inference import Deblurrer
from codes.student import PYRAMID, Sight
from scripts.export_onnx import windows_of
from tests.conftest import ROOT, call, refused

SCRIPT = "scripts/export_onnx.py"


def test_windows_are_found_from_what_a_student_sees():
    assert windows_of(Sight("frames", 21)) == [[t, t + 1] for t in range(-10, 11)]
    assert windows_of(Sight("mirrored", 6)) == [[t, t + 1] for t in range(-3, 3)]
    pyramid, edge = windows_of(Sight("pyramid", 21)), 4
    assert pyramid[7:14] == [[t, t + 1] for t in range(-3, 4)]
    for window, length in zip(pyramid[14:], PYRAMID, strict=True):
        assert window == [edge, edge + length]
        edge += length
    assert pyramid[:7] == [[1 - stop, 1 - start] for start, stop in reversed(pyramid[14:])]


@pytest.mark.slow
def test_the_example_of_the_docs_deblurs(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")
    pytest.importorskip("onnxscript")
    out, _ = call(SCRIPT, "--networks", "ldn", "--out", tmp_path)
    assert float(re.search(r"difference (\S+);", out)[1]) <= 1e-4
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "pages.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(example, scope)
    about = scope["about"]
    assert (about["network"], about["colour"], about["gain"], json.loads(about["exposure"])) == (
        "LDN",
        "BGR",
        "on",
        [20, 117],
    )
    random = np.random.default_rng(0)
    blur, spike = random.integers(0, 256, (72, 104, 3), np.uint8), random.random((137, 18, 26)) < 0.2
    plain = {"tone": "linear", "align": "off", "bad_pixels": False, "check": False}  # as the example: nothing is found
    for instant in (0, 20, 68, 130):
        expected = Deblurrer(device="cpu", hold_colour=False)(blur, spike, [instant], **plain)[0]
        assert np.abs(scope["deblur"](blur, spike, instant).astype(int) - expected).max() <= 1


@pytest.mark.slow
def test_a_new_student_needs_no_change(tmp_path, monkeypatch):
    """Any class that keeps the contract of codes/student.py."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")
    pytest.importorskip("onnxscript")
    from scripts import export_onnx

    class New(nn.Module):
        kind, spike_dim, gain = "frames", 5, False

        def __init__(self):
            super().__init__()
            self.mix = nn.Conv2d(5, 3, 3, padding=1)

        def encode(self, blur):
            return blur.mean(dim=(-2, -1), keepdim=True)

        def decode(self, blur, image, spike):
            light = nn.functional.interpolate(self.mix(spike), scale_factor=4, mode="bilinear")
            return blur * (1 + light) - image

    network = New().eval()
    path = tmp_path / "ldn.onnx"
    half = New().eval()
    half.load_state_dict(network.state_dict())
    export_onnx.export("ldn", half, tmp_path / "half.onnx", {}, half=True)
    assert 1e-7 < export_onnx.compare(network, "student", tmp_path / "half.onnx")[0] < 2e-2
    export_onnx.export("ldn", network, path, {"network": "New"}, half=False)
    assert export_onnx.compare(network, "student", path)[0] < 1e-4
    session = onnxruntime.InferenceSession(str(path))
    assert session.get_modelmeta().custom_metadata_map["network"] == "New"
    inputs = {"blur": np.ones((3, 3, 64, 32), np.float32), "spike": np.zeros((3, 5, 16, 8), np.float32)}
    with torch.inference_mode():
        bias = network.mix.bias.numpy()[None, :, None, None]
    np.testing.assert_allclose(session.run(None, inputs)[0], np.broadcast_to(bias, (3, 3, 64, 32)), atol=1e-6)


@pytest.mark.slow
def test_a_network_of_the_teacher(tmp_path):
    pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")
    pytest.importorskip("onnxscript")
    out, _ = call(SCRIPT, "--networks", "bsn", "--out", tmp_path)
    assert float(re.search(r"difference (\S+);", out)[1]) <= 1e-4 and (tmp_path / "bsn.onnx").is_file()


def test_weights_that_are_missing(tmp_path):
    pytest.importorskip("onnxscript", reason="pip install -r requirements-export.txt")
    error = refused(SCRIPT, "--networks", "ldn", "--deblur_path", tmp_path / "none.pth", "--out", tmp_path)
    assert "none.pth" in error
