"""Files, checkpoints and options that nobody would write, drawn by Hypothesis: the same ones in every run."""

import io
import math
import time
import types
import typing
from dataclasses import fields

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from codes.engine.checkpoint import read
from codes.engine.options import parse_config
from codes.spike import read_dat, write_dat
from train_deblur import DeblurConfig

pytestmark = pytest.mark.slow

few = settings(deadline=None, derandomize=True, max_examples=60, suppress_health_check=list(HealthCheck))
many = settings(few, max_examples=150)
sides, frames = st.integers(1, 13), st.integers(1, 4)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """One file that all examples write anew."""
    return tmp_path_factory.mktemp("fuzz") / "file"


# Spike streams ----------------------------------------------------------------------


def bit(content, height, width, frame, row, column, order):
    """One pixel of a stream, row 0 at the top, from the description of the format."""
    place = (height - 1 - row) * width + column
    byte = content[frame * math.ceil(height * width / 8) + place // 8]
    return byte >> (place % 8 if order == "little" else 7 - place % 8) & 1


@st.composite
def cuts(draw, extent):
    low = draw(st.integers(0, extent))
    return slice(low, draw(st.integers(low, extent)))


@given(st.data(), frames, sides, sides, st.sampled_from(["little", "big"]))
@few
def test_streams_are_read_bit_by_bit(path, data, count, height, width, order):
    content = data.draw(st.binary(min_size=(n := count * math.ceil(height * width / 8)), max_size=n))
    rows, columns = data.draw(cuts(height)), data.draw(cuts(width))
    path.write_bytes(content)
    expected = [
        [[bit(content, height, width, t, y, x, order) for x in range(width)[columns]] for y in range(height)[rows]]
        for t in range(count)
    ]
    found = read_dat(path, height, width, rows, columns, order)
    shape = count, rows.stop - rows.start, columns.stop - columns.start
    assert found.dtype == np.uint8 and found.shape == shape
    np.testing.assert_array_equal(found, np.array(expected, np.uint8).reshape(shape))


@given(st.data(), frames, sides, sides, st.sampled_from([bool, np.uint8, np.int64, np.float32]))
@few
def test_streams_are_written_bit_by_bit(path, data, count, height, width, kind):
    bits = data.draw(st.lists(st.booleans(), min_size=(n := count * height * width), max_size=n))
    spikes = np.array(bits).reshape(count, height, width)
    write_dat(path, spikes.astype(kind))
    content = path.read_bytes()
    assert len(content) == count * math.ceil(height * width / 8)
    for t, y, x in np.ndindex(spikes.shape):
        assert bit(content, height, width, t, y, x, "little") == spikes[t, y, x]
    assert sum(byte.bit_count() for byte in content) == spikes.sum()  # what fills the last byte is zero


@given(st.binary(max_size=300), st.integers(-2, 40), st.integers(-2, 40))
@many
def test_streams_of_any_length(path, content, height, width):
    path.write_bytes(content)
    size = math.ceil(height * width / 8)
    if height < 1 or width < 1 or not content or len(content) % size:
        with pytest.raises(ValueError, match="spike frame"):
            read_dat(path, height, width)
    else:
        assert read_dat(path, height, width).shape == (len(content) // size, height, width)


@given(st.lists(st.integers(0, 3), max_size=5), st.floats() | st.integers(-(2**40), 2**40))
@few
def test_what_is_no_stream_is_not_written(path, shape, value):
    path.unlink(missing_ok=True)
    spikes = np.full(shape, value)
    if len(shape) == 3 and spikes.size and value in (0, 1):
        write_dat(path, spikes)
        assert path.stat().st_size == shape[0] * math.ceil(shape[1] * shape[2] / 8)
    else:
        with pytest.raises(ValueError, match="spikes"):
            write_dat(path, spikes)
        assert not path.exists()


# Checkpoints ------------------------------------------------------------------------

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": {"c": [1, 2.5, None, True, (3, "d")]}, "e": torch.ones(2).half()}


def saved(zipped):
    stream = io.BytesIO()
    torch.save(STATE, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


VALID = {zipped: saved(zipped) for zipped in (True, False)}


def loads_or_is_refused(path, content):
    """Whatever comes out is small: no mutation of a small file may make much of it."""
    path.write_bytes(content)
    begun = time.monotonic()
    try:
        found = read(path)
    except ValueError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
        found = None
    assert time.monotonic() - begun < 5
    waiting, values = [found], 0
    while waiting:
        item = waiting.pop()
        if isinstance(item, torch.Tensor):
            values += item.numel()
        elif isinstance(item, dict | list | tuple):
            waiting += item.values() if isinstance(item, dict) else item
        else:
            assert item is None or isinstance(item, bool | int | float | str)
    assert values <= len(content)
    return found


@pytest.mark.parametrize("zipped", [True, False])
def test_the_checkpoint_itself(path, zipped):
    found = loads_or_is_refused(path, VALID[zipped])
    assert torch.equal(found["a"], STATE["a"]) and found["b"] == STATE["b"] and torch.equal(found["e"], STATE["e"])


@given(
    st.sampled_from([True, False]), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6)
)
@many
def test_checkpoints_with_other_bytes(path, zipped, changes):
    content = bytearray(VALID[zipped])
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    loads_or_is_refused(path, bytes(content))


PICKLE = {zipped: (content.index(b"\x80\x02}") if zipped else 0, 400) for zipped, content in VALID.items()}


@given(
    st.sampled_from([True, False]),
    st.integers(0, 400),
    st.integers(0, 12),
    st.binary(max_size=6) | st.lists(st.sampled_from(b"()]}.RbQuaesh0q0\x85\x86\x87Nr2J\xff"), max_size=6).map(bytes),
)
@many
def test_checkpoints_with_other_pickles(path, zipped, place, removed, added):
    """Bytes of the pickle are replaced by others, of any number; where no checksum notices it."""
    start, _ = PICKLE[zipped]
    content = VALID[zipped]
    loads_or_is_refused(path, content[: start + place] + added + content[start + place + removed :])


@given(st.sampled_from([True, False]), st.floats(0, 1), st.binary(max_size=40))
@many
def test_truncated_checkpoints(path, zipped, share, tail):
    content = VALID[zipped]
    found = loads_or_is_refused(path, content[: int(share * len(content))])
    assert (found is None) == (int(share * len(content)) < len(content))
    loads_or_is_refused(path, content[: int(share * len(content))] + tail)


@given(st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04", VALID[False][:40]]), st.binary(max_size=400))
@many
def test_random_checkpoints(path, start, content):
    loads_or_is_refused(path, start + content)


# Options ----------------------------------------------------------------------------

NAMES = [field.name for field in fields(DeblurConfig)]
HINTS = typing.get_type_hints(DeblurConfig)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["1e-4", "psnr", "fp32", "sharp", "1 2", "off", "nan", ".inf", "-1", "0", "7", "97", "1e400"])
)
trees = st.recursive(
    scalars, lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=3), part, max_size=3)
)


def is_in_range(config):
    """Whether every value has its field's type and lies within its bounds."""
    for field in fields(config):
        value, kind = getattr(config, field.name), HINTS[field.name]
        if isinstance(kind, types.UnionType):
            kind = next(part for part in typing.get_args(kind) if part is not types.NoneType)
            if value is None:
                continue
        low, high = field.metadata["low"], field.metadata["high"]
        if kind in (int, float):
            assert type(value) in (int, float) if kind is float else type(value) is int
            assert math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high)
        elif typing.get_origin(kind) is tuple:
            choices = typing.get_args(typing.get_args(kind)[0])
            assert isinstance(value, tuple) and set(value) <= set(choices) and len(set(value)) == len(value)
        elif typing.get_origin(kind) is typing.Literal:
            assert value in typing.get_args(kind)
        else:
            assert isinstance(value, kind)
    return True


def parsed_or_refused(capsys, argv):
    try:
        assert is_in_range(parse_config(DeblurConfig, argv))
    except SystemExit as stop:
        error = capsys.readouterr().err
        assert stop.code == 2 and error.count("\n") == 1 and ": error: " in error


@given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), trees, max_size=4) | trees)
@example({"lr": float("nan")})
@example({"seed": 2**63})
@example({"metrics": [[]]})
@example({"metrics": [{}]})
@example({"precision": {}})
@example({"exp_name": "a\0b"})
@many
def test_yaml_trees(capsys, path, tree):
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    parsed_or_refused(capsys, ["--config", str(path)])


@given(st.text(max_size=60) | st.text("[]{}:,-&*!|>%@`'\"#? \n\tab1~", max_size=30))
@many
def test_yaml_texts(capsys, path, text):
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    parsed_or_refused(capsys, ["--config", str(path)])


values = (
    st.text(max_size=6) | st.floats().map(str) | st.integers().map(str) | st.sampled_from(["psnr", "sharp", "auto"])
)


@given(st.lists(st.tuples(st.sampled_from(NAMES), values), min_size=1, max_size=4))
@many
def test_flags(capsys, pairs):
    parsed_or_refused(capsys, [f"--{name}={value}" for name, value in pairs])


@given(st.lists(st.sampled_from([f"--{name}" for name in NAMES]) | st.text(max_size=6), max_size=5))
@many
def test_words(capsys, words):
    if not {"-h", "--help"} & set(words):
        parsed_or_refused(capsys, words)
