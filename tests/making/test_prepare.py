"""Data from video: against a rendering of the official recipe (specification, section 4), written apart from it."""

import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from codes.image import read_image, write_image
from codes.making.interpolation import Flow, Linear
from codes.making.preparation import sample_seed
from codes.making.sensor import seen_by_spike_camera
from codes.spike import EXPOSURE, read_dat
from tests.conftest import ROOT, call, refused

pytestmark = pytest.mark.slow

SIZE = (16, 32)


def noise_film(count, size=SIZE, seed=0):
    """Smooth random frames that change slowly."""
    rng = np.random.default_rng(seed)
    film = cv2.GaussianBlur(rng.random((count, size[0] * size[1] * 3)).astype(np.float32), (1, 9), 0)
    return np.uint8(np.clip((film - 0.5) * 2 + 0.5, 0, 1) * 255).reshape(count, *size, 3)


@pytest.fixture(scope="module")
def interpolated(tmp_path_factory):
    """Frames as XVFI leaves them: two sequences of 31 and 18 raw frames, 7 between neighbours."""
    root = tmp_path_factory.mktemp("raw") / "test" / "raw_data"
    films = {}
    for name, first, raw in (("GOPR01", 0, 31), ("GOPR02", 0, 18)):
        films[name] = noise_film(8 * (raw - 1) + 1, seed=raw)
        for index, frame in enumerate(films[name]):
            number, inserted = divmod(index, 8)
            stem = f"{first + number:06}" + (f"_{inserted - 1}" if inserted else "")
            write_image(root / name / f"{stem}.png", frame)
    return root, films


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}


def brute_spikes(frames, name, vth, seed=0):
    """The sensor model, pixel by pixel in float64, its noise spike by spike."""
    rng = np.random.default_rng(sample_seed(seed, *name.split("/")))
    light = frames.astype(np.float64) @ [0.11, 0.59, 0.3] / 255
    small = light.reshape(137, 4, 4, 8, 4)[:, :, 1:3, :, 1:3].mean(axis=(2, 4))
    gain = 250 * (2e-7 * 1.09e-13) / (1.83e-4 * 15e-15)
    voltage, threshold = rng.random((4, 8), np.float32).astype(np.float64) * gain, 2.0 * vth
    voltage = np.where(voltage > threshold, voltage % threshold, voltage)
    spikes = np.zeros((137, 4, 8), np.uint8)
    for t in range(137):
        voltage += small[t] * gain
        spikes[t] = voltage > threshold
        voltage = np.where(spikes[t], voltage % threshold, voltage)
    slots, position = spikes.transpose(1, 2, 0).reshape(-1).copy(), 0.0
    total = len(slots)
    while position < total:  # drawn in portions as the program does, so that the random numbers are the same
        for gap in rng.normal(140, 50, int((total - position) / 140 * 1.02) + 16):
            position += gap
            if 0 <= position < total:
                slots[int(position)] = 1
    return slots.reshape(4, 8, 137).transpose(2, 0, 1)


def test_official_recipe(interpolated, tmp_path):
    """Names, blurry images and sharp frames are the official ones, spikes the sensor model's."""
    root, films = interpolated
    call("scripts/prepare_gopro.py", "--raw_folder", root, "--interp", "none", "--multi", "--vth", 1, 2,
         "--out", tmp_path, "--workers", 1)  # fmt: skip
    expected = {}
    for name, film in films.items():
        for k in range(10):
            start, label = 104 * k, f"{name}/{13 * k + 6:06}"
            if start + 97 > len(film):
                break
            expected[f"blur_data/{label}.png"] = np.rint(film[start : start + 97].astype(np.float64).mean(axis=0))
            if k > 0 and start + 117 <= len(film):
                for folder, vth in (("spike_data", 1), ("spike_data_vth2", 2)):
                    frames = film[start - 20 : start + 117]
                    expected[f"{folder}/{label}.dat"] = brute_spikes(frames, label, vth)
        for raw in range((len(film) + 7) // 8):
            if raw % 13 in (0, 2, 4, 6, 8, 10, 12):
                expected[f"sharp_data/{name}/{raw:06}.png"] = film[8 * raw]
    assert len([name for name in expected if name.endswith(".dat")]) == 2
    assert set(files(tmp_path)) == {*expected, "prepared.json"}
    for name, value in expected.items():
        found = read_dat(tmp_path / name, 4, 8) if name.endswith(".dat") else read_image(tmp_path / name)
        np.testing.assert_array_equal(found, value, err_msg=name)


def test_one_pass_equals_the_steps_whatever_the_order(interpolated, tmp_path):
    root, _ = interpolated
    call("scripts/prepare_gopro.py", "--raw_folder", root, "--interp", "none", "--multi", "--out", tmp_path / "a")
    whole = files(tmp_path / "a")
    common = ["--raw_folder", root, "--out", tmp_path / "b", "--workers", 2]
    for script, more in (("sharp_extract", ["--multi"]), ("spike_simulate", []), ("blur_syn", [])):
        call(f"scripts/{script}.py", *common, *more)
    assert files(tmp_path / "b") == whole
    # What is there stays; what is missing is made again, the same.
    (tmp_path / "b/spike_data/GOPR01/000019.dat").unlink()
    (tmp_path / "b/blur_data/GOPR02/000006.png").unlink()
    stamp = (tmp_path / "b/blur_data/GOPR01/000006.png").stat().st_mtime_ns
    argv = ["--raw_folder", root, "--interp", "none", "--multi", "--out", tmp_path / "b", "--workers", 1]
    out, _ = call("scripts/prepare_gopro.py", *argv)
    assert files(tmp_path / "b") == whole and "2 files written" in out
    assert (tmp_path / "b/blur_data/GOPR01/000006.png").stat().st_mtime_ns == stamp
    out, _ = call("scripts/prepare_gopro.py", *argv)
    assert "0 files written" in out
    call("scripts/prepare_gopro.py", *argv[:-3], tmp_path / "c", "--seed", 1)
    other = files(tmp_path / "c")
    assert {name for name in whole if whole[name] != other[name]} == {"spike_data/GOPR01/000019.dat", "prepared.json"}


def test_a_folder_holds_one_recipe(interpolated, tmp_path):
    """Of a finished folder nothing is written, so it is easily taken for what was asked for."""
    root, _ = interpolated
    out = tmp_path / "out"
    argv = ["--raw_folder", root, "--interp", "none", "--out", out, "--workers", 1]
    call("scripts/prepare_gopro.py", *argv)
    whole = files(out)
    for more, says in (
        (["--vth", 2, 4], "spike_data was made with vth 1.0, not 2.0"),
        (["--scale", 2], "spike_data was made with scale 4, not 2"),
        (["--seed", 3], "spike_data was made with seed 0, not 3"),
        (["--no-noise"], "spike_data was made with no_noise False, not True"),
        (["--spike_add", 4], "spike_data was made with spike_add 20, not 4"),
        (["--interp", "linear"], "blur_data was made with interp none, not linear"),
    ):
        if "--interp" in more:  # a folder of raw frames alone
            raw = tmp_path / "raw"
            for path in root.glob("*/[0-9]*.png"):
                if "_" not in path.name:
                    (raw / path.parent.name).mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, raw / path.parent.name)
            more = [*more, "--raw_folder", raw]
        error = refused("scripts/prepare_gopro.py", *argv, *more)
        assert says in error and "choose another --out" in error, error
        assert files(out) == whole
    assert "(--vth V W)" in refused("scripts/prepare_gopro.py", *argv, "--vth", 2)
    call("scripts/prepare_gopro.py", *argv, "--vth", 1, 2, "--multi", "--spike_full")  # what only adds is welcome
    more = files(out)
    assert all(more[name] == content for name, content in whole.items() if name != "prepared.json")
    assert len(list(out.glob("spike_data_vth2/*/*.dat"))) == len(list(out.glob("spike_full/*/*.dat"))) == 1
    shutil.rmtree(out / "spike_data")  # what was removed may be made otherwise
    call("scripts/prepare_gopro.py", *argv, "--vth", 2)
    assert (out / "spike_data/GOPR01/000019.dat").read_bytes() == more["spike_data_vth2/GOPR01/000019.dat"]
    (out / "prepared.json").write_text('{"spike_data": 1}')
    assert "prepared.json is damaged" in refused("scripts/prepare_gopro.py", *argv)
    (out / "prepared.json").unlink()  # as earlier versions left it
    said, _ = call("scripts/prepare_gopro.py", *argv)
    assert said.count("with options that are not known") == 3 and "0 files written" in said
    assert not (out / "prepared.json").exists()


def test_both_kinds_of_spikes_where_they_have_one_size(interpolated, tmp_path):
    root, _ = interpolated
    argv = ["--raw_folder", root, "--interp", "none", "--out", tmp_path / "out", "--workers", 1]
    call("scripts/prepare_gopro.py", *argv, "--scale", 1, "--spike_full")
    found = [(tmp_path / "out" / kind / "GOPR01/000019.dat").read_bytes() for kind in ("spike_data", "spike_full")]
    assert found[0] == found[1] and len(found[0]) == 137 * 16 * 32 // 8


def test_default_output_lies_beside(interpolated, tmp_path):
    root, _ = interpolated
    copy = shutil.copytree(root, tmp_path / "test" / "raw_data")
    call("scripts/blur_syn.py", "--raw_folder", copy)
    assert {path.name for path in (tmp_path / "test").iterdir()} == {"raw_data", "blur_data", "prepared.json"}


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_the_spike_camera_sees_bilinearly(scale):
    frame = np.random.default_rng(0).integers(0, 256, (12, 24, 3), np.uint8)
    low, high = (scale - 1) // 2, scale // 2 + 1  # the pixel or the two in the middle of a block
    blocks = frame.reshape(12 // scale, scale, 24 // scale, scale, 3)[:, low:high, :, low:high].mean((1, 3)) / 255
    for given in (frame, (frame / 255).astype(np.float32)):
        np.testing.assert_allclose(seen_by_spike_camera(given, scale), blocks @ [0.11, 0.59, 0.3], atol=1e-6)


def moving(count, step, size=(96, 128)):
    """A textured picture that moves ``step`` pixels a frame."""
    rng = np.random.default_rng(3)
    picture = cv2.GaussianBlur(rng.random((size[0] + 40, size[1] + 200, 3)).astype(np.float32), (0, 0), 2)
    picture = np.clip((picture - 0.5) * 4 + 0.5, 0, 1) * 255
    return [
        cv2.warpAffine(picture, np.float32([[1, 0, -20 - step * index], [0, 1, -20]]), size[::-1]).astype(np.uint8)
        for index in range(count)
    ]


def test_flow_follows_motion_and_linear_does_not():
    frames = moving(9, 1.5)
    truth = np.stack(frames[1:8])[:, 16:-16, 24:-24].astype(float)

    def psnr(interpolator):
        made = np.stack(interpolator.between(frames[0], frames[8], 7))[:, 16:-16, 24:-24]
        return 10 * np.log10(255**2 / ((made - truth) ** 2).mean())

    assert psnr(Flow()) > 30 > psnr(Linear()) + 6
    still = Flow().between(frames[0], frames[0], 3)
    assert all(np.abs(frame.astype(int) - frames[0]).max() <= 1 for frame in still)


def test_linear_is_the_weighted_mean():
    first, second = np.full((4, 4, 3), 10, np.uint8), np.full((4, 4, 3), 90, np.uint8)
    assert [frame[0, 0, 0] for frame in Linear().between(first, second, 7)] == [20, 30, 40, 50, 60, 70, 80]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A video whose sides are no multiples of anything."""
    path = tmp_path_factory.mktemp("video") / "my clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (100, 50))
    for frame in moving(20, 1, (50, 100)):
        writer.write(frame)
    writer.release()
    return path


def test_a_video_becomes_a_training_set(video, tmp_path):
    """One whole exposure of 20 raw frames at 3 between; cropped, at half size and in full."""
    argv = ["--video", video, "--out", tmp_path / "train", "--num_inter", 3, "--overlap_len", 3, "--blur_num", 5]
    out, _ = call(
        "scripts/prepare_gopro.py", *argv, "--spike_add", 4, "--scale", 2, "--spike_full", "--interp", "linear"
    )
    assert "50x100 are cropped to 50x96" in out
    names = {f"{raw:06}" for raw in (7, 12)}  # 77 frames; exposures of 17 every 20; 0 and the last have no margin
    for folder, size in (("spike_data", (25, 48)), ("spike_full", (50, 96))):
        assert {path.stem for path in (tmp_path / "train" / folder / "my clip").iterdir()} == names
        spikes = read_dat(tmp_path / "train" / folder / "my clip" / "000007.dat", *size)
        assert spikes.shape == (25, *size)
        blur = read_image(tmp_path / "train/blur_data/my clip/000007.png") @ [0.11, 0.59, 0.3] / 255
        scale = 50 // size[0]
        rate = spikes[4:21].mean(axis=0)
        light = blur.reshape(size[0], scale, size[1], scale).mean((1, 3)) * 1.98543 / 2
        assert np.corrcoef(rate.ravel(), light.ravel())[0, 1] > 0.9 and abs(rate.mean() - light.mean()) < 0.03


def test_faults_are_named_and_the_rest_is_finished(interpolated, tmp_path):
    root, films = interpolated
    whole, spoilt = tmp_path / "whole", tmp_path / "raw_data"
    call("scripts/prepare_gopro.py", "--raw_folder", root, "--interp", "none", "--out", whole)
    shutil.copytree(root, spoilt)
    (spoilt / "GOPR01" / "000016_2.png").write_bytes(b"no image")
    write_image(spoilt / "GOPR02" / "000010.png", np.zeros((20, 32, 3), np.uint8))
    _, err = call(
        "scripts/prepare_gopro.py", "--raw_folder", spoilt, "--interp", "none", "--out", tmp_path / "out", code=2
    )
    assert "000016_2.png is no image" in err and "000010.png is 20x32, the sequence 16x32" in err
    assert "2 of 2 sequences are unfinished" in err.splitlines()[-1]
    found = files(tmp_path / "out")
    assert found.items() <= files(whole).items() and "blur_data/GOPR01/000006.png" in found
    shutil.copy(root / "GOPR01/000016_2.png", spoilt / "GOPR01")
    shutil.copy(root / "GOPR02/000010.png", spoilt / "GOPR02")
    call("scripts/prepare_gopro.py", "--raw_folder", spoilt, "--interp", "none", "--out", tmp_path / "out")
    assert files(tmp_path / "out") == files(whole)


def test_missing_frames_are_named(interpolated, tmp_path):
    """They would shift all that follow."""
    raw = shutil.copytree(interpolated[0], tmp_path / "raw_data")
    (raw / "GOPR01" / "000016_2.png").unlink()
    (raw / "GOPR02" / "000009.png").unlink()
    _, err = call("scripts/prepare_gopro.py", "--raw_folder", raw, "--interp", "none", code=2)
    assert "frame 16_2 is missing" in err and "frame 9 is missing" in err
    _, err = call("scripts/blur_syn.py", "--raw_folder", interpolated[0], "--num_inter", 3, "--overlap_len", 3,
                  "--out", tmp_path / "out", code=2)  # fmt: skip
    assert "frame 0_3 is one too many" in err and "expected 3 inserted frames" in err


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--raw_folder", "nowhere"], "--raw_folder nowhere is no folder"),
        (["--raw_folder", "{empty}"], "holds no sequences"),
        (["--video", "nothing.mp4", "--out", "x"], "nothing.mp4 is no file"),
        (["--video", __file__], "--video needs --out"),
        (["--video", __file__, "--out", "{empty}"], "no video that can be opened"),
        (["--raw_folder", "{raw}", "--blur_num", 12], "no frame at its centre"),
        (["--raw_folder", "{raw}", "--overlap_len", 5], "exposures must begin at raw frames"),
        (["--raw_folder", "{raw}", "--vth", 1, 1], "names one twice"),
        (["--raw_folder", "{raw}", "--scale", 0], "--scale is 0; it must be at least 1"),
        (["--raw_folder", "{raw}", "--scale", 16], "expected at least 16x128"),
        ([], "give either --raw_folder or --video"),
    ],
)
def test_mistakes(flags, words, interpolated, tmp_path):
    (tmp_path / "empty").mkdir()
    places = {"empty": tmp_path / "empty", "raw": interpolated[0]}
    argv = [str(flag).format(**places) for flag in flags]
    if "--out" not in argv and "--video" not in argv:
        argv += ["--out", str(tmp_path / "empty")]
    _, err = call("scripts/prepare_gopro.py", *argv, code=2)
    assert words in err and "Traceback" not in err
    assert not any((tmp_path / "empty").iterdir())


def test_frames_by_other_names(interpolated, tmp_path):
    """The number at the end of the name orders the frames; what they are called does not matter to what comes out."""
    root, films = interpolated
    for index, frame in enumerate(films["GOPR02"]):
        write_image(tmp_path / "raw" / "GOPR02" / f"my-2nd-clip.{index}.ppm", frame)
    call("scripts/blur_syn.py", "--raw_folder", tmp_path / "raw", "--out", tmp_path / "out")
    call("scripts/blur_syn.py", "--raw_folder", root, "--out", tmp_path / "official")
    official = files(tmp_path / "official")
    assert files(tmp_path / "out") == {name: value for name, value in official.items() if "GOPR01" not in name}
    write_image(tmp_path / "raw" / "GOPR02" / "again.7.ppm", films["GOPR02"][0])
    _, err = call("scripts/blur_syn.py", "--raw_folder", tmp_path / "raw", "--out", tmp_path / "no", code=2)
    assert "have the same number" in err
    (tmp_path / "raw" / "GOPR02" / "again.7.ppm").rename(tmp_path / "raw" / "GOPR02" / "preview.ppm")
    (tmp_path / "raw" / ".thumbnails").mkdir()
    shutil.copy(tmp_path / "raw" / "GOPR02" / "preview.ppm", tmp_path / "raw" / ".thumbnails" / "1.ppm")
    out, _ = call("scripts/blur_syn.py", "--raw_folder", tmp_path / "raw", "--out", tmp_path / "again")
    assert out.count("have no number: preview.ppm") == 1 and files(tmp_path / "again") == files(tmp_path / "out")


def test_run_sh_and_quality(interpolated, video, tmp_path):
    root, _ = interpolated
    done = subprocess.run(
        ["bash", ROOT / "scripts/run.sh", root, "--out", tmp_path / "out"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    call("scripts/prepare_gopro.py", "--raw_folder", root, "--interp", "none", "--out", tmp_path / "one")
    assert files(tmp_path / "out") == files(tmp_path / "one")
    out, _ = call("scripts/dev/interp_quality.py", video, "--frames", 17)
    rows = [line.split(" | ") for line in out.splitlines()[2:]]
    assert [row[2] for row in rows] == ["1 of 2", "7 of 8"] and rows[0][1] == "17"
    assert "nothing to measure" in refused("scripts/dev/interp_quality.py")


def test_exposure_numbers_are_the_papers():
    assert EXPOSURE.length + 7 == 104 and EXPOSURE.length == 97
    assert refused("scripts/prepare_gopro.py", "--interp", "xvfi", "--raw_folder", "x").count("flow")


def test_sequences_whose_names_are_no_utf8(interpolated, tmp_path):
    """As a Chinese Windows leaves them in a zip: made like any other, and a faulty frame is named readably."""
    root, name = interpolated[0], os.fsdecode(b"\xb2\xe2\xca\xd4")
    argv = ["--interp", "none", "--multi", "--no-noise"]
    call("scripts/prepare_gopro.py", "--raw_folder", root, *argv, "--out", tmp_path / "plain")
    raw = tmp_path / "raw_data"
    shutil.copytree(root / "GOPR01", raw / name)
    call("scripts/prepare_gopro.py", "--raw_folder", raw, *argv, "--out", tmp_path / "out")
    found, plain = files(tmp_path / "out"), files(tmp_path / "plain")
    kinds = ("blur_data", "sharp_data")  # spikes begin at random, by the sequence's name
    expected = {key.replace("GOPR01", name): plain[key] for key in plain if "GOPR01" in key and key.startswith(kinds)}
    assert expected and {key: found[key] for key in found if key.startswith(kinds)} == expected
    spikes = {key.replace(name, "GOPR01") for key in found if key.startswith("spike_data/")}
    assert spikes and spikes == {key for key in plain if key.startswith("spike_data/GOPR01")}
    (raw / name / "000016_2.png").write_bytes(b"no image")
    _, err = call("scripts/prepare_gopro.py", "--raw_folder", raw, *argv, "--out", tmp_path / "more", code=2)
    last = err.splitlines()[-1]
    assert "\\xb2\\xe2\\xca\\xd4" in last and "1 of 1 sequences are unfinished" in last


def test_a_sequence_too_short_for_a_sample_is_said(interpolated, tmp_path):
    (tmp_path / "raw_data" / "s").mkdir(parents=True)
    for path in sorted((interpolated[0] / "GOPR01").iterdir())[: 8 * 13 + 1]:  # an exposure and no frame around it
        shutil.copy(path, tmp_path / "raw_data" / "s")
    out, _ = call("scripts/prepare_gopro.py", "--raw_folder", tmp_path / "raw_data", "--interp", "none")
    assert "s: too short for a sample: 105 frames" in out and not list(tmp_path.glob("spike_data/*/*"))
