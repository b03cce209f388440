"""Configuration: one frozen dataclass per stage, filled as default < YAML file (``--config``) < flag.

A field's default is the paper's recipe, its type says how text is converted (PyYAML reads ``1e-4`` as text), and its
metadata hold the help and the allowed range. An unknown key or flag fails and names the nearest valid one.
"""

import argparse
import dataclasses
import math
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from codes.engine.command import Parser, nearest
from codes.errors import InputError


def option(default, help: str, *, low=None, high=None, recipe: bool | type[bool] = True):
    """A configuration field.

    Args:
        default: its default.
        help: one line for ``--help``.
        low, high: allowed range of a number.
        recipe: whether the value shapes the trained weights; a run may be continued with other values where not.
            ``bool`` where it only matters whether there is a value, as with a folder that turns something on.
    """
    return dataclasses.field(default=default, metadata={"help": help, "low": low, "high": high, "recipe": recipe})


@dataclass(frozen=True)
class EvalConfig:
    """What training and every evaluation share."""

    base_folder: str = option("GOPRO/", "data set: the folder that holds train/ and test/", recipe=False)
    data_type: Literal["GOPRO", "real"] = option("GOPRO", "layout of the data set; 'real' has no sharp images (RSB)")
    use_small: bool = option(False, "keep every 10th sample")
    vth: float = option(
        0.0, "*firing threshold of the spikes, in the paper's unit (2: spike_data_vth2; 0: spike_data)", low=0
    )
    metrics: tuple[Literal["ssim", "psnr", "mse", "lpips"], ...] = option(
        ("ssim", "psnr"), "*metrics of an evaluation; lpips fetches AlexNet", recipe=False
    )
    metric_convention: Literal["official", "standard"] = option(
        "official",
        "*official: images on [-1, 1] (MSE is 4 times the standard one; PSNR's rare range slip); standard: [0, 1]",
        recipe=False,
    )
    cache: str = option(
        "",
        "*folder that keeps decoded images, for fast loading: 2.8 MB each at 720x1280; made on first use, '' is none",
        recipe=False,
    )
    eval_images: int = option(4, "*samples of an evaluation that are saved as pictures", low=0, recipe=False)
    device: str = option(
        "auto", "*auto, cpu, cuda, cuda:N or mps; with torchrun, auto and cuda give each rank its GPU", recipe=False
    )
    precision: Literal["fp32", "bf16", "fp16"] = option("fp32", "*autocast precision")
    deterministic: bool = option(
        False,
        "*only operations with the same result each time, on a GPU, where PyTorch has them; a CPU needs none",
        recipe=False,
    )
    workers: int = option(
        -1, "*loader processes (-1: one per core, at most 4); the result does not depend on it", low=-1, recipe=False
    )


@dataclass(frozen=True)
class Config(EvalConfig):
    """What the three stages of training share."""

    save_folder: str = option("exp", "where run folders are made", recipe=False)
    exp_name: str = option("test", "name of the run; its folder is save_folder/exp_name", recipe=False)
    test_mode: bool = option(False, "evaluate checkpoints instead of training", recipe=False)
    epochs: int = option(101, "passes over the training split", low=1, recipe=False)
    lr: float = option(1e-3, "learning rate of Adam", low=0)
    seed: int = option(42, "seed of weights, order and crops", low=0, high=2**63 - 1)
    bs: int = option(4, "batch size; with torchrun, of each rank", low=1)
    roi_size: int = option(512, "side of the training crop in image pixels, a multiple of 4", low=16)
    train_split: Literal["train", "test"] = option("train", "*split to train on")
    lr_schedule: Literal["official", "cosine", "onecycle", "constant"] = option(
        "official", "*learning rate over time; cosine and onecycle end at 0 with the last step"
    )
    grad_clip: float = option(0.0, "*largest gradient norm (0: no limit)", low=0)
    ema: float = option(
        0.0,
        "*decay of an average of the weights, which is evaluated and saved in their place (0: none; 0.999)",
        low=0,
        high=0.999999,
    )
    clip_output: bool = option(True, "*clip outputs to [0, 1] before the loss, as officially; off, no start is dead")
    max_steps: int = option(
        0,
        "*train for this many optimiser steps, however many epochs that is (0: --epochs decides)",
        low=0,
        recipe=False,
    )
    eval_every: int = option(5, "*epochs between evaluations in training (0: only at the end)", low=0, recipe=False)
    eval_samples: int = option(8, "*test samples of an evaluation in training (0: all)", low=0, recipe=False)
    save_every: int = option(5, "*epochs between saved weights", low=1, recipe=False)
    state_every: float = option(
        300.0, "*seconds between saved training states, from which a killed run goes on", low=0, recipe=False
    )
    log_every: int = option(10, "*steps between lines in metrics.jsonl and TensorBoard", low=1, recipe=False)
    compile: bool = option(
        False, "*torch.compile the network that is trained; where that fails, go on without", recipe=False
    )
    on_nan: Literal["stop", "skip"] = option(
        "stop",
        "*what a loss or gradient that is not finite does: stop the run, or drop the step and count it",
        recipe=False,
    )
    skip_bad_samples: bool = option(
        False,
        "*go on without samples that cannot be read, and count them; off, the first one stops the run",
        recipe=False,
    )
    overwrite: bool = option(False, "*start anew; the earlier run folder is kept under another name", recipe=False)


def parse_config(cls: type, argv: list[str] | None = None, description: str | None = None):
    """Build a configuration of type ``cls`` from the command line; a mistake ends the program in one line."""
    parser = Parser(
        usage="%(prog)s [options]", description=description, epilog="Options with * are not in the official program."
    )
    parser.add_argument(
        "--config", metavar="FILE.yml", default=argparse.SUPPRESS, help="YAML file of options; flags win over it"
    )
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind, flag = hints[field.name], "--" + field.name
        options = {"help": field.metadata["help"], "default": field.default}
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
        elif typing.get_origin(kind) is tuple:
            parser.add_argument(flag, nargs="+", metavar="{" + ",".join(_choices(kind)) + "}", **options)
        else:
            choices = _choices(kind)
            noun = {int: "N", float: "X", str: "TEXT"}.get(kind)
            parser.add_argument(flag, metavar="{" + ",".join(choices) + "}" if choices else noun, **options)
    given = vars(parser.parse_args(argv, argparse.Namespace(**{f.name: None for f in dataclasses.fields(cls)})))
    values = {}
    try:
        if path := given.pop("config", None):
            values.update(read_yaml(path, [field.name for field in dataclasses.fields(cls)]))
        values.update({key: value for key, value in given.items() if value is not None})
        return cls(**{key: convert(cls, key, value) for key, value in values.items()})
    except (InputError, OSError) as error:
        parser.error(error)


def read_yaml(path, known: list[str]) -> dict:
    """Options from a YAML file; every key must be known."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # such as bytes that are no text, or a deep nest
        raise InputError(f"{path} is not valid YAML ({str(error).splitlines()[0]})") from None
    if values is None:  # empty, or all of it commented out
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no options; expected lines like 'lr: 1e-4'")
    for key in values:
        if key not in known:
            raise InputError(f"{path}: unknown key '{key}'{nearest(str(key), known)}")
    return values


def convert(cls: type, name: str, value):
    """Bring a value from YAML or the command line to the type and range of the field ``name``."""
    field = next(field for field in dataclasses.fields(cls) if field.name == name)
    kind = typing.get_type_hints(cls)[name]
    choices = _choices(kind)
    if typing.get_origin(kind) is tuple:
        items = value.split() if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else [value]
        for item in items:
            _check_choice(name, item, choices)
        if len(set(items)) < len(items):
            raise InputError(f"--{name} names one twice: {' '.join(items)}")
        return tuple(items)
    if choices:
        _check_choice(name, value, choices)
        return value
    if kind is bool:
        if not isinstance(value, bool):
            raise InputError(f"--{name} is {value!r}; expected true or false")
        return value
    if kind is str:
        if isinstance(value, dict | list) or value is None:
            raise InputError(f"--{name} is {value!r}; expected a text")
        return str(value)
    try:
        if isinstance(value, bool):
            raise ValueError
        number = kind(value)
        if isinstance(value, float) and number != value or not math.isfinite(number):
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise InputError(f"--{name} is {value!r}; expected {'a whole number' if kind is int else 'a number'}") from None
    low, high = field.metadata["low"], field.metadata["high"]
    if low is not None and number < low or high is not None and number > high:
        bounds = f"at least {low}" if high is None else f"from {low} to {high}"
        raise InputError(f"--{name} is {value}; it must be {bounds}")
    return number


def _choices(kind) -> tuple[str, ...]:
    if typing.get_origin(kind) is tuple:
        kind = typing.get_args(kind)[0]
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()


def _check_choice(name: str, value, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"--{name} is {value!r}; expected one of {', '.join(choices)}")


def as_dict(cfg) -> dict:
    """The configuration as plain values that YAML and checkpoints can hold."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(cfg).items()}


def recipe(cfg) -> dict:
    """The part of a configuration that shapes the trained weights."""
    values = as_dict(cfg)
    kept = {field.name: field.metadata["recipe"] for field in dataclasses.fields(cfg)}
    return {key: bool(value) if kept[key] is bool else value for key, value in values.items() if kept[key]}
