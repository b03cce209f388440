import os

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import Subset

from codes.cache import ArrayCache, stamp
from codes.dataset import SpikeData
from codes.engine.loader import loader
from codes.image import write_image
from codes.spike import write_dat
from tests.conftest import call, options, refused


def make_data(root, height, width, samples=2, split="train"):
    """Noise in the official layout, spikes at both sizes."""
    rng = np.random.default_rng(0)
    for index in range(samples):
        name = f"s{index}/000001"
        for kind in ("blur_data", "sharp_data"):
            picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            write_image(root / split / kind / f"{name}.png", picture)
        for kind, scale in (("spike_data", 4), ("spike_full", 1)):
            write_dat(root / split / kind / f"{name}.dat", rng.random((137, height // scale, width // scale)) < 0.3)
    return root


def equal(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[key], second[key]) if isinstance(first[key], torch.Tensor) else first[key] == second[key]
        for key in first
    )


@pytest.mark.parametrize("spike_full", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (36, 100)])  # spikes 16x24, and 9x25: rows that share bytes
def test_cached_samples_are_those_without_cache(size, spike_full, tmp_path):
    root = make_data(tmp_path / "data", *size)
    for crop in ({}, {"use_roi": True, "roi_size": 20}, {"use_roi": True, "roi_size": 36}):
        common = {"spike_full": spike_full, "use_sharp": True, **crop}
        plain = SpikeData(root, "GOPRO", "train", **common)
        cached = SpikeData(root, "GOPRO", "train", cache=tmp_path / "cache", **common)
        for epoch in range(4):
            for index in range(2):
                assert equal(cached[index, epoch], plain[index, epoch])


def test_a_cached_image_is_not_decoded_again(tmp_path, monkeypatch):
    root = make_data(tmp_path / "data", 32, 32)
    data = SpikeData(root, "GOPRO", "train", cache=tmp_path / "cache")
    expected = [data[0], data[1]]
    monkeypatch.setattr("codes.dataset.read_image", None)
    assert all(equal(data[index], expected[index]) for index in range(2))


def test_data_sets_splits_and_thresholds_do_not_collide(tmp_path):
    """Same names everywhere, other pictures in each."""
    roots = [tmp_path / "a" / "GOPRO", tmp_path / "b" / "GOPRO"]
    for seed, root in enumerate(roots):
        for split in ("train", "test"):
            make_data(root, 32, 32, samples=1, split=split)
            picture = np.full((32, 32, 3), 10 * seed + (split == "test"), np.uint8)
            for path in (root / split / "blur_data").glob("*/*.png"):
                write_image(path, picture)
        (root / "test" / "spike_full").rename(root / "test" / "spike_data_vth2")
        for path in (root / "test" / "spike_data_vth2").glob("*/*.dat"):
            write_dat(path, np.ones((137, 8, 8)))
    for _ in range(2):
        for seed, root in enumerate(roots):
            for split in ("train", "test"):
                sample = SpikeData(root, "GOPRO", split, cache=tmp_path / "cache")[0]
                assert torch.equal(sample["blur"], torch.full((3, 32, 32), 10.0 * seed + (split == "test")) / 255)
                assert not sample["spike"].all()
        assert SpikeData(roots[0], "GOPRO", "test", vth=2, cache=tmp_path / "cache")[0]["spike"].all()


def test_a_changed_image_is_noticed(tmp_path):
    root = make_data(tmp_path / "data", 32, 32)
    data = SpikeData(root, "GOPRO", "train", cache=tmp_path / "cache")
    path = data.blur_paths[0]

    def paint(value):
        # Without compression every picture has the same number of bytes.
        cv2.imwrite(str(path), np.full((32, 32, 3), value, np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 0])
        return path.stat().st_size

    size = paint(10)
    os.utime(path, ns=(0, 10**18))
    assert (data[0]["blur"] == np.float32(10) / np.float32(255)).all()
    assert paint(20) == size
    os.utime(path, ns=(0, 10**18 + 100))
    assert (data[0]["blur"] == np.float32(20) / np.float32(255)).all()
    write_image(path, np.full((32, 32, 3), 30, np.uint8))
    os.utime(path, ns=(0, 10**18 + 100))
    assert path.stat().st_size != size
    for _ in range(2):
        assert (data[0]["blur"] == np.float32(30) / np.float32(255)).all()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        data[0]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(b"some bytes")
    return path


def load(path):
    return np.frombuffer(path.read_bytes(), np.uint8)


def test_arrays_come_back(source, tmp_path):
    cache = ArrayCache(tmp_path / "cache")
    array = np.random.default_rng(0).random((2, 3, 4)).astype(np.float16)
    assert cache.read(source) is None
    cache.write(source, array, stamp(source))
    found = cache.read(source)
    assert found.dtype == np.float16 and not found.flags.writeable
    np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(np.load(cache.path(source)), array)


def test_damaged_files_are_never_used(source, tmp_path):
    cache = ArrayCache(tmp_path / "cache")
    cache.get(source, lambda: load(source))
    path = cache.path(source)
    whole = path.read_bytes()
    for content in [whole[:length] for length in range(0, len(whole), 7)] + [b"x" * 300, whole + b"x", whole[::-1]]:
        path.write_bytes(content)
        assert cache.read(source) is None
        np.testing.assert_array_equal(cache.get(source, lambda: load(source)), load(source))
        assert path.read_bytes() == whole


def test_a_source_that_changes_while_it_is_read_is_read_again(source, tmp_path):
    cache = ArrayCache(tmp_path / "cache")

    def make():
        array = load(source)
        source.write_bytes(b"changed while it was read")
        return array

    cache.get(source, make)
    assert cache.read(source) is None
    np.testing.assert_array_equal(cache.get(source, lambda: load(source)), load(source))


def test_a_disk_that_fills_up(source, tmp_path, monkeypatch):
    cache = ArrayCache(tmp_path / "cache")

    def half(file, array, **_options):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", half)
    with pytest.raises(OSError, match=r"could not be written \(No space left on device\); give --cache a writable"):
        cache.get(source, lambda: load(source))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_finished_cache_may_be_read_only(source, tmp_path, monkeypatch):
    cache = ArrayCache(tmp_path / "cache")
    cache.get(source, lambda: load(source))
    monkeypatch.setattr("codes.cache.replacing", None)
    np.testing.assert_array_equal(cache.get(source, None), load(source))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(source, tmp_path):
    (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(OSError, match=r"Permission denied\); give --cache a writable folder"):
        ArrayCache(tmp_path / "cache").get(source, lambda: load(source))


def test_loader_processes_share_a_cache(tmp_path):
    """Also when all of them make the same file at once."""
    root = make_data(tmp_path / "data", 64, 64)
    plain = SpikeData(root, "GOPRO", "train")
    cached = SpikeData(root, "GOPRO", "train", cache=tmp_path / "cache")
    cached.cache.path(cached.blur_paths[0]).unlink()
    order = [0, 0, 0, 1, 1, 1, 0, 1]
    batches = list(loader(Subset(cached, order), workers=2))
    assert all(torch.equal(batch["blur"][0], plain[i]["blur"]) for batch, i in zip(batches, order, strict=True))
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert sorted(files) == sorted(cached.cache.path(path) for path in cached.blur_paths)


def test_cache_dataset(tiny, tmp_path, monkeypatch):
    argv = ["--base_folder", tiny, "--cache", tmp_path / "cache", "--workers", 2]
    for _ in range(2):
        out, _ = call("scripts/cache_dataset.py", *argv)
        assert f"5 samples, 7 images, 0.00013 GB in {tmp_path / 'cache'}" in out  # 3 + 2 * 2, 64x96x3 bytes each
    plain = [SpikeData(tiny, "GOPRO", split, use_sharp=split == "test") for split in ("train", "test")]
    expected = [[part[index] for index in range(len(part))] for part in plain]
    monkeypatch.setattr("codes.dataset.read_image", None)
    for split, samples in zip(("train", "test"), expected, strict=True):
        data = SpikeData(tiny, "GOPRO", split, use_sharp=split == "test", cache=tmp_path / "cache")
        assert all(equal(data[index], sample) for index, sample in enumerate(samples))


def test_caches_that_cannot_be(tiny, tmp_path):
    assert "give --cache" in refused("scripts/cache_dataset.py", "--base_folder", tiny)
    (tmp_path / "file").write_text("")
    argv = options("train_bsn.py", tiny, tmp_path / "exp", "--cache", tmp_path / "file")
    assert "(Not a directory); give --cache a writable folder" in refused("train_bsn.py", *argv)
    assert not (tmp_path / "exp").exists()
    # In a loader process: the place of the third sample's folder is taken.
    third = SpikeData(tiny, "GOPRO", "train").blur_paths[2]
    place = ArrayCache(tmp_path / "cache").path(third).parent
    place.parent.mkdir(parents=True)
    place.write_text("")
    argv = ["--base_folder", tiny, "--cache", tmp_path / "cache", "--workers", 1]
    assert "(File exists); give --cache a writable folder" in refused("scripts/cache_dataset.py", *argv)
