"""A result as one page that any browser opens from disk: a viewer of captures, tables, samples, plots.

``index.html`` holds everything but the pictures, which are files beside it: the folder is copied as a whole. Nothing is
fetched from elsewhere, which the page's own policy forbids. What it looks like and does is in page.html; here is the
data that it is given.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

import numpy as np
import torch

from codes.dataset import SpikeData
from codes.engine.provenance import provenance
from codes.errors import MissingFileError, readable
from codes.files import as_json, replacing
from codes.image import read_image, to_float, to_uint8, write_image
from codes.metrics import psnr
from codes.report.plots import Panel
from codes.report.table import METRICS, Table
from codes.spike import EXPOSURE, mirrored, tfp

TEMPLATE = Path(__file__).with_name("page.html")
PLACE = '<script type="application/json" id="data">{}</script>'
"""Where the template is given its data."""

POINTS = 2000
"""Most points of a line on a page; of longer ones, every so manieth."""

TFP_LENGTH = 21
"""Frames of the TFP that the viewer shows: those that the student sees around an instant."""


@dataclass
class Layer:
    """Pictures of one kind.

    Args:
        name: as it is chosen in the viewer.
        images: files, one for each instant, or one for all.
        psnr: dB of each of them against the sharp frame; None where there is none.
    """

    name: str
    images: list[Path]
    psnr: list[float | None] = field(default_factory=list)


@dataclass
class View:
    """What the viewer shows of a capture.

    Args:
        name: of the capture.
        size: (height, width) of its pictures.
        times: instants in spike frames.
        layers: at least one; pictures of other sizes are stretched to ``size``.
        first: which layers are chosen at first, by 'left', 'right', 'third'.
        notes: what was found and done, in words.
    """

    name: str
    size: tuple[int, int]
    times: Sequence[float]
    layers: list[Layer]
    first: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class Samples:
    """Figures of every sample, to be sorted and plotted.

    Args:
        names: the samples.
        values: row -> metric -> a value or None for each sample.
        views: of each sample, what the viewer shows; None where no pictures were kept.
    """

    names: list[str]
    values: dict[str, dict[str, list[float | None]]]
    views: list[View | None]


@dataclass
class Section:
    """A part of a page: a table of means, samples, plots and notes, as far as they are given."""

    title: str
    table: Table | None = None
    samples: Samples | None = None
    plots: list[Panel] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Page:
    """A page.

    Args:
        title: its title.
        sections: its parts; a page of one capture has none.
        views: captures of the viewer that are no samples of a section.
        about: what was run, with which weights, on what.
        notes: sentences below all.
        fps: instants per second at normal speed.
    """

    title: str
    sections: list[Section] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    about: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    fps: float = 12

    def write(self, path: Path) -> Path:
        """Write the page; pictures are named as seen from its folder. Returns ``path``."""
        views = list(self.views)

        def number(view: View | None) -> int | None:
            if view is None:
                return None
            views.append(view)
            return len(views) - 1

        sections = []
        for section in self.sections:
            found: dict = {
                "title": section.title,
                "plots": [_plot(panel) for panel in section.plots],
                "notes": section.notes,
            }
            if table := section.table:
                found["table"] = {"columns": list(table.columns), "rows": table.rows, "cells": table.cells()}
                found["notes"] = [*table.protocol, *table.notes, *section.notes]
            if section.samples:
                found["samples"] = _samples(section.samples, [number(view) for view in section.samples.views])
            sections.append(found)
        data = {
            "title": self.title,
            "sections": sections,
            "views": [as_data(view, path.parent) for view in views],
            "about": [[key, readable(value)] for key, value in self.about.items() if value],
            "notes": self.notes,
            "fps": self.fps,
        }
        # No text of the data may end the element that holds it.
        text = as_json(data, indent=None).replace("<", "\\u003c")
        template = TEMPLATE.read_text(encoding="utf-8")
        with replacing(path) as temporary:
            page = template.replace(PLACE, PLACE.replace("{}", text))
            temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
        return path


def read_page(path: Path) -> Page | None:
    """The page of captures that :meth:`Page.write` wrote; None where there is none."""
    start, end = PLACE.split("{}")
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text.partition(start)[2].partition(end)[0])
        views = [from_data(view, path.parent) for view in data["views"]]
        return Page(data["title"], views=views, about=dict(data["about"]), notes=data["notes"], fps=data["fps"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def from_data(data: dict, folder: Path) -> View:
    """A view from what :func:`as_data` made of it."""
    layers = [
        Layer(layer["name"], [folder / os.fsdecode(unquote_to_bytes(file)) for file in layer["images"]], layer["psnr"])
        for layer in data["layers"]
    ]
    return View(**data | {"size": tuple(data["size"]), "layers": layers})


def as_data(view: View, folder: Path) -> dict:
    """A view as JSON can hold it; pictures as addresses seen from ``folder``."""
    layers = [
        {"name": layer.name, "images": [_address(file, folder) for file in layer.images], "psnr": layer.psnr}
        for layer in view.layers
    ]
    return asdict(view) | {"name": readable(view.name), "times": list(view.times), "layers": layers}


def _address(file: Path, folder: Path) -> str:
    """A file's address as seen from a folder."""
    return quote(os.fsencode(Path(os.path.relpath(file, folder)).as_posix()))


def _samples(samples: Samples, views: list[int | None]) -> dict:
    keys = [key for key in METRICS if any(key in columns for columns in samples.values.values())]
    nothing = [None] * len(samples.names)
    metrics = [
        {"key": key, "title": METRICS[key][0] + " (dB)" * (key == "psnr"), "lower": key in ("mse", "lpips")}
        | {"digits": int(METRICS[key][1][1:-1])}
        for key in keys
    ]
    values = {key: [columns.get(key, nothing) for columns in samples.values.values()] for key in keys}
    names = [readable(name) for name in samples.names]
    return {"names": names, "views": views, "rows": list(samples.values), "metrics": metrics, "values": values}


def _plot(panel: Panel) -> dict:
    def line(one):
        step = math.ceil(len(one.x) / POINTS) or 1
        raw = None if one.raw is None else one.raw[::step].tolist()
        return {
            "name": one.name,
            "part": one.part,
            "x": one.x[::step].tolist(),
            "y": one.y[::step].tolist(),
            "raw": raw,
        }

    ticks = None if panel.ticks is None else [[place, text] for place, text in panel.ticks.items()]
    found = {"title": panel.title, "x_label": panel.x_label, "y_label": panel.y_label, "log": panel.log}
    return found | {"lines": [line(one) for one in panel.lines], "ticks": ticks, "mark": panel.mark}


def of_views(views: list[View]) -> Samples:
    """Several captures as samples: the PSNR of each layer that has one at all of them, the mean over its instants."""

    def mean(layer: Layer | None) -> float | None:
        known = [value for value in layer.psnr if value is not None] if layer else []
        return sum(known) / len(known) if known else None

    rows = dict.fromkeys(layer.name for view in views for layer in view.layers if layer.psnr)
    found = [{layer.name: layer for layer in view.layers} for view in views]
    values = {row: {"psnr": [mean(layers.get(row)) for layers in found]} for row in rows}
    return Samples([view.name for view in views], values, list(views))


def sharp_frames(data_set: Path, data_type: str, vth: float) -> dict[str, dict[int, Path]]:
    """The true sharp frames of a test split: capture -> instant -> file; where not all are there, none."""
    instants = EXPOSURE.sequence_instants
    try:
        data = SpikeData(data_set, data_type, "test", vth=vth, use_sharp="sequence")
    except MissingFileError:
        return {}
    paths = iter(data.sharp_paths)
    return {f"{spike.parent.name}/{spike.stem}": dict(zip(instants, paths, strict=False)) for spike in data.spike_paths}


def spike_pictures(folder: Path, spike: np.ndarray, instants: Sequence[int]) -> list[Path]:
    """Write ``folder/{instant:03}.png``: what the spikes alone show around each instant, all equally bright.

    Args:
        folder: for the pictures.
        spike: ``(T, h, w)``, zeros and ones; mirrored at its ends.
        instants: frame indices.
    """
    stream, half = mirrored(torch.from_numpy(np.ascontiguousarray(spike)), TFP_LENGTH // 2), TFP_LENGTH // 2
    files = [folder / f"{instant:03}.png" for instant in instants]
    for file, image in zip(files, lit([tfp(stream, instant + half, TFP_LENGTH) for instant in instants]), strict=True):
        write_image(file, image)
    return files


def lit(lights: list[torch.Tensor]) -> list[np.ndarray]:
    """Light ``(1, h, w)``, in spikes per frame, as uint8 ``(h, w, 3)``: as bright as the brightest of them allows."""
    peak = max([float(np.percentile(light.cpu().numpy(), 99.5)) for light in lights] + [1 / TFP_LENGTH])
    return [to_uint8(light / peak) for light in lights]


def made_by() -> dict[str, str]:
    """The command, the commit and the versions behind a result, for :attr:`Page.about`."""
    command, commit, versions = provenance()
    return {"Command": command.partition(": ")[2], "Commit": commit.partition(": ")[2], "Versions": versions}


def capture_view(
    folder: Path,
    blur: np.ndarray,
    spike: np.ndarray,
    instants: Sequence[int],
    title: str,
    sharp: dict[int, Path] | None = None,
    name: str = "",
    notes: Sequence[str] = (),
) -> View:
    """The view of a capture whose sharp images lie in a folder; what the viewer needs besides is written there.

    Args:
        folder: holds ``{instant:03}.png``; gets ``blur.png`` and ``spikes/``.
        blur: uint8 ``(H, W, 3)``, B,G,R.
        spike: ``(T, h, w)``, zeros and ones.
        instants: of the sharp images.
        title: of the method.
        sharp: true sharp frames by instant, of the image's size: for PSNR, and as a layer where each instant has one.
        name, notes: of the capture.
    """
    write_image(folder / "blur.png", blur)
    frames = [folder / f"{instant:03}.png" for instant in instants]
    layers = [Layer("Blurry input", [folder / "blur.png"]), Layer(title, frames)]
    true = {instant: read_image(path) for instant, path in (sharp or {}).items() if instant in instants}
    true = {instant: image for instant, image in true.items() if image.shape == blur.shape}
    for layer in layers if true else ():
        layer.psnr = [
            _psnr(read_image(layer.images[index % len(layer.images)]), true[instant]) if instant in true else None
            for index, instant in enumerate(instants)
        ]
    if len(true) == len(instants):
        files = [folder / "sharp" / f"{instant:03}.png" for instant in instants]
        for file, instant in zip(files, instants, strict=True):
            write_image(file, true[instant])
        layers.append(Layer("Sharp", files))
    layers.append(Layer(f"Spikes (TFP, {TFP_LENGTH} frames)", spike_pictures(folder / "spikes", spike, instants)))
    return View(name or folder.name, blur.shape[:2], list(instants), layers, notes=list(notes))


def _psnr(image: np.ndarray, sharp: np.ndarray) -> float:
    image, sharp = (torch.from_numpy(to_float(one))[None] for one in (image, sharp))
    return min(float(psnr(image, sharp)), 100.0)
