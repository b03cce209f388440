"""The PSNR of several methods as one factor after the other grows: values that are kept, tables, plots."""

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codes.errors import InputError
from codes.files import write_json
from codes.report.page import Page, Section, made_by
from codes.report.plots import GREY, Line, Panel, draw, save
from codes.report.table import Table


@dataclass(frozen=True)
class Factor:
    """A factor: its title, axis label, logarithmic axes, and what stands before a value."""

    title: str
    label: str
    log: str = ""
    before: str = ""


FACTORS = {
    "vth": Factor("Firing threshold", "Vth (paper's unit)", "x"),
    "noise": Factor("Sensor noise", "multiple of the inherent noise"),
    "shift": Factor("Misaligned spikes", "shift (image px)"),
    "ratio": Factor("Spike resolution", "share of the image's sides", before="1/"),
    "motion": Factor("Motion", "motion over the exposure (px)", "x"),
}


class Points:
    """PSNR values that survive an interruption: setting -> method -> sample -> dB.

    Args:
        path: JSON file; it is read if it exists.
        options: what all its values share.
        methods: name -> what a method is: its title, and its weights.

    Raises:
        InputError: the file is damaged, or made with other options or weights.
    """

    def __init__(self, path: Path, options: dict, methods: dict[str, dict]):
        self.path, self.options, self.methods, self.values = path, options, methods, {}
        if not path.is_file():
            return
        try:
            old = json.loads(path.read_text())
            changed = [name for name in options if old["options"][name] != options[name]]
            changed += [
                f"weights of {name}" for name in methods if old["methods"].get(name, methods[name]) != methods[name]
            ]
            self.values = {key: {name: dict(row) for name, row in rows.items()} for key, rows in old["psnr"].items()}
            self.methods = old["methods"] | methods
        except (ValueError, LookupError, TypeError, AttributeError):
            raise InputError(f"{path} is damaged; delete it or choose another --out") from None
        if changed:
            raise InputError(f"{path} was made with another {', '.join(changed)}; choose another --out or delete it")

    def has(self, setting: str, method: str, index: int) -> bool:
        """Whether it is measured."""
        return str(index) in self.values.get(setting, {}).get(method, {})

    def add(self, setting: str, method: str, index: int, value: float) -> None:
        """Keep a value."""
        self.values.setdefault(setting, {}).setdefault(method, {})[str(index)] = value

    def get(self, setting: str, method: str, samples: int) -> list[float]:
        """The values of the first samples."""
        return [self.values[setting][method][str(index)] for index in range(samples)]

    def save(self) -> None:
        """Write the file."""
        write_json(self.path, {"options": self.options, "methods": self.methods, "psnr": self.values})


@dataclass
class Sweep:
    """What is shown of the points.

    Args:
        samples: how many of each setting.
        settings: factor -> value -> setting.
        defaults: factor -> its value where another factor grows.
    """

    points: Points
    methods: list[str]
    samples: int
    settings: dict[str, dict[float, str]]
    defaults: dict[str, float]
    protocol: list[str]

    def __iter__(self) -> Iterator[tuple[str, float, str]]:
        """(factor, value, setting)."""
        for factor, settings in self.settings.items():
            for value, setting in settings.items():
                yield factor, value, setting

    def title(self, method: str) -> str:
        """A method's title."""
        return self.points.methods[method]["title"]

    def mean(self, setting: str, method: str) -> float:
        """The mean over samples."""
        return statistics.fmean(self.points.get(setting, method, self.samples))

    def table(self) -> Table:
        """A row for each setting, a column for each method; below, where a method fails."""
        columns = {"factor": "", "value": ""} | {f"{self.title(name)} (dB)": ".2f" for name in self.methods}
        table = Table("robustness", "Where it stops working", columns, protocol=self.protocol)
        for factor, value, setting in self:
            about = FACTORS[factor]
            shown = f"{about.before}{value:g}" + " (default)" * (value == self.defaults[factor])
            means = [self.mean(setting, name) for name in self.methods]
            table.rows.append([f"{about.title}: {about.label}", shown, *means])
        if "blur" in self.methods:
            table.notes = [f"no better than the blurry input: {'; '.join(self.failures()) or 'none'}"]
        return table

    def failures(self) -> Iterator[str]:
        """Of each method and factor, the values at which it is no better than the blurry input."""
        for name in self.methods:
            for factor, settings in self.settings.items():
                bad = [v for v, setting in settings.items() if self.mean(setting, name) <= self.mean(setting, "blur")]
                if bad and name != "blur":
                    about = FACTORS[factor]
                    values = ", ".join(f"{about.before}{value:g}" for value in bad)
                    yield f"{self.title(name)}: {about.title.lower()} {values}"

    def points_table(self) -> Table:
        """A row for each setting and method: mean, lowest and highest value."""
        columns = {"factor": "", "value": "", "method": ""}
        columns |= {name: ".4f" for name in ("psnr_db", "lowest_db", "highest_db")} | {"samples": "d"}
        table = Table("robustness", "", columns)
        for factor, value, setting in self:
            for name in self.methods:
                found = self.points.get(setting, name, self.samples)
                figures = (round(figure, 4) for figure in (statistics.fmean(found), min(found), max(found)))
                table.rows.append([factor, f"{value:g}", name, *figures, len(found)])
        return table

    def panels(self) -> list[Panel]:
        """A plot for each factor."""
        panels = []
        for factor, settings in self.settings.items():
            about, across = FACTORS[factor], np.array(list(settings), float)
            lines = [
                Line(self.title(name), across, np.array([self.mean(setting, name) for setting in settings.values()]))
                for name in self.methods
            ]
            ticks = {value: f"{about.before}{value:g}" for value in settings}
            default = self.defaults[factor]
            panels.append(Panel(factor, about.title, about.label, "PSNR (dB)", lines, about.log, ticks, default))
        return panels

    def write(self, folder: Path) -> None:
        """Write robustness.md, .csv, .png and index.html."""
        table = self.table()
        table.write(folder, "md")
        self.points_table().write(folder, "csv")
        colours = {self.title(name): GREY for name in self.points.methods if name == "blur"}
        save(draw(self.panels(), colours, markers=True), folder / "robustness.png")
        files = dict.fromkeys(file for name in self.methods for file in self.points.methods[name].get("weights", {}))
        section = Section("PSNR as one factor after the other grows", table, plots=self.panels())
        Page(table.title, [section], about={"Weights": ", ".join(files)} | made_by()).write(folder / "index.html")
