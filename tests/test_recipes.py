"""The train recipes: what they are asked to be, that they learn, and that they go on where they stopped."""

import ast
import dataclasses
import importlib

import numpy as np
import pytest
import torch

from codes.engine.options import parse_config
from codes.model.bsn_model import BSN
from codes.model.edsr_model import EDSR
from codes.model.ldn_model import Deblur_Net
from tests.conftest import ROOT, STAGES, call, options, records, refused, same, weights

pytestmark = pytest.mark.slow

ALL = "base_folder save_folder data_type exp_name epochs lr seed use_small test_mode "
OFFICIAL = {
    "train_bsn.py": ALL + "bsn_len width height spike_full bsn_path",
    "train_sr.py": ALL + "bsn_path sr_path bsn_len",
    "train_deblur.py": ALL + "bsn_path sr_path deblur_path spike_deblur_len spike_bsn_len lambda_tea lambda_reblur "
    "blur_step use_ssim bs roi_size",
}
LINES = {"train_bsn.py": 130, "train_sr.py": 130, "train_deblur.py": 150}


def config(script):
    module = importlib.import_module(script.removesuffix(".py"))
    return next(value for name, value in vars(module).items() if name.endswith("Config") and name != "Config")


@pytest.mark.parametrize("script", STAGES)
def test_a_recipe_can_be_read(script):
    """As long as asked, with few options in three groups; all official ones are there, in the group of that name."""
    text = (ROOT / script).read_text()
    assert len(text.splitlines()) <= LINES[script]
    fields = {field.name: field.metadata["group"] for field in dataclasses.fields(config(script))}
    assert len(fields) <= 45 and set(fields.values()) <= {"official", "run", "beyond"}
    assert all(fields[name] == "official" for name in OFFICIAL[script].split())


def test_the_loop_of_the_student_asks_for_no_kind():
    tree = ast.parse((ROOT / "train_deblur.py").read_text())
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.For)]
    outer = max(loops, key=lambda node: node.end_lineno - node.lineno)
    assert outer.end_lineno - outer.lineno + 1 <= 15
    asked = {ast.unparse(node.test) for node in ast.walk(outer) if isinstance(node, ast.If | ast.IfExp)}
    assert asked <= {"cfg.clip_output"}


@pytest.mark.parametrize("script", STAGES)
def test_learning(script, tiny, tmp_path):
    """Overfits a tiny data set: the loss falls far below its start, so gradients, optimiser and data fit together."""
    steps = {"train_bsn.py": 150, "train_sr.py": 60, "train_deblur.py": 60}[script]
    more = ["--max_steps", steps, "--eval_every", 0, "--log_every", 5, "--lr", 1e-3, "--no-clip_output"]
    call(script, *options(script, tiny, tmp_path, *more))
    losses = [record["loss"] for record in records(tmp_path, "train")]
    assert np.mean(losses[-3:]) < 0.35 * losses[0]


@pytest.mark.parametrize("script", STAGES)
def test_interrupted_equals_uninterrupted(script, tiny, tmp_path):
    """By the official schedule; BSN makes 5 steps of a batch, and goes on after a whole one."""
    cut, whole = {"train_bsn.py": (5, 12), "train_sr.py": (1, 4), "train_deblur.py": (1, 4)}[script]
    more = ["--eval_every", 0, "--eval_images", 0, "--log_every", 1, "--max_steps"]
    out, _ = call(script, *options(script, tiny, tmp_path / "whole", *more, whole))
    assert f"finished at step {whole}" in out
    for steps in (cut, whole):
        call(script, *options(script, tiny, tmp_path / "cut", *more, steps))
    assert same(weights(tmp_path / "whole", script), weights(tmp_path / "cut", script))
    assert [r["loss"] for r in records(tmp_path / "whole", "train")] == [
        r["loss"] for r in records(tmp_path / "cut", "train")
    ]


@pytest.mark.parametrize("script", STAGES)
def test_fine_tuning_starts_from_the_given_weights(script, tiny, tmp_path, checkpoints):
    name, network = {"train_bsn.py": ("BSN_1000", BSN), "train_sr.py": ("SR_70", EDSR)}.get(
        script, ("DeblurNet_100", Deblur_Net)
    )
    argv = ["--init_path", checkpoints / f"{name}.pth", "--lr", 0, "--max_steps", 1, "--eval_every", 0]
    call(script, *options(script, tiny, tmp_path, *argv))
    given = torch.load(checkpoints / f"{name}.pth", weights_only=True)
    assert same(given, weights(tmp_path, script)) and given.keys() == network().state_dict().keys()


REFUSED = {
    "train_bsn.py --bsn_len 8": "a window around an instant has an odd number of frames: give 7 or 9",
    "train_sr.py --bsn_len 10": "--bsn_len is 10; a window",
    "train_deblur.py --spike_deblur_len 20": "--spike_deblur_len is 20; a window",
    "train_deblur.py --spike_bsn_len 4": "--spike_bsn_len is 4; a window",
    "train_deblur.py --teacher sdm --spike_bsn_len 5": "--spike_bsn_len has no effect with --teacher sdm",
    "train_deblur.py --teacher sdm --sr_path a.pth": "--sr_path has no effect with --teacher sdm",
    "train_deblur.py --use_ssim --tea_loss ssim+l1": "--use_ssim has no effect with --tea_loss ssim+l1",
    "train_deblur.py --init_path a.pth --spike_deblur_len 9": "--spike_deblur_len has no effect with --init_path",
    "scripts/train_student.py --epochs 3": "--epochs has no effect beside --max_steps",
    "scripts/train_student.py --student san --student_spikes frames": "no effect with --student san",
    "scripts/train_student.py --student sdmnet --no-spike_gain": "no effect with --student sdmnet",
    "scripts/train_student.py --student sdmnet_light --no-spike_gain": "no effect with --student sdmnet_light",
    "scripts/train_student.py --instants 8": "--instants is 8; it must be from 1 to 7",
    "scripts/train_student.py --student_spikes pyramids": "expected one of frames, pyramid",
    "scripts/train_student.py --student edsr": "expected one of ldn, sdmnet, sdmnet_light, san",
    "scripts/train_student.py --test_mode": "--test_mode needs --student_path",
    "scripts/train_student.py --init_path nothing.pth": "no checkpoint at nothing.pth",
    "scripts/baselines/train_stir.py --roi_size 72": "multiples of 64",
    "scripts/baselines/train_stir.py --data_type real": "no sharp images",
    "scripts/baselines/train_stir.py --test_mode --stir_path none.pth": "no checkpoint at none.pth; train it",
    "scripts/baselines/train_spkdeblurnet.py --roi_size 64": "at least 68",
    "scripts/baselines/train_spkdeblurnet.py --tfi_gain 0": "must be at least",
    "scripts/baselines/train_spkdeblurnet.py --no-clip_output": "--clip_output has no effect",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_has_no_effect_or_cannot_be_is_refused(words, tiny, tmp_path):
    script, *argv = words.split()
    error = refused(script, "--base_folder", tiny, "--save_folder", tmp_path / "exp", "--device", "cpu", *argv)
    assert REFUSED[words] in error and not (tmp_path / "exp").exists()


def test_what_only_an_evaluation_needs_does_not_block_a_resume(tiny, tmp_path):
    argv = ["--eval_every", 0, "--max_steps"]
    call("train_sr.py", *options("train_sr.py", tiny, tmp_path, *argv, 1))
    out, _ = call("train_sr.py", *options("train_sr.py", tiny, tmp_path, *argv, 2, "--bsn_len", 7))
    assert "step 1 of 2" in out


def test_bf16_losses_are_those_of_fp32(tiny, tmp_path):
    """Networks run in bf16; the losses, which take small differences of large numbers, do not."""
    first = {}
    for precision in ("fp32", "bf16"):
        more = ["--max_steps", 1, "--eval_every", 0, "--log_every", 1, "--tea_loss", "ssim", "--precision", precision]
        call("train_deblur.py", *options("train_deblur.py", tiny, tmp_path / precision, *more))
        first[precision] = records(tmp_path / precision, "train")[0]
    for key in ("loss", "tea", "reblur"):
        assert first["bf16"][key] == pytest.approx(first["fp32"][key], rel=0.02)


def test_a_dead_start_is_noticed_and_avoided(tiny, tmp_path):
    """Seed 5: every output of the untrained BSN is negative, and the official clip lets no gradient through."""
    argv = ["--seed", 5, "--max_steps", 5, "--eval_every", 0]
    out, _ = call("train_bsn.py", *options("train_bsn.py", tiny, tmp_path / "dead", *argv))
    assert "WARNING: the gradient is exactly 0" in out and "--no-clip_output" in out
    torch.manual_seed(5)
    start = BSN().state_dict()
    dead = weights(tmp_path / "dead", "train_bsn.py")
    assert all(torch.equal(dead[key], value) for key, value in start.items())
    out, _ = call("train_bsn.py", *options("train_bsn.py", tiny, tmp_path / "alive", *argv, "--no-clip_output"))
    alive = weights(tmp_path / "alive", "train_bsn.py")
    assert "WARNING" not in out and all(not torch.equal(alive[key], value) for key, value in start.items())


def test_defaults_come_through(capsys):
    cfg = parse_config(config("train_deblur.py"), [])
    assert (cfg.lambda_reblur, cfg.train_split, cfg.tea_loss, cfg.teacher) == (100, "test", "lpips", "cascade")


def test_what_joins_the_parts_of_a_run_is_short():
    assert len((ROOT / "codes/engine/run.py").read_text().splitlines()) <= 180
