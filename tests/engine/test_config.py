from dataclasses import dataclass
from typing import Literal

import pytest
import yaml

from codes.engine.options import Config, as_dict, option, parse_config, recipe
from train_bsn import BSNConfig
from train_deblur import DeblurConfig
from train_sr import SRConfig


@dataclass(frozen=True)
class Small(Config):
    rate: float = option(0.5, "a rate", low=0, high=1)
    kind: Literal["a", "b"] = option("a", "a kind")


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


def test_an_empty_file_has_no_options(tmp_path):
    (tmp_path / "c.yml").write_text("# rate: 1e-1\n")
    assert parse_config(Small, ["--config", str(tmp_path / "c.yml")]) == Small()


def test_what_is_saved_can_be_read_back(tmp_path):
    cfg = parse_config(Small, ["--rate", "0.25", "--metrics", "psnr", "mse"])
    (tmp_path / "c.yml").write_text(yaml.safe_dump(as_dict(cfg)))
    assert parse_config(Small, ["--config", str(tmp_path / "c.yml")]) == cfg


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--rat", "1"], "unknown flag --rat (did you mean --rate?)"),
        (["--lambda_reblurr=3"], "unknown flag --lambda_reblurr"),
        (["stray"], "unexpected word 'stray'"),
        (["--rate"], "expected one argument"),
        (["--rate", "2"], "--rate is 2; it must be from 0 to 1"),
        (["--rate", "fast"], "--rate is 'fast'; expected a number"),
        (["--rate", "nan"], "expected a number"),
        (["--epochs", "1.5"], "--epochs is '1.5'; expected a whole number"),
        (["--epochs", "0"], "--epochs is 0; it must be at least 1"),
        (["--kind", "c"], "--kind is 'c'; expected one of a, b"),
        (["--metrics", "vmaf"], "--metrics is 'vmaf'"),
        (["--config", "none.yml"], "none.yml"),
    ],
)
def test_bad_flags(argv, says, capsys):
    assert says in refused(argv, capsys)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lr", "holds no options"),
        ("- 1", "holds no options"),
        ("a: [", "not valid YAML"),
        ("rte: 1", "unknown key 'rte' (did you mean rate?)"),
        ("epochs: true", "--epochs is True; expected a whole number"),
        ("epochs: 3.5", "expected a whole number"),
        ("use_small: 3", "expected true or false"),
        ("exp_name: [a]", "expected a text"),
        ("kind: [a]", "--kind is ['a']"),
    ],
)
def test_bad_yaml(text, says, tmp_path, capsys):
    (tmp_path / "c.yml").write_text(text)
    assert says in refused(["--config", str(tmp_path / "c.yml")], capsys)


OFFICIAL = {
    BSNConfig: {
        "save_folder": "exp/BSN", "epochs": 1001, "lr": 3e-4, "bsn_len": 9, "bsn_path": "model/BSN_1000.pth",
        "spike_full": False, "save_every": 100, "train_split": "train", "width": 0, "height": 0,
    },
    SRConfig: {
        "save_folder": "exp/SR", "epochs": 101, "lr": 2e-4, "bsn_len": 9, "sr_path": "model/SR_70.pth", "save_every": 5,
    },
    DeblurConfig: {
        "save_folder": "exp/Deblur", "epochs": 101, "lr": 1e-3, "spike_deblur_len": 21, "spike_bsn_len": 9,
        "lambda_tea": 1, "lambda_reblur": 100, "blur_step": 24, "use_ssim": False, "train_split": "test",
        "tea_loss": "lpips", "teacher": "cascade", "deblur_path": "model/DeblurNet_100.pth", "save_every": 5,
    },
}  # fmt: skip


@pytest.mark.parametrize("cls", OFFICIAL)
def test_defaults_are_the_official_recipe(cls):
    common = {
        "base_folder": "GOPRO/", "data_type": "GOPRO", "exp_name": "test", "seed": 42, "use_small": False,
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
def test_help_names_every_flag(cls, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_config(cls, ["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(f"--{key}" in text for key in as_dict(cls()))
