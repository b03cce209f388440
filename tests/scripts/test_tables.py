"""scripts/tables.py: protocols, sources of weights, files, published figures, mistakes."""

import csv
import json
import shutil
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from codes.engine.weights import Weights
from scripts.tables import TablesConfig, thresholds
from tests.conftest import call, paths_of, refused

pytestmark = pytest.mark.slow

SCRIPT = "scripts/tables.py"
OFFSETS = (-6, -4, -2, 0, 2, 4, 6)


def strict(path):
    """JSON as the standard has it: without NaN and Infinity."""

    def refuse(word):
        raise AssertionError(f"{path} holds {word}")

    return json.loads(path.read_text(), parse_constant=refuse)


def make(data, out, *more, table="sequence"):
    """Run the script; the table as JSON, and what it printed."""
    base = ["--table", table, "--base_folder", data, "--out", out, "--device", "cpu", "--workers", 0]
    printed, _ = call(SCRIPT, *base, "--metrics", "psnr", "ssim", "--eval_images", 0, *more)
    return strict(out / f"{table}.json"), printed


def row(table, name, key="Method"):
    return next(row for row in table["rows"] if row[key] == name)


def exposures(data):
    """(sequence, centre frame, digits) of each exposure of the test split."""
    paths = sorted((data / "test" / "spike_data").glob("*/*.dat"))
    return [(path.parent.name, int(path.stem), len(path.stem)) for path in paths]


@pytest.fixture
def two(copy):
    """The tiny data set with spikes at Vth 2: every second frame of those at Vth 1 left dark."""
    shutil.copytree(copy / "test" / "spike_data", copy / "test" / "spike_data_vth2")
    for path in (copy / "test" / "spike_data_vth2").glob("*/*.dat"):
        frames = np.fromfile(path, np.uint8).reshape(137, -1)
        frames[::2] = 0
        frames.tofile(path)
    return copy


@pytest.fixture
def images(two, tmp_path):
    """Images of 'another program': the sharp ones with noise, more of it at Vth 2."""
    rng, folder = np.random.default_rng(0), tmp_path / "other"
    for vth, noise in ((1, 8), (2, 20)):
        for sequence, centre, digits in exposures(two):
            (folder / f"vth{vth}" / sequence).mkdir(parents=True, exist_ok=True)
            for offset in OFFSETS:
                name = f"{centre + offset:0{digits}}.png"
                sharp = cv2.imread(str(two / "test" / "sharp_data" / sequence / name)).astype(float)
                noisy = np.clip(sharp + rng.normal(0, noise * (1 + abs(offset) / 6), sharp.shape), 0, 255)
                cv2.imwrite(str(folder / f"vth{vth}" / sequence / name), noisy.astype(np.uint8))
    return folder


def expected(data, find):
    """PSNR and SSIM by scikit-image from files: over images, then over exposures; on [-1, 1] as officially."""
    values = []
    for sequence, centre, digits in exposures(data):
        each = []
        for offset in OFFSETS:
            name = f"{centre + offset:0{digits}}.png"
            sharp = cv2.imread(str(data / "test" / "sharp_data" / sequence / name)) / 127.5 - 1
            shown = find(sequence, name, f"{centre:0{digits}}.png", offset)
            shown = (cv2.imread(str(shown)) if not isinstance(shown, np.ndarray) else shown) / 127.5 - 1
            psnr = peak_signal_noise_ratio(sharp, shown, data_range=2)
            each.append((psnr, structural_similarity(sharp, shown, data_range=2, channel_axis=2)))
        values.append(np.mean(each, axis=0))
    return np.mean(values, axis=0)


def sdm_by_hand(data, folder):
    """Blur times the mean of 9 spike frames over the mean of the 97, each spike pixel 4 x 4 image pixels."""

    def image(sequence, name, centre, offset):
        bits = np.fromfile(data / "test" / folder / sequence / f"{centre[:-4]}.dat", np.uint8)
        spike = np.unpackbits(bits, bitorder="little").reshape(137, 16, 24)[:, ::-1].astype(float)
        instant, long = 68 + 8 * offset, spike[20:117].mean(0)
        ratio = np.divide(spike[instant - 4 : instant + 5].mean(0), long, out=np.zeros_like(long), where=long > 0)
        blur = cv2.imread(str(data / "test" / "blur_data" / sequence / centre))
        return np.clip(blur * ratio.repeat(4, 0).repeat(4, 1)[..., None], 0, 255)

    return image


def test_sequence_protocol_by_hand(two, images, tmp_path):
    table, printed = make(two, tmp_path / "out", "--methods", "blur", "sdm", "ldn", "--predictions", f"Other={images}")
    blur = expected(two, lambda sequence, _name, centre, _offset: two / "test" / "blur_data" / sequence / centre)
    for vth in (1, 2):
        found = row(table, "Blur")
        assert np.allclose([found[f"PSNR, Vth {vth}"], found[f"SSIM, Vth {vth}"]], blur, atol=1e-4)
        other = expected(two, lambda sequence, name, *_, vth=vth: images / f"vth{vth}" / sequence / name)
        found = row(table, "Other")
        assert np.allclose([found[f"PSNR, Vth {vth}"], found[f"SSIM, Vth {vth}"]], other, atol=1e-4)
        by_hand = expected(two, sdm_by_hand(two, "spike_data_vth2" if vth == 2 else "spike_data"))
        found = row(table, "SDM, raw TFP (9, nearest)")
        assert np.allclose([found[f"PSNR, Vth {vth}"], found[f"SSIM, Vth {vth}"]], by_hand, atol=1e-4)
    assert row(table, "Other")["PSNR, Vth 2"] < row(table, "Other")["PSNR, Vth 1"] - 4
    sdm = row(table, "SDM, raw TFP (9, nearest)")
    assert sdm["PSNR, Vth 1"] != sdm["PSNR, Vth 2"] and sdm["Parameters"] == 0 and "PSNR, Vth 4" not in sdm
    ours, theirs = row(table, "Student LDN"), row(table, "SpkDeblurNet")
    assert [ours[f"published PSNR, Vth {vth}"] for vth in (1, 2, 4)] == [26.89, 26.37, 25.43]
    assert [theirs[f"published PSNR, Vth {vth}"] for vth in (1, 2, 4)] == [28.31, 14.41, 11.62]
    assert ours["Parameters"] == 234158 and theirs["PSNR, Vth 1"] is None and theirs["Parameters"] is None
    assert "2505.18049" in theirs["source of the published"] and "secondary" in printed
    protocol = "; ".join(table["protocol"])
    assert "2 exposures × 7 instants (20, 36, 52, 68, 84, 100, 116) = 14 images" in protocol
    assert all(word in protocol for word in ("test", "Vth 1, 2", "clipped", "B,G,R", "official", "then over exposures"))
    assert any(Weights(official=True).path("ldn").name in note for note in table["notes"])


def test_published_figures_beside_and_the_four_files(two, images, tmp_path):
    out, name = tmp_path / "out", "SpkDeblurNet"
    table, printed = make(
        two, out, "--methods", "blur", "ldn", "--predictions", f"{name}={images}", "--eval_samples", 1
    )
    assert row(table, name)["published PSNR, Vth 1"] == 28.31  # beside the measured one
    assert [each["Method"] for each in table["rows"]] == ["Blur", "Student LDN", name, "REFID + DASR"]
    assert (out / "sequence.md").read_text() in printed
    with open(out / "sequence.csv", newline="") as file:
        assert next(csv.reader(file)) == list(table["rows"][0])
    assert "\\begin{tabular}" in (out / "sequence.tex").read_text()
    assert {"configuration", "device", "about"} <= set(table)


def test_predictions_that_are_missing_are_named(two, images, tmp_path):
    argv = ["--table", "sequence", "--base_folder", two, "--out", tmp_path / "out", "--methods", "blur"]
    argv += ["--device", "cpu", "--workers", 0, "--metrics", "psnr"]
    sequence, centre, digits = exposures(two)[1]
    gone = images / "vth2" / sequence / f"{centre - 4:0{digits}}.png"
    gone.rename(tmp_path / "gone.png")
    error = refused(SCRIPT, *argv, "--predictions", f"Other={images}")
    assert f"Other: 1 of 14 images at Vth 2 are missing: {gone}" in error
    call(SCRIPT, *argv, "--predictions", f"Other={images}", "--eval_samples", 1)  # nothing is missing of the first one
    cv2.imwrite(str(gone), np.zeros((32, 48, 3), np.uint8))
    assert f"{gone} is 32x48, its sharp image 64x96" in refused(SCRIPT, *argv, "--predictions", f"Other={images}")
    shutil.rmtree(images / "vth2")
    table, _ = make(two, tmp_path / "out", "--methods", "blur", "--predictions", f"Other={images}", "--vth", 2)
    assert row(table, "Other")["PSNR, Vth 2"] is None
    assert any(f"Other has no images at Vth 2: no folder {images / 'vth2'}" == note for note in table["notes"])
    # Without folders of thresholds the images are those of Vth 1; flags may be repeated.
    flat = ["--predictions", f"A={images / 'vth1'}", f"--predictions=B={images / 'vth1'}", "--methods", "blur"]
    table, _ = make(two, tmp_path / "out", *flat)
    assert row(table, "A")["PSNR, Vth 1"] == row(table, "B")["PSNR, Vth 1"] > 20
    assert row(table, "A")["PSNR, Vth 2"] is None
    assert "expected NAME=DIR" in refused(SCRIPT, *argv, "--predictions", "Other")
    assert "does not exist" in refused(SCRIPT, *argv, "--predictions", f"Other={tmp_path / 'nowhere'}")
    assert "names 'A' twice" in refused(SCRIPT, *argv, "--predictions", f"A={images}", f"A={two}")


def test_spikes_of_another_threshold_are_not_taken_for_vth_1(two, tmp_path):
    """prepare_gopro.py --vth 2 alone fills spike_data; its record says so."""
    (two / "test" / "prepared.json").write_text('{"spike_data": {"vth": 2.0}}')
    argv = ["--table", "sequence", "--base_folder", two, "--out", tmp_path / "out", "--methods", "blur"]
    error = refused(SCRIPT, *argv, "--metrics", "psnr", "--workers", 0)
    assert "holds spikes of Vth 2, not 1" in error and "rename it to spike_data_vth2" in error
    shutil.rmtree(two / "test" / "spike_data_vth2")
    (two / "test" / "spike_data").rename(two / "test" / "spike_data_vth2")  # as advised
    assert thresholds(TablesConfig(base_folder=two)) == [2]


def test_what_is_left_out_and_what_is_refused(tiny, tmp_path):
    table, printed = make(tiny, tmp_path, "--methods", "blur", "stir", "--eval_samples", 1)
    assert any(note.startswith("stir is left out: no checkpoint at ") for note in table["notes"]) and "Blur" in printed
    base = ["--base_folder", tiny, "--out", tmp_path]
    assert "--methods is 'nothing'; expected one of blur" in refused(SCRIPT, *base, "--methods", "nothing")
    assert "no checkpoint at nowhere.pth (--sr_path)" in refused(SCRIPT, *base, "--sr_path", "nowhere.pth")
    assert "real captures have no sharp" in refused(SCRIPT, *base, "--table", "sequence", "--data_type", "real")
    assert "needs --data_type real" in refused(SCRIPT, *base, "--table", "real")
    for flags, owner in (
        (["--reblur_frames", 5], "real"),
        (["--no-memory"], "efficiency"),
        (["--no-shipped"], "methods"),
    ):
        error = refused(SCRIPT, *base, "--table", "sequence", *flags)
        assert f"has no effect on --table sequence; it is for {owner}" in error


@pytest.fixture
def run(tmp_path, checkpoints):
    """The folder of a finished run: an LDN after 5 steps in 90 s."""
    folder = tmp_path / "exp" / "mine"
    (folder / "ckpts").mkdir(parents=True)
    shutil.copy(checkpoints / "DeblurNet_100.pth", folder / "ckpts" / "DeblurNet_last.pth")
    line = {"kind": "train", "step": 5, "epoch": 0, "seconds": 90.0, "lr": 1e-3, "loss": 1.0}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def test_a_row_for_each_of_the_weights(two, run, tmp_path):
    """Those given, then those in model/; students of one threshold with and without the exposure gain."""
    argv = ["--methods", "blur", "sdm", "ldn", "--deblur_path", run, "--spike_gain", "both", "--eval_samples", 1]
    table, printed = make(two, tmp_path / "out", *argv, "--eval_images", 1, table="methods")
    ours = Weights().path("ldn").stem
    names = ["Blur", "SDM, raw TFP (9, nearest)", "Student LDN", "Student LDN + gain", f"Student LDN [{ours}]"]
    assert [each["Method"] for each in table["rows"]] == names
    assert f"{run}: 5 steps in 1.5 min" in table["notes"]
    assert {path.name for path in (tmp_path / "out" / "imgs").glob("*_student_*")} == {
        f"methods_vth{vth}_0000_student_ldn{more}.png" for vth in (1, 2) for more in ("", "_gain", f"_{ours.lower()}")
    }
    assert all(each["ms per image"] >= 0 for each in table["rows"]) and "published" not in printed
    argv[argv.index("both")] = "auto"
    table, _ = make(two, tmp_path / "out", *argv, "--no-shipped", table="methods")
    assert [each["Method"] for each in table["rows"]] == [*names[:2], "Student LDN + gain"]
    (run / "ckpts" / "other_last.pth").touch()
    argv = ["--base_folder", two, "--out", tmp_path / "out", "--deblur_path"]
    assert "DeblurNet_last.pth and other_last.pth; name one" in refused(SCRIPT, *argv, run)
    assert "no checkpoint at" in refused(SCRIPT, *argv, tmp_path)


def test_the_centre_and_the_ceilings_by_hand(two, tmp_path):
    """The SDM as it would be if it knew the light, by NumPy and OpenCV."""
    argv = ["--methods", "blur", "--ceilings", "--metric_convention", "standard", "--vth", 1]
    table, _ = make(two, tmp_path, *argv, table="methods")
    values = table["per_sample"]["1"]
    for sequence, centre, digits in exposures(two):
        name = f"{centre:0{digits}}"
        blur, sharp = (
            cv2.imread(str(two / f"test/{kind}_data" / sequence / f"{name}.png")).astype(np.float32) / 255
            for kind in ("blur", "sharp")
        )
        assert values["Blur"][f"{sequence}/{name}"]["psnr"] == pytest.approx(peak_signal_noise_ratio(sharp, blur))
        lights = [image @ np.array([0.11, 0.59, 0.3], np.float32) for image in (blur, sharp)]
        # What the spike camera sees is the mean of the central 2x2 of each 4x4 block.
        small = [light.reshape(16, 4, 24, 4)[:, 1:3, :, 1:3].mean((1, 3)) for light in lights]
        large = [cv2.resize(light, (96, 64), interpolation=cv2.INTER_LINEAR) for light in small]
        for row_name, (long, short) in (
            ("SDM, noise-free spikes (bilinear)", large),
            ("SDM, true grey frames", lights),
        ):
            image = np.clip(blur * np.divide(short, long, out=np.zeros_like(long), where=long > 0)[..., None], 0, 1)
            expected = -10 * np.log10(np.mean((image - sharp) ** 2))
            assert abs(values[row_name][f"{sequence}/{name}"]["psnr"] - expected) < 0.01


def test_a_still_and_a_black_capture_have_figures(copy, tmp_path, checkpoints):
    """Identical images count as 100 dB, and every file is JSON."""
    still, black = exposures(copy)
    for sequence, centre, digits in (still, black):
        blur = copy / "test" / "blur_data" / sequence / f"{centre:0{digits}}.png"
        if (sequence, centre, digits) == black:
            cv2.imwrite(str(blur), np.zeros((64, 96, 3), np.uint8))
            spikes = copy / "test" / "spike_data" / sequence / f"{centre:0{digits}}.dat"
            np.zeros(spikes.stat().st_size, np.uint8).tofile(spikes)
        for sharp in (copy / "test" / "sharp_data" / sequence).glob("*.png"):
            shutil.copy(blur, sharp)
    table, printed = make(copy, tmp_path / "out", "--methods", "blur", "sdm21", table="methods")
    assert row(table, "Blur")["PSNR, Vth 1"] == 100 and "100.00" in printed and "at most 100 dB" in printed
    name = f"{black[0]}/{black[1]:0{black[2]}}"
    assert table["per_sample"]["1"]["SDM, raw TFP (21, bilinear)"][name] == {"psnr": 100, "ssim": 1}
    argv = ["--base_folder", copy, "--save_folder", tmp_path, "--workers", 0, "--device", "cpu"]
    call("train_deblur.py", "--test_mode", *argv, *paths_of(checkpoints))
    folder = tmp_path / "test" / "test_mode"
    assert strict(folder / "results.json")["rows"]["Blur"]["psnr"] == 100
    assert "Blur: ssim: 1.000  psnr: 100.000" in (folder / "results.txt").read_text()


def test_ablation(tiny, tmp_path, checkpoints):
    given = paths_of(checkpoints, "deblur", "bsn")
    table, printed = make(tiny, tmp_path, *given, table="ablation")
    steps = ["SDM (raw TFP)", "+ BSN", "+ SR: the teacher", "+ LDN"]
    assert [each["Method"] for each in table["rows"]][:4] == steps
    assert (row(table, "+ LDN")["published PSNR"], row(table, "+ LDN")["published SSIM"]) == (27.928, 0.786)
    assert row(table, steps[2])["published PSNR"] == 26.362 and row(table, "+ BSN")["published PSNR"] is None
    assert row(table, steps[2])["Parameters"] == 1118832 + 1515269
    assert all(f"--lambda_reblur {weight} --exp_name reblur{weight}`" in printed for weight in (0, 100))
    assert len(table["rows"]) == 4
    assert str(checkpoints / "DeblurNet_100.pth") in printed
    again, _ = make(tiny, tmp_path, *given, "--no_reblur_path", checkpoints / "DeblurNet_100.pth", table="ablation")
    assert row(again, "LDN without the reblur loss")["PSNR"] == row(again, "+ LDN")["PSNR"]


@pytest.fixture
def real(tiny, tmp_path):
    """Two captures of two groups in the layout of RSB."""
    root = tmp_path / "RSB"
    for index, spike in enumerate(sorted((tiny / "test" / "spike_data").glob("*/*.dat"))):
        for kind in ("spike_data", "blur_data"):
            (root / kind / f"group{index}").mkdir(parents=True)
        shutil.copy(spike, root / "spike_data" / f"group{index}" / "a.dat")
        blur = cv2.imread(str(tiny / "test" / "blur_data" / spike.parent.name / f"{spike.stem}.png"))
        cv2.imwrite(str(root / "blur_data" / f"group{index}" / "a.jpg"), blur)
    return root


def test_real_without_pyiqa(real, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    argv = ["--data_type", "real", "--methods", "blur", "sdm21", "ldn", "--reblur_frames", 5]
    table, printed = make(real, tmp_path / "out", *argv, table="real")
    assert "pip install pyiqa" in printed and "non-commercial" in printed
    found = row(table, "SDM, raw TFP (21, bilinear)")
    assert found["LIQE, group0"] is None and found["LIQE, average"] is None
    parts = [found["reblur PSNR, group0"], found["reblur PSNR, group1"]]
    assert found["reblur PSNR, average"] == pytest.approx(sum(parts) / 2) and min(parts) > 15
    assert row(table, "Blur")["reblur PSNR, average"] is None
    assert "mean of 5 frames" in "; ".join(table["protocol"])


def test_real_with_a_metric(real, tmp_path, monkeypatch):
    """A stand-in for pyiqa shows what it is given: R,G,B of the frame at the centre."""
    seen = []

    def liqe(image):
        seen.append(image)
        return image[:, 0].mean()

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=lambda name, device: liqe))
    argv = ["--data_type", "real", "--methods", "blur"]
    table, _ = make(real, tmp_path / "out", *argv, table="real")
    reds = [cv2.imread(str(real / "blur_data" / f"group{i}" / "a.jpg"))[..., 2].mean() / 255 for i in range(2)]
    found = row(table, "Blur")
    assert [found["LIQE, group0"], found["LIQE, group1"]] == pytest.approx(reds, abs=1e-5)
    assert found["LIQE, average"] == pytest.approx(sum(reds) / 2, abs=1e-5) and len(seen) == 2


def test_efficiency_by_hand(tmp_path):
    """Multiply-adds of a 96x128 frame from the lists of layers."""
    out = tmp_path / "out"
    more = ["--quick", "--device", "cpu", "--methods", "blur", "sdm_bsn", "teacher", "ldn"]
    call(SCRIPT, "--table", "efficiency", "--out", out, *more)
    table = strict(out / "efficiency.json")
    pixels = 24 * 32  # of the spikes
    ldn = 3 * 16 * 25 * 4 + 16 * 32 * 25 + 21 * 16 * 9 + 16 * 32 * 9 + 2 * 49 + 4 * 64 * 64 * 9
    ldn += 64 * 32 * 25 + 32 * 16 * 25 * 4 + 19 * 3 * 16
    edsr = 9 * 64 + 33 * 64 * 64 * 9 + 64 * 256 * 9 * (1 + 4) + 64 * 9 * 16 + 1 + 16
    found = {each["Network"]: each for each in table["rows"]}
    assert list(found) == ["BSN", "EDSR", "Teacher BSN + EDSR + SDM", "Student LDN"]
    assert found["Student LDN"]["GMAC as written"] * 1e9 == ldn * pixels + 2 * 2 * 64 * 4
    assert found["Student LDN"]["GMAC"] == pytest.approx(found["Student LDN"]["GMAC as written"])
    encoder = (3 * 16 * 25 * 4 + 16 * 32 * 25) * pixels / 1e9
    further = found["Student LDN"]["GMAC"] - encoder
    assert found["Student LDN"]["GMAC, further instant"] == pytest.approx(further)
    assert found["EDSR"]["GMAC as written"] * 1e9 == edsr * pixels
    whole = found["BSN"]["GMAC as written"] + 2 * found["EDSR"]["GMAC as written"]
    assert found["Teacher BSN + EDSR + SDM"]["GMAC as written"] == pytest.approx(whole)
    for name, count, published in (("BSN", 1118832, 217.7), ("EDSR", 1515269, 113.1), ("Student LDN", 234158, 15.9)):
        assert found[name]["parameters"] == found[name]["published parameters"] == count
        assert found[name]["published GMAC, 720×1280"] == published and found[name]["ms"] > 0
    assert "--size is '70x90'" in refused(SCRIPT, "--table", "efficiency", "--size", "70x90", "--out", out)


def test_peak_memory_is_the_networks_own(tmp_path):
    """Whatever this process has held before; the LDN's last 16 channels alone take 4.2 MB."""
    held = torch.ones(2**27)
    words = "--table efficiency --size 512x512 --methods ldn".split()
    call(SCRIPT, *words, "--device", held.device, "--out", tmp_path)
    (line,) = strict(tmp_path / "efficiency.json")["rows"]
    assert 4 < line["peak memory, MB"] < 200
