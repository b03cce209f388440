"""Sizes of a checkpoint, looked at before and after ``torch.load(weights_only=True)``, which lets a file run no code.

Refused: compressed or overlapping records, more or deeper nested objects than training writes (hashing a tuple 100,000
deep ends the process), names beyond those of dictionaries and tensors (``bytearray(10**12)``), tensors larger than what
the file holds of them. Not refused, in PyTorch's format from before version 1.6: a storage that is named and left out,
so that its weights are what lay in memory, and one declared too long, which costs address space until reading fails.
"""

import io
import os
import pickletools
import re
import zipfile

import torch

from codes.errors import InputError

NAMES = re.compile(r"collections OrderedDict|torch._utils _rebuild_(tensor_v2|parameter)|torch \w+Storage")
LONGEST, MOST = 2**20, 2**15  # bytes and containers of a pickle; the largest training state here has half as many


def load(file, path):
    """What torch.save wrote to an open file, on the CPU; InputError says what is wrong with ``path``."""
    length, start = os.fstat(file.fileno()).st_size, file.read(LONGEST)
    stream, pickles, nested = io.BytesIO(start), 5, 0  # before version 1.6: five pickles, then the storages
    if start.startswith(b"PK\3\4"):
        with zipfile.ZipFile(file) as archive:
            records = {record.filename.lower(): record for record in archive.infolist()}
            inner = [record for name, record in records.items() if name.endswith("/data.pkl")]
            _require(not any(name.endswith("/constants.pkl") for name in records), path, "is a TorchScript archive")
            _require(len(inner) == 1, path, "is a zip archive, but none that torch.save wrote")
            sizes = [record.file_size for record in records.values() if record.compress_type == zipfile.ZIP_STORED]
            sound = len(sizes) == len(archive.infolist()) and sum(sizes) <= length and inner[0].file_size <= LONGEST
            _require(sound, path, "holds compressed, overlapping, equally named or too long records")
            stream, pickles = io.BytesIO(archive.read(inner[0])), 1
    for code, value, _ in (code for _ in range(pickles) for code in pickletools.genops(stream)):
        if code.name == "GLOBAL":
            what = f"holds Python objects beside weights ({value.replace(' ', '.')[:80]}), which were not loaded"
            _require(NAMES.fullmatch(value), path, what)
        nested += code.name.startswith(("TUPLE", "EMPTY_"))
        _require(nested <= MOST, path, f"holds more than {MOST} containers, which training never makes")
    file.seek(0)
    content = torch.load(file, map_location="cpu", weights_only=True)
    waiting, seen, storages = [content], set(), {}
    for item in waiting:  # which grows meanwhile
        if isinstance(item, torch.Tensor):
            held = item.untyped_storage()
            storages[held.data_ptr()] = held.nbytes()
            _require(item.nbytes <= held.nbytes(), path, f"is damaged: it lacks values of a tensor {tuple(item.shape)}")
        elif isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            waiting += [*item, *dict.values(item)] if isinstance(item, dict) else item
    _require(sum(storages.values()) <= length, path, f"is damaged: it declares tensors of more than its {length} bytes")
    return content


def _require(condition, path, what: str) -> None:
    if not condition:
        raise InputError(f"{path} {what}; expected a state dict saved by torch.save(network.state_dict(), path)")
