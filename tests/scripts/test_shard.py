"""--shard: parts, in any order or at once, and merged, are what one process makes, bit for bit; lost parts are named.

Not the same are, of course, times: the column 'ms per image' of the table 'methods'.
"""

import json
import shutil

import cv2
import numpy as np
import pytest

from codes.files import write_json
from codes.making import demo, preparation
from codes.making.preparation import Recipe, record_options
from tests.conftest import Started, call, refused

pytestmark = pytest.mark.slow

PARTS, SAMPLES = 3, 4
DEMO = ["--size", "64x96", "--train", SAMPLES, "--test", SAMPLES, "--workers", 1, "--out", "OUT"]


def files(folder, *without):
    """Path -> content of every file."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if not name.startswith(without or ("//",))}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set that one process makes: OUT in a folder."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        call("scripts/make_demo_data.py", *DEMO)
    return folder / "OUT"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Four sequences of nine raw frames."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("raw") / "raw_data"
    for name in "abcd":
        (folder / name).mkdir(parents=True)
        for number in range(9):
            cv2.imwrite(str(folder / name / f"{number:06}.png"), rng.integers(0, 256, (16, 32, 3), np.uint8))
    return folder


@pytest.fixture(scope="module")
def streams(data):
    """A folder of streams alone."""
    folder = data.parent / "streams"
    folder.mkdir()
    for path in (data / "test" / "spike_data").glob("*/*.dat"):
        shutil.copy(path, folder / f"{path.parent.name}.dat")
    return folder


PROGRAMS = {
    "prepare_gopro": "--raw_folder {raw} --out OUT --interp linear --num_inter 1 --blur_num 3 --overlap_len 1 "
    "--spike_add 2 --vth 1 2 --multi --workers 1",
    "make_demo_data": " ".join(map(str, DEMO)),
    "deblur": "--base_folder {data} --out OUT --method sdm --frames 2 --device cpu",
    "deblur, spikes alone": "--spike {streams} --spike_size 16x24 --out OUT --method tfp --frames 2 --device cpu",
    "tables": "--base_folder {data} --out OUT --table sequence --methods blur sdm --metrics psnr ssim --eval_images 3 "
    "--device cpu --workers 0",
}


def run(program, folders, cwd, monkeypatch, *more, how=call):
    cwd.mkdir(exist_ok=True)
    monkeypatch.chdir(cwd)
    words = PROGRAMS[program].format(**folders).split()
    return how(f"scripts/{program.split(',')[0]}.py", *words, *more)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
@pytest.mark.parametrize("program", PROGRAMS)
def test_parts_are_the_whole(program, order, data, raw, streams, tmp_path, monkeypatch):
    folders = {"data": data, "raw": raw, "streams": streams}
    run(program, folders, tmp_path / "whole", monkeypatch)
    *first, last = order
    for number in first:
        run(program, folders, tmp_path / "parts", monkeypatch, "--shard", f"{number}/{PARTS}")
    error = run(program, folders, tmp_path / "parts", monkeypatch, "--shard", f"merge/{PARTS}", how=refused)
    assert f"part {last}/{PARTS} lacks" in error and error.count(" lacks ") == 1
    before = files(tmp_path / "parts")
    run(program, folders, tmp_path / "parts", monkeypatch, "--shard", f"{last}/{PARTS}")
    made = files(tmp_path / "parts")
    assert before.items() <= made.items() and len(made) > len(before)  # made alone: the rest is as it was
    run(program, folders, tmp_path / "parts", monkeypatch, "--shard", f"merge/{PARTS}")
    assert files(tmp_path / "parts", "OUT/parts/") == files(tmp_path / "whole")


def test_resimulation_in_two_rounds(data, tmp_path, monkeypatch):
    """Each sample may show any of the captures: first the parts make all pictures, then the samples."""

    def make(folder, *more, how=call):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        words = ["--base_folder", data, "--out", "OUT", "--shrink", 1, "--count", 5, "--size", "48x64", "--workers", 1]
        words += ["--motion", 2, 8]
        return how("scripts/resimulate.py", *words, "--device", "cpu", *more)

    make("whole")
    for number in (3, 1):
        assert "still to come from other parts" in make("parts", "--shard", f"{number}/3")[0]
    assert "part 2/3 lacks 1 (0001" in make("parts", "--shard", "merge/3", how=refused)
    assert not (tmp_path / "parts/OUT/GOPRO").exists()
    make("parts", "--shard", "2/3")  # sees all pictures, and goes on with its samples
    error = make("parts", "--shard", "merge/3", how=refused)
    assert "3 of 5 samples" in error and "1/3 lacks 2" in error and "3/3 lacks 1" in error and "2/3" not in error
    for number in (3, 1):
        make("parts", "--shard", f"{number}/3")
    make("parts", "--shard", "merge/3")
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_parts_at_once(data, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    started = [Started(server, "scripts/make_demo_data.py", *DEMO, "--shard", f"{n}/{PARTS}") for n in (1, 2, 3)]
    assert [one.wait(60)[0] for one in started] == [0, 0, 0]
    call("scripts/make_demo_data.py", *DEMO, "--shard", f"merge/{PARTS}")
    assert files(tmp_path / "OUT") == files(data)


def test_without_the_option_what_is_missing_is_made(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("scripts/make_demo_data.py", *DEMO, "--shard", "2/3")
    call("scripts/make_demo_data.py", *DEMO)
    assert files(tmp_path / "OUT") == files(data)


def test_parts_of_another_command_are_lost(data, raw, streams, tmp_path, monkeypatch):
    folders = {"data": data, "raw": raw, "streams": streams}
    for program, option in (("deblur", "--fps"), ("tables", "--eval_samples")):
        for number in (1, 2):
            run(program, folders, tmp_path / program, monkeypatch, option, 2 + number, "--shard", f"{number}/2")
        error = run(program, folders, tmp_path / program, monkeypatch, option, 4, "--shard", "merge/2", how=refused)
        assert "part 1/2 lacks 2" in error and "2/2" not in error


def whole_and_parts(tmp_path, monkeypatch, *words):
    """The same tables in one go and in two parts, each in a folder of its own."""
    for folder, parts in (("whole", ["1/1"]), ("parts", ["2/2", "1/2", "merge/2"])):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        for part in parts:
            call("scripts/tables.py", *words, "--out", "OUT", "--device", "cpu", "--workers", 0, "--shard", part)


def test_methods_side_by_side_but_for_their_times(data, tmp_path, monkeypatch):
    whole_and_parts(tmp_path, monkeypatch, "--base_folder", data, "--methods", "blur", "sdm", "--metrics", "psnr")
    whole, parts = (json.loads((tmp_path / folder / "OUT/methods.json").read_text()) for folder in ("whole", "parts"))
    for table in (whole, parts):
        assert all(row.pop("ms per image") > 0 for row in table["rows"])
    assert parts == whole
    pictures = [files(tmp_path / folder / "OUT" / "imgs") for folder in ("whole", "parts")]
    assert pictures[0] == pictures[1] and len(pictures[0]) > SAMPLES


def test_real_captures(data, tmp_path, monkeypatch):
    """Whose figures are means over groups."""
    root = tmp_path / "RSB"
    for kind in ("blur_data", "spike_data"):
        shutil.copytree(data / "test" / kind, root / "test" / kind)
    words = ["--data_type", "real", "--table", "real", "--reblur_frames", 3, "--methods", "blur", "sdm"]
    whole_and_parts(tmp_path, monkeypatch, "--base_folder", root, *words)
    assert files(tmp_path / "parts", "OUT/parts/") == files(tmp_path / "whole")


def test_parts_that_measured_other_things_are_not_mixed(data, raw, streams, tmp_path, monkeypatch):
    folders = {"data": data, "raw": raw, "streams": streams}
    for number in (1, 2):
        run("tables", folders, tmp_path, monkeypatch, "--shard", f"{number}/2")
    path = tmp_path / "OUT" / "parts" / "sequence_vth1_2of2.json"
    part = json.loads(path.read_text())
    del part["samples"][0]["values"]["Blur"]["ssim"]
    path.write_text(json.dumps(part))
    assert "other rows or metrics" in run("tables", folders, tmp_path, monkeypatch, "--shard", "merge/2", how=refused)
    path.write_text("{")
    assert "make part 2/2 again" in run("tables", folders, tmp_path, monkeypatch, "--shard", "merge/2", how=refused)


def test_one_capture_is_not_shared_out(data, tmp_path):
    (image,), (stream,) = ((data / "test").glob(f"{kind}/0000_*/*") for kind in ("blur_data", "spike_data"))
    assert "shares out" in refused("scripts/deblur.py", "--blur", image, "--spike", stream, "--shard", "1/2")


def test_another_part_at_work_is_no_stranger(tmp_path, monkeypatch):
    """It writes the record and its first file while this one looks."""
    recipe, read = Recipe(), preparation.read_record

    def meanwhile(split):
        found = read(split)
        monkeypatch.setattr(preparation, "read_record", read)
        assert record_options(split, recipe, "flow") == []
        for folder in ("blur_data", "spike_data"):
            (split / folder / "a").mkdir(parents=True)
            (split / folder / "a" / "1.png").touch()
        return found

    monkeypatch.setattr(preparation, "read_record", meanwhile)
    assert record_options(tmp_path, recipe, "flow") == []
    assert list(read(tmp_path)) == ["blur_data", "sharp_data", "spike_data"]


def test_another_part_that_is_writing_the_record(tmp_path):
    (tmp_path / ".demo_data.elsewhere.7.tmp.json").touch()
    demo.open_folder(tmp_path, {"seed": 0}, overwrite=False)
    write_json(
        tmp_path / demo.RECORD, {"seed": 0, "photos": {"train": [], "test": []}, "samples": {"train": 0, "test": 0}}
    )
