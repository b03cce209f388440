"""Collect real photographs, and cut-outs for moving foregrounds, from packages of Debian and Ubuntu.

    python scripts/fetch_photos.py --out photos
    python scripts/make_demo_data.py --photos photos/photos --cutouts photos/cutouts --out GOPRO --train 200 --test 12

Packages are downloaded by apt-get (nothing is installed, no root is needed) and opened by dpkg-deb; elsewhere download
the .deb files by hand and give their folder with --debs. Which file comes from which package, and under which licence,
stands in photos/sources.json. The licences allow training on the photographs; read them before passing any on.

Left out on purpose, so that others can evaluate on them: lomiri-wallpapers-16.04, the French monuments of GCompris, the
photographs of scikit-learn.
"""

import json
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import command
from codes.engine.options import option, parse_config
from codes.errors import InputError
from codes.files import replacing, write_json


@dataclass(frozen=True)
class Source:
    """Where some pictures come from.

    Args:
        package: Debian's name of the package.
        licence: of the pictures, as the package's copyright file has it.
        kind: 'photos' or 'cutouts'.
        root: folder in the package, or a Qt resource file (.rcc) in it; '*' may stand for a part of the path.
        files: patterns of the pictures below ``root``.
        but: patterns that are left out all the same: no photographs, or kept for evaluation.
    """

    package: str
    licence: str
    kind: str
    root: str
    files: tuple[str, ...]
    but: tuple[str, ...] = ()


GCOMPRIS = "usr/share/gcompris-qt/rcc/"
GPL3 = "GPL-3+; single pictures under free licences of their own (package's copyright file)"
STAMPS = ("animals/*", "food/*", "plants/*", "vehicles/*", "household/*", "people/*", "seasonal/*", "hobbies/*")
NO_PHOTO = (
    *("*cartoon*", "*pizza*", "*bunny*", "*jackolantern*", "*fireworks*", "*tiger_sumatran*", "*_mirror.png"),
    *("*hanukkah*", "*/christmas_tree.png", "*/candy_cane.png", "*chick-hatched*", "*/eye.png", "*/hedgehog.png"),
    *("*/bee.png", "*chineseJunk*"),
)
WALLPAPERS = "BytheWater ColdRipple ColorfulCups EveningGlow FallenLeaf Kite OneStandsOut Path".split()
SOURCES = (
    Source("gcompris-qt-data", GPL3, "photos", GCOMPRIS + "explore_monuments.rcc", ("*",), ("*france/*",)),
    Source("gcompris-qt-data", GPL3, "photos", GCOMPRIS + "erase.rcc", ("*.webp",)),
    Source(
        "gcompris-qt-data", GPL3, "photos", GCOMPRIS + "explore_world_animals.rcc", ("*/animals/*",), ("*narwhal*",)
    ),
    Source("gcompris-qt-data", GPL3, "photos", GCOMPRIS + "explore_farm_animals.rcc", ("*.webp",)),
    Source(
        "gcompris-qt-data",
        GPL3,
        "photos",
        GCOMPRIS + "details.rcc",
        ("*Egeskov*", "*Spejling*", "*Pyramids*", "*Donan*", "*BridgeLondon*", "*Nagoya*", "*operaSidney*"),
    ),
    Source("gcompris-qt-data", GPL3, "photos", GCOMPRIS + "explore_world_music.rcc", ("*/music/*",), ("*middleeast*",)),
    Source("gcompris-qt-data", GPL3, "photos", GCOMPRIS + "clickgame.rcc", ("*/sea?.webp",)),
    Source("mate-backgrounds", "GPL-2+", "photos", "usr/share/backgrounds/mate/nature", ("*.jpg",), ("*Storm*",)),
    Source(
        "plasma-workspace-wallpapers",
        "LGPL-3 (metadata.json of each wallpaper)",
        "photos",
        "usr/share/wallpapers",
        tuple(f"{name}/contents/images/2560x1600.jpg" for name in WALLPAPERS),
    ),
    Source("lomiri-wallpapers-20.04", "CC-BY-SA-3.0", "photos", "usr/share/backgrounds", ("Kleiber*.jpg",)),
    Source("tuxpaint-stamps-default", "GPL-2", "cutouts", "usr/share/tuxpaint/stamps", STAMPS, NO_PHOTO),
)

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
SMALLEST = {"photos": 300, "cutouts": 150}
"""Pixels that the shorter side of a picture must have."""

SOLID = (0.1, 0.9)
"""A cut-out's share of opaque pixels: below it is too thin, above it is no cut-out."""


PACKAGES = tuple(dict.fromkeys(source.package for source in SOURCES))


@dataclass(frozen=True)
class FetchConfig:
    """What is collected, and where."""

    out: Path = option("photos", "where photos/, cutouts/ and sources.json go")
    debs: Path | None = option(None, "folder with the .deb files, downloaded by hand; none: apt-get downloads them")
    list: bool = option(False, "only print packages and licences")
    only: tuple[str, ...] = option(PACKAGES, "these packages", choices=PACKAGES, metavar="PACKAGE")


def resource_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in a Qt resource file; compressed ones, which no picture is, are left out."""
    content = path.read_bytes()
    try:
        magic, version, tree, data, names = struct.unpack_from(">4sIIII", content)
        if magic != b"qres" or version not in (1, 2, 3):
            raise InputError(f"{path} is no Qt resource file of version 1 to 3")
        size = 14 if version == 1 else 22
        folders = [(0, "")]
        while folders:
            entry, prefix = folders.pop()
            count, first = struct.unpack_from(">II", content, tree + entry * size + 6)
            for child in range(first, first + count):
                name_at, flags = struct.unpack_from(">IH", content, tree + child * size)
                (length,) = struct.unpack_from(">H", content, names + name_at)
                name = prefix + content[names + name_at + 6 :][: 2 * length].decode("utf-16-be")
                if flags & 2:
                    folders.append((child, name + "/"))
                elif not flags & 5:  # 1: zlib, 4: zstd
                    (at,) = struct.unpack_from(">I", content, tree + child * size + 10)
                    (length,) = struct.unpack_from(">I", content, data + at)
                    yield name, content[data + at + 4 :][:length]
    except (struct.error, UnicodeDecodeError):
        raise InputError(f"{path} is damaged; download its package anew") from None


def contents(source: Source, package: Path) -> Iterator[tuple[str, bytes]]:
    """Names (path below the source's root) and contents of the source's files in an unpacked package."""
    root = package / source.root
    if root.suffix == ".rcc":
        found = sorted(resource_files(root)) if root.is_file() else []
    else:
        paths = sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else []
        pictures = (path for path in paths if path.suffix.lower() in SUFFIXES)
        found = ((path.relative_to(root).as_posix(), path.read_bytes()) for path in pictures)
    for name, content in found:
        if any(fnmatch(name, pattern) for pattern in source.files):
            if not any(fnmatch(name, pattern) for pattern in source.but):
                yield name, content


def suits(content: bytes, kind: str) -> bool:
    """Whether a file is a picture that serves: large enough, and for a cut-out with a background to see through."""
    import cv2
    import numpy as np

    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    if image is None or image.dtype != np.uint8 or image.ndim != 3 or min(image.shape[:2]) < SMALLEST[kind]:
        return False
    if kind == "photos":
        return True
    return image.shape[2] == 4 and SOLID[0] < (image[..., 3] > 127).mean() < SOLID[1]


def run(words: list[str], folder: Path) -> None:
    """Run a command of the system quietly; its last line of complaint is the error."""
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        raise InputError(
            f"{words[0]} is not on this system; the packages are Debian's (any Debian or Ubuntu has it, in a container "
            "too). With --debs DIR only dpkg-deb is needed"
        ) from None
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise InputError(f"{' '.join(words[:3])} failed: {said[-1] if said else 'without a word'}")


def find_deb(package: str, folder: Path) -> Path:
    """The newest file of a package."""
    found = sorted(folder.glob(f"{package}_*.deb"))
    if not found:
        raise InputError(f"no {package}_*.deb in {folder}; download it, or leave --debs out")
    return found[-1].resolve()


def unpack(package: str, debs: Path | None, folder: Path) -> Path:
    """Download a package if need be, and unpack it below ``folder``."""
    if debs is None:
        run(["apt-get", "download", package], folder)
    run(["dpkg-deb", "--extract", str(find_deb(package, debs or folder)), package], folder)
    return folder / package


def main(argv: list[str] | None = None) -> None:
    """Collect what the command line asks for."""
    cfg = parse_config(FetchConfig, argv)
    from tqdm import tqdm

    chosen = cfg.only
    if cfg.list:
        for package in chosen:
            print(f"{package}: {next(source.licence for source in SOURCES if source.package == package)}")
        return
    record, counts = cfg.out / "sources.json", {"photos": 0, "cutouts": 0}
    about = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    for package in chosen if cfg.debs else ():
        find_deb(package, cfg.debs)
    cfg.out.mkdir(parents=True, exist_ok=True)
    for package in tqdm(chosen, desc="packages", disable=None):
        with tempfile.TemporaryDirectory() as scratch:  # apt's own user must be able to write there
            unpacked = unpack(package, cfg.debs, Path(scratch))
            for source in SOURCES:
                if source.package != package:
                    continue
                for name, content in contents(source, unpacked):
                    if not suits(content, source.kind):
                        continue
                    parts = Path(name.split("/resource/")[-1]).parts
                    flat = "_".join(part for part in parts if part not in ("contents", "images"))
                    target = f"{source.kind}/{Path(source.root).stem}_{flat}"
                    with replacing(cfg.out / target) as temporary:
                        temporary.write_bytes(content)
                    about[target] = {"package": package, "file": name, "licence": source.licence}
                    counts[source.kind] += 1
            copyright = unpacked / "usr/share/doc" / package / "copyright"
            if copyright.is_file():
                with replacing(cfg.out / "licences" / f"{package}.txt") as temporary:
                    shutil.copyfile(copyright, temporary)
    if not any(counts.values()):
        raise InputError("the packages hold none of the expected pictures; have they changed?")
    write_json(record, about)
    print(f"{cfg.out}: {counts['photos']} photographs, {counts['cutouts']} cut-outs; licences in {record}")


if __name__ == "__main__":
    command(main)
