"""scripts/export_onnx.py: what the files compute, and what they say."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from codes.inference import Deblurrer
from codes.spike import write_dat
from codes.student import PYRAMID, Sight
from scripts import export_onnx
from scripts.export_onnx import windows_of
from tests.conftest import ROOT, call, filled, refused, rnd

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
@pytest.mark.parametrize("key", ["ldn", "sdmnet", "sdmnet_light"])
def test_the_example_of_the_docs_deblurs(key, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")
    pytest.importorskip("onnxscript")
    out, _ = call(SCRIPT, "--networks", key, "--out", tmp_path)
    assert float(re.search(r"difference (\S+);", out)[1]) <= 1e-4
    page = (ROOT / "docs" / "pages.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.S)
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(example.replace("ldn.onnx", f"{key}.onnx"), scope)
    about = scope["about"]
    assert (about["network"], about["colour"], about["gain"], json.loads(about["exposure"])) == (
        {"ldn": "LDN", "sdmnet": "SDMNet", "sdmnet_light": "SDMNet light"}[key],
        "BGR",
        "on",
        [20, 117],
    )
    random = np.random.default_rng(0)
    blur, spike = random.integers(0, 256, (72, 104, 3), np.uint8), random.random((137, 18, 26)) < 0.2
    plain = {"tone": "linear", "align": "off", "bad_pixels": False, "check": False}  # as the example: nothing is found
    (reading,) = re.findall(r"`(np\.unpackbits\(.*?)`", page)
    write_dat(tmp_path / "stream.dat", spike[:, :16, :24])
    stream = eval(reading, {"np": np, "file": tmp_path / "stream.dat", "h": 16, "w": 24})
    np.testing.assert_array_equal(stream, spike[:, :16, :24])
    for instant in (0, 20, 68, 130):
        expected = Deblurrer(key, device="cpu", hold_colour=False)(blur, spike, [instant], **plain)[0]
        assert np.abs(scope["deblur"](blur, spike, instant).astype(int) - expected).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("key", ["ldn", "sdmnet", "sdmnet_light"])
def test_a_student_is_exported_with_free_sides(key):
    """As in scripts/export_onnx.py, before ONNX: one program for every size, also where 4x4 cells do not fill it."""
    from torch.export import Dim

    from codes.model.registry import NETWORKS

    network = filled(NETWORKS[key].load_class()(*[21] * (key == "ldn")))
    module, example = export_onnx.module(network, "student"), export_onnx.inputs(network, "student", 2, 12, 20)
    height, width = Dim("height", min=8, max=4096), Dim("width", min=8, max=4096)
    shapes = ({0: Dim("batch", min=1, max=1024), 2: 4 * height, 3: 4 * width}, {2: height, 3: width})
    shapes[1][0] = shapes[0][0]
    program = torch.export.export(module, tuple(example.values()), dynamic_shapes=shapes).module()
    blur, spike = export_onnx.inputs(network, "student", 1, 13, 9).values()
    with torch.inference_mode():
        torch.testing.assert_close(program(blur, spike), module(blur, spike), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_new_student_needs_no_change(tmp_path, monkeypatch):
    """Any class that keeps the contract of codes/student.py."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")

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
    path, half, program = (tmp_path / name for name in ("ldn.onnx", "half.onnx", "ldn.pt2"))
    export_onnx.export("ldn", network, path, {"network": "New"}, pt2=True)
    assert export_onnx.compare(network, "student", path)[0] < 1e-4
    export_onnx.export("ldn", network, half, {"precision": "fp16"}, "fp16")
    assert 1e-7 < export_onnx.compare(network, "student", half)[0] < 2e-3
    about = {entry.key: entry.value for entry in onnx.load(half).metadata_props}
    assert about == {"precision": "fp16"}
    blur, spike = rnd(3, 3, 64, 32), rnd(3, 5, 16, 8)
    with torch.inference_mode():
        expected = network.decode(blur, network.encode(blur), spike)
        made = torch.export.load(program).module()(blur, spike)
    assert (made - expected).abs().max() < 1e-5
    session = onnxruntime.InferenceSession(str(path))
    assert session.get_modelmeta().custom_metadata_map["network"] == "New"
    inputs = {"blur": np.ones((3, 3, 64, 32), np.float32), "spike": np.zeros((3, 5, 16, 8), np.float32)}
    with torch.inference_mode():
        bias = network.mix.bias.numpy()[None, :, None, None]
    np.testing.assert_allclose(session.run(None, inputs)[0], np.broadcast_to(bias, (3, 3, 64, 32)), atol=1e-6)


@pytest.mark.slow
def test_places_that_a_network_computes_stay_exact(tmp_path):
    """SAN's own parts at one size, also where 16 bits could not count the pixels; all of SAN takes a minute."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")
    pytest.importorskip("onnxscript")
    from codes.baselines.san_model import Fusion

    class Joined(nn.Module):
        kind, spike_dim, gain = "frames", 5, False

        def __init__(self):
            super().__init__()
            self.image, self.events, self.out = nn.Conv2d(3, 4, 1), nn.Conv2d(5, 4, 1), nn.Conv2d(4, 3, 1)
            self.fusion = Fusion(4, 3)

        def encode(self, blur):
            return self.image(blur)

        def decode(self, blur, image, spike):
            return blur + self.out(self.fusion(image, self.events(spike)))

    network, wide = filled(Joined()), (rnd(1, 3, 32, 2800), rnd(1, 5, 8, 700))
    with torch.inference_mode():
        expected = network.decode(wide[0], network.encode(wide[0]), wide[1]).numpy()
        half = export_onnx.module(network, "student", "fp16")(*wide).numpy()  # sums of 16 bits too, as on a GPU
    assert 1e-6 < np.abs(half - expected).max() < export_onnx.LARGEST["fp16"]
    for precision, most in export_onnx.LARGEST.items():
        path = tmp_path / f"{precision}.onnx"
        export_onnx.export("ldn", network, path, {}, precision)
        assert export_onnx.compare(network, "student", path)[0] < most
        session = onnxruntime.InferenceSession(str(path))
        (made,) = session.run(None, {name: x.numpy() for name, x in zip(("blur", "spike"), wide, strict=True)})
        assert np.abs(made - expected).max() < most


def test_sides_that_are_no_multiples_are_padded(tmp_path):
    """Around a model that adds the sum of its spikes to its image, against NumPy."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")
    parser = pytest.importorskip("onnx.parser")
    model = parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 20]>
        sums (float[B,3,H,W] blur, float[B,C,h,w] spike) => (float[B,3,H,W] image) {
            sum = ReduceSum <keepdims = 0> (spike)
            image = Add (blur, sum)
        }"""
    )
    session = onnxruntime.InferenceSession(export_onnx.padded(model, 16).SerializeToString())
    for height, width in ((16, 24), (17, 22), (9, 8)):
        blur, spike = rnd(2, 3, 4 * height, 4 * width).numpy(), rnd(2, 5, height, width).numpy()
        (image,) = session.run(None, {"blur": blur, "spike": spike})
        wide = np.pad(spike, ((0, 0), (0, 0), (0, -height % 4), (0, -width % 4)), mode="edge")
        np.testing.assert_allclose(image, blur + wide.sum(dtype=float), rtol=1e-5)


@pytest.mark.slow
def test_a_network_of_the_teacher(tmp_path):
    pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")
    pytest.importorskip("onnxscript")
    out, _ = call(SCRIPT, "--networks", "bsn", "--precision", "fp16", "--out", tmp_path)
    single, half = map(float, re.findall(r"difference (\S+);", out))
    assert single <= 1e-4 < half <= 2e-3
    assert (tmp_path / "bsn_fp16.onnx").stat().st_size < 0.6 * (tmp_path / "bsn.onnx").stat().st_size


def test_weights_that_are_missing(tmp_path):
    pytest.importorskip("onnxscript", reason="pip install -r requirements-export.txt")
    error = refused(SCRIPT, "--networks", "ldn", "--deblur_path", tmp_path / "none.pth", "--out", tmp_path)
    assert "none.pth" in error


@pytest.mark.parametrize("flag", ["stir_path", "spkdeblurnet_path", "bsn_path"])
def test_weights_that_would_not_be_exported(flag, tmp_path):
    error = refused(SCRIPT, "--networks", "ldn", "sdmnet", f"--{flag}", tmp_path / "any.pth", "--out", tmp_path / "out")
    assert f"--{flag} has no effect" in error and ("--networks ldn sdmnet" in error) == (flag == "bsn_path")
    assert not (tmp_path / "out").exists()
    if flag != "bsn_path":
        assert f"--{flag} has no effect" in refused(SCRIPT, f"--{flag}", tmp_path / "any.pth")
