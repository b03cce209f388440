import os
import shutil

import cv2
import numpy as np
import pytest

from codes.image import read_image, write_image
from codes.inference.alignment import align
from codes.spike import read_dat, write_dat
from tests.conftest import call, refused


def scene(height=45, width=64, seed=0):
    """A textured grey picture with a strong slope of brightness, which must not count."""
    noise = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 1.5)
    return 0.1 + 0.5 * np.linspace(0, 1, height, dtype=np.float32)[:, None] + (texture - 0.5)


def swapped_bits(picture):
    return picture.reshape(len(picture), -1, 8)[..., ::-1].reshape(picture.shape)


def counted(light, seed=1):
    """What 97 frames tell of the light: off by up to one spike, and some noise."""
    return np.clip(light + np.random.default_rng(seed).uniform(-1, 1, light.shape) / 97, 0, 1)


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda x: x, ""),
        (lambda x: x[::-1], "flipped vertically"),
        (lambda x: x[:, ::-1], "flipped horizontally"),
        (lambda x: x[::-1, ::-1], "turned by 180 degrees"),
        (swapped_bits, "other bit order"),
        (lambda x: np.roll(x, (4, -6), (0, 1)), "shifted by 4 rows and -6 columns"),
        (lambda x: np.roll(x[::-1], (0, 7), (0, 1)), "flipped vertically and shifted by 0 rows and 7 columns"),
        (lambda x: scene(seed=9), "do not show the image's scene"),
        (lambda x: np.roll(x, 1, 1), ""),  # a spike pixel is within what a rig is adjusted to
    ],
)
def test_what_is_wrong_is_named(spoil, words):
    light = scene()
    fault = align(light, counted(spoil(light))).fault
    assert words in fault and bool(words) == bool(fault)


@pytest.mark.parametrize("seed", range(3))
def test_pixels_that_differ_are_no_other_scale(seed):
    """A picture that is scaled is smoothed by that, which must not make it fit better."""
    slope = np.linspace(0.1, 0.6, 90, dtype=np.float32)[:, None]
    light = slope + 5 * cv2.GaussianBlur(scene(90, 160, seed) - slope, (0, 0), 5)
    thresholds = np.exp(0.2 * np.random.default_rng(seed).standard_normal(light.shape))
    found = align(light, counted(light / thresholds), scales=True)
    assert found.fault == "" and found.correlation > 0.5
    moved = align(light, counted(np.roll(light, (4, -6), (0, 1)) / thresholds), scales=True)
    assert "shifted by 4 rows and -6 columns" in moved.fault and "times" not in moved.fault


def test_other_small_scenes_are_other_scenes():
    """Smoothed, few pixels would be alike in one way or another."""
    faults = [align(scene(24, 32, seed), counted(scene(24, 32, seed + 100))).fault for seed in range(40)]
    assert all("do not show the image's scene" in fault for fault in faults)


def test_an_even_wall_tells_nothing():
    wall = np.full((45, 64), 0.5, np.float32)
    assert align(wall, counted(wall)).fault == ""


def test_check_dataset(copy, tmp_path):
    argv = [copy, "--sheet", tmp_path / "sheet.jpg"]
    out, _ = call("scripts/check_dataset.py", *argv)
    assert "5 samples, all sound" in out and "| train/spike_data/0000_astronaut | 1 | 64x96 | 7 |" in out
    assert cv2.imread(str(tmp_path / "sheet.jpg")).shape == (5 * 320, 4 * 480, 3)
    spikes = sorted((copy / "train/spike_data").glob("*/*.dat"))
    write_dat(spikes[0], read_dat(spikes[0], 16, 24)[:, ::-1])
    spikes[1].write_bytes(spikes[1].read_bytes()[:-10])
    write_dat(spikes[2], np.zeros((137, 16, 24), np.uint8))
    test = sorted((copy / "test/spike_data").glob("*/*.dat"))
    (copy / "test/sharp_data" / test[0].parent.name / "000013.png").unlink()
    (copy / "test/blur_data" / test[1].parent.name / "000019.png").write_bytes(b"x")
    out, err = call("scripts/check_dataset.py", *argv, code=2)
    for path, words in zip(
        [*spikes, *test],
        ("flipped vertically", "frames of 16x24 are 6576", "nearly dark", "6 of 7 sharp images", "no image that can"),
        strict=True,
    ):
        assert any(str(path) in line and words in line for line in out.splitlines()), words
    assert "5 problems in 5 samples" in err


def test_check_real_captures(tiny, tmp_path):
    for kind in ("spike_data", "blur_data"):
        shutil.copytree(tiny / "test" / kind, tmp_path / "RSB" / kind)
    out, _ = call("scripts/check_dataset.py", tmp_path / "RSB", "--data_type", "real", "--sheet", tmp_path / "s.jpg")
    assert "2 samples, all sound" in out
    _, err = call("scripts/check_dataset.py", tmp_path, code=2)
    assert "holds no spike_data" in err


def test_check_dataset_names_images_without_streams_and_odd_names(copy, tmp_path):
    argv = copy, "--sheet", tmp_path / "sheet.png"
    streams = sorted((copy / "train/spike_data").glob("*/*.dat"))
    streams[0].rename(streams[0].with_suffix(".bin"))
    out, _ = call("scripts/check_dataset.py", *argv, code=2)
    assert f"{streams[0].parent.name}/000019.png: no stream of that name" in out
    streams[0].with_suffix(".bin").rename(streams[0].with_suffix(".DAT"))
    for kind in ("blur_data", "spike_data", "sharp_data"):
        os.rename(copy / "test" / kind / "0000_chelsea", os.fsencode(copy / "test" / kind) + b"/\xb2\xe2\xca\xd4")
    first = next((copy / "train/blur_data").glob("*/*.png"))
    write_image(first.with_name("000006.png"), read_image(first))  # a video's first exposure has no spikes before it
    out, _ = call("scripts/check_dataset.py", *argv)
    assert "test/spike_data/\\xb2\\xe2\\xca\\xd4" in out and "all sound" in out
    assert "000006.png: no stream, as at the beginning" in out and (tmp_path / "sheet.png").is_file()


def test_two_images_for_one_stream_are_named(copy, tmp_path):
    image = sorted(copy.glob("test/blur_data/*/*.png"))[0]
    image.with_suffix(".BMP").write_bytes(image.read_bytes())
    out, _ = call("scripts/check_dataset.py", copy, "--sheet", tmp_path / "s.png", code=2)
    assert f"{image.with_suffix('.BMP')}: another image of that name" in out
    assert "--sheet s.xyz" in refused("scripts/check_dataset.py", copy, "--sheet", "s.xyz")


def test_hidden_streams_are_named_once(copy, tmp_path):
    stream = sorted(copy.glob("test/spike_data/*/*.dat"))[0]
    hidden = stream.parent.with_name(".backup") / stream.name
    hidden.parent.mkdir()
    hidden.write_bytes(stream.read_bytes())
    stream.with_name("._1.dat").write_bytes(b"x")
    out, _ = call("scripts/check_dataset.py", copy, "--sheet", tmp_path / "s.png")
    assert out.count("hidden, left out with 1 more") == 1 and "all sound" in out
