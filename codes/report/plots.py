"""Line plots: training curves of run folders, and values of several methods over a growing factor.

A plot is first made as data (:class:`Panel`, :class:`Line`), which can be tested, written as CSV and drawn. Only
:func:`draw` needs matplotlib, and imports it when called; it works without a screen and touches no global state.

A run folder's ``metrics.jsonl`` holds one JSON object a line: ``{"kind": "train", "step", "epoch", "seconds", "lr",
"loss", ...}`` with the loss's parts by name, and ``{"kind": "eval", "step", "epoch", "row", "psnr", ...}``.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from codes.engine.command import nearest
from codes.errors import InputError
from codes.files import replacing, write_text
from codes.report.table import METRICS, Table

# Okabe and Ito's colours, told apart by all common kinds of colour vision, dark ones first; yellow is left out.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
GREY = "#7f7f7f"
STYLES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDTH, HEIGHT, COLUMNS, DPI = 9.0, 2.5, 3, 150  # inches of the figure and of a row of panels; 1350 pixels wide

X_LABELS = {"step": "optimiser steps", "epoch": "epoch", "hours": "training time (h)"}
LABELS = {"loss": "training loss", "tea": "teacher loss", "reblur": "reblur loss", "lr": "learning rate"}
LABELS |= {metric: title for metric, (title, _) in METRICS.items()} | {"psnr": "PSNR (dB)"}
ABOUT = {"kind", "step", "epoch", "seconds", "row"}


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Args:
        name: run or method; has one colour in the whole figure and stands in its legend.
        raw: what ``y`` is the running mean of, drawn faintly; None where ``y`` is as it was measured.
        part: what is told apart by the line's style and stands in the panel's own legend, as the row of a table.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    raw: np.ndarray | None = None
    part: str = ""


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Args:
        key: the quantity's name in a file.
        title, x_label, y_label: texts, the labels with their units.
        log: the logarithmic axes, a part of 'xy'.
        ticks: place -> text of the marks of the x axis; None leaves them to matplotlib.
        mark: a place on the x axis with a dotted line, as the default of a factor.
    """

    key: str
    title: str
    x_label: str
    y_label: str
    lines: list[Line]
    log: str = ""
    ticks: dict[float, str] | None = None
    mark: float | None = None


def running_mean(values, length: int) -> np.ndarray:
    """The mean over the ``length // 2`` values before and after each and itself; fewer at the ends."""
    half = max(length, 1) // 2
    ones, values = np.ones(2 * half + 1), np.asarray(values, float)

    def total(summands):
        return np.convolve(summands, ones)[half : half + len(values)]

    return total(values) / total(np.ones(len(values)))


def read_metrics(folder) -> list[dict]:
    """The lines of a run folder's ``metrics.jsonl``; a last line that is still being written is left out.

    Raises:
        ValueError: no such file, or an earlier line that is no record.
    """
    path = Path(folder) / "metrics.jsonl"
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected the folder of a training run, save_folder/exp_name")
    lines, records = path.read_bytes().splitlines(), []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):  # among the first UnicodeDecodeError
            if number == len(lines):
                break
            raise InputError(f"{path}: line {number} is no JSON: {line[:60].decode(errors='replace')}") from None
        if record is None:
            continue
        if not isinstance(record, dict) or not {"kind", "step", "epoch"} <= record.keys():
            raise InputError(f"{path}: line {number} is no record with kind, step and epoch")
        for key, value in record.items():
            if not (
                isinstance(value, str)
                if key in ("kind", "row")
                else _is_number(value) or key not in ABOUT and value is None
            ):
                raise InputError(f"{path}: line {number}: {key} is {str(value)[:60]!r}, which cannot be drawn")
        records.append(record)
    return records


def _is_number(value) -> bool:
    return isinstance(value, float) or isinstance(value, int) and abs(value) < 2**63


def places(lines: list[dict], records: list[dict], x: str) -> np.ndarray:
    """Where ``lines``, some of a run's ``records``, lie on the x axis."""
    if x != "hours":
        return np.array([line[x] for line in lines], float)
    # Evaluations carry no clock: theirs is that of the training steps around them.
    clock = {0: 0.0} | {record["step"]: record["seconds"] for record in records if "seconds" in record}
    steps = sorted(clock)
    return np.interp([line["step"] for line in lines], steps, [clock[step] / 3600 for step in steps])


def curve(lines: list[dict], records: list[dict], key: str, x: str) -> tuple[np.ndarray, np.ndarray]:
    """Places and values of one quantity, a step's last line counting; of an epoch, the mean over its lines."""
    last = {line["step"]: line for line in lines if line.get(key) is not None}
    lines = [last[step] for step in sorted(last)]
    across, values = places(lines, records, x), np.array([line[key] for line in lines], float)
    if x == "epoch":
        epochs = np.unique(across)
        across, values = epochs, np.array([values[across == epoch].mean() for epoch in epochs])
    return across, values


def run_panels(
    folders: Sequence | dict, keys: Sequence[str] = (), x: str = "step", smooth: int = 20, log: str = ""
) -> list[Panel]:
    """The training curves of several runs: the loss and its parts, then each metric of the evaluations.

    Runs whose evaluations have the same rows share the panel of a metric.

    Args:
        folders: run folders, or name -> run folder; those that hold nothing yet are left out.
        keys: quantities; none: all but the learning rate.
        x: 'step', 'epoch' (training quantities are the mean over an epoch) or 'hours' of training.
        smooth: lines of ``metrics.jsonl`` in the running mean of training quantities; 1 is none.
        log: 'y': the training quantities' axes are logarithmic; 'x': so are all x axes; or both.

    Raises:
        ValueError: a folder without ``metrics.jsonl``, nothing in any of them, or a key that none of them has.
    """
    if not isinstance(folders, dict):
        short = [Path(folder).resolve().name for folder in folders]
        names = [name if short.count(name) == 1 else str(folder) for name, folder in zip(short, folders, strict=True)]
        folders = dict(zip(names, folders, strict=True))
    runs = {name: read_metrics(folder) for name, folder in folders.items()}
    runs = {name: records for name, records in runs.items() if records}
    if not runs:
        raise InputError(f"nothing is logged yet in {', '.join(map(str, folders.values()))}")
    train = {name: [record for record in records if record["kind"] == "train"] for name, records in runs.items()}
    tests = {name: [record for record in records if record["kind"] == "eval"] for name, records in runs.items()}

    def found(part):  # the quantities of all runs in order of appearance
        lines = (line for lines in part.values() for line in lines)
        return [key for key in dict.fromkeys(key for line in lines for key in line) if key not in ABOUT]

    known = list(dict.fromkeys(found(train) + found(tests)))
    for key in keys:
        if key not in known:
            raise InputError(f"no run has a quantity '{key}'{nearest(key, known)}; there are {', '.join(known)}")
    wanted, panels = [key for key in keys or known if keys or key != "lr"], []
    for key in (key for key in wanted if key in found(train)):
        lines: list[Line] = []
        for name, records in runs.items():
            across, raw = curve(train[name], records, key, x)
            if len(raw):
                lines.append(Line(name, across, running_mean(raw, smooth), raw if smooth > 1 else None))
        label = LABELS.get(key, key)
        panels.append(Panel(key, label.capitalize(), X_LABELS[x], label, lines, log))
    groups: dict[tuple, list[str]] = {}
    for name, records in tests.items():
        groups.setdefault(tuple(dict.fromkeys(str(record.get("row", "")) for record in records)), []).append(name)
    for key in (key for key in wanted if key in found(tests)):
        for rows, members in groups.items():
            lines = []
            for name in members:
                for row in rows:
                    chosen = [line for line in tests[name] if str(line.get("row", "")) == row]
                    across, values = curve(chosen, runs[name], key, x)
                    if len(values):
                        lines.append(Line(name, across, values, part=row))
            if lines:
                label = LABELS.get(key, key)
                title = f"{label.split(' (')[0]} of {', '.join(members) if len(groups) > 1 else 'the evaluation'}"
                panels.append(Panel(key, title, X_LABELS[x], label, lines, log.replace("y", "")))
    if not panels:
        raise InputError(f"no quantity is logged in {', '.join(map(str, folders.values()))}")
    return panels


def points_table(panels: list[Panel], x: str) -> Table:
    """Every point of the panels: quantity, run, row, place (in the column named ``x``), value, running mean."""
    table = Table("points", "", dict.fromkeys(("quantity", "run", "row", x), "") | {"value": ".4g", "smooth": ".4g"})
    for panel in panels:
        for line in panel.lines:
            raw = line.y if line.raw is None else line.raw
            for across, value, mean in zip(line.x, raw, line.y, strict=True):
                table.rows.append([panel.key, line.name, line.part, f"{across:.10g}", float(value), float(mean)])
    return table


def draw(panels: list[Panel], colours: dict[str, str] | None = None, markers: bool = False):
    """Draw panels in rows of three with one legend for all: a matplotlib Figure.

    Args:
        panels: at least one.
        colours: name -> colour for lines that shall not take the next of :data:`COLOURS`.
        markers: mark the points, for lines of few.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ImportError as error:
        raise InputError(f"plots need matplotlib ({error}); pip install matplotlib") from None
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    free = [name for name in names if name not in (colours or {})]
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(free)} | (colours or {})
    shapes = {name: MARKERS[i % len(MARKERS)] if markers else "" for i, name in enumerate(names)}
    columns = min(len(panels), COLUMNS)
    rows = -(-len(panels) // columns)
    style: dict = {"font.size": 9, "axes.titlesize": 10, "legend.fontsize": 8, "axes.grid": True, "grid.alpha": 0.3}
    with matplotlib.rc_context(style | {"axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure((WIDTH * max(columns, 2) / COLUMNS, HEIGHT * rows + 0.4), dpi=DPI, layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, panel in zip(grid, panels, strict=False):
            parts = list(dict.fromkeys(line.part for line in panel.lines))
            for line in panel.lines:
                number = parts.index(line.part)
                look = {"color": colours[line.name], "linestyle": STYLES[number % len(STYLES)]}
                # Rows are marked too: one point has no line style.
                shape = shapes[line.name] or (MARKERS[number % len(MARKERS)] if line.part else "")
                if line.raw is not None:
                    axes.plot(line.x, line.raw, **look, alpha=0.25, linewidth=0.7)
                axes.plot(line.x, line.y, **look, linewidth=1.5, marker=shape, markersize=4)
            if panel.mark is not None:
                axes.axvline(panel.mark, color=GREY, linestyle=":", linewidth=1)
            axes.set(**{f"{name}scale": "log" for name in panel.log})
            if panel.ticks is not None:
                axes.set_xticks(list(panel.ticks), list(panel.ticks.values()), fontsize=7)  # 0, 0.5 and 1 of 8 fit
                axes.minorticks_off()
            elif "x" not in panel.log:
                axes.set_xlim(left=0)
                if axes.get_xlim()[1] >= 1e4:
                    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")
            axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
            if len(parts) > 1 or parts[0]:
                looks = [(STYLES[i % len(STYLES)], MARKERS[i % len(MARKERS)]) for i in range(len(parts))]
                keys = [Line2D([], [], color=GREY, linestyle=dash, marker=shape, markersize=4) for dash, shape in looks]
                axes.legend(keys, parts, framealpha=0.7, handlelength=3)
        for axes in grid[len(panels) :]:
            axes.remove()
        keys = [Line2D([], [], color=colours[name], linewidth=1.5, marker=shapes[name], markersize=4) for name in names]
        widest = 0.5 + 0.063 * max(map(len, names))  # inches: its line, and letters of 8 points
        ncols = max(min(len(names), 5, int(figure.get_figwidth() / widest)), 1)
        figure.legend(keys, names, loc="outside upper center", ncols=ncols, frameon=False)
    return figure


def save(figure, path) -> Path:
    """Write a figure in the format of the suffix (.png, .pdf, .svg); the file appears whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary)
    return Path(path)


def plot_runs(folders: Sequence | dict, path, table="", x: str = "step", **options) -> Path:
    """Draw the training curves of run folders into one file, whose path is returned.

    Args:
        path: the picture, or a page (.html).
        table: CSV file for the points, '' is none.
        options: ``keys``, ``smooth``, ``log`` of :func:`run_panels`.
    """
    panels = run_panels(folders, x=x, **options)
    if table:
        write_text(table, points_table(panels, x).csv())
    if Path(path).suffix == ".html":
        from codes.report.page import Page, Section, made_by  # which imports this module

        return Page("Training curves", [Section("Curves", plots=panels)], about=made_by()).write(Path(path))
    return save(draw(panels), path)
