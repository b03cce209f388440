"""How fast a data set is prepared: one pass against the official steps, on the same frames and machine.

    python scripts/dev/prepare_speed.py [--size 720x1280] [--raw 40] [--sequences 2]

Films of a moving camera over photographs are rendered and their raw frames interpolated to disk. Then the official way
(blur, spikes and sharp frames one after another, each reading its frames from disk), the one pass
on the same interpolated frames, and the one pass on the raw frames with optical flow. Blurry and sharp images must be
equal. A Markdown table of seconds per blurry sample and of bytes on disk is printed.
"""

import contextlib
import shutil
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from codes.engine.command import command
from codes.engine.options import Size, option, parse_config
from codes.errors import InputError
from codes.exposure import SCALE


@dataclass(frozen=True)
class SpeedConfig:
    """How much is prepared."""

    size: Size = option(Size(720, 1280), "size of the frames", low=16, high=8192, multiple=SCALE)
    raw: int = option(40, "raw frames of a sequence; 13 more, a sample more", low=30)
    sequences: int = option(2, "sequences", low=1)
    workers: int = option(2, "sequences at a time in the one pass", low=1)
    folder: Path | None = option(None, "where the frames are kept meanwhile (default: a temporary folder)")


def size_of(folder: Path) -> int:
    """Bytes of all files in it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def write_films(cfg: SpeedConfig, raw: Path, between: Path) -> dict[str, float]:
    """Raw frames, and those with 7 inserted between neighbours; seconds of interpolating and writing the latter."""
    from codes.image import write_image
    from codes.making.interpolation import Flow
    from codes.making.photos import find_photos
    from codes.making.synthesis import Scene, draw_sample, to_uint8

    seconds = {"interpolate": 0.0, "write": 0.0}
    photos = list(find_photos(None).values())
    for index in range(cfg.sequences):
        sample = draw_sample("test", index, photos, size=cfg.size, motion=(20, 80), max_foregrounds=3, seed=0)
        scene = list(Scene(sample))
        film, flow = [scene[abs(8 * k % 272 - 136)] for k in range(cfg.raw)], Flow()  # there and back
        film = [to_uint8(frame) for frame in film]
        for k, frame in enumerate(film):
            write_image(raw / f"s{index}" / f"{k:06}.png", frame)
            begun = time.perf_counter()
            inserted = flow.between(frame, film[k + 1], 7) if k + 1 < len(film) else []
            seconds["interpolate"] += time.perf_counter() - begun
            begun = time.perf_counter()
            write_image(between / f"s{index}" / f"{k:06}.png", frame)
            for step, image in enumerate(inserted):
                write_image(between / f"s{index}" / f"{k:06}_{step}.png", image)
            seconds["write"] += time.perf_counter() - begun
    return seconds


def official_steps(raw_folder: Path, out: Path) -> dict[str, float]:
    """The official steps on interpolated frames on disk, each exposure's frames read anew by every step.

    Returns:
        Seconds of decoding, blur, spikes and writing.
    """
    import cv2
    import numpy as np

    seconds = dict.fromkeys(("decode", "blur", "spikes", "write"), 0.0)

    @contextlib.contextmanager
    def timed(kind):
        begun = time.perf_counter()
        yield
        seconds[kind] += time.perf_counter() - begun

    for sequence in sorted(path for path in raw_folder.iterdir() if path.is_dir()):
        paths = sorted(sequence.iterdir(), key=lambda p: (p.stem.split("_")[0], int((p.stem + "_-1").split("_")[1])))
        folders = {kind: out / f"{kind}_data" / sequence.name for kind in ("blur", "spike", "sharp")}
        for folder in folders.values():
            folder.mkdir(parents=True)
        starts = range(0, len(paths) - 96, 104)
        for start in starts:
            with timed("decode"):
                frames = [cv2.imread(str(path)) for path in paths[start : start + 97]]
            with timed("blur"):
                mean = np.uint8(np.rint(np.mean(frames, axis=0)))
            with timed("write"):
                cv2.imwrite(str(folders["blur"] / f"{start // 8 + 6:06}.png"), mean)
        for start in starts:
            if start >= 20 and start + 117 <= len(paths):
                name = f"{start // 8 + 6:06}"
                with timed("decode"):
                    frames = [cv2.imread(str(path)) for path in paths[start - 20 : start + 117]]
                with timed("spikes"):
                    rng = np.random.default_rng((0, zlib.crc32(f"{sequence.name}/{name}".encode())))
                    _spikes(frames, rng, folders["spike"] / f"{name}.dat")
        for index in range(6, len(paths) // 8 + 1, 13):
            with timed("write"):
                shutil.copy(paths[8 * index], folders["sharp"] / f"{index:06}.png")
    return seconds


def _spikes(images: list, rng, path: Path) -> None:
    """Every whole frame to float, to a quarter of the size, grey, through the sensor."""
    import numpy as np
    import torch
    from torch.nn import functional as F

    from codes.image import grey
    from scripts.dev import references

    light = []
    for image in images:
        frame = torch.from_numpy(image.transpose(2, 0, 1)[None] / 255).float()
        light.append(grey(F.interpolate(frame, scale_factor=0.25, mode="bilinear"))[0, 0].numpy())
    spikes = references.simulate(np.array(light), rng.random(light[0].shape, np.float32))
    references.write_dat(path, references.add_noise(spikes, rng))


def measure(cfg: SpeedConfig, folder: Path) -> None:
    """Do all, compare, print."""
    import cv2
    import numpy as np

    from codes.image import read_image
    from codes.making.batch import run_all
    from codes.making.preparation import Recipe

    raw, between = folder / "raw", folder / "interpolated"
    cv2.setNumThreads(1)
    made = write_films(cfg, raw, between)
    wall = {"interpolated to disk": sum(made.values())}
    split = {"interpolated to disk": made}
    begun = time.perf_counter()
    split["official steps"] = official_steps(between, folder / "steps")
    wall["official steps"] = time.perf_counter() - begun
    for name, source, interp, out in (
        ("one pass, interpolated frames", between, "none", folder / "none"),
        ("one pass, raw frames, flow", raw, "flow", folder / "flow"),
    ):
        begun = time.perf_counter()
        done = run_all(sorted(source.iterdir()), Recipe(), interp, out, cfg.workers)
        wall[name] = time.perf_counter() - begun
        split[name] = {key: sum(part.seconds[key] for part in done) for key in done[0].seconds}
    samples = len(list((folder / "steps").glob("blur_data/*/*")))
    for out in ("none", "flow"):
        for path in (folder / "steps").glob("[bs]*r*_data/*/*.png"):
            other = folder / out / path.relative_to(folder / "steps")
            if not np.array_equal(read_image(path), read_image(other)):
                raise InputError(f"{path} and {other} differ")
    kinds = ("decode", "interpolate", "blur", "spikes", "write")
    print(f"seconds per blurry sample of {cfg.size[0]}x{cfg.size[1]}, {samples} samples, {cfg.workers} workers\n")
    print("| way | " + " | ".join(kinds) + " | sum of work | elapsed |" + "\n" + "|---" * (len(kinds) + 3) + "|")
    for name, parts in split.items():
        cells = " | ".join(f"{parts[kind] / samples:.2f}" if parts.get(kind) else "–" for kind in kinds)
        print(f"| {name} | {cells} | {sum(parts.values()) / samples:.2f} | {wall[name] / samples:.2f} |")
    print()
    sizes = {name: size_of(path) / 1e6 for name, path in (("raw", raw), ("interpolated", between))}
    per = {name: f"{size / samples:.0f} MB" for name, size in sizes.items()}
    print(f"disk per sample: raw frames {per['raw']}, interpolated {per['interpolated']},")
    print(f"the data set {size_of(folder / 'none') / 1e6 / samples:.1f} MB; the one pass writes nothing else")


def main(argv: list[str] | None = None) -> None:
    """Measure in a folder that is removed afterwards."""
    cfg = parse_config(SpeedConfig, argv)
    with tempfile.TemporaryDirectory(dir=cfg.folder) as folder:
        measure(cfg, Path(folder))


if __name__ == "__main__":
    command(main)
