"""Training curves against numbers worked out here from hand-written logs."""

import csv
import json

import cv2
import numpy as np
import pytest

from codes.report.plots import COLOURS, Line, Panel, draw, plot_runs, run_panels, running_mean
from tests.conftest import call, refused

LOSSES = [8.0, 4.0, 6.0, 2.0, 1.0]


def train(step, epoch, loss, **more):
    return {"kind": "train", "step": step, "epoch": epoch, "seconds": 36.0 * step, "lr": 1e-3, "loss": loss} | more


def evaluation(step, epoch, row, psnr):
    return {"kind": "eval", "step": step, "epoch": epoch, "row": row, "psnr": psnr}


def write(folder, *records, tail=""):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records) + tail)
    return folder


@pytest.fixture
def deblur(tmp_path):
    """5 training lines of epochs 0, 0, 1, 1, 1, an evaluation after each epoch, and half a line."""
    lines = [train(10 * (i + 1), int(i > 1), loss, tea=loss / 2) for i, loss in enumerate(LOSSES)]
    lines[2:2] = [evaluation(20, 0, "Blur", 20.5), evaluation(20, 0, "Deblur_Net", 22.0)]
    lines += [evaluation(45, 1, "Blur", 20.5), evaluation(45, 1, "Deblur_Net", 26.25)]
    return write(tmp_path / "Deblur", *lines, tail='{"kind": "train", "step": 60, "epo')


@pytest.fixture
def stage_one(tmp_path):
    return write(tmp_path / "BSN", train(10, 0, 0.5), train(20, 0, 0.25), evaluation(20, 0, "BSN", 30.0))


def points(panel):
    return {(line.name, line.part): (line.x.tolist(), line.y.tolist()) for line in panel.lines}


def test_running_mean():
    np.testing.assert_allclose(running_mean(LOSSES, 3), [6, 6, 4, 3, 1.5])
    np.testing.assert_allclose(running_mean(LOSSES, 1), LOSSES)
    np.testing.assert_allclose(running_mean([1, 3], 1000), [2, 2])


def test_panels(deblur, stage_one):
    panels = run_panels([deblur, stage_one], smooth=3)
    assert [panel.key for panel in panels] == ["loss", "tea", "psnr", "psnr"]
    loss, tea, psnr, other = panels
    assert points(loss) == {
        ("Deblur", ""): ([10, 20, 30, 40, 50], [6, 6, 4, 3, 1.5]),
        ("BSN", ""): ([10, 20], [0.375, 0.375]),
    }
    assert loss.lines[0].raw.tolist() == LOSSES and loss.x_label == "optimiser steps"
    assert points(tea) == {("Deblur", ""): ([10, 20, 30, 40, 50], [3, 3, 2, 1.5, 0.75])}
    assert points(psnr) == {
        ("Deblur", "Blur"): ([20, 45], [20.5, 20.5]),
        ("Deblur", "Deblur_Net"): ([20, 45], [22, 26.25]),
    }
    assert points(other) == {("BSN", "BSN"): ([20], [30])} and other.y_label == "PSNR (dB)"


def test_epochs_and_hours(deblur):
    loss, psnr = run_panels([deblur], ["loss", "psnr"], x="epoch", smooth=1)
    assert points(loss) == {("Deblur", ""): ([0, 1], [6, 3])}  # (8 + 4) / 2, (6 + 2 + 1) / 3
    assert points(psnr)["Deblur", "Deblur_Net"] == ([0, 1], [22, 26.25])
    loss, psnr = run_panels([deblur], ["loss", "psnr"], x="hours", smooth=1)
    np.testing.assert_allclose(loss.lines[0].x, [0.1, 0.2, 0.3, 0.4, 0.5])  # 36 s a step
    np.testing.assert_allclose(psnr.lines[0].x, [0.2, 0.45])


def test_a_step_logged_twice_and_runs_of_one_name(tmp_path):
    """A killed run that went on from an earlier state logs steps again: the later line counts."""
    first = write(tmp_path / "a" / "test", train(10, 0, 1), train(20, 0, 9), train(20, 0, 2), train(30, 0, 3))
    second = write(tmp_path / "b" / "test", train(10, 0, 5))
    (panel,) = run_panels([first, second], smooth=1)
    assert points(panel) == {(str(first), ""): ([10, 20, 30], [1, 2, 3]), (str(second), ""): ([10], [5])}
    (panel,) = run_panels({"one": first, "two": second}, ["loss"], smooth=1)
    assert list(points(panel)) == [("one", ""), ("two", "")]


def test_what_is_drawn(deblur, stage_one):
    """The axes' own lines: raw faintly, its mean firmly, one colour a run."""
    figure = draw(run_panels([deblur, stage_one], smooth=3, log="y"))
    loss, tea, psnr, _ = figure.axes
    drawn = {(line.get_color(), line.get_alpha()): line.get_ydata().tolist() for line in loss.lines}
    assert drawn[COLOURS[0], 0.25] == LOSSES and drawn[COLOURS[0], None] == [6, 6, 4, 3, 1.5]
    assert drawn[COLOURS[1], None] == [0.375, 0.375]
    assert (loss.get_yscale(), tea.get_yscale(), psnr.get_yscale()) == ("log", "log", "linear")
    assert len({line.get_linestyle() for line in psnr.lines}) == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Deblur", "BSN"]
    assert [text.get_text() for text in psnr.get_legend().get_texts()] == ["Blur", "Deblur_Net"]


@pytest.mark.parametrize("panels", [1, 3])
def test_a_legend_of_many_methods_stays_in_the_figure(panels):
    names = [f"Student {name}, joined along the motion" for name in ("LDN", "SDMNet", "SAN")] + ["Blur", "LDN"] * 2
    lines = [Line(f"{name} {index}", np.arange(3), np.arange(3)) for index, name in enumerate(names)]
    figure = draw([Panel(str(index), "one", "x", "dB", lines) for index in range(panels)])
    figure.canvas.draw()
    box, (width, height) = figure.legends[0].get_window_extent(), figure.canvas.get_width_height()
    assert 0 <= box.x0 and box.x1 <= width and 0 <= box.y0 and box.y1 <= height


@pytest.mark.slow
def test_command_line(deblur, stage_one, tmp_path):
    picture, table = tmp_path / "new" / "runs.png", tmp_path / "runs.csv"
    call("scripts/plot_runs.py", deblur, stage_one, "--out", picture, "--csv", table, "--smooth", 3, "--log")
    image = cv2.imread(str(picture))
    assert image.shape[1] > 1000 and 0.005 < (image < 128).any(axis=2).mean() < 0.5
    with open(table) as file:
        rows = list(csv.DictReader(file))
    loss = [row for row in rows if (row["quantity"], row["run"]) == ("loss", "Deblur")]
    assert [float(row["step"]) for row in loss] == [10, 20, 30, 40, 50]
    assert [float(row["value"]) for row in loss] == LOSSES
    assert [float(row["smooth"]) for row in loss] == [6, 6, 4, 3, 1.5]
    assert [(row["row"], float(row["value"])) for row in rows if row["run"] == "BSN" and row["quantity"] == "psnr"] == [
        ("BSN", 30)
    ]


@pytest.mark.slow
def test_without_a_name_the_picture_lies_in_the_run(deblur, stage_one, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    out, _ = call("scripts/plot_runs.py", stage_one, deblur)
    assert out.strip() == str(stage_one / "curves.png") and cv2.imread(out.strip()) is not None
    assert [*(tmp_path / "here").iterdir()] == [] and not (deblur / "curves.png").exists()


def test_what_is_not_there(deblur, tmp_path):
    empty = write(tmp_path / "empty")
    assert plot_runs([empty, deblur], tmp_path / "runs.svg").read_text().startswith("<?xml")
    assert f"nothing is logged yet in {empty}" in refused("scripts/plot_runs.py", empty)
    assert str(tmp_path / "none") in refused("scripts/plot_runs.py", deblur, tmp_path / "none")
    assert "did you mean psnr" in refused("scripts/plot_runs.py", deblur, "--keys", "pnsr")
    assert "runs.txt" in refused("scripts/plot_runs.py", deblur, "--out", "runs.txt")
    broken = tmp_path / "broken"
    write(broken, tail='{"kind": \n' + json.dumps(train(1, 0, 1)) + "\n")
    assert "line 1" in refused("scripts/plot_runs.py", broken)
