import shutil
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from codes.dataset import SpikeData
from codes.engine.loader import BatchPlan
from codes.image import read_image
from codes.spike import read_dat, write_dat
from tests.conftest import call


def paths(root, split="train"):
    spikes = sorted((root / split / "spike_data").glob("*/*.dat"))
    blurs = [root / split / "blur_data" / p.parent.name / f"{p.stem}.png" for p in spikes]
    return spikes, blurs


def test_whole_samples(tiny):
    data = SpikeData(tiny, "GOPRO", "test", use_sharp=True)
    spikes, blurs = paths(tiny, "test")
    assert len(data) == 2
    for index, sample in enumerate(data[i] for i in range(2)):
        expected = cv2.imread(str(blurs[index])).transpose(2, 0, 1) / 255  # B, G, R
        np.testing.assert_allclose(sample["blur"], expected, atol=1e-7)
        np.testing.assert_array_equal(sample["spike"], read_dat(spikes[index], 16, 24))
        sharp = cv2.imread(str(blurs[index]).replace("blur_data", "sharp_data")).transpose(2, 0, 1) / 255
        np.testing.assert_allclose(sample["sharp"], sharp, atol=1e-7)
        assert sample["name"] == f"{spikes[index].parent.name}/000019"
        assert sample["blur"].dtype == torch.float32 and sample["spike"].dtype == torch.uint8


def test_crops_lie_on_the_spike_grid_and_follow_the_epoch(tiny):
    whole = SpikeData(tiny, "GOPRO", "train")[1]
    data = SpikeData(tiny, "GOPRO", "train", use_roi=True, roi_size=32, seed=3)
    places = set()
    for epoch in range(12):
        sample = data[1, epoch]
        assert sample["blur"].shape == (3, 32, 32) and sample["spike"].shape == (137, 8, 8)
        found = [
            (y, x)
            for y in range(9)
            for x in range(17)
            if torch.equal(whole["blur"][:, 4 * y : 4 * y + 32, 4 * x : 4 * x + 32], sample["blur"])
            and torch.equal(whole["spike"][:, y : y + 8, x : x + 8], sample["spike"])
        ]
        assert len(found) == 1
        places.add(found[0])
        assert torch.equal(data[1, epoch]["blur"], sample["blur"])
    assert len(places) > 6


def test_sharp_images_are_not_read_in_training(copy):
    shutil.rmtree(copy / "train" / "sharp_data")
    assert "sharp" not in SpikeData(copy, "GOPRO", "train", use_roi=True, roi_size=32)[0]
    with pytest.raises(FileNotFoundError, match="has no sharp_data"):
        SpikeData(copy, "GOPRO", "train", use_sharp=True)


def test_use_small_keeps_every_tenth(copy):
    spikes, blurs = paths(copy)
    for number in range(101, 119):
        for source in (spikes[0], blurs[0]):
            shutil.copy(source, source.with_stem(f"{number:06}"))
    data = SpikeData(copy, "GOPRO", "train")
    small = SpikeData(copy, "GOPRO", "train", use_small=True)
    assert small.spike_paths == data.spike_paths[::10] and len(small) == 3


def test_other_thresholds_lie_beside(copy):
    shutil.copytree(copy / "test" / "spike_data", copy / "test" / "spike_data_vth2")
    assert SpikeData(copy, "GOPRO", "test", vth=2).spike_paths[0].parts[-3] == "spike_data_vth2"
    with pytest.raises(FileNotFoundError, match="spike_data_vth4 does not exist"):
        SpikeData(copy, "GOPRO", "test", vth=4)


def test_spike_full(copy):
    for spike in paths(copy)[0]:
        cube = np.random.default_rng(0).random((137, 64, 96)) < 0.3
        write_dat(copy / "train" / "spike_full" / spike.parent.name / spike.name, cube)
    data = SpikeData(copy, "GOPRO", "train", spike_full=True, use_roi=True, roi_size=32)
    assert data[0, 1]["spike"].shape == (137, 32, 32) and data[0, 1]["blur"].shape == (3, 32, 32)


@pytest.mark.parametrize("splits", [True, False])
def test_real_captures(splits, tiny, tmp_path):
    spikes, blurs = paths(tiny)
    root = tmp_path / "RSB"
    base = root / "test" if splits else root
    for spike, blur in zip(spikes, blurs, strict=True):
        for kind, name in (("spike_data", f"{spike.stem}.dat"), ("blur_data", f"{spike.stem}.jpg")):
            (base / kind / spike.parent.name).mkdir(parents=True)
            target = base / kind / spike.parent.name / name
            if kind == "spike_data":
                shutil.copy(spike, target)
            else:
                cv2.imwrite(str(target), cv2.imread(str(blur)))
    data = SpikeData(root, "real", "test", use_sharp=True)
    assert len(data) == 3 and not data.use_sharp and "sharp" not in data[0]
    assert data[0]["blur"].shape == (3, 64, 96)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


SPOILED = {  # which file of the training split, what becomes of it, and what is said
    "truncated": ("spike", 0, cut, r"000019.dat holds 6476 bytes; 137 frames of 16x24 .* are 6576: truncated"),
    "other size": (
        *("spike", 0, lambda path: write_dat(path, np.zeros((137, 32, 48)))),
        "137 frames of 16x24 .* are 6576: truncated, or not made for this image",
    ),
    "no image": ("blur", 2, Path.unlink, "the sample .*/000019 has no blur_data"),
    "unreadable": ("blur", 0, lambda path: path.write_bytes(b"no"), "000019.png is no image that can be decoded"),
    "odd size": (
        *("blur", 0, lambda path: cv2.imwrite(str(path), np.zeros((66, 96, 3), np.uint8))),
        "is 66x96; both sides must be multiples of 4",
    ),
    "empty": (
        *("spike", 0, lambda path: [shutil.rmtree(folder) for folder in path.parents[1].iterdir()]),
        r"no samples: .*spike_data holds no \*/\*.dat files; expected .*<sequence>/<frame>.dat",
    ),
    "no split": (
        *("spike", 0, lambda path: shutil.rmtree(path.parents[2])),
        "no split 'train': the folder .* does not exist; .* holds demo_data.json, test",
    ),
    "no data": ("spike", 0, lambda path: shutil.rmtree(path.parents[3]), "no data set: the folder .* does not exist"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_bad_data_are_named_at_start(name, copy):
    kind, number, spoil, words = SPOILED[name]
    spoil(paths(copy)[("spike", "blur").index(kind)][number])
    with pytest.raises((ValueError, OSError), match=words):
        SpikeData(copy, "GOPRO", "train")


def test_sharp_of_another_size(copy):
    path = copy / "test" / "sharp_data" / "0000_chelsea" / "000019.png"
    cv2.imwrite(str(path), np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="is 32x32, its blurry image 64x96"):
        SpikeData(copy, "GOPRO", "test", use_sharp=True)


def test_crops_that_cannot_be(tiny):
    with pytest.raises(ValueError, match="--roi_size 128 is larger than the image .* choose at most 64"):
        SpikeData(tiny, "GOPRO", "train", use_roi=True, roi_size=128)
    with pytest.raises(ValueError, match="multiple of 4"):
        SpikeData(tiny, "GOPRO", "train", use_roi=True, roi_size=30)
    with pytest.raises(ValueError, match="is 64x96, but --height and --width ask for 720x1280"):
        SpikeData(tiny, "GOPRO", "train", size=(720, 1280))


def test_plan_is_a_permutation_an_epoch_and_can_be_joined_anywhere():
    def batches(count, **start):
        plan = iter(BatchPlan(10, 4, seed=1, **start))
        return [next(plan) for _ in range(count)]

    first = batches(9)
    for epoch in range(3):
        items = [item for batch in first[3 * epoch : 3 * epoch + 3] for item in batch]
        assert sorted(items) == [(index, epoch) for index in range(10)]
    assert [i for i, _ in first[0]] != [i for i, _ in first[3]]
    assert batches(4, first_epoch=1, first_batch=2) == first[5:9]


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A data set with the 7 sharp frames of each exposure, at two thresholds."""
    out = tmp_path_factory.mktemp("films") / "GOPRO"
    sizes = ["--size", "48x64", "--train", "2", "--test", "1", "--workers", "1", "--vth", "1", "2"]
    call("scripts/make_demo_data.py", "--out", out, *sizes)
    return out


def test_sharp_sequence(films):
    data = SpikeData(films, "GOPRO", "train", use_sharp="sequence", use_roi=True, roi_size=32)
    whole = SpikeData(films, "GOPRO", "train", use_sharp="sequence")[1]
    for index, number in enumerate((13, 15, 17, 19, 21, 23, 25)):
        image = read_image(films / "train/sharp_data/0001_rocket" / f"{number:06}.png")
        np.testing.assert_allclose(whole["sharps"][index].permute(1, 2, 0) * 255, image, atol=1e-3)
    assert torch.equal(whole["sharp"], whole["sharps"][3])
    crop = data[1, 5]
    assert any(
        torch.equal(crop["sharps"], whole["sharps"][..., y : y + 32, x : x + 32])
        and torch.equal(crop["blur"], whole["blur"][..., y : y + 32, x : x + 32])
        for y in range(0, 17, 4)
        for x in range(0, 33, 4)
    )


def test_flips_turn_everything_alike(films):
    options = {"use_sharp": "sequence", "use_roi": True, "roi_size": 32}
    plain, flipped = (SpikeData(films, "GOPRO", "train", flips=flips, **options) for flips in (False, True))
    seen = set()
    for epoch in range(60):
        before, after = plain[0, epoch], flipped[0, epoch]
        ways = {
            (turns, mirror): lambda x, t=turns, m=mirror: np.flip(np.rot90(x, t, (-2, -1)), (-1,) if m else ())
            for turns in range(4)
            for mirror in (False, True)
        }
        fit = {
            way
            for way, turn in ways.items()
            if all(np.array_equal(turn(before[key].numpy()), after[key].numpy()) for key in ("blur", "spike", "sharps"))
        }
        assert len(fit) == 1
        seen |= fit
    assert len(seen) == 8


def test_several_thresholds_are_drawn(films):
    ones, twos = (SpikeData(films, "GOPRO", "train", vth=vth)[0]["spike"] for vth in (1, 2))
    mixed = SpikeData(films, "GOPRO", "train", vth=1, more_vth=[2])
    drawn = [mixed[0, epoch]["spike"] for epoch in range(20)]
    kinds = [1 if torch.equal(spike, ones) else 2 for spike in drawn]
    assert all(torch.equal(spike, ones if kind == 1 else twos) for spike, kind in zip(drawn, kinds, strict=True))
    assert 4 <= kinds.count(2) <= 16
    with pytest.raises(OSError, match="spike_data_vth4"):
        SpikeData(films, "GOPRO", "train", vth=1, more_vth=[4])


def test_images_of_any_format_and_streams_in_capitals(copy):
    """The same samples whatever the files are called; what is hidden is none."""
    expected = SpikeData(copy, "GOPRO", "train", use_sharp=True)[1]
    spikes, blurs = paths(copy)
    cv2.imwrite(str(blurs[1].with_suffix(".bmp")), cv2.imread(str(blurs[1])))
    blurs[1].unlink()
    sharp = copy / "train/sharp_data" / blurs[1].parent.name / f"{blurs[1].stem}.png"
    cv2.imwrite(str(sharp.with_suffix(".tiff")), cv2.imread(str(sharp)))
    sharp.with_suffix(".tiff").rename(sharp.with_suffix(".TIFF"))
    sharp.unlink()
    spikes[1].rename(spikes[1].with_suffix(".DAT"))
    shutil.copytree(spikes[0].parent, spikes[0].parents[1] / ".trash")
    for layout in ("GOPRO", "real"):
        data = SpikeData(copy, layout, "train", use_sharp=True)
        assert len(data) == len(spikes)
        assert all(torch.equal(data[1][key], expected[key]) for key in ("blur", "spike"))
    assert torch.equal(SpikeData(copy, "GOPRO", "train", use_sharp=True)[1]["sharp"], expected["sharp"])


def test_names_that_are_no_utf8_can_be_shown(copy):
    """As a Chinese Windows leaves them in a zip."""
    import os

    for kind in ("blur_data", "spike_data"):
        folder = sorted((copy / "train" / kind).iterdir())[0]
        os.rename(folder, os.fsencode(folder.parent) + b"/\xb2\xe2\xca\xd4")
    data = SpikeData(copy, "GOPRO", "train")
    assert "\\xb2\\xe2\\xca\\xd4/000019" in data.names and len(data[len(data) - 1]["blur"]) == 3
    "".join(data.names).encode()


def test_names_in_another_unicode_normalisation_are_named(copy):
    """Of a data set that was made on a Mac in parts."""
    for kind, form in (("blur_data", "NFC"), ("spike_data", "NFD")):
        folder = sorted((copy / "train" / kind).iterdir())[0]
        folder.rename(folder.with_name(unicodedata.normalize(form, "é")))
    with pytest.raises(OSError, match=r"has no blur_data.*looks the same, but its accents are coded otherwise"):
        SpikeData(copy, "GOPRO", "train")
