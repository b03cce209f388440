"""Malformed inputs: each ends in one line that says what is wrong, exit code 2, and nothing is left behind by then.

Every fault goes once through its reader (data set, capture, options, YAML, weights), and every script once through each
reader that it has. All of it runs in this process.
"""

import contextlib
import dataclasses
import importlib
import io
import itertools
import multiprocessing
import os
import random
import re
import shutil
import struct
import typing
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from codes.dataset import SpikeData
from codes.engine.checkpoint import save
from codes.engine.options import parse_config
from codes.engine.weights import load_student
from codes.errors import InputError, one_line
from codes.image import read_image
from codes.inference import open_capture
from codes.model.bsn_model import BSN
from codes.model.ldn_model import Deblur_Net
from tests.conftest import ROOT, call, options, refused
from train_sr import SRConfig


def listing(folder):
    """Every path below a folder, with the size of files; links are not followed."""
    paths = [Path(root) / name for root, folders, files in os.walk(folder) for name in (*folders, *files)]
    return sorted((str(path), path.lstat().st_size if not path.is_dir() else 0) for path in paths)


def refused_cleanly(folder, script, *argv):
    """As refused(), and nothing in ``folder`` is made or changed."""
    before = listing(folder)
    error = refused(script, *argv)
    assert listing(folder) == before
    assert "Error" not in error and "Errno" not in error and "object has no" not in error, error
    return error


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(height, width):
    """A PNG that declares a size and holds next to nothing."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def encoded(image, form="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def becomes(content):
    """A file's content is replaced: by bytes, or by what a function makes of its own."""
    return lambda path: path.write_bytes(content(path.read_bytes()) if callable(content) else content)


def becomes_folder(path):
    path.unlink()
    path.mkdir()


def becomes_loop(path):
    path.unlink()
    path.symlink_to(path.name)


def becomes_dangling(path):
    path.unlink()
    path.symlink_to("nowhere")


CUTS = random.Random(7).sample(range(1, 6000), 3)
STREAMS = {
    "empty": becomes(b""),
    "one_byte": becomes(b"\1"),
    **{f"cut_{cut}": becomes(lambda content, cut=cut: content[:cut]) for cut in CUTS},
    "a_byte_short": becomes(lambda content: content[:-1]),
    "a_byte_long": becomes(lambda content: content + b"\0"),
    "a_frame_short": becomes(lambda content: content[: -16 * 24 // 8]),
    "random": becomes(random.Random(8).randbytes(5000)),
    "folder": becomes_folder,
    "loop": becomes_loop,
    "dangling": becomes_dangling,
    "missing": Path.unlink,
}
IMAGES = {
    "empty": becomes(b""),
    "signature": becomes(b"\x89PNG\r\n\x1a\n"),
    **{f"cut_{cut}": becomes(lambda content, cut=cut: content[: len(content) * cut // 6000]) for cut in CUTS},
    "a_byte_short": becomes(lambda content: content[:-1]),
    "a_byte_other": becomes(lambda content: content[:3000] + bytes([content[3000] ^ 255]) + content[3001:]),
    "random": becomes(random.Random(9).randbytes(5000)),
    "header_60000": becomes(png_header(60000, 60000)),
    "header_2_31": becomes(png_header(2**31 - 1, 2**31 - 1)),
    "header_0": becomes(png_header(0, 96)),
    "header_alone": becomes(png_header(64, 96)),
    "other_size": becomes(encoded(Image.new("RGB", (96, 60)))),
    "odd_size": becomes(encoded(Image.new("RGB", (95, 63)))),
    "text": becomes(b"<html>404 not found</html>"),
    "folder": becomes_folder,
    "loop": becomes_loop,
    "missing": Path.unlink,
}
DAMAGES = [*(f"dat_{name}" for name in STREAMS), *(f"png_{name}" for name in IMAGES)]


def damage(name, image, stream):
    """Spoil the one or the other; returns which."""
    kind, _, what = name.partition("_")
    (STREAMS if kind == "dat" else IMAGES)[what](path := stream if kind == "dat" else image)
    return path


def first(data, part, index=0):
    return sorted(data.glob(f"test/{part}/*/*"))[index]


@contextlib.contextmanager
def refusal(path):
    """A mistake of the user, said in one line that names the file."""
    with pytest.raises((InputError, OSError)) as caught:
        yield
    line = one_line(caught.value)
    assert Path(path).stem in line and "\n" not in line and "object has no" not in line, line


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_samples(name, copy):
    paths = [(first(copy, "blur_data", index), first(copy, "spike_data", index)) for index in range(2)]
    path = damage(name, *paths[0])
    if name in ("dat_missing", "dat_dangling", "dat_loop"):
        damage(name, *paths[1])
        path = Path("spike_data")  # holds no sample
    with refusal(path):
        SpikeData(copy, "GOPRO", "test")[0]


@pytest.mark.parametrize(
    "name", [f"dat_{name}" for name in STREAMS] + [f"png_{name}" for name in IMAGES if name != "odd_size"]
)
def test_damaged_captures(name, copy):
    image, stream = first(copy, "blur_data"), first(copy, "spike_data")
    path = damage(name, image, stream)
    with refusal(stream if "size" in name else path):
        open_capture(image, stream)


def reading(script, data, out):
    """A command line of each script that reads a data set, at its first sample of the test split."""
    small = ["--train_split", "test"]
    return {
        "train_bsn.py": options(script, data, out, *small),
        "train_sr.py": options(script, data, out, *small),
        "train_deblur.py": options(script, data, out),
        "scripts/baselines/train_stir.py": options(script, data, out, *small, "--no-perceptual", "--roi_size", 64),
        "scripts/tables.py": ["--base_folder", data, "--out", out, "--methods", "blur", "--workers", 0],
        "scripts/cache_dataset.py": ["--base_folder", data, "--cache", out, "--splits", "test", "--workers", 0],
        "scripts/resimulate.py": ["--base_folder", data, "--out", out, "--split", "test", "--shrink", 1],
        "scripts/deblur.py": ["--base_folder", data, "--out", out, "--method", "sdm", "--device", "cpu"],
        CAPTURE: [
            *("--blur", first(data, "blur_data"), "--spike", first(data, "spike_data")),
            *("--out", out, "--method", "sdm", "--device", "cpu"),
        ],
    }[script]


CAPTURE = "scripts/deblur.py --blur"
READERS = [
    CAPTURE,
    *("train_bsn.py", "train_sr.py", "train_deblur.py", "scripts/baselines/train_stir.py"),
    *(f"scripts/{name}.py" for name in ("tables", "cache_dataset", "resimulate", "deblur")),
]


@pytest.mark.parametrize("script", READERS)
def test_scripts_hand_on_what_the_reader_says(script, copy, tmp_path):
    """A stream whose length shows it, and a picture that shows it when it is read."""
    image, stream = first(copy, "blur_data"), first(copy, "spike_data")
    argv, script = reading(script, copy, tmp_path / "out"), script.split()[0]
    for name, path in (("dat_a_byte_short", stream), ("png_text", image)):
        sound = path.read_bytes()
        damage(name, image, stream)
        if "cache" in script:  # what was cached before is sound
            assert path.name in refused(script, *argv)
        else:
            assert path.name in refused_cleanly(tmp_path, script, *argv)
        path.write_bytes(sound)


def test_check_dataset_reports_every_damage_and_goes_on(copy, tmp_path):
    """One sample for each of them in one data set, sound ones between; its contact sheet is wanted."""
    spoilt, folder = {}, copy / "test"
    sample, frame = first(copy, "spike_data").parent.name, first(copy, "spike_data").stem
    for index, name in enumerate([*DAMAGES, *(f"sharp_{name}" for name in IMAGES)]):
        for part in ("spike_data", "blur_data", "sharp_data"):
            shutil.copytree(folder / part / sample, folder / part / f"d{index:03}")
        image, stream = (folder / part / f"d{index:03}" / frame for part in ("blur_data", "spike_data"))
        if name.startswith("sharp_"):
            IMAGES[name.removeprefix("sharp_")](sorted((folder / "sharp_data" / f"d{index:03}").glob("*.png"))[3])
        else:
            damage(name, image.with_suffix(".png"), stream.with_suffix(".dat"))
        if name != "dat_missing":  # a sample of which there is no stream is none
            spoilt[f"d{index:03}"] = name
    # Of a sharp image that is none of the sample's own instants, its absence or size goes unnoticed.
    unseen = {"sharp_missing", "sharp_other_size"}
    out, error = call("scripts/check_dataset.py", copy, "--sheet", tmp_path / "sheet.png", "--sheet_rows", 1, code=2)
    lines = out.splitlines()
    for sequence, name in spoilt.items():
        assert name in unseen or any(sequence in line for line in lines), name
    assert f" in {5 + len(spoilt)} samples of {copy} (listed above)" in error and error.count("\n") == 1


# Flags --------------------------------------------------------------------------


NO_NUMBERS = ["", "x", "nan", "inf", "-inf", "1e999", "0x10", "1,5", "--", "9" * 400, "9" * 5000]
"""Text that no numeric flag takes: neither a number, nor one that a computer's numbers hold."""


def configurations():
    """Script -> name of its configuration, of every script that has one."""
    for path in [*ROOT.glob("train_*.py"), *ROOT.glob("scripts/*.py"), *ROOT.glob("scripts/*/*.py")]:
        if found := re.search(r"parse_config\((\w+)", path.read_text()):
            yield path.relative_to(ROOT).as_posix(), found[1]


CONFIGS = dict(configurations())


def refused_values(field, kind):
    """Values that an option must refuse."""
    low, high = field.metadata["low"], field.metadata["high"]
    if kind in (int, float):
        return [
            *NO_NUMBERS,
            *(["1.5", "1e3", "1e-1"] if kind is int else []),
            *([] if low is None else [str(low - 1), str(low - 10**9)]),
            *([] if high is None else [str(high + 1), "1" + "0" * 30]),
        ]
    return ["x", "nan", "-1"] if typing.get_origin(kind) is typing.Literal else []


@pytest.mark.slow
@pytest.mark.parametrize("script", CONFIGS)
def test_options(script, capsys, tmp_path):
    """Each option of a script and each value that it must refuse, through the parser; one through the script."""
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    cls, tried = getattr(module, CONFIGS[script]), None
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        flag = "--" + field.name
        for value in [] if field.metadata.get("parse") else refused_values(field, hints[field.name]):
            tried = [f"{flag}={value}"] if not value or value[0] == "-" else [flag, value]
            with pytest.raises(SystemExit) as stop:
                parse_config(cls, tried)
            error = capsys.readouterr().err
            assert stop.value.code == 2 and error.count("\n") == 1 and len(error) < 12000, error
            assert flag in error and ("expected" in error or "must be" in error), error
    refused_cleanly(tmp_path, script, *(tried or ["--nonsense"]))


@pytest.fixture(scope="session")
def work(tiny, tmp_path_factory):
    """Sound inputs of every kind, read only, by name."""
    root = tmp_path_factory.mktemp("work")
    (root / "raw" / "s").mkdir(parents=True)
    for index in range(3):
        cv2.imwrite(str(root / "raw" / "s" / f"{index:06}.png"), np.full((32, 64, 3), 80 * index, np.uint8))
    (root / "run").mkdir()
    (root / "run" / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "epoch": 0, "loss": 1.0}\n')
    image, stream = (sorted(tiny.glob(f"test/{part}/*/*"))[0] for part in ("blur_data", "spike_data"))
    return {"raw": root / "raw", "run": root / "run", "image": image, "stream": stream, "data": tiny}


def filled_in(words, work, out):
    return [word.format(**work, out=out) for word in words]


# YAML -----------------------------------------------------------------------------

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n" for a, b in itertools.pairwise("abcdefghi")
)
YAML = {
    "false": "false\n",
    "number": "7",
    "two_documents": "lr: 1\n---\nlr: 2\n",
    "python_object": "lr: !!python/object/apply:os.mkdir [trap]\n",
    "unknown_tag": "lr: !learning 1\n",
    "latin_1": "exp_name: \xe9\n".encode("latin-1"),
    "recursive": "metrics: &a [*a]\n",
    "laughs": LAUGHS,
    "laughs_in_an_option": LAUGHS.replace("i: &i", "metrics: &i"),
    "laughs_in_a_text": "exp_name: &a [x, x]\nlr: [*a, *a]\n",
    "merge_of_a_list": "<<: [1, 2]\n",
    "number_as_key": "1: 2\n",
    "none_as_key": "~: 2\n",
    "date": "lr: 2024-01-01\n",
    "huge": f"seed: {10**400}\n",
    "digits": f"seed: {'9' * 5000}\n",
    "map_choices": "metrics: {psnr: 1}\n",
    "null_choices": "metrics: [~]\n",
    "null_text": "exp_name: ~\n",
    "deep": "[" * 3000,
    "deep_map": "{a: " * 400 + "1" + "}" * 400,
    "config_in_config": "config: other.yml\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", YAML)
def test_yaml(name, capsys, tmp_path, monkeypatch):
    """What people write by mistake is in tests/engine/test_options.py; here is what nobody does."""
    content = YAML[name]
    (tmp_path / "c.yml").write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        parse_config(SRConfig, ["--config", str(tmp_path / "c.yml")])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and len(error) < 12000, error
    assert ("c.yml" in error or "--" in error) and "Error" not in error and len(listing(tmp_path)) == 1, error


@pytest.mark.parametrize("script", CONFIGS)
def test_scripts_read_yaml(script, tmp_path):
    (tmp_path / "c.yml").write_text("lr: [1, 2\n")
    assert "c.yml:2" in refused_cleanly(tmp_path, script, "--config", tmp_path / "c.yml")


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to(path.name), lambda path: None])
def test_no_yaml(make, tmp_path):
    make(tmp_path / "c.yml")
    assert "c.yml: " in refused_cleanly(tmp_path, "train_sr.py", "--config", tmp_path / "c.yml")


# Weights --------------------------------------------------------------------------


WEIGHTS = {
    **{f"cut_{share}": share for share in (0.01, 0.3, 0.7, 0.97, 0.999)},
    "another": lambda path: save(BSN().state_dict(), path),
    "folder": Path.mkdir,
    "loop": lambda path: path.symlink_to(path.name),
    "missing": lambda path: None,
    "image": lambda path: path.write_bytes(png_header(4, 4)),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(name, tmp_path):
    """What else may be wrong with them: tests/engine/test_checkpoint.py and test_hostile.py."""
    made, path = WEIGHTS[name], tmp_path / "w.pth"
    if callable(made):
        made(path)
    else:
        save(Deblur_Net().state_dict(), path)
        os.truncate(path, int(made * path.stat().st_size))
    with refusal(path):
        load_student(path)


@pytest.mark.parametrize(
    "script", ["train_deblur.py", "scripts/deblur.py", "scripts/robustness.py", "scripts/resimulate.py"]
)
def test_scripts_hand_on_what_is_wrong_with_weights(script, work, tmp_path):
    path, out = tmp_path / "w.pth", tmp_path / "out"
    save(BSN().state_dict(), path)
    data = ["--base_folder", work["data"], "--device", "cpu", "--deblur_path", path]
    argv = {
        "train_deblur.py": [*data, "--test_mode", "--teacher", "sdm", "--save_folder", out],
        "scripts/deblur.py": [*data, "--out", out],
        "scripts/robustness.py": [*data[2:], "--out", out, "--methods", "ldn"],
        "scripts/resimulate.py": [*data, "--out", out, "--split", "test"],
    }[script]
    assert str(path) in refused_cleanly(tmp_path, script, *argv)


# Other files ----------------------------------------------------------------------

LOGS = {
    "empty": "",
    "blank": "\n\n",
    "text": "step 1\nstep 2\n",
    "list": "[1]\n",
    "number": "1\n",
    "no_kind": '{"step": 1, "epoch": 0}\n',
    "cut_in_the_middle": '{"kind": "train", "st\n{"kind": "train", "step": 1, "epoch": 0, "loss": 1}\n',
    "binary": b"\x00\xff\n\x00\n",
    "text_loss": '{"kind": "train", "step": 1, "epoch": 0, "loss": "low"}\n',
    "list_loss": '{"kind": "train", "step": 1, "epoch": 0, "loss": [1]}\n',
    "map_loss": '{"kind": "train", "step": 1, "epoch": 0, "loss": {"a": 1}}\n',
    "text_step": '{"kind": "train", "step": "one", "epoch": 0, "loss": 1}\n',
    "null_step": '{"kind": "train", "step": null, "epoch": 0, "loss": 1}\n',
    "list_step": '{"kind": "train", "step": [1], "epoch": 0, "loss": 1}\n',
    "huge_loss": '{"kind": "train", "step": 1, "epoch": 0, "loss": 1' + "0" * 400 + "}\n",
    "mixed_steps": '{"kind": "train", "step": 1, "epoch": 0, "loss": 1}\n{"kind": "train", "step": "2", "epoch": 0}\n',
    "deep": "[" * 100_000 + "\n\n",
    "other_kind": '{"kind": "note", "step": 1, "epoch": 0}\n',
    "list_kind": '{"kind": ["train"], "step": 1, "epoch": 0, "loss": 1}\n',
}


@pytest.mark.parametrize("name", LOGS)
def test_logs(name, tmp_path):
    content = LOGS[name]
    (tmp_path / "metrics.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    error = refused_cleanly(tmp_path, "scripts/plot_runs.py", tmp_path, "--out", tmp_path / "a.png")
    assert str(tmp_path) in error and len(error) < 500


def test_plots_of_no_runs(tmp_path, work):
    for argv in ([tmp_path], [tmp_path / "none"], [work["image"]], [work["run"], "--keys", "lost"]):
        refused_cleanly(tmp_path, "scripts/plot_runs.py", *argv, "--out", tmp_path / "a.png")
    for name in ("a", "a.PNG", "a.gif", ".png"):
        assert "expected" in refused_cleanly(tmp_path, "scripts/plot_runs.py", work["run"], "--out", tmp_path / name)


WRONG = {  # script and words, {out} must not come into being
    "a photo folder that is a file": "scripts/make_demo_data.py --out {out} --photos {image}",
    "out that is a file": "scripts/make_demo_data.py --out {image} --train 1 --test 1",
    "motion beyond all frames": "scripts/make_demo_data.py --out {out} --motion 9 3000",
    "thresholds twice": "scripts/make_demo_data.py --out {out} --vth 2 2.0",
    "a raw folder that is a file": "scripts/prepare_gopro.py --raw_folder {image} --out {out}",
    "a video that is a folder": "scripts/prepare_gopro.py --video {raw} --out {out}",
    "two sources": "scripts/prepare_gopro.py --video {image} --raw_folder {raw} --out {out}",
    "blur: no source": "scripts/blur_syn.py --out {out}",
    "spikes: a file": "scripts/spike_simulate.py --raw_folder {stream} --out {out}",
    "sharp: a file": "scripts/sharp_extract.py --raw_folder {stream} --out {out}",
    "a stream as a film": "scripts/dev/interp_quality.py {stream}",
    "text as a film": "scripts/dev/interp_quality.py {run}",
    "a film that is not there": "scripts/dev/interp_quality.py {out}",
    "a data set that is a file": "scripts/check_dataset.py {image}",
    "a data set of something else": "scripts/check_dataset.py {raw}",
    "nothing to check": "scripts/check_dataset.py",
    "the wrong layout": "scripts/resimulate.py --base_folder {raw} --out {out}",
    "resimulation of one side": "scripts/resimulate.py --base_folder {data} --out {out} --size 64",
    "resimulated motion backwards": "scripts/resimulate.py --base_folder {data} --out {out} --motion 9 3",
    "resimulated thresholds twice": "scripts/resimulate.py --base_folder {data} --out {out} --new_vth 1 1",
    "photos of nothing": "scripts/robustness.py --out {out} --methods blur --photos {run}",
    "a package that is none": "scripts/fetch_photos.py --out {out} --only vim",
    "debs that are none": "scripts/fetch_photos.py --out {out} --debs {run}",
    "an image without a stream": "scripts/deblur.py --blur {image} --out {out}",
    "a data set and an image": "scripts/deblur.py --blur {image} --base_folder {data} --out {out}",
    "a file and a folder": "scripts/deblur.py --blur {image} --spike {raw} --out {out}",
    "images without streams": "scripts/deblur.py --blur {raw}/s --spike {run} --out {out}",
    "a folder of no images": "scripts/deblur.py --blur {run} --spike {run} --out {out}",
    "image and stream exchanged": "scripts/deblur.py --blur {stream} --spike {image} --out {out}",
    "another spike size": "scripts/deblur.py --blur {image} --spike {stream} --out {out} --spike_size 24x16",
    "an exposure backwards": "scripts/deblur.py --blur {image} --spike {stream} --out {out} --exposure 99:3",
    "an exposure too long": "scripts/deblur.py --blur {image} --spike {stream} --out {out} --exposure 3:999",
    "no frames": "scripts/deblur.py --blur {image} --spike {stream} --out {out} --frames 0",
    "a frame outside": "scripts/deblur.py --blur {image} --spike {stream} --out {out} --frames 3,400 --method sdm",
    "a crop of nothing": "scripts/deblur.py --blur {image} --spike {stream} --out {out} --crop 0,0,0,0 --method sdm",
    "a crop outside": "scripts/deblur.py --blur {image} --spike {stream} --out {out} --crop 999,0,64,96 --method sdm",
    "a crop far outside": "scripts/deblur.py --blur {image} --spike {stream} --out {out} --method sdm "
    "--crop 1" + "0" * 400 + ",0,65,96",
    "a vast crop": "scripts/deblur.py --blur {image} --spike {stream} --out {out} --method sdm "
    "--crop 0,0,1" + "0" * 400 + ",96",
    "out that is a file, deblurring": "scripts/deblur.py --blur {image} --spike {stream} --out {image} --method sdm",
    "a benchmark on no device": "scripts/dev/benchmark.py --device tpu",
    "unknown words": "scripts/dev/benchmark.py fast",
    "speed of a size": "scripts/dev/prepare_speed.py --size 64",
    "speed in no folder": "scripts/dev/prepare_speed.py --size 64x96 --folder {out}",
    "no full spikes": "train_bsn.py --base_folder {data} --save_folder {out} --device cpu --roi_size 32 --spike_full",
    "a data set that is an image": "train_sr.py --base_folder {image} --save_folder {out} --device cpu",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_words(name, work, tmp_path):
    script, *words = WRONG[name].split()
    sound = {key: listing(path) for key, path in work.items() if path.is_dir()}
    refused_cleanly(tmp_path, script, *filled_in(words, work, tmp_path / "out"))
    assert sound == {key: listing(path) for key, path in work.items() if path.is_dir()}


RECORDS = ("", "x", "[]", "1", "null", "{}", '{"a": 1}', "{" * 5000, '{"options": 1, "samples": 2}', b"\xff\xfe")


@pytest.mark.parametrize(
    ("script", "number"),
    [("make_demo_data", n) for n in range(len(RECORDS))]
    + [(s, n) for s in ("robustness", "resimulate") for n in (1, 5, 9)],
)
def test_damaged_records(script, number, work, tmp_path):
    """What a script wrote about its own work, damaged since."""
    name = {"make_demo_data": "demo_data.json", "robustness": "robustness.json", "resimulate": "pictures/pictures.json"}
    path, content = tmp_path / "out" / name[script], RECORDS[number]
    path.parent.mkdir(parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    words = {
        "make_demo_data": ["--size", "64x96", "--train", 1, "--test", 1],
        "robustness": ["--methods", "blur", "--size", "64x96", "--samples", 1],
        "resimulate": ["--base_folder", work["data"], "--split", "test", "--device", "cpu"],
    }[script]
    error = refused_cleanly(tmp_path, f"scripts/{script}.py", "--out", tmp_path / "out", *words)
    assert str(tmp_path / "out") in error


@pytest.mark.parametrize("script", ["scripts/resimulate.py", "scripts/make_scenes.py"])
def test_captures_that_are_too_small_to_be_shrunk(script, copy, tmp_path):
    argv = ["--base_folder", copy, "--split", "test", "--out", tmp_path / "out"]
    error = refused(script, *argv)
    assert "has 64x96 pixels" in error and "give at most --shrink 1" in error
    assert not (tmp_path / "out").exists()  # the next try may use the same folder
    for path in copy.glob("test/blur_data/*/*.png"):
        cv2.imwrite(str(path), np.zeros((48, 64, 3), np.uint8))
    for path in copy.glob("test/spike_data/*/*.dat"):
        os.truncate(path, 137 * 12 * 16 // 8)
    assert "too small for any" in refused(script, *argv)


# What looks odd and is not ----------------------------------------------------------


def shades(kind):
    rng = np.random.default_rng(4)
    return rng.integers(0, 2**16 if kind == np.uint16 else 256, (8, 12, 4)).astype(kind)


def test_unusual_images_are_read(tmp_path):
    """Against Pillow and against the numbers that were written."""
    path, small = tmp_path / "a.png", shades(np.uint8)
    colour, alpha, one = Image.fromarray(small[..., :3]), Image.fromarray(small), Image.fromarray(small[..., 0])
    for image in (colour, alpha, one, colour.quantize(16), colour.convert("1"), Image.fromarray(small[..., :2], "LA")):
        image.save(path)
        expected = image.convert("RGBA").convert("RGB") if image.mode != "1" else image.convert("RGB")
        np.testing.assert_array_equal(read_image(path), np.asarray(expected)[..., ::-1])
    deep = shades(np.uint16)
    Image.fromarray(deep[..., 0]).save(path)
    np.testing.assert_array_equal(read_image(path), (deep[..., :1] >> 8).repeat(3, axis=2))
    assert cv2.imwrite(str(path), deep[..., :3])  # Pillow writes no 16-bit colours
    np.testing.assert_array_equal(read_image(path), deep[..., :3] >> 8)
    smooth = Image.fromarray(np.stack([np.tile(np.arange(0, 240, 10, np.uint8), (24, 1))] * 3, axis=2))
    smooth.convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    expected = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB"))[..., ::-1]
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg").astype(int), expected.astype(int), atol=2)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    smooth.save(tmp_path / "b.jpg", exif=exif, quality=95)
    expected = np.asarray(smooth)[::-1].transpose(1, 0, 2)
    np.testing.assert_allclose(read_image(tmp_path / "b.jpg").astype(int), expected.astype(int), atol=6)


NAMES = ['two words, schärfe 写真 🙂 a.b.c it\'s "b" %s {x} *[a]? dots..', "-o", "--out", "new\nline"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_unusual_names(name, tiny, tmp_path, monkeypatch):
    folder = tmp_path / name
    shutil.copytree(tiny, folder / "data")
    for part in ("blur_data", "spike_data", "sharp_data"):
        (sequence,) = list((folder / "data" / "test" / part).glob("*"))[:1]
        shutil.rmtree(folder / "data" / "train" / part)
        for other in (folder / "data" / "test" / part).glob("*"):
            if other != sequence:
                shutil.rmtree(other)
        sequence.rename(sequence.with_name("s" + name))
    monkeypatch.chdir(tmp_path)
    out = f"./{name}/out"
    call("scripts/check_dataset.py", f"./{name}/data", "--sheet", f"{out}/sheet.png")
    words = ["--method", "sdm", "--device", "cpu", "--frames", 1]
    call("scripts/deblur.py", f"--base_folder={name}/data", f"--out={out}", *words)
    assert {path.name for path in (tmp_path / name / "out").rglob("*.png")} == {
        "sheet.png",
        "068.png",
        "tfp.png",
        "blur.png",
        "comparison.png",
    }
    argv = options("train_sr.py", f"./{name}/data", out, "--max_steps", 1, "--train_split", "test", "--eval_every", 0)
    call("train_sr.py", *argv, f"--exp_name={name}", "--eval_samples", 1, "--eval_images", 0)
    call("scripts/plot_runs.py", f"{out}/{name}", "--out", f"{out}/{name}.png")


def test_images_and_streams_with_suffixes_in_capitals(copy, tmp_path):
    """As a pair and in folders."""
    image, stream = (sorted(copy.glob(f"test/{part}/*/*"))[0] for part in ("blur_data", "spike_data"))
    image = image.rename(image.with_suffix(".PNG"))
    stream = stream.rename(stream.with_suffix(".DAT"))
    words = ["--method", "sdm", "--device", "cpu", "--frames", 1]
    call("scripts/deblur.py", "--blur", image, "--spike", stream, "--out", tmp_path / "a", *words)
    call("scripts/deblur.py", "--blur", image.parent, "--spike", stream.parent, "--out", tmp_path / "b", *words)
    alone, paired = (next((tmp_path / name).rglob("068.png")).read_bytes() for name in "ab")
    assert alone == paired


# Below Python ---------------------------------------------------------------------------


def test_decoders_write_no_lines_of_their_own(copy, tmp_path, capfd):
    """What libpng and OpenCV print goes past Python's own stderr."""
    image = first(copy, "blur_data")
    sound = image.read_bytes()
    argv = reading(CAPTURE, copy, tmp_path / "out")
    for name in (f"cut_{CUTS[0]}", "header_60000", "a_byte_short", "a_byte_other"):
        image.write_bytes(sound)
        IMAGES[name](image)
        assert image.name in refused_cleanly(tmp_path, "scripts/deblur.py", *argv)
        assert capfd.readouterr() == ("", ""), name


def test_a_picture_that_breaks_in_a_loader_process(copy, tmp_path, capfd):
    """Of no length that shows it at the start: said in one line, and the processes end."""
    path = first(copy, "blur_data", 1)
    path.write_bytes(path.read_bytes()[:700])
    argv = ["--base_folder", copy, "--cache", tmp_path / "cache", "--splits", "test", "--workers", 2]
    assert path.name in refused("scripts/cache_dataset.py", *argv)
    assert capfd.readouterr() == ("", "") and not multiprocessing.active_children()
