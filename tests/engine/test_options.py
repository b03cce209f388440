import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import yaml

from codes.engine.options import Config, Size, as_dict, option, parse_config, recipe
from codes.errors import InputError
from tests.conftest import ROOT
from train_bsn import BSNConfig
from train_deblur import DeblurConfig
from train_sr import SRConfig


def even(text: str) -> int:
    if int(text) % 2:
        raise ValueError
    return int(text)


@dataclass(frozen=True)
class Small(Config):
    rate: float = option(0.5, "a rate, 100 % at most", low=0, high=1)
    kind: Literal["a", "b"] = option("a", "a kind", group="of my own")


@dataclass(frozen=True)
class Rich:
    sources: tuple[Path, ...] = option(..., "what to read", positional=True, metavar="FILE")
    size: Size = option("720x1280", "image size", low=16, high=8192, multiple=4)
    motion: tuple[float, float] = option((20.0, 80.0), "a range", low=0, metavar=("MIN", "MAX"))
    vth: tuple[float, ...] = option((1.0,), "thresholds", above=0)
    names: tuple[str, ...] | None = option(None, "names, or none of them")
    limit: int | None = option(None, "a limit", low=1)
    out: Path | None = option(None, "a folder")
    method: str = option("x", "known elsewhere", choices=("x", "y"))
    pair: int = option(0, "an even number", parse=even, metavar="EVEN")

    def __post_init__(self):
        if self.motion[0] > self.motion[1]:
            raise InputError("--motion is no range")


def refused(argv, capsys, cls=Small):
    with pytest.raises(SystemExit) as stop:
        parse_config(cls, argv)
    lines = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and len(lines) == 1
    return lines[0]


def test_default_then_yaml_then_flag(tmp_path):
    file = tmp_path / "c.yml"
    file.write_text("rate: 1e-1\nkind: b\nmetrics: [psnr]\nuse_small: true\n")
    cfg = parse_config(Small, ["--config", str(file), "--rate", "0.2", "--no-use_small"])
    assert (cfg.rate, cfg.kind, cfg.metrics, cfg.use_small, cfg.seed) == (0.2, "b", ("psnr",), False, 42)
    assert parse_config(Small, ["--config", str(file)]).rate == 0.1  # PyYAML reads 1e-1 as text


def test_each_type_from_flags_and_from_yaml(tmp_path):
    cfg = parse_config(Rich, ["a"])
    assert (cfg.sources, cfg.size, cfg.motion, cfg.vth) == ((Path("a"),), (720, 1280), (20.0, 80.0), (1.0,))
    assert (cfg.names, cfg.limit, cfg.out, cfg.method, cfg.pair) == (None, None, None, "x", 0)
    words = "--size 16x8192 a --motion 1 2.5 b --vth 1 2 --vth 4 --names --limit 3 --out o --method y --pair 4"
    cfg = parse_config(Rich, words.split())
    assert (cfg.sources, cfg.size, cfg.motion) == ((Path("a"), Path("b")), (16, 8192), (1.0, 2.5))
    assert (cfg.vth, cfg.names, cfg.limit, cfg.out) == ((1.0, 2.0, 4.0), (), 3, Path("o"))
    assert (cfg.method, cfg.pair) == ("y", 4)
    (tmp_path / "c.yml").write_text(
        yaml.safe_dump({key: value for key, value in as_dict(cfg).items() if key != "pair"})
    )
    assert parse_config(Rich, ["--config", str(tmp_path / "c.yml"), "--pair", "4"]) == cfg
    (tmp_path / "c.yml").write_text("sources: a b.png\nsize: [32, 64]\nvth: 2\nnames:\nout: ''\n")
    cfg = parse_config(Rich, ["--config", str(tmp_path / "c.yml")])
    assert (cfg.sources, cfg.size, cfg.vth, cfg.names, cfg.out) == ((Path("a b.png"),), (32, 64), (2.0,), None, None)


def test_paths_are_expanded_from_flags_and_from_yaml(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "c.yml").write_text("sources: ['~/a', '${HOME}/b', 'c~']\nsave_folder: ~/x\n".splitlines()[0])
    cfg = parse_config(Rich, ["--config", "~/c.yml", "--out", "$HOME/o"])
    assert cfg.sources == (tmp_path / "a", tmp_path / "b", Path("c~")) and cfg.out == tmp_path / "o"
    assert parse_config(Small, ["--base_folder", "~/GOPRO"]).base_folder == tmp_path / "GOPRO"


def test_empty_files_and_those_of_other_editors(tmp_path):
    for text in ("", "\n", "# rate: 1e-1\n", "{}"):
        (tmp_path / "c.yml").write_text(text)
        assert parse_config(Small, ["--config", str(tmp_path / "c.yml")]) == parse_config(Small, [])
    (tmp_path / "c.yml").write_bytes(b"\xef\xbb\xbfrate: 0.25\r\nkind: b\r\n")  # byte order mark, Windows line ends
    cfg = parse_config(Small, ["--config", str(tmp_path / "c.yml")])
    assert (cfg.rate, cfg.kind) == (0.25, "b")


def test_what_is_saved_can_be_read_back(tmp_path):
    cfg = parse_config(Small, ["--rate", "0.25", "--metrics", "psnr", "mse"])
    (tmp_path / "c.yml").write_text(yaml.safe_dump(as_dict(cfg)))
    assert parse_config(Small, ["--config", str(tmp_path / "c.yml")]) == cfg


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--rat", "1"], "unknown flag --rat (did you mean --rate?)"),
        (["--no_use_small"], "unknown flag --no_use_small (did you mean --no-use_small?)"),
        (["stray"], "unexpected word 'stray'"),
        (["--rate"], "expected one argument"),
        (["--rate", "2"], "--rate is 2; it must be from 0 to 1"),
        (["--rate", "fast"], "--rate is 'fast'; expected a number"),
        (["--rate", "nan"], "expected a number"),
        (["--epochs", "1.5"], "--epochs is '1.5'; expected a whole number"),
        (["--epochs", "0"], "--epochs is 0; it must be at least 1"),
        (["--kind", "c"], "--kind is 'c'; expected one of a, b"),
        (["--metrics", "vmaf"], "--metrics is 'vmaf'"),
        (["--metrics", "psnr", "psnr"], "--metrics names one twice: psnr psnr"),
        (["--config", "none.yml"], "none.yml"),
        (["--save_folder", ""], "--save_folder is ''; expected a path"),
        (["--save_folder", "s3://a/b"], "expected a path here: URLs are not read"),
        (["--rate", "-x"], "one that begins with - is given as --FLAG=VALUE"),
    ],
)
def test_bad_flags(argv, says, capsys):
    assert says in refused(argv, capsys)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "give FILE: what to read (see --help)"),
        (["a", "--size", "18x32"], "--size is '18x32'; expected HxW, multiples of 4 from 16 to 8192"),
        (["a", "--size", "32"], "--size is '32'; expected HxW"),
        (["a", "--motion", "1"], "expected 2 arguments"),
        (["a", "--motion", "3", "2"], "--motion is no range"),
        (["a", "--vth", "0"], "--vth is 0; it must be above 0"),
        (["a", "--vth", "1", "1.0"], "--vth names one twice"),
        (["a", "--method", "z"], "--method is 'z'; expected one of x, y"),
        (["a", "--pair", "3"], "--pair is '3'; expected EVEN"),
        (["a", "--foo", "b"], "unknown flag --foo"),
    ],
)
def test_bad_flags_of_every_type(argv, says, capsys):
    assert says in refused(argv, capsys, Rich)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lr", "holds no options"),
        ("- 1", "holds no options"),
        ("lr: 1\na: [", "c.yml:2:5 is not valid YAML"),
        ("lr: 1\n\tbs: 2", "c.yml:2:1 is not valid YAML"),
        ("lr: 1\nbs: \x07", "c.yml:2:5 is not valid YAML"),
        ('base_folder: "C:\\Users\\me"', "write / or single quotes"),
        ("lr: 1\nrte: 1", "c.yml:2:1: unknown key 'rte' (did you mean rate?)"),
        ("bs: 2\nlr: 1\nbs: 2", "c.yml:3:1: 'bs' is given twice, first in line 1"),
        ("epochs: true", "c.yml:1:1: --epochs is True; expected a whole number"),
        ("epochs: 3.5", "expected a whole number"),
        ("lr: 2001-02-30", "c.yml:1:1: day is out of range"),
        ("use_small: 3", "expected true or false"),
        ("use_small: 'yes'", "expected true or false"),
        ("bs: yes", "--bs is True; expected a whole number"),
        ("lr:", "--lr is None; expected a number"),
        ("lr: [1e-4]", "expected a number"),
        ("lr: {a: 1}", "expected a number"),
        ("lr: .inf", "expected a number"),
        ("grad_clip: -1", "--grad_clip is -1; it must be at least 0"),
        ("metrics: [psnr, psnr]", "--metrics names one twice"),
        ("metrics: [[psnr]]", "--metrics is ['psnr']"),
        ("exp_name: [a]", "expected a text"),
        ("kind: [a]", "--kind is ['a']"),
        ("[a]: 1", "unknown key ['a']"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_bad_yaml(text, says, tmp_path, capsys):
    (tmp_path / "c.yml").write_text(text)
    assert says in refused(["--config", str(tmp_path / "c.yml")], capsys)


def test_yaml_in_another_encoding(tmp_path, capsys):
    (tmp_path / "c.yml").write_bytes("lr: 1".encode("utf-16"))
    assert "is no text in UTF-8" in refused(["--config", str(tmp_path / "c.yml")], capsys)


LIGHT = [
    *("train_bsn", "train_sr", "train_deblur", "scripts/train_student", "scripts/deblur", "scripts/make_demo_data"),
    *("scripts/resimulate", "scripts/prepare_gopro", "scripts/blur_syn", "scripts/spike_simulate"),
    *("scripts/sharp_extract", "scripts/fetch_photos", "scripts/check_dataset", "scripts/cache_dataset"),
    *("scripts/plot_runs", "scripts/dev/interp_quality", "scripts/dev/prepare_speed"),
]
"""Scripts whose help must not wait for what is heavy."""


@pytest.mark.parametrize("script", LIGHT)
def test_help_imports_nothing_heavy(script):
    """It would take seconds; asked by the interpreter, not by a clock."""
    words = [sys.executable, "-X", "importtime", ROOT / f"{script}.py", "--help"]
    result = subprocess.run(words, capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "80"})
    assert result.returncode == 0 and "--config FILE.yml" in result.stdout
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in result.stderr.splitlines() if "|" in line}
    assert "argparse" in loaded
    assert not loaded & {"torch", "numpy", "cv2", "av", "yaml", "tqdm", "matplotlib", "PIL", "scipy"}


OFFICIAL = {
    BSNConfig: {
        "save_folder": "exp/BSN", "epochs": 1001, "lr": 3e-4, "bsn_len": 9, "bsn_path": "model/BSN_1000.pth",
        "spike_full": False, "train_split": "train", "width": 0, "height": 0,
    },
    SRConfig: {
        "save_folder": "exp/SR", "epochs": 101, "lr": 2e-4, "bsn_len": 9, "sr_path": "model/SR_70.pth",
    },
    DeblurConfig: {
        "save_folder": "exp/Deblur", "epochs": 101, "lr": 1e-3, "spike_deblur_len": 21, "spike_bsn_len": 9,
        "lambda_tea": 1, "lambda_reblur": 100, "blur_step": 24, "use_ssim": False, "train_split": "test",
        "tea_loss": "lpips", "teacher": "cascade", "deblur_path": "model/DeblurNet_100.pth",
    },
}  # fmt: skip


@pytest.mark.parametrize("cls", OFFICIAL)
def test_defaults_are_the_official_recipe(cls):
    common = {
        "base_folder": "GOPRO", "data_type": "GOPRO", "exp_name": "test", "seed": 42, "use_small": False,
        "test_mode": False,
        "bs": 4, "roi_size": 512, "clip_output": True, "lr_schedule": "official", "grad_clip": 0, "precision": "fp32",
    }  # fmt: skip
    values = as_dict(parse_config(cls, []))
    assert {key: values[key] for key in common | OFFICIAL[cls]} == common | OFFICIAL[cls]


def test_recipe_leaves_out_what_does_not_shape_the_weights():
    keys = recipe(parse_config(DeblurConfig, []))
    assert {"lr", "seed", "lambda_tea", "roi_size"} <= keys.keys()
    assert not {"device", "workers", "max_steps", "exp_name", "eval_every", "cache"} & keys.keys()


def test_of_some_options_the_recipe_keeps_only_whether_they_are_given():
    values = [recipe(parse_config(DeblurConfig, argv)) for argv in ([], ["--teacher_cache", "a"])]
    assert [value["teacher_cache"] for value in values] == [False, True]
    assert recipe(parse_config(DeblurConfig, ["--teacher_cache", "b"])) == values[1]


@pytest.mark.parametrize("cls", OFFICIAL)
def test_help_names_every_flag_under_its_heading(cls, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_config(cls, ["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(f"--{key}" in text for key in as_dict(parse_config(cls, [])))
    headings = [text.index(f"\n{name}:\n") for name in ("official options", "of the run", "beyond the paper")]
    assert headings == sorted(headings)
    assert headings[0] < text.index("  --base_folder") < headings[1] < text.index("  --workers") < headings[2]


def test_help_shows_defaults(capsys):
    with pytest.raises(SystemExit):
        parse_config(Rich, ["--help"], description="About.")
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "[options] [FILE]",
        "About.",
        "HxW image size (default: 720x1280)",
        "--motion MIN MAX a range (default: 20.0 80.0)",
        "an even number (default: 0)",
        "{x,y} known elsewhere (default: x)",
    ):
        assert part in text
