"""Checkpoints made to harm: refused in one line, quickly, within the memory of the file, and nothing of them is run.

What each of them does to ``torch.load(weights_only=True)`` alone is measured as well.
"""

import collections
import io
import os
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch
from torch import nn

from codes.engine.checkpoint import load_weights, read, save
from codes.engine.weights import load_student
from codes.model.ldn_model import Deblur_Net
from tests.conftest import ROOT, call, options

pytestmark = pytest.mark.slow

MB = 2**20
V2 = torch._utils._rebuild_tensor_v2


class Call:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Stored:
    """Pickled as torch.save pickles a storage, but of any declared length."""

    def __init__(self, key, numel, kind=torch.FloatStorage, legacy=False):
        self.id = ("storage", kind, key, "cpu", numel, *([None] if legacy else []))


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.id if isinstance(value, Stored) else None


def pickled(content):
    stream = io.BytesIO()
    Pickler(stream, 2).dump(content)
    return stream.getvalue()


def tensor(storage, size, stride, offset=0):
    return Call(V2, storage, offset, size, stride, False, collections.OrderedDict())


def archive(path, content, records, kind=zipfile.ZIP_STORED, extra=()):
    """A zip archive as torch.save writes it; ``content`` pickled, or the pickle itself."""
    code = content if isinstance(content, bytes) else pickled(content)
    with zipfile.ZipFile(path, "w", kind) as file:
        file.writestr("a/data.pkl", code)
        for key, value in records.items():
            file.writestr(f"a/data/{key}", value)
        for name, value in (("version", b"3\n"), ("byteorder", b"little"), *extra):
            file.writestr(f"a/{name}", value)


def legacy(path, content, keys, tail):
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "protocol_version": 1001, "type_sizes": {}}]
    path.write_bytes(b"".join(pickled(part) for part in [*parts, content, keys]) + tail)


def zeros(count, kind=None):
    """A pickled tensor of so many values in storage 0."""
    return {"a": tensor(Stored("0", count, legacy=kind == "legacy"), (count,), (1,))}


def overlapping(path):
    """Forty names of one record of 2 MB, in a file of 2 MB."""
    content = {str(k): tensor(Stored(str(k), MB // 2), (MB // 2,), (1,)) for k in range(40)}
    archive(path, content, {"0": bytes(2 * MB)} | {str(k): b"" for k in range(1, 40)})
    with zipfile.ZipFile(path, "a") as file:
        first = file.getinfo("a/data/0")
        for k in range(1, 40):
            other = file.getinfo(f"a/data/{k}")
            other.header_offset, other.file_size, other.compress_size = first.header_offset, 2 * MB, 2 * MB
            other.CRC = first.CRC
        file._didModify = True


def sparse(path):
    one = tensor(Stored("0", 1, torch.LongStorage), (1, 1), (1, 1))
    values = tensor(Stored("1", 1), (1,), (1,))
    rebuilt = Call(torch._utils._rebuild_sparse_tensor, torch.sparse_coo, (one, values, torch.Size([10**12]), True))
    archive(path, {"a": rebuilt}, {"0": bytes(8), "1": bytes(4)})


EXPANDED = {"a": tensor(Stored("0", 1), (10**6,) * 2, (0, 0))}
WINDOWS = {"a": tensor(Stored("0", 2000), (1000,) * 2, (1, 1))}
NUMBERS = tuple(range(20_000))
OUTWARD = b"\x80\x02]q\x01]q\x00a" + b"h\x00]q\x00a" * 100_000 + b"h\x01."
BOMBS = {  # and what torch alone does: ask for the memory, die of a signal, or give what the file does not hold
    "zip bomb": ("memory", lambda path: archive(path, zeros(20 * MB), {"0": bytes(80 * MB)}, zipfile.ZIP_DEFLATED)),
    "zip bomb of a pickle": ("memory", lambda path: archive(path, bytes(80 * MB), {}, zipfile.ZIP_DEFLATED)),
    "overlapping": ("memory", overlapping),
    "allocation": ("memory", lambda path: archive(path, {"a": Call(bytearray, 80 * MB)}, {})),
    "allocation, older": ("memory", lambda path: legacy(path, {"a": Call(bytearray, 80 * MB)}, [], b"")),
    "allocation of a tensor": ("memory", lambda path: archive(path, {"a": Call(torch.FloatTensor, 20 * MB)}, {})),
    "quadratic": ("memory", lambda path: archive(path, [Call(torch.Size, n) for n in [NUMBERS] * 600], {})),
    "deep key": ("signal", lambda path: archive(path, b"\x80\x02})" + b"\x85" * 900_000 + b"Ns.", {})),
    "deep lists": ("given", lambda path: archive(path, b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".", {})),
    "deep tuples": ("given", lambda path: archive(path, b"\x80\x02)" + b"\x85" * 400_000 + b".", {})),
    "deep from outside": ("given", lambda path: archive(path, OUTWARD, {})),
    "long pickle": ("given", lambda path: archive(path, b"\x80\x02]" + b"]a" * MB + b".", {})),
    "expanded": ("given", lambda path: archive(path, EXPANDED, {"0": bytes(4)})),
    "windows": ("given", lambda path: archive(path, WINDOWS, {"0": bytes(8000)})),
    "sparse": ("given", sparse),
    "long storage": ("", lambda path: archive(path, zeros(10**6), {"0": bytes(64)})),  # depends on its version
}  # fmt: skip

LOADER = """
import os, sys, time, warnings
import torch
from codes.engine.checkpoint import read
warnings.simplefilter("ignore")
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmPeak")) // 1024
for path in sys.argv[2:]:
    begun = time.process_time()
    child = os.fork()  # whose peak of address space begins anew
    if not child:
        before = peak()
        try:
            if sys.argv[1] == "torch":
                torch.load(path, map_location="cpu", weights_only=True)
            else:
                read(path)
            what = "given"
        except ValueError as error:
            what = "refused " + str(error)
        except BaseException as error:
            what = "raised " + type(error).__name__
        print(peak() - before, time.process_time() - begun, what, flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(0, 0, "signal", flush=True)
"""


def outcomes(loader, folder, bombs):
    """name -> (what came, MB of address space, seconds) of loading each file in a process of its own."""
    paths = [folder / f"{name}.pth" for name in bombs]
    for name, path in zip(bombs, paths, strict=True):
        bombs[name][1](path)
    command = [sys.executable, "-c", LOADER, loader, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=200)
    lines = [line.split(" ", 2) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(lines) == len(paths), done.stdout + done.stderr
    return {name: (what, int(mb), float(time)) for name, (mb, time, what) in zip(bombs, lines, strict=True)}


linux = pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")


@linux
def test_they_are_refused_at_no_cost(tmp_path):
    for name, (what, megabytes, seconds) in outcomes("read", tmp_path, BOMBS).items():
        assert what.startswith(f"refused {tmp_path / name}.pth ") and len(what) < 600, (name, what)
        assert megabytes < 40 and seconds < 5, (name, megabytes, seconds)


@linux
@pytest.mark.slow
def test_they_are_hostile(tmp_path):
    """So that one which has lost its sting is noticed."""
    for name, (what, megabytes, _) in outcomes("torch", tmp_path, BOMBS).items():
        expected = BOMBS[name][0]
        assert megabytes > 60 if expected == "memory" else expected in what, (name, what, megabytes)


@linux
def test_what_the_older_format_costs(tmp_path):
    """Not refused: one storage too long takes address space until it is read, one left out is whatever lay there."""
    content, number = zeros(20 * MB, "legacy"), (20 * MB).to_bytes(8, "little")
    costs = {
        "long": ("", lambda path: legacy(path, content, ["0"], number + bytes(64))),
        "missing": ("", lambda path: legacy(path, zeros(16, "legacy"), [], b"")),
        "missing, of more than the file": ("", lambda path: legacy(path, content, [], b"")),
    }
    found = outcomes("read", tmp_path, costs)
    assert [found[name][0].split()[0] for name in costs] == ["refused", "given", "refused"]
    assert found["long"][1] < 120


class Trap:
    """Makes a folder when unpickled by a loader that executes code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("wrapped", [False, True])
def test_code_is_not_executed(protocol, wrapped, tmp_path):
    """In a plain pickle and in an archive; protocol 4 names globals otherwise."""
    code = pickle.dumps({"a": Trap(str(tmp_path / "trap"))}, protocol)
    if wrapped:
        archive(tmp_path / "a.pth", code, {})
    else:
        (tmp_path / "a.pth").write_bytes(code)
    with pytest.raises(ValueError, match=r"a\.pth (holds Python objects|is no PyTorch checkpoint)"):
        read(tmp_path / "a.pth")
    assert not (tmp_path / "trap").exists()
    pickle.loads(code)  # the trap works
    assert (tmp_path / "trap").exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_other_archives(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), tmp_path / "jit.pth")
    with pytest.raises(ValueError, match=r"jit\.pth is a TorchScript archive; expected a state dict"):
        read(tmp_path / "jit.pth")
    with zipfile.ZipFile(tmp_path / "photos.pth", "w") as file:
        file.writestr("a.txt", "a")
    with pytest.raises(ValueError, match=r"photos\.pth is a zip archive, but none that torch\.save wrote"):
        read(tmp_path / "photos.pth")
    torch.save(nn.Linear(1, 1), tmp_path / "whole.pth")
    with pytest.raises(ValueError, match=r"Python objects beside weights \(torch\.nn\.modules\.linear\.Linear\)"):
        read(tmp_path / "whole.pth")


CONTENTS = {
    "parameters": {"a": nn.Parameter(torch.arange(6.0).reshape(2, 3)), "b": nn.Parameter(torch.ones(2), False)},
    "types": {
        str(kind): torch.arange(5).to(kind) for kind in (torch.float64, torch.float16, torch.bfloat16, torch.int64)
    }
    | {str(kind): torch.arange(5).to(kind) for kind in (torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)},
    "views": {"a": (base := torch.arange(24.0)).view(4, 6).t(), "b": base[3:9], "c": base[::5], "d": base[2]},
    "empty": {"a": torch.zeros(0), "b": torch.zeros(3, 0, 2), "c": torch.zeros(())},
    "channels_last": {"a": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)},
    "plain": {"a": [1, -1, 2**40, 2.5, None, True, "é", (), [], {}], 3: {"b": (1, (2, (3, 4, 5, 6)))}},
    "module": collections.OrderedDict({"module.a": torch.ones(2)}),
    "network": Deblur_Net().state_dict(),  # an ordered dictionary with an attribute
    "many": {str(k): k for k in range(3000)},
}


def same(a, b):
    if isinstance(a, torch.Tensor):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", CONTENTS)
def test_what_torch_saves_is_read(kind, zipped, tmp_path):
    torch.save(CONTENTS[kind], tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    found = read(tmp_path / "a.pth")
    assert same(CONTENTS[kind], found)
    assert getattr(found, "_metadata", None) == getattr(CONTENTS[kind], "_metadata", None)


def test_files_of_the_authors_and_ours(golden_full):
    for path in [*golden_full.glob("official/*.pth"), *golden_full.glob("reference_run/*.pth")]:
        assert same(torch.load(path, map_location="cpu", weights_only=True), read(path))
    for path in (ROOT / "model").glob("*_photo.pth"):
        assert same(torch.load(path, map_location="cpu", weights_only=True), read(path))


def test_half_precision_loads(tmp_path):
    state = Deblur_Net().state_dict()
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        save({"module." + key: value.to(kind) for key, value in state.items()}, tmp_path / "a.pth")
        loaded = load_weights(Deblur_Net(), tmp_path / "a.pth").state_dict()
        assert all(torch.equal(loaded[key], value.to(kind).float()) for key, value in state.items())


def test_training_state(tiny, tmp_path):
    argv = options("train_sr.py", tiny, tmp_path, "--max_steps", 1, "--eval_every", 0, "--grad_clip", 1)
    call("train_sr.py", *argv)
    path = tmp_path / "test" / "ckpts" / "state.pth"
    assert same(torch.load(path, weights_only=True), read(path))
    assert path.stat().st_size > 10 * MB and zipfile.ZipFile(path).infolist()[0].file_size < 100_000


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(value, tmp_path):
    state = Deblur_Net().state_dict()
    state["spike_enc.0.weight"][3, 2, 1, 0] = value
    save(state, tmp_path / "a.pth")
    for load in (load_student, lambda path: load_weights(Deblur_Net(), path)):
        with pytest.raises(ValueError, match=r"a\.pth: spike_enc\.0\.weight holds values that are not finite"):
            load(tmp_path / "a.pth")


def test_weights_beyond_the_range_of_the_network(tmp_path):
    state = Deblur_Net().double().state_dict()
    state["spike_enc.0.bias"][0] = 1e200
    save(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"spike_enc\.0\.bias holds values that are not finite"):
        load_student(tmp_path / "a.pth")


def test_whole_numbers_are_no_weights(tmp_path):
    save({key: value.to(torch.int64) for key, value in Deblur_Net().state_dict().items()}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"is of torch\.int64, expected torch\.float32"):
        load_student(tmp_path / "a.pth")


@pytest.mark.parametrize("shape", [(0, 10**15 + 1, 3, 3), (16, 10**15, 0, 3), (16, 10**5 + 1, 1, 1), (16, 22, 3, 3)])
def test_a_student_of_too_many_frames(shape, tmp_path):
    """None of these decides how large a network is built."""
    save(Deblur_Net().state_dict() | {"spike_enc.0.weight": torch.zeros(shape)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"spike_enc\.0\.weight has shape .*, expected \(16, 21, 3, 3\)"):
        load_student(tmp_path / "a.pth")
