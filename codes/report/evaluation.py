"""Evaluation, written once for all three stages, in training and in ``--test_mode``.

A recipe says which rows its table has; everything else is here: eval mode, inference mode, timing, metrics,
pictures, files. It never touches a checkpoint.

The PSNR of identical images is infinite, which no mean and no JSON can hold. So in everything that is measured here a
PSNR counts as at most :data:`HIGHEST_PSNR`.

Several ranks (distributed.py) measure the samples in turn; rank 0 collects and writes, and its table is the one that
a single process would make.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Subset
from tqdm import tqdm

from codes import metrics as metric_functions
from codes.dataset import SpikeData
from codes.engine import distributed
from codes.engine.device import autocast, describe
from codes.engine.loader import loader
from codes.engine.options import as_dict
from codes.engine.provenance import provenance
from codes.engine.shard import WHOLE
from codes.engine.transfer import Transfer
from codes.errors import InputError
from codes.files import write_json, write_text
from codes.image import to_uint8, write_image
from codes.metrics import compute_img_metric
from codes.report.figures import magnified
from codes.report.measuring import synchronize
from codes.report.page import TFP_LENGTH, Layer, Page, Samples, Section, View, lit, made_by
from codes.report.parts import Measured, Parts
from codes.report.plots import run_panels
from codes.report.table import METRICS, Table
from codes.spike import EXPOSURE, tfp

SPIKES = "spikes"
"""The word in the file name of a picture of the spikes, which is no row."""

HIGHEST_PSNR = 100.0
"""dB. Of 8-bit images only two that are equal, or nearly so, reach it."""


@dataclass(frozen=True)
class Row:
    """One row of a table for one sample.

    Args:
        name: the row's name, officially 'SDM', 'Deblur_Net' and so on.
        prediction: ``(1, C, H, W)`` in [0, 1], or ``(M, C, H, W)`` at M instants: their mean counts, the middle one is
            shown.
        target: like ``prediction``, or None where there is no reference.
        kind: the word in the picture's file name.
        figures: more that was measured, by metric.
    """

    name: str
    prediction: torch.Tensor
    target: torch.Tensor | None
    kind: str
    figures: dict[str, float] = field(default_factory=dict)


Rows = Callable[[dict], Iterator[Row]]
"""A recipe's function from a sample (a batch of one) to its rows. Time between rows is the later row's."""


@dataclass
class Report:
    """The values of an evaluation.

    Args:
        names: samples, in order.
        values: row -> metric -> one value per sample.
        seconds: row -> seconds over all samples; what rows share counts where it was first computed.
        panels: comparison pictures, uint8 ``(H, W, 3)`` B,G,R.
        views: sample -> its pictures, of those that have some.
        faults: sample that could not be read -> why.
    """

    names: list[str] = field(default_factory=list)
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    panels: list = field(default_factory=list)
    views: dict[str, View] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    def add(self, sample: Measured) -> None:
        """Take up the next sample."""
        if sample.fault:
            self.faults[sample.name] = sample.fault
            return
        self.names.append(sample.name)
        for row, values in sample.values.items():
            columns = self.values.setdefault(row, {})
            for metric, value in values.items():
                columns.setdefault(metric, []).append(value)
            self.seconds[row] = self.seconds.get(row, 0.0) + sample.seconds[row]
        if sample.view:
            self.views[sample.name] = sample.view

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.names)

    @property
    def milliseconds(self) -> float:
        """Milliseconds per sample for all rows together, without reading and metrics."""
        return sum(self.times().values())

    def times(self) -> dict[str, float]:
        """Row -> milliseconds per sample."""
        return {row: 1000 * seconds / max(self.count, 1) for row, seconds in self.seconds.items()}

    def means(self) -> dict[str, dict[str, float]]:
        """Row -> metric -> mean over samples."""
        return {
            row: {metric: sum(values) / len(values) for metric, values in columns.items()}
            for row, columns in self.values.items()
        }

    def lines(self) -> list[str]:
        """The rows in the official form: ``Deblur_Net: ssim: 0.786  psnr: 27.928  ``."""
        return [
            f"{row}: " + ("".join(f"{metric}: {value:.3f}  " for metric, value in columns.items()) or "no reference")
            for row, columns in self.means().items()
        ] + [f"skipped {name}: {fault}" for name, fault in self.faults.items()]

    def table(self) -> Table:
        """The means, the time and the number of samples of each row."""
        means, times = self.means(), self.times()
        metrics = list(dict.fromkeys(metric for columns in means.values() for metric in columns))
        columns = {"row": ""} | {metric: METRICS[metric][1] for metric in metrics} | {"ms": ".1f", "samples": "d"}
        rows = [[row, *map(found.get, metrics), round(times[row], 1), self.count] for row, found in means.items()]
        return Table("results", "Evaluation", columns, rows)

    def samples(self) -> Samples:
        """Every sample's values and pictures, for a page."""
        return Samples(self.names, self.values, [self.views.get(name) for name in self.names])

    def per_sample(self) -> dict[str, dict[str, dict[str, float]]]:
        """Row -> sample -> metric -> value."""
        return {
            row: {name: {m: values[i] for m, values in columns.items()} for i, name in enumerate(self.names)}
            for row, columns in self.values.items()
        }

    def write(self, folder: Path, about: dict) -> None:
        """Write results.json (means and every sample), results.csv (means) and results.txt (the official lines)."""
        times, samples = self.times(), self.per_sample()
        rows = {row: found | {"ms": times[row], "per_sample": samples[row]} for row, found in self.means().items()}
        values = {"samples": self.count, "skipped": self.faults, "ms_per_sample": self.milliseconds, "rows": rows}
        write_json(folder / "results.json", about | values)
        self.table().write(folder, "csv")
        write_text(folder / "results.txt", "\n".join(self.lines()) + "\n")


def measure(row: Row, metric: str, convention: str, lpips=None) -> float:
    """One metric of one row in the 'official' or the 'standard' convention (codes.metrics), the mean over images."""
    values = []
    for prediction, target in zip(row.prediction.float().split(1), row.target.float().split(1), strict=True):
        if convention == "official" or metric == "lpips":
            value = compute_img_metric(prediction, target, metric, lpips=lpips)
        else:
            value = getattr(metric_functions, metric)(prediction, target).item()
        values.append(capped(value) if metric == "psnr" else value)
    return sum(values) / len(values)


def capped(psnr: float) -> float:
    """A PSNR as it is counted: at most :data:`HIGHEST_PSNR`; NaN stays."""
    return HIGHEST_PSNR if psnr > HIGHEST_PSNR else psnr


def evaluate(run, dataset: SpikeData, rows: Rows, network: nn.Module) -> Report:
    """The evaluation during training: ``--eval_samples`` samples spread evenly over the data set.

    Args:
        run: the run (:class:`codes.engine.run.Run`); gives configuration, device, folder and epoch.
        dataset: with sharp images where there are any.
        rows: the recipe's rows.
        network: what is being trained; evaluated in eval mode and left in training mode.
    """
    network.eval()
    images = run.folder / "imgs"
    report = measure_rows(
        run.cfg, run.device, dataset, rows, images, f"{run.epoch:03}", run.cfg.eval_samples, run.lpips
    )
    network.train()
    return report


def test(run, dataset: SpikeData, rows: Rows, weights: list) -> None:
    """``--test_mode``: every sample, printed, and written to test_mode/ in the run's folder.

    Args:
        run, dataset, rows: as in :func:`evaluate`; the networks are in eval mode.
        weights: the checkpoints behind the rows, to be noted in the results.
    """
    folder = run.folder / "test_mode"
    run.say(f"{dataset.folder}: {len(dataset)} samples, whole frames, {run.cfg.precision} on {describe(run.device)}")
    if not dataset.use_sharp:
        run.say("this data set has no sharp images: pictures are written, rows that need one have no figures")
    report = measure_rows(run.cfg, run.device, dataset, rows, folder / "imgs", lpips=run.lpips, spikes=True)
    if run.rank > 0:
        return
    for line in report.lines():
        run.say(line)
    run.say(
        f"{report.count} samples, {report.milliseconds:.1f} ms per sample; {folder}/index.html, results.json, "
        "results.csv, imgs/"
    )
    about = {
        "configuration": as_dict(run.cfg),
        "weights": [str(path) for path in weights],
        "device": describe(run.device),
        "about": provenance(),
    }
    report.write(folder, about)
    skipped = [f"skipped {name}: {fault}" for name, fault in report.faults.items()]
    log = run.folder / "metrics.jsonl"  # of the training, where it was in this folder
    curves = run_panels([run.folder]) if log.is_file() and log.stat().st_size else []
    sections = [Section("Means and samples", report.table(), report.samples(), notes=skipped)]
    sections += [Section("Training curves", plots=curves)] if curves else []
    told = {"Weights": ", ".join(map(str, weights)), "Data": str(dataset.folder), "Device": describe(run.device)}
    Page(f"Evaluation of {run.folder}", sections, about=told | made_by()).write(folder / "index.html")


def measure_rows(
    cfg,
    device: torch.device,
    dataset: SpikeData,
    rows: Rows,
    images: Path,
    prefix: str = "000",
    samples: int = 0,
    lpips=None,
    spikes: bool = False,
    parts: Parts | None = None,
) -> Report:
    """Measure the rows of a table, whole frames, one sample at a time.

    Args:
        cfg: the configuration (:class:`codes.engine.options.EvalConfig`).
        device: where to compute.
        dataset: with sharp images where there are any.
        rows: what the table holds.
        images: folder for pictures ``{prefix}_{index:04}_{kind}.png`` and ``..._panel.png``; those of an earlier
            evaluation with this prefix are removed.
        prefix: officially the epoch, three digits.
        samples: how many samples, spread evenly over the data set; 0 is all.
        lpips: the network of the metric 'lpips'.
        spikes: among the pictures, what the spikes alone show.
        parts: the part of the samples that is measured, which leaves its figures there; or that all are only read.
    """
    report, rank, world = Report(), distributed.rank(), distributed.world()
    measured: list[Measured] = []
    chosen = spread(samples, len(dataset))
    if parts and parts.shard.merges:
        found = parts.read(prefix, [dataset.names[index] for index in chosen])
        remove_pictures(images, prefix, [number for number, sample in enumerate(found) if not sample.view], len(found))
        for sample in found:
            report.add(sample)
        return report
    numbers = (parts.shard if parts else WHOLE).of(range(len(chosen)))
    if rank == 0:
        remove_pictures(images, prefix, numbers, len(chosen))
    transfer = Transfer(dataset, device)
    subset = Subset(transfer.source, [chosen[number] for number in numbers[rank::world]])
    source = iter(loader(subset, workers=cfg.workers, pin=transfer.pin))
    hide = rank > 0 or not sys.stderr.isatty()
    with tqdm(total=len(numbers), desc="evaluate", unit="sample", leave=False, disable=hide) as bar:
        for first in range(0, len(numbers), world):  # a sample on each rank, as far as they go
            own = None
            if first + rank < len(numbers):
                pictures = numbers[first + rank] < cfg.eval_images
                own = measure_sample(cfg, device, transfer(next(source)), rows, pictures, lpips, spikes)
            for number, sample in zip(numbers[first:], distributed.gather(own), strict=False):
                if sample is not None:
                    if sample.pictures:
                        report.panels.append(save_pictures(sample, images, f"{prefix}_{number:04}"))
                    report.add(sample)
                    measured.append(sample)
                    bar.update()
    if report.faults and not report.count:
        raise InputError(
            f"none of the {len(chosen)} samples can be read; the first: {next(iter(report.faults.values()))}"
        )
    if parts and parts.shard.is_part and rank == 0:
        parts.write(prefix, measured)
    return report


def spread(samples: int, count: int) -> list[int]:
    """Which of ``count`` samples are measured: so many of them, spread evenly; 0 is all."""
    samples = min(samples or count, count)
    return [number * count // samples for number in range(samples)]


def remove_pictures(images: Path, prefix: str, numbers: Sequence[int], count: int) -> None:
    """Remove pictures of an earlier evaluation: of the samples with these numbers, and of more than ``count``."""
    for old in images.glob(f"{prefix}_*.png"):
        number = old.name[len(prefix) + 1 :].partition("_")[0]
        if number.isdecimal() and (int(number) in numbers or int(number) >= count):
            old.unlink()


def measure_sample(
    cfg, device: torch.device, sample: dict, rows: Rows, pictures: bool, lpips=None, spikes: bool = False
) -> Measured:
    """Measure the rows of one sample, a batch of one on the device; with ``pictures`` if asked; the rest as above."""
    if "faults" in sample:
        ((name, fault),) = sample["faults"].items()
        return Measured(name, fault=fault)
    measured, shown = Measured(sample["name"][0]), []
    with torch.inference_mode(), autocast(device, cfg.precision):
        synchronize(device)
        start = time.perf_counter()
        for row in rows(sample):
            synchronize(device)
            measured.seconds[row.name] = time.perf_counter() - start
            values = measured.values[row.name] = dict(row.figures)
            if row.target is not None:
                with torch.autocast(device.type, enabled=False):
                    for metric in cfg.metrics:
                        values[metric] = measure(row, metric, cfg.metric_convention, lpips)
            if pictures:
                shown.append((row, row.name))
            start = time.perf_counter()
    if pictures and "sharp" in sample:
        shown.append((Row("Sharp", sample["sharp"], None, "sharp"), "Sharp"))
    measured.pictures = [(row.kind, name, to_uint8(row.prediction[len(row.prediction) // 2])) for row, name in shown]
    if pictures and spikes and "spike" in sample:
        (light,) = lit([tfp(sample["spike"][0], EXPOSURE.centre, TFP_LENGTH)])
        measured.pictures.append((SPIKES, f"Spikes (TFP, {TFP_LENGTH} frames)", light))
    return measured


def save_pictures(sample: Measured, folder: Path, stem: str):
    """Write each picture under its official name, and all as a panel with a magnified part, which is returned.

    The sample then holds their files, as its view, and no pictures.
    """
    cells, layers = [], []
    for kind, name, image in sample.pictures:
        file = folder / f"{stem}_{kind}.png"
        write_image(file, image)
        value = sample.values.get(name, {}).get("psnr")
        layers.append(Layer(name, [file], [] if value is None else [value]))
        if kind != SPIKES:
            cells.append((image, name + ("" if value is None else f"  {value:.2f} dB")))
    panel = magnified(cells, columns=len(cells) if len(cells) <= 4 else (len(cells) + 1) // 2)
    write_image(folder / f"{stem}_panel.png", panel)
    size = max(image.shape[:2] for _, _, image in sample.pictures)
    sample.pictures, sample.view = [], View(sample.name, size, [EXPOSURE.centre], layers)
    return panel
