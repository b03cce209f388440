"""Options: one frozen dataclass for each script, filled as default < YAML file (``--config``) < flag.

    @dataclass(frozen=True)
    class DemoConfig:
        out: Path = option("GOPRO", "folder of the data set")
        size: Size = option("720x1280", "image size", low=16, high=8192, multiple=4)
        motion: tuple[float, float] = option((20.0, 80.0), "pixels", low=0, metavar=("MIN", "MAX"))

    def main(argv: list[str] | None = None) -> None:
        cfg = parse_config(DemoConfig, argv)
        import torch  # what takes its time is imported after the options are read: --help does not wait for it

A field's type says how text is read: ``bool`` (``--flag``, ``--no-flag``), ``int``, ``float``, ``str``, ``Path``
(``~`` and ``$HOME`` are expanded), ``Size`` (HxW), ``Literal``, ``tuple[X, ...]`` (one or more, each once; the flag may
be repeated), ``tuple[X, X]`` (a pair), and any of these ``| None``: not given. Its metadata hold help and range.
An unknown key or flag fails and names the nearest one. What no type can say (two options that exclude one another) is
checked by the dataclass's ``__post_init__``, which raises an InputError.

Scripts and train recipes import at their top the standard library, this module and :mod:`codes.engine.command`, no
more, and everything else inside ``main`` after :func:`parse_config`.
"""

import argparse
import dataclasses
import functools
import math
import os
import re
import reprlib
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from codes.engine.command import Parser, nearest
from codes.errors import InputError, MissingFileError
from codes.model.registry import weight_options

GROUPS = {"official": "official options", "run": "of the run", "beyond": "beyond the paper"}
"""Headings in the help of the train recipes; another ``group`` is a heading itself."""


class Size(NamedTuple):
    """Height and width in pixels; written HxW."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


def option(
    default,
    help: str,
    *,
    low=None,
    high=None,
    above=None,
    multiple: int = 1,
    choices: tuple[str, ...] = (),
    parse: Callable[[str], Any] | None = None,
    metavar: str | tuple[str, ...] | None = None,
    positional: bool = False,
    group: str = "",
    recipe: bool | type[bool] = True,
) -> Any:
    """A field of a configuration.

    Args:
        default: its default; ``...`` where it must be given.
        help: one line for ``--help``.
        low, high, above: allowed range of a number, or of each side of a size; ``above`` is not allowed itself.
        multiple: a size's sides must be multiples of it.
        choices: allowed texts, where they are no ``Literal`` because another module knows them.
        parse: reads a text of a form of its own; raises a ValueError where it is none, and ``metavar`` says the form.
        metavar: what stands for the value in the help.
        positional: given without a flag.
        group: heading under which the help shows it (:data:`GROUPS`).
        recipe: whether the value shapes the trained weights; a run may be continued with other values where not.
            ``bool`` where it only matters whether there is a value, as with a folder that turns something on.
    """
    metadata = {key: value for key, value in locals().items() if key != "default"}
    given = {"kw_only": True} if default is ... else {"default": default}
    return dataclasses.field(metadata=metadata, **given)


official = functools.partial(option, group="official")
run = functools.partial(option, group="run", recipe=False)
beyond = functools.partial(option, group="beyond")


@dataclass(frozen=True)
class Common:
    """What training and every evaluation share."""

    metric_convention = "official"  # no option of training

    base_folder: Path = official("GOPRO", "data set: the folder that holds train/ and test/", recipe=False)
    data_type: Literal["GOPRO", "real"] = official("GOPRO", "layout of the data set; 'real' has no sharp images (RSB)")
    use_small: bool = official(False, "keep every 10th sample")
    vth: float = run(
        0.0,
        "firing threshold of the spikes, in the paper's unit (2: spike_data_vth2; 0: spike_data)",
        low=0,
        recipe=True,
    )
    metrics: tuple[Literal["ssim", "psnr", "mse", "lpips"], ...] = run(
        ("ssim", "psnr"), "metrics of an evaluation; lpips fetches AlexNet"
    )
    cache: Path | None = run(
        None, "folder that keeps decoded images, for fast loading: 2.8 MB each at 720x1280; made on first use"
    )
    eval_images: int = run(4, "samples of an evaluation that are saved as pictures", low=0)
    device: str = run("auto", "auto, cpu, cuda, cuda:N or mps; with torchrun, auto and cuda give each rank its GPU")
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = run("fp32", "autocast precision", recipe=True)
    deterministic: bool = run(
        False, "only operations with the same result each time, on a GPU, where PyTorch has them; a CPU needs none"
    )
    workers: int = run(-1, "loader processes (-1: one per core, at most 4); the result does not depend on it", low=-1)


@dataclass(frozen=True)
class EvalConfig(Common):
    """What every evaluation has besides."""

    metric_convention: Literal["official", "standard"] = run(
        "official",
        "official: images on [-1, 1] (MSE is 4 times the standard one; PSNR's rare range slip); standard: [0, 1]",
    )


@dataclass(frozen=True)
class Config(Common):
    """What the three stages of training share."""

    save_folder: Path = official("exp", "where run folders are made", recipe=False)
    exp_name: str = official("test", "name of the run; its folder is save_folder/exp_name", recipe=False)
    test_mode: bool = official(False, "evaluate checkpoints instead of training", recipe=False)
    epochs: int = official(101, "passes over the training split", low=1, recipe=False)
    lr: float = official(1e-3, "learning rate of Adam", low=0)
    seed: int = official(42, "seed of weights, order and crops", low=0, high=2**63 - 1)
    bs: int = official(4, "batch size; with torchrun, of each rank", low=1)
    roi_size: int = official(512, "side of the training crop in image pixels, a multiple of 4", low=16)
    train_split: Literal["train", "test"] = beyond("train", "split to train on")
    lr_schedule: Literal["official", "cosine", "onecycle", "constant"] = beyond(
        "official", "learning rate over time; cosine and onecycle end at 0 with the last step"
    )
    grad_clip: float = beyond(0.0, "largest gradient norm (0: no limit)", low=0)
    clip_output: bool = beyond(True, "clip outputs to [0, 1] before the loss, as officially; off, no start is dead")
    max_steps: int = run(
        0, "train for this many optimiser steps, however many epochs that is (0: --epochs decides)", low=0
    )
    eval_every: int = run(5, "epochs between saved weights and their evaluation (0: only at the end)", low=0)
    eval_samples: int = run(8, "test samples of an evaluation in training (0: all)", low=0)
    state_every: float = run(300.0, "seconds between saved training states, from which a killed run goes on", low=0)
    log_every: int = run(10, "steps between lines in metrics.jsonl and TensorBoard", low=1)
    compile: bool = run(False, "torch.compile the network that is trained; where that fails, go on without")
    on_nan: Literal["stop", "skip"] = run(
        "stop", "what a loss or gradient that is not finite does: stop the run, or drop the step and count it"
    )
    skip_bad_samples: bool = run(
        False, "go on without samples that cannot be read, and count them; off, the first one stops the run"
    )
    overwrite: bool = run(False, "start anew; the earlier run folder is kept under another name")


AutoPrecision = Literal["auto", "fp32", "tf32", "bf16", "fp16"]
AUTO_PRECISION = "autocast precision; auto: bf16 where the device has instructions for it, else fp32"


@dataclass(frozen=True)
class CropsConfig(Config):
    """What the recipes on known sharp frames share: a number of steps on small crops."""

    bs: int = official(8, "batch size; with torchrun, of each rank", low=1)
    roi_size: int = official(128, "side of the training crop in image pixels", low=16)
    lr: float = official(2e-3, "largest learning rate of Adam", low=0)
    max_steps: int = run(20_000, "optimiser steps", low=1)
    lr_schedule: Literal["onecycle", "cosine", "constant"] = beyond(
        "onecycle", "learning rate over time; onecycle and cosine end at 0 with the last step"
    )
    grad_clip: float = beyond(1.0, "largest gradient norm (0: no limit)", low=0)
    precision: AutoPrecision = run("auto", AUTO_PRECISION, recipe=True)  # type: ignore[assignment]

    def __post_init__(self):
        refuse_idle(self, "beside --max_steps", "epochs")


def refuse_even(cfg, *names: str) -> None:
    """Windows of frames have a middle.

    Raises:
        InputError: an option of these has an even number.
    """
    for name in names:
        if (frames := getattr(cfg, name)) % 2 == 0:
            raise InputError(
                f"--{name} is {frames}; a window around an instant has an odd number of frames: "
                f"give {frames - 1} or {frames + 1}"
            )


def refuse_idle(cfg, why: str, *names: str) -> None:
    """Options that would have no effect.

    Args:
        why: in words, as in 'with --teacher sdm'.

    Raises:
        InputError: one of them is not at its default.
    """
    for field in dataclasses.fields(cfg):
        if field.name in names and getattr(cfg, field.name) != convert(type(cfg), field.name, field.default):
            raise InputError(f"--{field.name} has no effect {why}; leave it out")


def parse_config(cls: type, argv: list[str] | None = None, description: str | None = None):
    """Build a configuration of type ``cls`` from the command line; a mistake ends the program in one line.

    Args:
        argv: the words; those of the program by default.
        description: beginning of the help; the docstring of the module that ``cls`` stands in by default.
    """
    description = sys.modules[cls.__module__].__doc__ if description is None else description
    words = [f" [{_flag(field)}]" for field in dataclasses.fields(cls) if field.metadata["positional"]]
    parser = Parser(usage="%(prog)s [options]" + "".join(words), description=description)
    parser.add_argument(
        "--config", metavar="FILE.yml", default=argparse.SUPPRESS, help="YAML file of options; flags win over it"
    )
    names = dict.fromkeys([*GROUPS, *(field.metadata["group"] for field in dataclasses.fields(cls))])
    groups = {name: parser.add_argument_group(GROUPS.get(name, name)) if name else parser for name in names}
    for field in dataclasses.fields(cls):
        _add(groups[field.metadata["group"]], field, _kind(cls, field.name))
    given = {key: value for key, value in vars(parser.parse_args(argv)).items() if value is not None}
    try:
        values = read_yaml(given.pop("config"), cls) if "config" in given else {}
        values |= {key: convert(cls, key, value) for key, value in given.items()}
        for field in dataclasses.fields(cls):
            if field.default is dataclasses.MISSING and field.name not in values:
                raise InputError(f"give {_flag(field)}: {field.metadata['help']} (see --help)")
            if field.name not in values:  # a default may be written as text
                values[field.name] = convert(cls, field.name, field.default)
        return cls(**values)
    except (InputError, OSError) as error:
        parser.error(error)


def _add(group, field, kind: "_Kind") -> None:
    """One option of the parser; values stay text, :func:`convert` reads them."""
    about, default = field.metadata["help"], field.default
    if kind.count is not None and isinstance(default, tuple):
        default = " ".join(map(str, default))
    if default not in (dataclasses.MISSING, None, "") and default is not False:
        about += f" (default: {'on' if default is True else default})"
    options = {"help": about.replace("%", "%%"), "default": argparse.SUPPRESS}
    if kind.item is bool:
        group.add_argument(f"--{field.name}", action=argparse.BooleanOptionalAction, **options)
        return
    nouns = {int: "N", float: "X", str: "TEXT", Path: "PATH", Size: "HxW"}
    choices = "{" + ",".join(map(str, kind.choices)) + "}" if kind.choices else None
    options["metavar"] = field.metadata["metavar"] or choices or nouns[kind.item]
    if field.metadata["positional"]:
        group.add_argument(field.name, nargs="?" if kind.count is None else "*", **options)
    elif kind.count is None:
        group.add_argument(f"--{field.name}", **options)
    elif kind.count:
        group.add_argument(f"--{field.name}", nargs=kind.count, **options)
    else:
        empty = kind.optional or default in ("", ())
        group.add_argument(f"--{field.name}", nargs="*" if empty else "+", action="extend", **options)


def read_yaml(path, cls: type) -> dict:
    """Options of ``cls`` from a YAML file; every key must be known, and none be given twice.

    Raises:
        InputError: names file, line and column.
        OSError: the file cannot be read.
    """
    import yaml

    path, known = expanded(path), [field.name for field in dataclasses.fields(cls)]

    def invalid(why, line: int | None = None, column: int = 0):
        where = path if line is None else f"{path}:{line + 1}:{column + 1}"
        raise InputError(f"{where} is not valid YAML ({why})") from None

    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8 ({error.reason}); save it as UTF-8") from None
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:  # empty, or all of it commented out
            return {}
        if not isinstance(root, yaml.MappingNode):
            raise InputError(f"{path} holds no options; expected lines like 'lr: 1e-4'")
        for key_node, value_node in root.value:
            key, mark = loader.construct_object(key_node, deep=True), key_node.start_mark
            where = f"{path}:{mark.line + 1}:{mark.column + 1}"
            if key not in known:
                raise InputError(f"{where}: unknown key {reprlib.repr(key)}{nearest(str(key), known)}")
            if key in values:
                raise InputError(f"{where}: '{key}' is given twice, first in line {lines[key]}")
            try:
                values[key] = convert(cls, key, loader.construct_object(value_node, deep=True))
                lines[key] = mark.line + 1
            except ValueError as error:  # one of ours, or a date or number that is none
                raise InputError(f"{where}: {error}") from None
    except yaml.MarkedYAMLError as error:
        hint = "; in double quotes \\ begins an escape: write / or single quotes" if "escape" in str(error) else ""
        mark = error.problem_mark or error.context_mark
        invalid(f"{error.problem}{hint}", mark.line, mark.column)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        invalid(error.reason, before.count("\n"), len(before) - before.rfind("\n") - 1)
    except RecursionError:
        invalid("nested too deeply")
    return values


@dataclass(frozen=True)
class _Kind:
    """What a field's type says."""

    item: type
    choices: tuple[str, ...]
    count: int | None
    """None: one value; 0: any number; 2: a pair."""
    optional: bool


def _kind(cls: type, name: str) -> _Kind:
    kind, optional, count = typing.get_type_hints(cls)[name], False, None
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        (kind,) = (part for part in typing.get_args(kind) if part is not types.NoneType)
        optional = True
    if typing.get_origin(kind) is tuple:
        kind, *rest = typing.get_args(kind)
        count = 0 if rest == [...] else 1 + len(rest)
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    field = next(field for field in dataclasses.fields(cls) if field.name == name)
    return _Kind(str if choices else kind, choices or field.metadata["choices"], count, optional)


def _flag(field) -> str:
    return field.metadata["metavar"] or field.name.upper() if field.metadata["positional"] else f"--{field.name}"


def expanded(path) -> Path:
    """A path whose ``~`` and ``$HOME`` (any variable that is set) are replaced."""
    return Path(os.path.expandvars(os.path.expanduser(str(path))))


def convert(cls: type, name: str, value):
    """Bring a value from YAML, the command line or a default to the type and range of the field ``name``.

    Raises:
        InputError: says what came and what was expected.
    """
    field = next(field for field in dataclasses.fields(cls) if field.name == name)
    kind = _kind(cls, name)
    if kind.optional and (value is None or value == "" and kind.item is Path):
        return None
    if kind.count is None:
        return _item(field, kind.item, kind.choices, value)
    if isinstance(value, str) and kind.item not in (str, Path):
        value = value.split()
    items = list(value) if isinstance(value, list | tuple) else [value]
    items = [_item(field, kind.item, kind.choices, item) for item in items]
    if kind.count and len(items) != kind.count:
        raise InputError(f"{_flag(field)} has {len(items)} values; expected {kind.count}")
    if not kind.count and len(set(items)) < len(items):
        raise InputError(f"{_flag(field)} names one twice: {' '.join(map(str, items))}")
    return tuple(items)


def _item(field, kind: type, choices: tuple[str, ...], value):
    """One value of a field."""
    flag, metadata = _flag(field), field.metadata

    def refuse(expected: str):
        raise InputError(f"{flag} is {reprlib.repr(value)}; expected {expected}") from None

    if metadata["parse"]:
        if not isinstance(value, str):  # a default, or YAML that is no text
            return value if value is field.default else refuse(metadata["metavar"])
        try:
            return metadata["parse"](value)
        except ValueError:
            refuse(metadata["metavar"])
    if choices:
        return value if value in choices else refuse(f"one of {', '.join(choices)}")
    if kind is bool:
        return value if isinstance(value, bool) else refuse("true or false")
    if kind in (str, Path):
        if isinstance(value, dict | list) or value is None:
            refuse("a text" if kind is str else "a path")
        if kind is Path and not str(value):
            refuse("a path")
        if kind is Path and re.match(r"[a-z][a-z0-9+.-]+://", str(value)):
            refuse("a path here: URLs are not read, fetch it first")
        return str(value) if kind is str else expanded(value)
    if kind is Size:
        return _size(field, value)
    try:
        if isinstance(value, bool):
            raise ValueError
        number = kind(value)
        if isinstance(value, float) and number != value or not math.isfinite(number):
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        refuse("a whole number" if kind is int else "a number")
    low, high, above = metadata["low"], metadata["high"], metadata["above"]
    if low is not None and number < low or high is not None and number > high or above is not None and number <= above:
        least = f"above {above}" if above is not None else f"at least {low}"
        bounds = least if high is None else f"from {low} to {high}" if above is None else f"{least}, at most {high}"
        raise InputError(f"{flag} is {value}; it must be {bounds}")
    return number


def _size(field, value) -> Size:
    """HxW, or a pair of numbers in YAML."""
    low, high, multiple = field.metadata["low"] or 1, field.metadata["high"] or 2**16, field.metadata["multiple"]
    if isinstance(value, list | tuple):
        value = "x".join(map(str, value))
    match = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", str(value))
    size = Size(*map(int, match.groups())) if match else Size(0, 0)
    if not all(low <= side <= high and side % multiple == 0 for side in size):
        kind = f", multiples of {multiple}" if multiple > 1 else ""
        raise InputError(
            f"{_flag(field)} is {reprlib.repr(value)}; expected HxW{kind} from {low} to {high}, as 720x1280"
        )
    return size


def with_weights(cls: type) -> type:
    """``cls`` with the options that name weight files, one for each network of the registry: ``--bsn_path`` ..."""
    fields = [
        (flag, Path | None, option(None, f"{about}, or a run's folder", group="weights and hardware", recipe=False))
        for flag, about in weight_options().items()
    ]
    space = {"__module__": cls.__module__, "__doc__": cls.__doc__}
    return dataclasses.make_dataclass(cls.__name__, fields, bases=(cls,), namespace=space, frozen=True)


def weights_of(cfg) -> dict[str, str]:
    """The weight files that a configuration names, by flag, for :class:`codes.engine.weights.Weights`.

    Raises:
        MissingFileError, InputError: as in :func:`weight_file`.
    """
    given = {flag: getattr(cfg, flag) for flag in weight_options()}
    return {flag.removesuffix("_path"): str(weight_file(flag, path)) for flag, path in given.items() if path}


def weight_file(flag: str, path: Path) -> Path:
    """The weight file that an option names: the file itself, or the last of a finished run's folder.

    Raises:
        MissingFileError: there is none.
        InputError: the folder holds several.
    """
    if path.is_file():
        return path
    found = sorted(path.glob("ckpts/*_last.pth"))
    if not found:
        raise MissingFileError(
            f"no checkpoint at {path} (--{flag}); expected a weight file, or the folder of a finished run, which holds "
            "ckpts/NAME_last.pth"
        )
    if len(found) > 1:
        raise InputError(f"--{flag} {path} holds {' and '.join(file.name for file in found)}; name one")
    return found[0]


def as_dict(cfg) -> dict:
    """The configuration as plain values that YAML and checkpoints can hold."""
    return {field.name: _plain(getattr(cfg, field.name)) for field in dataclasses.fields(cfg)}


def _plain(value):
    if isinstance(value, Path | Size):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def recipe(cfg) -> dict:
    """The part of a configuration that shapes the trained weights."""
    values = as_dict(cfg)
    kept = {field.name: field.metadata["recipe"] for field in dataclasses.fields(cfg)}
    return {key: bool(value) if kept[key] is bool else value for key, value in values.items() if kept[key]}
