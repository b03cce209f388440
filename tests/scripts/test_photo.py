"""The way to weights of one's own: photographs from packages, data made from captures, training on them, the table."""

import json
import shutil
import struct
import subprocess

import cv2
import numpy as np
import pytest
import torch

from codes.image import read_image
from codes.making.resimulation import shrunk
from codes.motion import Joined
from codes.spike import read_dat
from scripts.fetch_photos import SOURCES, resource_files
from tests.conftest import call, refused

pytestmark = pytest.mark.slow


def resource(files, version=3):
    """A Qt resource file, written by its description: {folder: {name: (flags, content)}}."""
    names, data, tree = b"", b"", []

    def named(name):
        nonlocal names
        at = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        return at

    tree.append(struct.pack(">IHII", 0, 2, len(files), 1))
    first = 1 + len(files)
    for folder, members in files.items():
        tree.append(struct.pack(">IHII", named(folder), 2, len(members), first))
        first += len(members)
    for members in files.values():
        for name, (flags, content) in members.items():
            tree.append(struct.pack(">IHHHI", named(name), flags, 0, 0, len(data)))
            data += struct.pack(">I", len(content)) + content
    entries = b"".join(entry + b"\0" * 8 * (version > 1) for entry in tree)
    start = 24 if version == 3 else 20
    offsets = (start, start + len(entries), start + len(entries) + len(data))
    return struct.pack(">4sIIII", b"qres", version, *offsets) + b"\0" * (start - 20) + entries + data + names


@pytest.mark.parametrize("version", [1, 2, 3])
def test_resource_files(version, tmp_path):
    files = {"france": {"tour.webp": (0, b"eiffel")}, "índia": {"a.webp": (0, b"taj"), "b.js": (1, b"packed")}}
    path = tmp_path / "a.rcc"
    path.write_bytes(resource(files, version))
    assert dict(resource_files(path)) == {"france/tour.webp": b"eiffel", "índia/a.webp": b"taj"}
    path.write_bytes(resource(files, version)[:60])
    with pytest.raises(ValueError, match="damaged"):
        dict(resource_files(path))
    path.write_bytes(b"RIFF" + bytes(40))
    with pytest.raises(ValueError, match="no Qt resource file"):
        dict(resource_files(path))


def picture(seed, height=320, width=400, alpha=False):
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    image = np.uint8(255 * np.clip(cv2.GaussianBlur(noise, (0, 0), 3) * 4 - 1.5, 0, 1))
    if alpha:
        mask = np.zeros((height, width, 1), np.uint8)
        mask[40:-40, 40:-40] = 255
        image = np.concatenate([image, mask], axis=2)
    return cv2.imencode(".png", image)[1].tobytes()


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs Debian's dpkg-deb")
def test_photographs_from_packages(tmp_path):
    """Packages with the expected layout, in which France, small pictures and drawings must be passed over."""
    monuments = {"france": {"louvre.webp": (0, picture(1))}, "india": {"taj.webp": (0, picture(2))}}
    contents = {
        "gcompris-qt-data": {"usr/share/gcompris-qt/rcc/explore_monuments.rcc": resource(monuments)},
        "tuxpaint-stamps-default": {
            "usr/share/tuxpaint/stamps/animals/cat.png": picture(3, alpha=True),
            "usr/share/tuxpaint/stamps/animals/cartoon/dog.png": picture(4, alpha=True),
            "usr/share/tuxpaint/stamps/animals/hen.png": picture(5),  # no alpha
            "usr/share/tuxpaint/stamps/animals/rat.png": picture(6, 100, 100, alpha=True),  # too small
        },
    }
    for package, files in contents.items():
        root = tmp_path / "make" / package
        (root / "DEBIAN").mkdir(parents=True)
        (root / "DEBIAN/control").write_text(
            f"Package: {package}\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: d\n"
        )
        for name, content in {**files, f"usr/share/doc/{package}/copyright": b"free"}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        (tmp_path / "debs").mkdir(exist_ok=True)
        subprocess.run(["dpkg-deb", "--build", root, tmp_path / "debs" / f"{package}_1_all.deb"], check=True)
    argv = ["--out", tmp_path / "out", "--debs", tmp_path / "debs", "--only", *contents]
    out, _ = call("scripts/fetch_photos.py", *argv)
    assert "1 photographs, 1 cut-outs" in out
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    pictures = {"photos/explore_monuments_india_taj.webp", "cutouts/stamps_animals_cat.png"}
    assert found == pictures | {"sources.json", "licences/gcompris-qt-data.txt", "licences/tuxpaint-stamps-default.txt"}
    assert set(json.loads((tmp_path / "out/sources.json").read_text())) == pictures
    assert "no mate-backgrounds_*.deb" in refused("scripts/fetch_photos.py", *argv[:4], "--only", "mate-backgrounds")
    assert "expected one of gcompris-qt-data" in refused(
        "scripts/fetch_photos.py", *argv[:4], "--only", "lomiri-wallpapers-16.04"
    )


def test_sources_keep_the_evaluation_photographs_out():
    packages = {source.package for source in SOURCES}
    assert "lomiri-wallpapers-16.04" not in packages and not any("scikit" in package for package in packages)
    out, _ = call("scripts/fetch_photos.py", "--list")
    assert {line.split(":")[0] for line in out.splitlines()} == packages


@pytest.fixture(scope="module")
def resimulated(tiny, tmp_path_factory):
    """Made from captures without sharp images."""
    root = tmp_path_factory.mktemp("resim")
    shutil.copytree(tiny, root / "captures")
    for split in ("train", "test"):
        shutil.rmtree(root / "captures" / split / "sharp_data")
    argv = ["--base_folder", root / "captures", "--out", root / "out", "--shrink", 1, "--size", "48x64", "--count", 4]
    argv += ["--new_vth", 1, 2, "--motion", 5, 20]
    call("scripts/resimulate.py", *argv)
    return root, argv


def test_pictures_are_the_shrunken_deblurred_captures(resimulated, tiny):
    root, argv = resimulated
    names = sorted(path.parent.name for path in (tiny / "train/spike_data").glob("*/*.dat"))
    assert sorted(path.stem for path in (root / "out/pictures").glob("*.png")) == [f"{name}_000019" for name in names]
    spikes = read_dat(tiny / "train/spike_data" / names[0] / "000019.dat", 16, 24).astype(np.float32)
    blur = read_image(tiny / "train/blur_data" / names[0] / "000019.png") / np.float32(255)

    def tfp(first, last):
        return cv2.resize(spikes[first:last].mean(0), (96, 64), interpolation=cv2.INTER_LINEAR)[..., None]

    def frames(instants):
        images = [blur * tfp(instant - 10, instant + 11) / np.maximum(tfp(20, 117), 1e-9) for instant in instants]
        return torch.from_numpy(np.stack(images).clip(0, 1)).permute(0, 3, 1, 2)

    joined = Joined(torch.from_numpy(blur).permute(2, 0, 1), frames, spike=torch.from_numpy(spikes))
    expected = joined([68])[0].permute(1, 2, 0).numpy() * 255
    found = read_image(root / "out/pictures" / f"{names[0]}_000019.png")
    assert np.abs(found - expected).max() <= 1
    about = json.loads((root / "out/GOPRO/demo_data.json").read_text())
    assert about["samples"] == {"train": 4, "test": 0} and len(about["photos"]["train"]) == 3
    rows = json.loads((root / "out/GOPRO/train/samples.json").read_text())
    assert all(5 <= row["motion_px"] <= 20 for row in rows)
    assert len(list((root / "out/GOPRO/train/spike_data_vth2").glob("*/*.dat"))) == 4
    assert "captures was made otherwise" in refused("scripts/resimulate.py", *argv[:5], 2, *argv[6:]).replace(
        "pictures was", "captures was"
    )


def test_shrinking_averages():
    image = torch.from_numpy(np.random.default_rng(0).random((3, 12, 18)).astype(np.float32)) * 1.5 - 0.2
    expected = image.numpy().clip(0, 1).reshape(3, 4, 3, 6, 3).mean((2, 4)).transpose(1, 2, 0) * 255
    assert np.abs(shrunk(image, 3) - expected).max() <= 0.501
