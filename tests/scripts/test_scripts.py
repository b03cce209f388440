"""The command lines, as a user types them: training, resuming, test mode, comparison, benchmark."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from codes.engine.checkpoint import save
from codes.model.bsn_model import BSN
from codes.model.edsr_model import EDSR
from codes.model.ldn_model import Deblur_Net
from tests.conftest import ROOT, STAGES, call, filled, options, refused


def weights(folder, script):
    return torch.load(folder / "test" / "ckpts" / f"{STAGES[script]}_last.pth", weights_only=True)


def records(folder):
    return [json.loads(line) for line in (folder / "test" / "metrics.jsonl").read_text().splitlines()]


def out_row(script):
    return {"train_bsn.py": "BSN", "train_sr.py": "Blur_SR", "train_deblur.py": "Deblur_Net"}[script]


@pytest.mark.parametrize("script", STAGES)
def test_training_writes_the_run_folder(script, tiny, tmp_path):
    argv = options(script, tiny, tmp_path, "--epochs", 3, "--save_every", 2, "--eval_every", 2, "--log_every", 1)
    out, _ = call(script, *argv)
    run, name = tmp_path / "test", STAGES[script]
    assert {"ckpts", "imgs", "tensorboard", "opt.txt", "config.yml", "results.txt", "metrics.jsonl"} == {
        path.name for path in run.iterdir()
    }
    assert {p.name for p in (run / "ckpts").iterdir()} == {
        f"{name}_0.pth",
        f"{name}_2.pth",
        f"{name}_last.pth",
        "state.pth",
    }
    per_epoch = {"train_bsn.py": 10, "train_sr.py": 2, "train_deblur.py": 1}[
        script
    ]  # 3 training, 2 test samples, in twos
    steps = [record["step"] for record in records(tmp_path) if record["kind"] == "train"]
    assert steps == list(range(1, 3 * per_epoch + 1))
    assert {record["epoch"] for record in records(tmp_path) if record["kind"] == "eval"} == {0, 2}
    assert "parameters to train, fp32 on cpu" in out and "samples, split" in out and str(run) in out
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == steps
    assert {"train/lr", f"psnr/{out_row(script)}"} <= set(events.Tags()["scalars"]) and "sample/0" in events.Tags()[
        "images"
    ]
    picture = {"train_bsn.py": "tfp_bsn", "train_sr.py": "blur_sr", "train_deblur.py": "deblur"}[script]
    assert (run / "imgs" / f"002_0000_{picture}.png").is_file() and (run / "imgs" / "002_0001_panel.png").is_file()

    before = weights(tmp_path, script)
    out, _ = call(script, *argv)
    assert "this run is finished" in out
    assert all(torch.equal(value, before[key]) for key, value in weights(tmp_path, script).items())


@pytest.mark.parametrize("script", STAGES)
def test_learning(script, tiny, tmp_path):
    """Overfits a tiny data set: the loss falls far below its start, so gradients, optimiser and data fit together."""
    steps = {"train_bsn.py": 150, "train_sr.py": 60, "train_deblur.py": 60}[script]
    call(
        script,
        *options(
            script,
            tiny,
            tmp_path,
            "--max_steps",
            steps,
            "--eval_every",
            0,
            "--log_every",
            5,
            "--lr",
            1e-3,
            "--no-clip_output",
        ),
    )
    losses = [record["loss"] for record in records(tmp_path) if record["kind"] == "train"]
    assert np.mean(losses[-3:]) < 0.35 * losses[0]


@pytest.mark.parametrize("script", STAGES)
def test_kill_and_resume_equals_the_undisturbed_run(script, tiny, tmp_path):
    """kill -9 at some moment after the first saved state, then the same command: equal bit for bit."""
    steps = {"train_bsn.py": 60, "train_sr.py": 40, "train_deblur.py": 40}[script]
    more = [
        "--max_steps",
        steps,
        "--state_every",
        0,
        "--eval_every",
        7,
        "--save_every",
        100,
        "--log_every",
        1,
        "--workers",
        1,
    ]
    call(script, *options(script, tiny, tmp_path / "whole", *more))
    command = [sys.executable, ROOT / script, *options(script, tiny, tmp_path / "cut", *more)]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, start_new_session=True)
    log, limit = tmp_path / "cut" / "test" / "metrics.jsonl", time.monotonic() + 120
    while process.poll() is None and time.monotonic() < limit:
        if log.exists() and log.read_text().count('"train"') >= steps // 4:
            break
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cut" / "test" / "ckpts" / f"{STAGES[script]}_last.pth").exists(), (
        "the run was over before the kill"
    )
    out, _ = call(script, *options(script, tiny, tmp_path / "cut", *more))
    assert f"step 0 of {steps}" not in out
    whole, cut = (weights(tmp_path / name, script) for name in ("whole", "cut"))
    assert all(torch.equal(cut[key], value) for key, value in whole.items())

    def logged(name):
        return [{k: v for k, v in record.items() if k != "seconds"} for record in records(tmp_path / name)]

    assert logged("cut") == logged("whole")


def test_averaged_weights(tiny, tmp_path):
    """What --ema saves, from the weights of a run without it; also when the run was continued."""
    start = filled(Deblur_Net()).state_dict()
    save(start, tmp_path / "start.pth")
    argv = options("train_deblur.py", tiny, tmp_path, "--init_path", tmp_path / "start.pth", "--save_every", 1)
    argv += ["--lr_schedule", "constant", "--eval_every", 0, "--use_small", "--bs", 1, "--epochs"]  # one step an epoch
    call("train_deblur.py", *argv, 4, "--exp_name", "plain")
    call("train_deblur.py", *argv, 4, "--exp_name", "whole", "--ema", 0.2)
    call("train_deblur.py", *argv, 2, "--exp_name", "cut", "--ema", 0.2)
    call("train_deblur.py", *argv, 4, "--exp_name", "cut", "--ema", 0.2)

    def read(run, label):
        return torch.load(tmp_path / run / f"ckpts/DeblurNet_{label}.pth", weights_only=True)

    average = {key: value.double() for key, value in start.items()}
    for step, decay in enumerate((1 / 11, 2 / 12, 0.2, 0.2)):
        for key, value in read("plain", step).items():
            average[key] = decay * average[key] + (1 - decay) * value
        assert all(torch.allclose(read("whole", step)[key].double(), average[key], atol=1e-6) for key in average)
    assert any(not torch.equal(value, read("plain", 3)[key]) for key, value in read("whole", 3).items())
    assert all(torch.equal(value, read("cut", "last")[key]) for key, value in read("whole", "last").items())
    assert "--ema" in refused("train_deblur.py", *argv, 5, "--exp_name", "plain", "--ema", 0.5)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_being_stopped_leaves_a_usable_checkpoint(kind, tiny, tmp_path):
    """The signal goes to the whole group, loader processes included, as Ctrl-C in a terminal does."""
    more = ["--max_steps", 100000, "--eval_every", 0, "--save_every", 1000, "--log_every", 1, "--workers", 2]
    command = list(map(str, [sys.executable, ROOT / "train_sr.py", *options("train_sr.py", tiny, tmp_path, *more)]))
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    log, limit = tmp_path / "test" / "metrics.jsonl", time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") > 3) and time.monotonic() < limit:
        time.sleep(0.05)
    os.killpg(process.pid, kind)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on" in out and "Traceback" not in err
    assert err.count("stopping after this batch") == 1
    EDSR().load_state_dict(weights(tmp_path, "train_sr.py"))
    done = records(tmp_path)[-1]["step"]
    out, _ = call("train_sr.py", *options("train_sr.py", tiny, tmp_path, "--max_steps", done + 2, "--eval_every", 0))
    assert f"step {done} of {done + 2}" in out
    assert not (tmp_path / "test" / ".lock").exists()


def test_an_evaluation_that_failed_is_made_up_for(copy, tmp_path):
    """The last evaluation breaks on a bad picture; mended, the same command evaluates, and trains no further."""
    broken = sorted(copy.glob("test/sharp_data/*/000019.png"))[1]
    content = broken.read_bytes()
    broken.write_bytes(b"no image")
    argv = options("train_bsn.py", copy, tmp_path, "--max_steps", 7, "--eval_every", 0, "--log_every", 1)
    assert "no image that can be decoded" in refused("train_bsn.py", *argv)
    before = weights(tmp_path, "train_bsn.py")
    broken.write_bytes(content)
    call("train_bsn.py", *argv)
    logged = records(tmp_path)
    assert [r["step"] for r in logged if r["kind"] == "train"] == list(range(1, 8))  # 7 is no multiple of 5 instants
    assert [r["row"] for r in logged if r["kind"] == "eval"] == ROWS["train_bsn.py"]
    assert all(torch.equal(value, before[key]) for key, value in weights(tmp_path, "train_bsn.py").items())


def test_a_second_process_in_the_same_folder_is_refused(tiny, tmp_path):
    more = ["--max_steps", 100000, "--eval_every", 0, "--log_every", 1]
    command = list(map(str, [sys.executable, ROOT / "train_sr.py", *options("train_sr.py", tiny, tmp_path, *more)]))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        limit = time.monotonic() + 120
        while not (tmp_path / "test" / "metrics.jsonl").exists() and time.monotonic() < limit:
            time.sleep(0.05)
        err = refused("train_sr.py", *options("train_sr.py", tiny, tmp_path, *more))
        assert f"another process (number {process.pid}) is training in {tmp_path / 'test'}" in err
    finally:
        process.kill()
        process.wait()
    call(
        "train_sr.py", *options("train_sr.py", tiny, tmp_path, "--max_steps", 1, "--eval_every", 0)
    )  # a stale lock is none


def test_bf16_losses_are_those_of_fp32(tiny, tmp_path):
    """Networks run in bf16; the losses, which take small differences of large numbers, do not."""
    first = {}
    for precision in ("fp32", "bf16"):
        more = ["--max_steps", 1, "--eval_every", 0, "--tea_loss", "ssim", "--precision", precision]
        call("train_deblur.py", *options("train_deblur.py", tiny, tmp_path / precision, *more))
        first[precision] = records(tmp_path / precision)[0]
    for key in ("loss", "tea", "reblur"):
        assert first["bf16"][key] == pytest.approx(first["fp32"][key], rel=0.02)


def test_an_even_window_takes_one_frame_more(tiny, tmp_path):
    more = ["--max_steps", 1, "--eval_every", 0, "--spike_deblur_len", 20]
    call("train_deblur.py", *options("train_deblur.py", tiny, tmp_path, *more))
    assert weights(tmp_path, "train_deblur.py")["spike_enc.0.weight"].shape[1] == 21


def test_workers_do_not_change_the_weights(tiny, tmp_path):
    for workers in (0, 2):
        call(
            "train_sr.py",
            *options(
                "train_sr.py", tiny, tmp_path / str(workers), "--max_steps", 4, "--eval_every", 0, "--workers", workers
            ),
        )
    first, second = (weights(tmp_path / str(workers), "train_sr.py") for workers in (0, 2))
    assert all(torch.equal(second[key], value) for key, value in first.items())


def test_another_recipe_in_the_same_folder_is_refused_and_overwrite_keeps_the_old(tiny, tmp_path):
    short = ["--max_steps", 1, "--eval_every", 0]
    call("train_sr.py", *options("train_sr.py", tiny, tmp_path, *short))
    _, err = call("train_sr.py", *options("train_sr.py", tiny, tmp_path, *short, "--lr", 1), code=2)
    assert "holds a run with --lr 0.0002, not 1.0" in err and err.count("\n") == 1
    call("train_sr.py", *options("train_sr.py", tiny, tmp_path, *short, "--lr", 1, "--overwrite"))
    folders = sorted(path.name for path in tmp_path.iterdir())
    assert folders[0] == "test" and folders[1].startswith("test_old_") and len(folders) == 2
    assert (tmp_path / folders[1] / "ckpts" / "SR_last.pth").exists()


def test_a_dead_start_is_noticed_and_avoided(tiny, tmp_path):
    """Seed 5: every output of the untrained BSN is negative, and the official clip lets no gradient through."""
    argv = ["--seed", 5, "--max_steps", 5, "--eval_every", 0]
    out, _ = call("train_bsn.py", *options("train_bsn.py", tiny, tmp_path / "dead", *argv))
    assert "WARNING: at step 0 the gradient is exactly 0" in out and "--no-clip_output" in out
    torch.manual_seed(5)
    start = BSN().state_dict()
    dead = weights(tmp_path / "dead", "train_bsn.py")
    assert all(torch.equal(dead[key], value) for key, value in start.items())
    out, _ = call("train_bsn.py", *options("train_bsn.py", tiny, tmp_path / "alive", *argv, "--no-clip_output"))
    alive = weights(tmp_path / "alive", "train_bsn.py")
    assert "WARNING" not in out and all(not torch.equal(alive[key], value) for key, value in start.items())


def test_a_loss_that_is_not_finite_stops_the_run(tiny, tmp_path):
    argv = ["--lr", 1e30, "--max_steps", 20, "--eval_every", 0, "--no-clip_output"]
    _, err = call("train_sr.py", *options("train_sr.py", tiny, tmp_path, *argv), code=2)
    assert "the loss is" in err and "the last good state, of step 0, is intact" in err
    state = torch.load(tmp_path / "test" / "ckpts" / "state.pth", weights_only=True)
    assert all(value.isfinite().all() for value in state["weights"].values())


ROWS = {
    "train_bsn.py": ["Blur", "TFP", "BSN"],
    "train_sr.py": ["Blur", "SDM", "Blur_SR", "Blur_Resize", "BSN_SR", "BSN_Resize", "TFP_Resize"],
    "train_deblur.py": ["Blur", "SDM", "Deblur_Net"],
}


@pytest.mark.parametrize("script", STAGES)
def test_test_mode(script, tiny, tmp_path, checkpoints):
    flags = {"train_bsn.py": ["bsn"], "train_sr.py": ["bsn", "sr"], "train_deblur.py": ["bsn", "sr", "deblur"]}[script]
    files = {"bsn": "BSN_1000", "sr": "SR_70", "deblur": "DeblurNet_100"}
    paths = [word for flag in flags for word in (f"--{flag}_path", checkpoints / f"{files[flag]}.pth")]
    out, _ = call(
        script,
        "--test_mode",
        "--base_folder",
        tiny,
        "--save_folder",
        tmp_path,
        *paths,
        "--metrics",
        "ssim",
        "psnr",
        "mse",
    )
    folder = tmp_path / "test" / "test_mode"
    results = json.loads((folder / "results.json").read_text())
    assert list(results["rows"]) == ROWS[script] and results["samples"] == 2
    with open(folder / "results.csv") as file:
        table = list(csv.DictReader(file))
    assert [row["row"] for row in table] == ROWS[script]
    for row, values in results["rows"].items():
        assert f"{row}: ssim: {values['ssim']:.3f}  psnr: {values['psnr']:.3f}  mse: {values['mse']:.3f}  \n" in out
    assert "2 samples, " in out and "ms per sample" in out
    assert (folder / "imgs" / "000_0000_panel.png").is_file()
    assert not (tmp_path / "test" / "ckpts").exists()


def test_the_blur_row_against_scikit_image(tiny, tmp_path, checkpoints):
    import skimage.metrics

    call("train_deblur.py", "--test_mode", "--teacher", "sdm", "--base_folder", tiny, "--save_folder", tmp_path,
         "--deblur_path", checkpoints / "DeblurNet_100.pth", "--metrics", "ssim", "psnr", "mse")  # fmt: skip
    row = json.loads((tmp_path / "test" / "test_mode" / "results.json").read_text())["rows"]["Blur"]
    values = []
    for blur in sorted(tiny.glob("test/blur_data/*/000019.png")):
        pair = [
            cv2.imread(str(path)) / 127.5 - 1 for path in (blur, Path(str(blur).replace("blur_data", "sharp_data")))
        ]
        values.append(
            (
                skimage.metrics.structural_similarity(*pair, channel_axis=2, data_range=2),
                skimage.metrics.peak_signal_noise_ratio(*pair, data_range=2),
                skimage.metrics.mean_squared_error(*pair),
            )
        )
    np.testing.assert_allclose([row[m] for m in ("ssim", "psnr", "mse")], np.mean(values, axis=0), atol=1e-5)


def test_test_mode_builds_no_lpips(tiny, tmp_path, checkpoints, monkeypatch):
    import codes.metrics

    def forbidden(*_args, **_options):
        raise AssertionError("LPIPS was built")

    monkeypatch.setattr(codes.metrics, "lpips_network", forbidden)
    monkeypatch.setattr("codes.losses.lpips_network", forbidden)
    monkeypatch.setattr("codes.engine.run.lpips_network", forbidden)
    paths = [word for key, name in (("bsn", "BSN_1000"), ("sr", "SR_70"), ("deblur", "DeblurNet_100"))
             for word in (f"--{key}_path", checkpoints / f"{name}.pth")]  # fmt: skip
    call("train_deblur.py", "--test_mode", "--base_folder", tiny, "--save_folder", tmp_path, *paths)


def test_real_captures_have_pictures_but_no_figures(tiny, tmp_path, checkpoints):
    root = tmp_path / "RSB"
    for kind in ("spike_data", "blur_data"):
        shutil.copytree(tiny / "test" / kind, root / kind)
    for script in STAGES:
        more = ["--data_type", "real", "--max_steps", 1, "--train_split", "test"]
        call(script, *options(script, root, tmp_path / script, *more))
    weights = ["--bsn_path", checkpoints / "BSN_1000.pth", "--sr_path", checkpoints / "SR_70.pth"]
    weights += ["--deblur_path", checkpoints / "DeblurNet_100.pth"]
    argv = ["--test_mode", "--data_type", "real", "--base_folder", root, "--save_folder", tmp_path / "exp", *weights]
    out, _ = call("train_deblur.py", *argv)
    assert "no sharp images" in out and "Deblur_Net: no reference" in out
    folder = tmp_path / "exp" / "test" / "test_mode"
    assert (folder / "imgs" / "000_0001_deblur.png").is_file()
    assert set(json.loads((folder / "results.json").read_text())["rows"]["SDM"]) == {"ms", "per_sample"}
    argv = ["--data_type", "real", "--base_folder", root, "--out", tmp_path / "out", "--methods", "blur", "sdm"]
    out, _ = call("scripts/tables.py", *argv)
    assert "| Blur |" in out and "| PSNR" not in out
    assert (tmp_path / "out" / "imgs" / "methods_0001_blur.png").is_file()


def test_benchmark_runs_and_its_two_ways_agree(tmp_path):
    """--quick checks what is fast against the plain way, and stops where they differ."""
    options = ["--quick", "--repeats", 1, "--device", "cpu", "--no-memory"]
    call("scripts/dev/benchmark.py", *options, "--json", tmp_path / "b.json")
    lines = json.loads((tmp_path / "b.json").read_text())["lines"]
    assert len(lines) == 22 and all(line["seconds"] > 0 and line.get("ratio", 1) > 0 for line in lines)
