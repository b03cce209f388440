"""Work shared out: which part does what, and what is said of lost parts."""

import random

import pytest

from codes.engine.shard import FORM, WHOLE, Shard, without_shard
from codes.errors import InputError
from codes.making.options import DemoConfig, PrepareConfig
from tests.conftest import refused

SCRIPTS = {
    **dict.fromkeys(("prepare_gopro", "blur_syn", "spike_simulate", "sharp_extract"), ["--raw_folder", "x"]),
    "make_demo_data": [],
    "resimulate": [],
    "tables": [],
    "deblur": ["--base_folder", "x"],
}


@pytest.mark.parametrize(
    "text", ["0/3", "4/3", "a/b", "1/0", "", "2", "/3", "-1/3", "1/3/3", "merge/1", "merge/0", "1.0/3"]
)
def test_what_is_no_part_is_refused(text):
    with pytest.raises(InputError):
        Shard.parse(text)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_refuses_in_one_line(script):
    error = refused(f"scripts/{script}.py", *SCRIPTS[script], "--shard", "4/3")
    assert f"--shard is '4/3'; expected {FORM}" in error


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("items", [0, 1, 3, 10])
def test_each_item_is_in_one_part(count, items):
    parts = [Shard.parse(f"{number}/{count}").of(range(items)) for number in range(1, count + 1)]
    assert sorted(item for part in parts for item in part) == list(range(items))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_every_third_from_the_second_on():
    assert Shard.parse("2/3").of("abcdefgh") == "beh"
    assert WHOLE.of("abc") == Shard(0, 3).of("abc") == "abc"
    assert Shard.parse("1/1") == WHOLE and not WHOLE.is_part and not WHOLE.merges
    assert Shard.parse("2/3").is_part and Shard.parse("merge/3").merges and str(Shard.parse("merge/3")) == "merge/3"


def test_lost_parts_are_named():
    merging = Shard.parse("merge/4")
    merging.require("samples", dict.fromkeys("abc", True))
    there = dict.fromkeys("abcdefghijklmnopqr", True) | dict.fromkeys("bfjnh", False)
    with pytest.raises(InputError) as error:
        merging.require("samples", there)
    said = str(error.value)
    assert "5 of 18 samples" in said and "2/4 lacks 4 (b, f, j ...); 4/4 lacks 1 (h)" in said
    assert "--shard 2/4" in said and "--array=2,4" in said and "1/4" not in said and "3/4" not in said
    with pytest.raises(InputError) as error:
        Shard(0, 40).require("samples", {str(item): item == 5 for item in range(1, 201)})
    assert str(error.value).count(" lacks ") == 3 and "--array=" + ",".join(map(str, range(1, 41))) in str(error.value)


def test_a_table_without_samples_has_no_parts():
    assert "no effect" in refused("scripts/tables.py", "--table", "efficiency", "--shard", "1/2")


def test_the_command_of_the_whole():
    words = ["--base_folder", "a b", "--frames", "3", "--fps=4"]
    for place in range(0, len(words) + 1, 2):
        for part in (["--shard", "2/3"], ["--shard=merge/3"]):
            assert without_shard([*words[:place], *part, *words[place:]]) == words
    words = [random.Random(0).choice("xyz") for _ in range(20)]
    assert without_shard(words) == words


def test_overwriting_is_not_for_parts():
    with pytest.raises(InputError, match="delete what other parts have made"):
        DemoConfig(overwrite=True, shard=Shard(1, 3))
    assert PrepareConfig(raw_folder="x").shard == WHOLE
