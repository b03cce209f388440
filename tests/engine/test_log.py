import json
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from codes.engine.log import Log


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def scalars(folder, tag):
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)]


def started(folder, step=0, again=False, **options):
    log = Log(folder, **options)
    log.start(step, again)
    log.show_progress(step, 9, 0.0)
    return log


def test_means_since_the_last_line(tmp_path, capsys):
    """Every third step and the last one; a dropped step, which has no values, does not count."""
    log = started(tmp_path, every=3)
    for step, loss in enumerate((1.0, 2.0, 6.0, None, 5.0, None, 8.0), 1):
        log.step({} if loss is None else {"loss": loss, "tea": 2 * loss}, step, 0, 1.5 * step, 1e-3, last=step == 7)
    log.close()
    rows = records(tmp_path)
    assert [(r["step"], r["loss"], r["tea"]) for r in rows] == [(3, 3.0, 6.0), (6, 5.0, 10.0), (7, 8.0, 16.0)]
    assert all(r["kind"] == "train" and r["lr"] == 1e-3 for r in rows) and rows[0]["seconds"] == 4.5
    assert scalars(tmp_path, "train/loss") == [(3, 3.0), (6, 5.0), (7, 8.0)]
    assert log.sums == {}


def test_a_line_of_dropped_steps_has_no_loss(tmp_path):
    log = started(tmp_path, every=2)
    for step in (1, 2):
        log.step({}, step, 0, 1.0, 1e-3, last=False)
    assert "loss" not in records(tmp_path)[0]
    log.close()


def test_a_log_is_cut_back_to_what_the_state_knows(tmp_path):
    """Then the steps beyond are logged anew, once, in TensorBoard too."""
    log = started(tmp_path, every=1)
    for step in range(1, 6):
        log.say(f"said at {step}")
        log.step({"loss": float(step)}, step, 0, 1.0, 1e-3, last=False)
        if step == 3:
            lengths = log.lengths()
    log.close()
    log = Log(tmp_path, every=1)
    log.cut(lengths)
    log.start(3, again=False)
    log.show_progress(3, 9, 0.0)
    for step in (4, 5):
        log.say(f"again at {step}")
        log.step({"loss": 10.0 * step}, step, 0, 1.0, 1e-3, last=False)
    log.close()
    assert [r["loss"] for r in records(tmp_path)] == [1, 2, 3, 40, 50]
    said = (tmp_path / "results.txt").read_text().splitlines()
    assert said == ["said at 1", "said at 2", "said at 3", "again at 4", "again at 5"]
    assert scalars(tmp_path, "train/loss") == [(1, 1), (2, 2), (3, 3), (4, 40), (5, 50)]


def test_a_log_that_is_shorter_than_the_state_says_stays(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    Log(tmp_path).cut({"metrics.jsonl": 100, "results.txt": 5})
    assert (tmp_path / "metrics.jsonl").read_text() == "{}\n" and (tmp_path / "results.txt").read_text() == ""


def test_an_evaluation_made_again_stands_once_in_tensorboard(tmp_path):
    report = SimpleNamespace(
        count=2, milliseconds=5.0, lines=lambda: ["BSN: psnr: 20.000  "], means=lambda: {"BSN": {"psnr": 20.0}},
        panels=[np.zeros((8, 8, 3), np.uint8)],
    )  # fmt: skip
    log = started(tmp_path, every=1)
    log.step({"loss": 1.0}, 1, 0, 1.0, 1e-3, last=False)
    lengths = log.lengths()
    log.evaluation(report, 1, 0)
    log.close()
    log = Log(tmp_path, every=1)
    log.cut(lengths)
    log.start(1, again=True)
    log.evaluation(report, 1, 0)
    log.evaluation(None, 1, 0)
    log.close()
    assert scalars(tmp_path, "psnr/BSN") == [(1, 20.0)] and scalars(tmp_path, "train/loss") == [(1, 1.0)]
    assert [r["kind"] for r in records(tmp_path)] == ["train", "eval"]


def test_skipped_samples_are_said_and_recorded(tmp_path, capsys):
    log = started(tmp_path)
    log.skipped({"a/1": "no image"}, 4, 2)
    log.close()
    assert "WARNING: skipped a/1: no image" in capsys.readouterr().out
    assert records(tmp_path) == [{"kind": "skipped", "step": 4, "epoch": 2, "sample": "a/1", "why": "no image"}]


def test_a_silent_log_writes_nothing_and_counts_all_the_same(tmp_path, capsys):
    log = Log(tmp_path, every=2, silent=True)
    log.start(0, again=False)
    log.show_progress(0, 9, 0.0)
    log.say("x")
    log.step({"loss": 1.0}, 1, 0, 1.0, 1e-3, last=False)
    assert log.sums == {"loss": 1.0, "steps": 1}
    log.step({"loss": 1.0}, 2, 0, 1.0, 1e-3, last=False)
    log.skipped({"a": "b"}, 1, 1)
    log.close()
    assert not any(tmp_path.iterdir()) and capsys.readouterr().out == ""
