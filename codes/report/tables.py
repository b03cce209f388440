"""Tables of methods: image quality against sharp frames, and real captures, which have none.

A method is anything like :class:`codes.inference.methods.Method`: ``name``, ``title``, ``start(blur, spike)`` to a
function from instants to images, ``reference(sharp)``, ``networks``, ``weights``, ``parameters``, ``grey``.
"""

import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch.nn import functional as F

from codes.dataset import SpikeData
from codes.engine.device import describe
from codes.errors import InputError, MissingFileError, one_line
from codes.exposure import EXPOSURE
from codes.image import grey, read_image, to_float
from codes.metrics import lpips_network
from codes.report.evaluation import Report, Row, measure_rows, spread
from codes.report.page import Samples, Section
from codes.report.parts import Parts
from codes.report.table import METRICS, Table
from codes.sdm import Enlarge, Teacher, sdm
from codes.spike import evenly


@dataclass(frozen=True)
class Published:
    """Published figures that stand beside the measured ones.

    Args:
        columns: header -> format.
        figures: method's name -> a title and the figure, or None, of each column.
        source, note: where they come from; what must be known to compare them.
    """

    columns: dict[str, str]
    figures: dict[str, tuple]
    source: str
    note: str


PUBLISHED = {
    "sequence": Published(
        {f"published PSNR, Vth {vth}": ".2f" for vth in (1, 2, 4)},
        {
            "ldn": ("S-SDM", 26.89, 26.37, 25.43),
            "spkdeblurnet": ("SpkDeblurNet", 28.31, 14.41, 11.62),
            "refiddasr": ("REFID + DASR", 28.12, 15.29, 13.62),
        },
        "notes on SpikeGen (arXiv 2505.18049), a secondary source",
        "published figures: GOPRO test, Vth 1, 2, 4; from notes on SpikeGen (arXiv 2505.18049), a secondary source; "
        "not from the S-SDM paper",
    ),
    "ablation": Published(
        {"published PSNR": ".3f", "published SSIM": ".3f", "published LPIPS": ".3f"},
        {"teacher": ("the authors' teacher", 26.362, 0.732, 0.259), "ldn": ("the authors' LDN", 27.928, 0.786, 0.252)},
        "authors' published run on GOPRO test, Vth 1",
        "the authors' run has no figures for the other rows; its LDN is that of 100 epochs",
    ),
}
INSTANTS = {"centre": (EXPOSURE.centre,), "sequence": EXPOSURE.sequence_instants}
"""Instants of each protocol: officially the centre; the 7 of the sequence."""


@dataclass
class Quality:
    """A table of image quality against sharp frames: methods × thresholds, at the instants of a protocol.

    Args:
        name, title: of the table.
        protocol: which instants; the mean over those of an exposure counts.
        methods: one row each; their titles differ.
        thresholds: one group of columns each; 0 is 'spike_data', as it is.
        published: figures to stand beside.
        predictions: name -> folder of images of another program.
        ceilings: rows of an SDM that is given the sharp frames' light.
        notes: more sentences below the table.
    """

    name: str
    title: str
    protocol: Literal["centre", "sequence"]
    methods: list
    thresholds: Sequence[float] = (0,)
    published: Published | None = None
    predictions: dict[str, Path] = field(default_factory=dict)
    ceilings: bool = False
    notes: list[str] = field(default_factory=list)

    def table(self, cfg, device: torch.device, out: Path, parts: Parts | None = None) -> Table | None:
        """Measure, pictures into ``out/imgs``.

        Args:
            cfg: an evaluation's configuration (:class:`codes.engine.options.EvalConfig`) with ``eval_samples``.
            device: where the methods' networks are.
            out: folder.
            parts: the part that is measured, of which there is no table; or that the table is that of all parts.
        """
        instants, table = INSTANTS[self.protocol], Table(self.name, self.title, {"Method": "", "Parameters": ",d"})
        sharp = cfg.data_type != "real" and ("sequence" if self.protocol == "sequence" else True)
        sets = {vth: dataset(cfg, sharp, vth) for vth in self.thresholds}
        files = {vth: self.predicted(vth, data, chosen(cfg, data), table) for vth, data in sets.items()}
        cfg, lpips = with_lpips(cfg, device, table)
        reports = {}
        for vth, data in sets.items():

            def rows(sample, vth=vth):
                sharp = sample["sharps"][0] if "sharps" in sample else sample.get("sharp")
                for method in self.methods:
                    images = method.start(sample["blur"], sample["spike"])(instants)[0]
                    target = None if sharp is None else method.reference(sharp)
                    yield Row(method.title, images, target, word(method.title))
                if self.ceilings and sharp is not None:
                    yield from ceilings(sample["blur"], sample["spike"], sharp, instants)
                for name, paths in files[vth].items():
                    yield Row(name, read_predictions(paths[sample["name"][0]], sharp), sharp, word(name))

            prefix = self.name + (f"_vth{vth:g}" if vth else "")
            reports[vth] = measure_rows(
                cfg, device, data, rows, out / "imgs", prefix, cfg.eval_samples, lpips, True, parts
            )
        if parts and parts.shard.is_part:
            return None
        self.fill(table, reports, [metric for metric in METRICS if metric in cfg.metrics] if sharp else [])
        table.protocol = protocol(cfg, device, report=reports[vth], data=data, instants=instants)
        table.protocol.insert(1, f"spikes at Vth {', '.join(format(vth or 1, 'g') for vth in sets)}")
        table.sections = [
            Section(f"Samples at Vth {vth or 1:g}" if len(reports) > 1 else "Samples", samples=report.samples())
            for vth, report in reports.items()
        ]
        table.about["per_sample"] = {f"{vth or 1:g}": report.per_sample() for vth, report in reports.items()}
        table.notes += [note for method in self.methods if (note := note_on_weights(method))]
        if any(method.grey for method in self.methods):
            table.notes.append(
                "rows of spikes alone: grey images of the spikes' size, square pixels, against the grey sharp image; "
                "not made brighter at higher thresholds"
            )
        table.notes += self.notes + ([self.published.note] if self.published else [])
        return table

    def fill(self, table: Table, reports: dict[float, Report], metrics: list[str]) -> None:
        """The columns and rows: what was measured, and what is published."""
        means = {vth: report.means() for vth, report in reports.items()}
        for vth in reports:
            after = f", Vth {vth:g}" if vth else ""
            table.columns |= {METRICS[metric][0] + after: METRICS[metric][1] for metric in metrics}
        known = self.published or Published({"ms per image": ".0f"}, {}, "", "")
        table.columns |= known.columns | ({"source of the published": ""} if self.published else {})
        of_title, unseen = {method.title: method for method in self.methods}, dict(known.figures)
        for title in next(iter(means.values())) | dict.fromkeys(self.predictions):
            method = of_title.get(title)
            row = [title, method and method.parameters]
            row += [means[vth].get(title, {}).get(metric) for vth in reports for metric in metrics]
            if self.published:
                key = "".join(filter(str.isalnum, (method.name if method else title).lower()))
                unseen.pop(key, None)
                row += [*known.figures.get(key, [None] * 99)[1 : 1 + len(known.columns)]]
                row.append(known.source if key in known.figures else None)
            else:
                times = [report.times()[title] for report in reports.values() if title in report.seconds]
                row.append(statistics.fmean(times) / len(INSTANTS[self.protocol]))
            table.rows.append(row)
        for title, *figures in unseen.values():
            table.rows.append([title, None, *[None] * len(reports) * len(metrics), *figures, known.source])

    def predicted(self, vth: float, data: SpikeData, indices: Sequence[int], table: Table) -> dict[str, dict]:
        """Name of --predictions -> sample -> its files; without those that have none at this threshold, says a note.

        Raises:
            MissingFileError: some of the files are missing; says how many, and names the first ones.
        """
        found, vth, count = {}, vth or 1, len(INSTANTS[self.protocol])
        for name, folder in self.predictions.items():
            own = folder / f"vth{vth:g}"
            if not own.is_dir() and (vth != 1 or any(folder.glob("vth*"))):
                table.notes.append(f"{name} has no images at Vth {vth:g}: no folder {own}")
                continue
            root, files = own if own.is_dir() else folder, {}
            for index in indices:
                sharps = data.sharp_paths[index * count : (index + 1) * count]
                files[data.names[index]] = [root / p.parent.name / f"{p.stem}.png" for p in sharps]
            missing = [path for paths in files.values() for path in paths if not path.is_file()]
            if missing:
                raise MissingFileError(
                    f"--predictions {name}: {len(missing)} of {len(files) * count} images at Vth {vth:g} are missing: "
                    f"{', '.join(map(str, missing[:3]))}{' ...' if len(missing) > 3 else ''}; expected "
                    f"{root}/<sequence>/<frame>.png under the names of sharp_data's"
                )
            found[name] = files
        return found


def ceilings(blur: torch.Tensor, spike: torch.Tensor, sharp: torch.Tensor, instants: Sequence[int]):
    """Rows that tell what holds the SDM back: its window's enlarging, and how it would do if it knew the true light.

    Args:
        blur, spike: a batch of one, as a data set gives them.
        sharp: ``(M, 3, H, W)`` at M instants.
        instants: these.
    """
    many, enlarge = blur.expand(len(instants), -1, -1, -1), Enlarge("bilinear")

    def seen(image):  # by the spike camera: the mean of the central 2x2 of each 4x4 block, grey
        return enlarge(grey(F.interpolate(image, scale_factor=0.25, mode="bilinear")))

    images = {
        "SDM, raw TFP (9, bilinear)": Teacher.plain(9, "bilinear")(blur, spike, instants)[0],
        "SDM, noise-free spikes (bilinear)": sdm(many, seen(many), seen(sharp)),
        "SDM, true grey frames": sdm(many, grey(many), grey(sharp)),
    }
    for title, made in images.items():
        yield Row(title, made, sharp, word(title))


def real_table(
    cfg, device: torch.device, out: Path, methods: list, frames: int, parts: Parts | None = None
) -> Table | None:
    """Captures without a reference: LIQE, and the mean of the reconstructed sequence against the blurry image.

    Args:
        cfg, device, out, parts: as in :meth:`Quality.table`.
        methods: one row each.
        frames: how many of the sequence are averaged.
    """
    instants, data = evenly(EXPOSURE, frames), dataset(cfg, False, cfg.vth)
    table = Table("real", "Real captures, no reference", {"Method": "", "Parameters": ",d"})
    liqe, note = liqe_metric(device)

    def rows(sample):
        for method in methods:
            images = method.start(sample["blur"], sample["spike"])
            figures = {"liqe": liqe(images([EXPOSURE.centre])[:, 0])} if liqe else {}
            mean = sum(images([instant])[:, 0].float() for instant in instants) / len(instants)
            yield Row(method.title, mean, method.reference(sample["blur"]), word(method.title), figures)

    cfg = replace(cfg, metrics=("psnr",))
    report = measure_rows(cfg, device, data, rows, out / "imgs", "real", cfg.eval_samples, spikes=True, parts=parts)
    if parts and parts.shard.is_part:
        return None
    views = [report.views.get(name) for name in report.names]
    table.sections = [Section("Captures: the mean of their sequences", samples=Samples(report.names, {}, views))]
    groups: dict[str, list[str]] = {}
    for name in report.names:
        groups.setdefault(name.split("/")[0], []).append(name)
    for kind, digits in (("LIQE", ".3f"), ("reblur PSNR", ".2f")):
        table.columns |= {f"{kind}, {group}": digits for group in (*groups, "average")}

    def averages(title: str, metric: str) -> list:
        values = dict(zip(report.names, report.values[title][metric], strict=True))
        means = [statistics.fmean(values[name] for name in names) for names in groups.values()]
        return [*means, statistics.fmean(means)]

    nothing = [None] * (len(groups) + 1)
    for method in methods:
        table.rows.append([method.title, method.parameters])
        table.rows[-1] += averages(method.title, "liqe") if liqe else nothing
        table.rows[-1] += nothing if method.name == "blur" else averages(method.title, "psnr")
    table.notes = [text for method in methods if (text := note_on_weights(method))]
    table.notes += [note, "no published figures are known to this program"]
    table.notes.append("reblur PSNR says how well frames add up to the blurry image, not how sharp they are")
    table.protocol = [f"LIQE of the frame at {EXPOSURE.centre}, in R,G,B"]
    table.protocol.append(
        f"reblur PSNR: mean of {len(instants)} frames, evenly over the exposure, against the blur; at most 100 dB"
    )
    averaging = "mean over the captures of a group, then over groups"
    texts = protocol(cfg, device, report, data, instants, averaging)
    table.protocol += [text for text in texts if "SSIM" not in text]
    return table


def liqe_metric(device: torch.device):
    """(LIQE of an image ``(B, 3, H, W)``, B,G,R in [0, 1], or None, a note)."""
    licence = "its licence is non-commercial, so it is no requirement of this program"
    try:
        import pyiqa
    except ImportError:
        return None, f"no LIQE: pip install pyiqa, which fetches LIQE's weights on first use; {licence}"
    try:
        metric = pyiqa.create_metric("liqe", device=device)
    except Exception as error:  # whatever a package of many metrics may raise when weights cannot be had
        return None, f"no LIQE: pyiqa could not make it ({one_line(error)[:150]})"
    return lambda image: float(metric(image.float().clamp(0, 1).flip(1))), f"LIQE by pyiqa, 1 to 5; {licence}"


def dataset(cfg, use_sharp: bool | str, vth: float) -> SpikeData:
    """The test split at a firing threshold."""
    options = {"use_small": cfg.use_small, "vth": vth, "cache": cfg.cache, "use_sharp": use_sharp}
    return SpikeData(cfg.base_folder, cfg.data_type, "test", **options)


def chosen(cfg, data: SpikeData) -> list[int]:
    """The samples that :func:`codes.report.evaluation.measure_rows` measures."""
    return spread(cfg.eval_samples, len(data))


def with_lpips(cfg, device: torch.device, table: Table):
    """(the configuration, LPIPS or None); without its weights the metric is left out and a note says so."""
    if "lpips" not in cfg.metrics:
        return cfg, None
    try:
        return cfg, lpips_network("alex").to(device)
    except InputError as error:
        table.notes.append(f"no LPIPS: {error}")
        return replace(cfg, metrics=tuple(metric for metric in cfg.metrics if metric != "lpips")), None


def protocol(cfg, device, report: Report, data: SpikeData, instants, averaging: str = "") -> list[str]:
    """What was measured, in words."""
    kind = {"official": "on [-1, 1], data range 2", "standard": "on [0, 1], data range 1"}
    return [
        f"split {data.folder}",
        f"{report.count} exposures × {len(instants)} instants ({', '.join(map(str, instants))}) = "
        f"{report.count * len(instants)} images, whole frames",
        "predictions clipped to [0, 1], not rounded",
        "colour (B,G,R), mean over the three channels",
        "PSNR of each image, at most 100 dB; SSIM with a uniform 7×7 window, without a border of 3 pixels",
        f"{cfg.metric_convention} convention {kind[cfg.metric_convention]}",
        averaging or "mean over the images of an exposure, then over exposures",
        f"{cfg.precision} on {describe(device)}",
    ]


def note_on_weights(method) -> str:
    """A note on the weights behind a row, and whether its student makes spikes as bright as the image."""
    if not method.weights:
        return ""
    gains = [network.gain for network in method.networks.values() if hasattr(network, "gain")]
    gain = f", exposure gain {'on' if gains[0] else 'off'}" if gains else ""
    return f"{method.title}: weights {', '.join(map(shortest, method.weights))}{gain}"


def shortest(path) -> str:
    """A path as seen from the working directory, where that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)


def read_predictions(paths: list[Path], like: torch.Tensor) -> torch.Tensor:
    """Image files as ``(M, 3, H, W)`` of the size and on the device of ``like``."""
    images = []
    for path in paths:
        images.append(torch.from_numpy(to_float(read_image(path))))
        if images[-1].shape != like.shape[1:]:
            size, wanted = ("x".join(map(str, shape[-2:])) for shape in (images[-1].shape, like.shape))
            raise InputError(f"{path} is {size}, its sharp image {wanted}")
    return torch.stack(images).to(like.device)


def word(title: str) -> str:
    """A title as a part of a file name: 'SDM, raw TFP (9, nearest)' is 'sdm_raw_tfp_9_nearest'."""
    return re.sub(r"\W+", "_", title.replace("'", "")).strip("_").lower()
