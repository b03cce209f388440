import hashlib
import json
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from codes.engine.command import command
from codes.image import read_image, write_image
from codes.making import demo
from codes.making.photos import split_photos
from codes.making.synthesis import (
    Background,
    Foreground,
    Scene,
    draw_motion,
    draw_sample,
    read_cutout,
    render,
    sequence_name,
)
from codes.spike import EXPOSURE, read_dat
from scripts import make_demo_data
from tests.conftest import ROOT

SIZE = (48, 64)
SMALL = ["--size", "48x64", "--train", "2", "--test", "2", "--workers", "1"]
EXPOSED = slice(EXPOSURE.start, EXPOSURE.stop)


def main(arguments):
    """The script's command line, in this process."""
    command(lambda: make_demo_data.main(arguments))


def texture(height, width, seed=0):
    """A smooth random picture, different for each seed."""
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.uint8(255 * (noise - noise.min()) / np.ptp(noise))


def digest(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def sample_of(split="train", index=0, seed=3, foregrounds=3, size=SIZE, **changes):
    drawn = draw_sample(
        split, index, ["a.png", "b.png"], size=size, motion=(20, 80), max_foregrounds=foregrounds, seed=seed
    )
    return replace(drawn, **changes)


def read_texture(path):
    return texture(90, 120, seed=len(path) + ord(path[0]))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set of the photographs that come with scikit-image."""
    out = tmp_path_factory.mktemp("demo") / "GOPRO"
    main(["--out", str(out), *SMALL])
    return out


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Five good photographs, in subfolders and with odd suffixes, three that must be left out, and a temporary file."""
    folder = tmp_path_factory.mktemp("photos")
    names = ["a.png", "b.JPG", "sub/ç d.jpeg", "sub/e.Bmp", "f.tif"]
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        done, encoded = cv2.imencode("." + name.rsplit(".")[-1].lower(), texture(70, 90, seed))
        assert done
        encoded.tofile(folder / name)
    (folder / "broken.png").write_bytes(b"no image")
    write_image(folder / "small.png", texture(63, 90))
    (folder / "copy.png").write_bytes((folder / "a.png").read_bytes())
    write_image(folder / ".g.12.tmp.png", texture(70, 90, 9))  # of a program that was killed: half a picture, or old
    return folder


def test_layout_and_record(made):
    assert {path.name for path in made.iterdir()} == {"train", "test", "demo_data.json"}
    for split, names in (("train", ["astronaut", "rocket"]), ("test", ["chelsea", "coffee"])):
        sequences = [f"{index:04}_{name}" for index, name in enumerate(names)]
        expected = {"samples.json"}
        for name in sequences:
            expected |= {f"blur_data/{name}/000019.png", f"spike_data/{name}/000019.dat"}
            expected |= {f"sharp_data/{name}/0000{number}.png" for number in (13, 15, 17, 19, 21, 23, 25)}
        assert set(digest(made / split)) == expected
        rows = json.loads((made / split / "samples.json").read_text())
        assert [row["sequence"] for row in rows] == sequences
        assert all(row["vth"] == [1] and 20 / 15 <= row["motion_px"] <= 80 / 15 for row in rows)
        own = {f"{name}.png" for name in names} | {f"{name}.jpg" for name in names}
        assert {fg["photo"] for row in rows for fg in row["foregrounds"]} <= own  # none of the other split
    assert len(read_dat(made / "test/spike_data/0000_chelsea/000019.dat", 12, 16)) == 137
    assert read_image(made / "test/blur_data/0000_chelsea/000019.png").shape == (48, 64, 3)


def test_ground_truth_is_exact():
    scene = Scene(sample_of(seed=1), read_texture)
    assert scene.foregrounds
    frames = np.stack(list(scene)).astype(np.float64)
    assert frames.shape == (137, 48, 64, 3) and frames.min() >= 0 and frames.max() <= 1
    blur, sharps, light = render(scene)
    assert np.abs(blur - 255 * frames[20:117].mean(axis=0)).max() <= 0.5 + 1e-3
    for sharp, time in zip(sharps, (20, 36, 52, 68, 84, 100, 116), strict=True):
        assert np.abs(sharp - 255 * frames[time]).max() <= 0.5 + 1e-3
    blocks = frames.reshape(137, 12, 4, 16, 4, 3)[:, :, 1:3, :, 1:3].mean(axis=(2, 4))
    np.testing.assert_allclose(light, blocks @ [0.11, 0.59, 0.3], atol=1e-5)
    assert np.abs(frames[20] - frames[116]).mean() > 0.02  # it does move


@pytest.mark.parametrize("name", ["test/{}/0000_chelsea", "test/{}/0001_coffee", "train/{}/0000_astronaut"])
def test_spikes_show_the_blurry_image(made, name):
    spikes = read_dat(made / name.format("spike_data") / "000019.dat", 12, 16)
    blur = read_image(made / name.format("blur_data") / "000019.png") / 255
    grey = blur.reshape(12, 4, 16, 4, 3)[:, 1:3, :, 1:3].mean(axis=(1, 3)) @ [0.11, 0.59, 0.3]
    tfp = spikes[EXPOSED].mean(axis=0)
    assert np.corrcoef(tfp.ravel(), grey.ravel())[0, 1] > 0.9
    # At Vth 1 a pixel fires 1.98543 / 2 times a frame and unit of light; noise fills 1 in 140 of the other slots.
    rate = grey.mean() * 1.98543 / 2
    assert abs(tfp.mean() - (rate + (1 - rate) / 140)) < 0.01


def positions(matrix_of, pivot):
    """Where the frame shows a point of the plane, at each instant of the exposure."""
    matrices = np.stack([matrix_of(time) for time in range(EXPOSURE.start, EXPOSURE.stop)])
    return np.stack([np.linalg.solve(matrix[:, :2], pivot - matrix[:, 2]) for matrix in matrices])


@pytest.mark.parametrize("index", range(4))
def test_motion_is_what_was_drawn(index):
    sample = sample_of("test" if index % 2 else "train", index, foregrounds=9)
    scene = Scene(sample, read_texture)
    background = scene.background
    lengths = [np.linalg.norm(np.diff(positions(background.matrices.__getitem__, background.pivot), axis=0), axis=1)]
    for piece in scene.foregrounds:
        track = positions(lambda t, p=piece: p.motion.inverse(t, p.anchor, p.turn, np.full(2, p.radius)), piece.radius)
        lengths.append(np.linalg.norm(np.diff(track, axis=0), axis=1))
    drawn = [sample.motion, *(length for _, length in sample.foregrounds)]
    np.testing.assert_allclose([steps.sum() for steps in lengths], drawn, rtol=1e-9)
    assert all(20 / 15 <= length <= 80 / 15 for length in drawn)


def test_image_content_follows_the_motion():
    rng = np.random.default_rng(1)
    motion = draw_motion(9.0, 64, rng)
    background = Background(texture(256, 256), (96, 128), motion, True, rng)
    grey = [background.frame(time).mean(axis=2) for time in (EXPOSURE.start, EXPOSURE.stop - 1)]
    found, _ = cv2.phaseCorrelate(*grey, cv2.createHanningWindow((128, 96), cv2.CV_32F))
    np.testing.assert_allclose(found, motion.shift[116] - motion.shift[20], atol=0.5)
    assert np.hypot(*found) > 4


@pytest.mark.parametrize("upright", [True, False])
def test_no_border_is_ever_seen(upright):
    rng = np.random.default_rng(2)
    background = Background(np.full((64, 80, 3), 255, np.uint8), (96, 128), draw_motion(96, 64, rng), upright, rng)
    assert all(background.frame(time).min() > 0.999 for time in range(0, 137, 8))


def test_photograph_is_shown_upright_in_test_only():
    ramp = np.repeat(np.linspace(0, 255, 200).astype(np.uint8)[:, None], 200, axis=1)[..., None].repeat(3, axis=2)
    rises = {True: [], False: []}
    for seed in range(8):
        for upright, found in rises.items():
            rng = np.random.default_rng(seed)
            frame = Background(ramp, (96, 128), draw_motion(1, 64, rng), upright, rng).frame(EXPOSURE.centre)[..., 0]
            found.append(frame[-8:].mean() - frame[:8].mean())
    assert min(rises[True]) > 0.3 and min(rises[False]) < -0.1


def test_cut_out_has_soft_clean_edges_and_stays_in_its_place():
    piece = Foreground(np.full((90, 120, 3), 255, np.uint8), (96, 128), 20.0, np.random.default_rng(4))
    piece.anchor = np.array([64.0, 48.0])
    alpha = piece.picture[..., 3]
    assert alpha.min() == 0 and alpha.max() == 1 and ((alpha > 0.1) & (alpha < 0.9)).any()
    white, black = np.ones((96, 128, 3), np.float32), np.zeros((96, 128, 3), np.float32)
    piece.paint(white, 30)
    piece.paint(black, 30)
    assert np.abs(white - 1).max() < 1e-5  # premultiplied: white over white has no dark fringe
    y, x = np.nonzero(black[..., 0] > 0.01)
    centre = piece.anchor + piece.motion.shift[30]
    assert len(x) > 100 and np.hypot(x - centre[0], y - centre[1]).max() <= piece.radius * piece.motion.zoom[30] + 1
    piece.anchor = np.array([-500.0, 0.0])
    before = black.copy()
    piece.paint(black, 30)
    np.testing.assert_array_equal(black, before)


def test_same_seed_same_bytes_whatever_the_workers(made, tmp_path):
    main(["--out", str(tmp_path / "two"), *SMALL, "--workers", "2"])
    assert digest(tmp_path / "two") == digest(made)
    main(["--out", str(tmp_path / "other"), *SMALL, "--seed", "1"])
    differing = {name for name, value in digest(tmp_path / "other").items() if digest(made)[name] != value}
    assert differing == set(digest(made))


def test_an_interrupted_run_goes_on(made, tmp_path, monkeypatch, capsys):
    out = tmp_path / "GOPRO"
    write_sample = demo.write_sample

    def interrupted(sample, folder):
        if sample.split == "test":
            raise KeyboardInterrupt
        write_sample(sample, folder)

    monkeypatch.setattr(demo, "write_sample", interrupted)
    with pytest.raises(SystemExit) as stop:
        main(["--out", str(out), *SMALL])
    assert stop.value.code == 130 and "goes on" in capsys.readouterr().err
    first = out / "train/spike_data/0000_astronaut/000019.dat"
    written = first.stat().st_mtime_ns
    assert not list(out.glob("test/spike_data/*/*"))
    monkeypatch.undo()
    main(["--out", str(out), *SMALL])
    assert digest(out) == digest(made) and first.stat().st_mtime_ns == written


def test_a_folder_holds_one_configuration(made, tmp_path, capsys):
    out = tmp_path / "GOPRO"
    main(["--out", str(out), *SMALL, "--train", "1"])
    main(["--out", str(out), *SMALL])  # more samples of the same kind may be added
    assert digest(out) == digest(made)
    capsys.readouterr()
    for flags, word in ((["--vth", "2"], "vth"), (["--train", "1"], "fewer train samples"), (["--no-noise"], "noise")):
        with pytest.raises(SystemExit) as stop:
            main(["--out", str(out), *SMALL, *flags])
        error = capsys.readouterr().err
        assert stop.value.code == 2 and word in error and "--overwrite" in error and "\n" not in error.strip()
    assert digest(out) == digest(made)
    foreign = out / "train/blur_data/mine/000019.png"
    write_image(foreign, texture(8, 8))
    main(["--out", str(out), *SMALL, "--train", "1", "--vth", "2", "--overwrite"])
    assert foreign.is_file() and not (out / "train/spike_data/0001_rocket").exists()
    changed = digest(out)
    assert changed["train/blur_data/0000_astronaut/000019.png"] == digest(made)[
        "train/blur_data/0000_astronaut/000019.png"]  # fmt: skip
    spikes = [read_dat(folder / "test/spike_data/0001_coffee/000019.dat", 12, 16).mean() for folder in (made, out)]
    assert spikes[1] < 0.6 * spikes[0]


def test_several_thresholds_lie_side_by_side(made, tmp_path):
    out = tmp_path / "GOPRO"
    main(["--out", str(out), *SMALL, "--vth", "1", "2", "4"])
    first, rest = digest(made), digest(out)
    assert all(rest[name] == value for name, value in first.items() if "_data/" in name)
    rates = [
        read_dat(out / "test" / folder / "0001_coffee/000019.dat", 12, 16).mean()
        for folder in ("spike_data", "spike_data_vth2", "spike_data_vth4")
    ]
    noise = 1 / 140  # noise spikes do not thin out with the threshold
    assert rates[1] - noise == pytest.approx((rates[0] - noise) / 2, rel=0.05)
    assert rates[2] - noise == pytest.approx((rates[0] - noise) / 4, rel=0.05)


def test_own_photographs(photos, tmp_path, capsys):
    main(["--out", str(tmp_path / "o"), "--photos", str(photos), *SMALL, "--train", "5"])
    error = capsys.readouterr().err
    for name, why in (("broken.png", "no image"), ("small.png", "63x90"), ("copy.png", "copy")):
        lines = [line for line in error.replace("\r", "\n").split("\n") if name in line]
        assert len(lines) == 1 and why in lines[0] and "left out" in lines[0]
    used = json.loads((tmp_path / "o/demo_data.json").read_text())["photos"]
    assert "g.12.tmp" not in error
    assert set(used["train"]) | set(used["test"]) == {"a.png", "b.JPG", "sub/ç d.jpeg", "sub/e.Bmp", "f.tif"}
    assert len(used["test"]) == 2 and not set(used["train"]) & set(used["test"])
    assert all(path.name.isascii() for path in (tmp_path / "o").glob("*/*/*"))


def test_split():
    both = {"train": 1, "test": 1}
    for count, expected in ((2, 1), (3, 1), (4, 2), (8, 2), (12, 3), (40, 10)):
        names = [f"{index:02}.png" for index in range(count)]
        split = split_photos(names, None, both)
        assert len(split["test"]) == expected and sorted(split["train"] + split["test"]) == names
        gaps = np.diff([names.index(name) for name in split["test"]])
        assert not len(gaps) or gaps.max() - gaps.min() <= 1
    assert split_photos(["x/a.png", "b.png"], ["a"], both) == {"train": ["b.png"], "test": ["x/a.png"]}
    assert split_photos(["a.png"], None, {"train": 1, "test": 0})["train"] == ["a.png"]
    for names, chosen in ((["a.png"], None), (["a.png", "b.png"], ["a", "b"]), (["a.png", "b.png"], ["c"])):
        with pytest.raises(ValueError, match="photograph"):
            split_photos(names, chosen, both)


def test_sequence_names():
    assert sequence_name(7, "/x/Crème brûlée (1).JPG") == "0007_Creme_brulee_1"
    assert sequence_name(7, "写真.png") == "0007_photo"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--size", "720"], "720x1280"),
        (["--size", "50x64"], "multiples of 4"),
        (["--train", "-1"], "--train"),
        (["--train", "0", "--test", "0"], "no samples"),
        (["--motion", "80", "20"], "MIN <= MAX"),
        (["--motion", "nan", "20"], "--motion"),
        (["--vth", "0"], "above 0"),
        (["--photos", "/nowhere"], "no folder"),
        (["--photos", str(ROOT / "codes")], "holds no pictures"),
        (["--test_photos", "cat"], "chelsea.png"),
        (["--over"], "--over"),
        (["--out", str(ROOT / "codes")], "not this program's work"),
    ],
)
def test_bad_input_is_one_line(flags, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["make_demo_data.py"])
    with pytest.raises(SystemExit) as stop:
        main(["--out", "o", *SMALL, *flags])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and words in error and error.count("\n") == 1
    assert error.startswith("make_demo_data.py: error: ")
    assert not list(tmp_path.iterdir())


def test_no_readable_photograph(tmp_path, capsys):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/x.png").write_bytes(b"")
    with pytest.raises(SystemExit) as stop:
        main(["--out", str(tmp_path / "o"), "--photos", str(tmp_path / "p")])
    assert stop.value.code == 2 and "no photograph can be used" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.fixture(scope="module")
def cutouts(tmp_path_factory):
    """Discs with alpha, red to blue, and a picture without alpha that must be left out."""
    folder = tmp_path_factory.mktemp("cutouts")
    y, x = np.mgrid[:80, :100]
    for index in range(4):
        disc = np.zeros((80, 100, 4), np.uint8)
        disc[..., :3] = (60 * index, 128, 255 - 60 * index)
        disc[..., 3] = 255 * (np.hypot(y - 40, x - 50) < 35)
        disc[0, 0, :3] = index  # invisible, so that no two are copies
        write_image(folder / f"disc{index}.png", disc)
    write_image(folder / "photo.png", texture(80, 100))
    return folder


def test_cut_outs_with_an_outline_of_their_own(cutouts):
    disc = read_cutout(cutouts / "disc0.png")
    piece = Foreground(disc, (96, 128), 20.0, np.random.default_rng(4))
    alpha = piece.picture[..., 3]
    # The disc fills 0.7 of the picture's longer side, which is scaled to the square less a margin of one pixel.
    assert abs(alpha.sum() / (np.pi * (0.35 * (len(alpha) - 2)) ** 2) - 1) < 0.03
    inside = alpha > 0.99
    np.testing.assert_allclose(piece.picture[inside][:, :3], np.tile([0, 128 / 255, 1], (inside.sum(), 1)), atol=0.01)
    assert (piece.picture[..., :3] <= alpha[..., None]).all()
    with pytest.raises(ValueError, match="no cut-out"):
        read_cutout(cutouts / "photo.png")


def test_cut_outs_move_before_the_photographs(photos, cutouts, tmp_path, capsys):
    options = ["--photos", str(photos), "--out", str(tmp_path / "a"), *SMALL, "--seed", "1"]
    main([*options, "--cutouts", str(cutouts)])
    assert "photo.png is no cut-out" in capsys.readouterr().err
    rows = [
        row for split in ("train", "test") for row in json.loads((tmp_path / "a" / split / "samples.json").read_text())
    ]
    things = [fg["photo"] for row in rows for fg in row["foregrounds"]]
    assert things and all(name.startswith("disc") for name in things)
    with pytest.raises(SystemExit):
        main(options)
    assert "other options (cutouts)" in capsys.readouterr().err
