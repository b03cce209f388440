"""Look through a file of torch.save before torch reads it: no code, no more memory than the file itself is long.

``weights_only=True`` keeps a file from running code, but lets it ask for any amount of memory: by compressed records,
by storages that are declared longer than they are, by ``bytearray(10**12)``, by tensors that repeat one value for ever.
Here its pickle is followed opcode by opcode, and no object is made that it asks for. Whatever torch.save does not write
for a dictionary of tensors and plain values is refused, so that nothing depends on what torch would do with it.

Read are both formats: the zip archive (``data.pkl`` and a record ``data/KEY`` for each storage) and the older one (five
pickles, then the storages).
"""

import io
import math
import os
import pickletools
import zipfile
from dataclasses import dataclass, field

ITEM_BYTES = {
    **{"DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2},
    **{"LongStorage": 8, "IntStorage": 4, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1},
}
GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {name}" for name in ITEM_BYTES),
}
"""All that a dictionary of tensors and plain values names; anything else could be made to do something."""

PLAIN = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
FIXED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY = {"EMPTY_DICT": "dict", "EMPTY_LIST": "list", "EMPTY_TUPLE": "tuple"}

LARGEST_PICKLE, DEEPEST, DIMENSIONS = 2**20, 20, 8
"""Far above what the training state of any network here needs: 40 kB, 6 and 4."""

EXPECTED = "expected a state dict saved by torch.save(network.state_dict(), path)"


class Unfit(ValueError):
    """Why a file is not read; the message goes on where the file's name ends."""


@dataclass
class _Node:
    """What stands for an object of the pickle that is no number or text."""

    kind: str  # dict, list, tuple, storage, tensor, or 'module name' of a global
    items: list = field(default_factory=list)  # of a dict, keys and values in turn
    depth: int = 0
    numel: int = 0  # of a storage
    placed: bool = False  # inside another one, and complete


def vet(file) -> None:
    """Refuse what torch.save would not have written; the file is then at its start again.

    Args:
        file: open for reading in binary mode, at its start.

    Raises:
        Unfit: what it is, or what is wrong with it.
        Exception: of many types, where it is damaged.
    """
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    archive = file.read(4) == b"PK\3\4"
    file.seek(0)
    (_vet_archive if archive else _vet_legacy)(file, length)
    file.seek(0)


def _vet_archive(file, length: int) -> None:
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        folder = records[0].filename.split("/")[0] + "/" if records else ""
        sizes = {record.filename.removeprefix(folder): record.file_size for record in records}
        if "constants.pkl" in sizes:
            raise Unfit(f"is a TorchScript archive; {EXPECTED}")
        if "data.pkl" not in sizes:
            raise Unfit(f"is a zip archive, but none that torch.save wrote; {EXPECTED}")
        stored = all(record.compress_type == 0 and record.compress_size == record.file_size for record in records)
        names = {record.filename.lower() for record in records}  # torch does not tell cases apart
        if not stored or len(names) < len(records) or sum(record.file_size for record in records) > length:
            raise Unfit("holds compressed, overlapping or equally named records, which torch.save never writes")
        _at_most(sizes["data.pkl"], LARGEST_PICKLE)
        _, storages = _follow(io.BytesIO(archive.read(folder + "data.pkl")))
    for key, wanted in storages.items():
        if sizes.get(f"data/{key}") != wanted:
            raise Unfit(
                f"is damaged: storage {key} shall have {wanted} bytes, but has {sizes.get(f'data/{key}', 'none')}"
            )


def _vet_legacy(file, length: int) -> None:
    stream = io.BytesIO(file.read(LARGEST_PICKLE))
    _magic, _protocol, _system, (_content, storages), (keys, _) = (_follow(stream) for _ in range(5))
    if not isinstance(keys, _Node) or keys.kind != "list" or sorted(keys.items) != sorted(storages):
        raise Unfit("is damaged: what it names and what it holds differ")
    if stream.tell() + sum(8 + wanted for wanted in storages.values()) > length:
        raise Unfit(f"is damaged: its storages shall have {sum(storages.values())} bytes, more than the file")


def _at_most(value: int, limit: int) -> None:
    if value > limit:
        raise Unfit(f"is larger or deeper than training makes it ({value}, at most {limit}); {EXPECTED}")


def _follow(stream) -> tuple[object, dict[str, int]]:
    """Follow the pickle at a place in a stream up to its end: what it makes, and the bytes of its storages by key."""
    stack, marks, memo, storages = [], [], {}, {}
    for opcode, value, _ in pickletools.genops(stream):
        name = opcode.name
        if name in PLAIN or name in FIXED:
            stack.append(value if name in PLAIN else FIXED[name])
        elif name in EMPTY:
            stack.append(_Node(EMPTY[name]))
        elif name == "GLOBAL":
            if value not in GLOBALS:
                raise Unfit(
                    f"holds Python objects beside weights ({'.'.join(value.split())[:80]}); they were not loaded, "
                    f"since they could run code; {EXPECTED}"
                )
            stack.append(_Node(value))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[value] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[value])
        elif name == "MARK":
            marks.append(stack)
            stack = []
        elif name in ("TUPLE", "APPENDS", "SETITEMS"):
            items, stack = stack, marks.pop()
            if name == "TUPLE":
                stack.append(_Node("tuple"))
            _put(stack[-1], items, {"TUPLE": "tuple", "APPENDS": "list", "SETITEMS": "dict"}[name])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            items, stack[-count:] = stack[-count:], [_Node("tuple")]
            _put(stack[-1], items, "tuple")
        elif name in ("APPEND", "SETITEM", "BUILD"):  # BUILD: the attribute _metadata of a state dict
            count = 2 if name == "SETITEM" else 1
            items, stack[-count:] = stack[-count:], []
            if name == "BUILD":
                _require(items[0].kind == "dict" and items[0].items[:1] == ["_metadata"] and len(items[0].items) == 2)
                items = ["_metadata", items[0]]
            _put(stack[-1], items, "list" if name == "APPEND" else "dict")
        elif name == "REDUCE":
            arguments = stack.pop()
            _require(arguments.kind == "tuple")
            stack[-1] = _made(stack[-1].kind, arguments.items)
        elif name == "BINPERSID":
            stack[-1] = _storage(stack[-1], storages)
        elif name == "STOP":
            return stack.pop(), storages
        elif name != "PROTO" or value != 2:
            raise Unfit(f"is no PyTorch checkpoint, or it is damaged (opcode {name}); {EXPECTED}")
    raise EOFError


def _require(condition: bool) -> None:
    if not condition:
        raise Unfit(f"is no PyTorch checkpoint, or it is damaged; {EXPECTED}")


def _put(node: _Node, items: list, kind: str) -> None:
    """Put items into a container, which nothing holds yet: so its depth is final when something does."""
    _require(node.kind == kind and not node.placed)
    if kind == "dict":  # deep tuples as keys would exhaust the C stack
        _require(len(items) % 2 == 0 and all(isinstance(key, str | int) for key in items[::2]))
    for item in items:
        if isinstance(item, _Node):
            item.placed = True
            node.depth = max(node.depth, item.depth + 1)
    _at_most(node.depth, DEEPEST)
    node.items += items


def _made(kind: str, arguments: list) -> _Node:
    """What a call makes: an ordered dictionary, a parameter, or a tensor that lies within its storage."""
    if kind == "collections OrderedDict":
        _require(not arguments)
        return _Node("dict")
    if kind == "torch._utils _rebuild_parameter":
        tensor, learns, hooks = arguments
        _require(tensor.kind == "tensor" and isinstance(learns, bool) and hooks.kind == "dict" and not hooks.items)
        return _Node("tensor")
    _require(kind == "torch._utils _rebuild_tensor_v2")
    storage, offset, size, stride, learns, hooks = arguments
    _require(storage.kind == "storage" and size.kind == stride.kind == "tuple" and isinstance(learns, bool))
    _require(hooks.kind == "dict" and not hooks.items and len(size.items) == len(stride.items) <= DIMENSIONS)
    _require(all(isinstance(n, int) and 0 <= n < 2**63 for n in (offset, *size.items, *stride.items)))
    last = offset + sum((n - 1) * step for n, step in zip(size.items, stride.items, strict=True))
    values = math.prod(size.items)
    if values > storage.numel or (values and last >= storage.numel):
        raise Unfit(f"is damaged: a tensor of shape {tuple(size.items)} is larger than what the file holds of it")
    return _Node("tensor")


def _storage(name: _Node, storages: dict[str, int]) -> _Node:
    """The storage of a persistent id, whose bytes are noted."""
    word, kind, key, location, numel, *view = name.items
    _require(word == "storage" and isinstance(key, str) and isinstance(location, str) and view in ([], [None]))
    _require(isinstance(numel, int) and numel >= 0 and kind.kind.startswith("torch "))
    wanted = numel * ITEM_BYTES[kind.kind.removeprefix("torch ")]
    _require(storages.setdefault(key, wanted) == wanted)
    return _Node("storage", numel=numel)
