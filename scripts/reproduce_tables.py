r"""The paper's tables from checkpoints, every published figure beside the measured one: Markdown, CSV, JSON, LaTeX.

    python scripts/reproduce_tables.py --table sequence --base_folder GOPRO
    python scripts/reproduce_tables.py --table sequence --base_folder GOPRO --predictions REFID=DIR
    python scripts/reproduce_tables.py --table efficiency
    python scripts/reproduce_tables.py --table ablation --base_folder GOPRO --no_reblur_path DeblurNet_last.pth
    python scripts/reproduce_tables.py --table real --base_folder RSB --data_type real

sequence: the 7 instants of every test exposure at each firing threshold that the data hold. efficiency: parameters,
MACs, peak memory and time per frame, and what training costs, on the machine at hand. ablation: the cascade built up
step by step at the centre of the exposure. real: captures without a reference; LIQE if pyiqa is there, and how well the
reconstructed sequence adds up to the blurry image. 'all' makes those that --data_type allows.

Weights are the authors' where model/ holds them, else ours, or those of --bsn_path, --sr_path and --deblur_path. Images
of another program, DIR/[vthV/]<sequence>/<frame>.png named as in sharp_data, get a row by --predictions NAME=DIR.
Tables go to OUT/<table>.{md,csv,json,tex} with the protocol behind them.
"""

import csv
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from codes.baselines.adapters import (  # noqa: E402
    VGGDistance,
    spkdeblurnet_input,
    spkdeblurnet_loss,
    stir_instants,
    stir_loss,
)
from codes.baselines.san_student import SANStudent  # noqa: E402
from codes.baselines.spkdeblurnet_model import SpkDeblurNet  # noqa: E402
from codes.baselines.stir_model import FRAMES, STIR  # noqa: E402
from codes.dataset import SpikeData  # noqa: E402
from codes.engine.command import command  # noqa: E402
from codes.engine.device import autocast, choose_device, describe, place  # noqa: E402
from codes.engine.options import EvalConfig, as_dict, option, parse_config  # noqa: E402
from codes.engine.run import provenance  # noqa: E402
from codes.engine.weights import Weights  # noqa: E402
from codes.errors import InputError, MissingFileError, one_line  # noqa: E402
from codes.files import replacing  # noqa: E402
from codes.image import grey, read_image, to_float  # noqa: E402
from codes.inference.methods import Method, load_method, methods  # noqa: E402
from codes.losses import TeacherLoss, reblur_loss  # noqa: E402
from codes.making.preparation import read_record  # noqa: E402
from codes.metrics import lpips_network  # noqa: E402
from codes.model.bsn_model import BSN  # noqa: E402
from codes.model.edsr_model import EDSR  # noqa: E402
from codes.model.ldn_model import Deblur_Net  # noqa: E402
from codes.model.registry import NETWORKS  # noqa: E402
from codes.report.evaluation import Report, Row, measure_rows  # noqa: E402
from codes.sdm import Teacher  # noqa: E402
from codes.spike import EXPOSURE, evenly, mirrored_windows, tfp  # noqa: E402
from codes.student import Sight  # noqa: E402
from scripts.dev import textbook  # noqa: E402
from scripts.dev.measuring import FlopCounter, peak_memory, timed  # noqa: E402

SEQUENCE_SOURCE = "notes on SpikeGen (arXiv 2505.18049), a secondary source"
PUBLISHED_SEQUENCE = {  # key: (title, PSNR at Vth 1, 2, 4)
    "ldn": ("S-SDM", {1: 26.89, 2: 26.37, 4: 25.43}),
    "spkdeblurnet": ("SpkDeblurNet", {1: 28.31, 2: 14.41, 4: 11.62}),
    "refiddasr": ("REFID + DASR", {1: 28.12, 2: 15.29, 4: 13.62}),
}
RUN_SOURCE = "authors' published run on GOPRO test, Vth 1"
PUBLISHED_ABLATION = {  # PSNR, SSIM, LPIPS; the LDN after 100 epochs
    "teacher": (26.362, 0.732, 0.259),
    "ldn": (27.928, 0.786, 0.252),
}
PUBLISHED_EFFICIENCY = {  # parameters, GMAC at 720x1280, seconds of an epoch in the authors' logs
    "bsn": (1_118_832, 217.7, 83.0),
    "edsr": (1_515_269, 113.1, 20.0),
    "teacher": (None, 444.0, None),
    "ldn": (234_158, 15.9, 227.0),
    "san": (2_421_882, None, None),
    "stir": (5_107_960, None, None),
    "spkdeblurnet": (13_464_684, 851.5, None),
}


@dataclass(frozen=True)
class Schedule:
    """The length of an official training: ``epochs`` of ``per_batch`` steps for each batch, or so many ``steps``."""

    epochs: int = 101
    per_batch: int = 1
    batch: int = 4
    crop: int = 512
    steps: int = 0


SCHEDULES = {
    "bsn": Schedule(epochs=1001, per_batch=5),
    "edsr": Schedule(),
    "ldn": Schedule(),
    "san": Schedule(),
    "stir": Schedule(batch=8, crop=384, steps=200_000),
    "spkdeblurnet": Schedule(batch=8, crop=256, steps=100_000),
}
BATCH, CROP = 4, 512
ENOUGH = 10.0
"""Seconds of a run from which on it is timed once."""


@dataclass(frozen=True)
class TablesConfig(EvalConfig):
    """Which tables, from what."""

    table: Literal["sequence", "efficiency", "ablation", "real", "all"] = option("all", "which table")
    out: str = option("exp/tables", "folder for <table>.md, .csv, .json, .tex and pictures")
    metrics: tuple[Literal["ssim", "psnr", "mse", "lpips"], ...] = option(
        ("psnr", "ssim", "lpips"), "metrics; lpips is left out where its weights cannot be had"
    )
    eval_samples: int = option(0, "samples, spread evenly over the test split (0: all)", low=0)
    eval_images: int = option(0, "samples of each table that are saved as pictures", low=0)
    methods: str = option("", "methods of codes/methods.py, with commas between ('' : all)")
    bsn_path: str = option("", "weights of BSN ('' : the authors' in model/, else ours)")
    sr_path: str = option("", "weights of EDSR, likewise")
    deblur_path: str = option("", "weights of the LDN, likewise")
    san_path: str = option("", "weights of SAN as a student ('' : model/SAN.pth)")
    stir_path: str = option("", "weights of STIR ('' : the authors' model/STIR_pretrain.pth, else model/STIR.pth)")
    spkdeblurnet_path: str = option(
        "", "weights of SpkDeblurNet ('' : the authors' model/gopro_56_100000_SpikeDeblur.pth, else SpkDeblurNet.pth)"
    )
    spike_gain: Literal["off", "auto"] = option("off", "auto: make spikes as bright as the image for every LDN")
    predictions: str = option("", "NAME=DIR: images of another program, for 'sequence'; may be given several times")
    no_reblur_path: str = option("", "weights of an LDN trained with --lambda_reblur 0, for 'ablation'")
    reblur_frames: int = option(13, "frames of 'real' whose mean is compared with the blurry image", low=1, high=97)
    size: str = option("720x1280", "image size of 'efficiency'")
    quick: bool = option(False, "'efficiency' at 96x128, batch 1, crop 64: does it run at all")
    train_samples: int = option(1000, "samples in an epoch, for the cost of training", low=1)
    step_batch: int = option(BATCH, "batch of a timed training step; the cost is scaled to 4", low=1)
    step_crop: int = option(CROP, "crop of a timed training step; the cost is scaled to 512", low=64)
    memory: bool = option(True, "measure peak memory; on a CPU each network in a process of its own")
    peak: str = option("", "only print the peak memory of a network of 'efficiency', in bytes (used by the script)")


@dataclass
class Table:
    """A table as it is printed and written.

    Args:
        name, title: of the files; above the table.
        columns: header -> format of its numbers, such as '.2f'; '' is text.
        rows: one value or None for each column.
        protocol, notes: sentences below it.
    """

    name: str
    title: str
    columns: dict[str, str]
    rows: list[list] = field(default_factory=list)
    protocol: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def cells(self) -> list[list[str]]:
        """The rows as text; '–' where there is no value."""
        return [
            ["–" if x is None else format(x, f) for x, f in zip(row, self.columns.values(), strict=True)]
            for row in self.rows
        ]

    def markdown(self) -> str:
        """The table in Markdown, with protocol and notes."""
        lines = [list(self.columns), ["---"] * len(self.columns), *self.cells()]
        body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        below = [f"Protocol: {'; '.join(self.protocol)}.", *(f"- {note}" for note in self.notes)]
        return "\n".join([f"### {self.title}", "", *body, "", below[0], "", *below[1:]]).rstrip() + "\n"

    def latex(self) -> str:
        """The table in LaTeX, without packages; protocol and notes as comments."""
        known = {"\\": "\\textbackslash{}", "–": "--", "×": "$\\times$", "~": "\\textasciitilde{}"}
        known |= {sign: "\\" + sign for sign in "&%$#_{}"}

        def line(cells):
            return " & ".join("".join(known.get(sign, sign) for sign in cell) for cell in cells) + " \\\\"

        about = [f"% {text}" for text in (self.title, *self.protocol, *self.notes)]
        sides = "".join("r" if kind else "l" for kind in self.columns.values())
        body = [line(self.columns), "\\hline", *map(line, self.cells())]
        return "\n".join([*about, f"\\begin{{tabular}}{{{sides}}}", *body, "\\end{tabular}"]) + "\n"

    def write(self, folder: Path, about: dict) -> None:
        """Write the four files; CSV and JSON hold the numbers unrounded."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        values = {"table": self.name, "title": self.title, "rows": rows, "protocol": self.protocol, "notes": self.notes}
        texts = {".md": self.markdown(), ".tex": self.latex(), ".json": json.dumps({**values, **about}, indent=1)}
        for suffix, text in texts.items():
            with replacing(folder / (self.name + suffix)) as path:
                path.write_text(text, encoding="utf-8")
        with replacing(folder / f"{self.name}.csv") as path, open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([list(self.columns), *self.rows])


class Maker:
    """What the tables share: configuration, device, weights and methods.

    Args:
        cfg: the configuration.
    """

    def __init__(self, cfg: TablesConfig):
        self.cfg, self.device, self.out = cfg, choose_device(cfg.device), Path(cfg.out)
        paths = {
            kind: getattr(cfg, f"{kind}_path")
            for kind in (*(network.flag for network in NETWORKS.values()), "no_reblur")
        }
        for kind, path in paths.items():
            if path and not Path(path).is_file():
                raise MissingFileError(f"no weights: --{kind}_path {path} does not exist")
        paths.pop("no_reblur")
        self.weights = Weights(**paths, official=True, gain=cfg.spike_gain == "auto")
        self.names = [name.strip() for name in cfg.methods.split(",")] if cfg.methods else list(methods())
        for name in set(self.names) - set(methods()):
            raise InputError(f"--methods: no method '{name}'; expected some of {','.join(methods())}")
        self.loaded: dict[str, Method | str] = {}

    def method(self, name: str, table: Table) -> Method | None:
        """A method; without its weights None, and the reason among the notes."""
        if name not in self.loaded:
            try:
                self.loaded[name] = load_method(name, self.weights, self.device)
            except FileNotFoundError as error:
                self.loaded[name] = f"{name} is left out: {one_line(error)}"
        found = self.loaded[name]
        if isinstance(found, str):
            table.notes.append(found)
            return None
        if found.weights:
            table.notes.append(weights_of(found, found.title))
        return found

    def methods(self, table: Table, names=None) -> list[Method]:
        """The methods whose weights are there."""
        found = (self.method(name, table) for name in (self.names if names is None else names) if name in self.names)
        return [method for method in found if method]

    def dataset(self, use_sharp: bool | str, vth: float) -> SpikeData:
        """The test split at a firing threshold."""
        options = {"use_small": self.cfg.use_small, "vth": vth, "cache": self.cfg.cache, "use_sharp": use_sharp}
        return SpikeData(self.cfg.base_folder, self.cfg.data_type, "test", **options)

    def chosen(self, dataset: SpikeData) -> list[int]:
        """The samples that :func:`codes.report.evaluation.measure_rows` measures."""
        count = min(self.cfg.eval_samples or len(dataset), len(dataset))
        return [index * len(dataset) // count for index in range(count)]

    def lpips(self, table: Table):
        """(the configuration, LPIPS or None); without its weights the metric is left out and a note says so."""
        if "lpips" not in self.cfg.metrics:
            return self.cfg, None
        try:
            return self.cfg, lpips_network("alex").to(self.device)
        except InputError as error:
            table.notes.append(f"no LPIPS: {error}")
            return replace(self.cfg, metrics=tuple(m for m in self.cfg.metrics if m != "lpips")), None

    def measure(self, cfg, dataset: SpikeData, rows, prefix: str, lpips=None) -> Report:
        """The report of some rows."""
        return measure_rows(cfg, self.device, dataset, rows, self.out / "imgs", prefix, cfg.eval_samples, lpips)

    def protocol(self, report: Report, dataset: SpikeData, instants, averaging: str) -> list[str]:
        """What was measured, in words."""
        kind = {"official": "on [-1, 1], data range 2", "standard": "on [0, 1], data range 1"}
        return [
            f"split {dataset.folder}",
            f"{report.count} exposures × {len(instants)} instants ({', '.join(map(str, instants))}) = "
            f"{report.count * len(instants)} images, whole frames",
            "predictions clipped to [0, 1], not rounded",
            "colour (B,G,R), mean over the three channels",
            "PSNR of each image; SSIM with a uniform 7×7 window, without a border of 3 pixels",
            f"{self.cfg.metric_convention} convention {kind[self.cfg.metric_convention]}",
            averaging,
            f"{self.cfg.precision} on {describe(self.device)}",
        ]


DIGITS = {"psnr": ("PSNR", ".2f"), "ssim": ("SSIM", ".3f"), "mse": ("MSE", ".5f"), "lpips": ("LPIPS", ".3f")}
TO_EXPOSURES = "mean over the images of an exposure, then over exposures"


def shortest(path) -> str:
    """A path as seen from the working directory, where that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)


def weights_of(method: Method, title: str) -> str:
    """A note on the weights behind a row, and whether its student makes spikes as bright as the image."""
    gains = [network.gain for network in method.networks.values() if hasattr(network, "spike_dim")]
    gain = f", exposure gain {'on' if gains[0] else 'off'}" if gains else ""
    return f"{title}: weights {', '.join(map(shortest, method.weights))}{gain}"


def thresholds(cfg: TablesConfig) -> list[float]:
    """The firing thresholds 1, 2 and 4 as far as the test split holds their spikes; with --vth that one."""
    if cfg.vth:
        return [cfg.vth]
    test = Path(cfg.base_folder) / "test"
    if (test / "spike_data").is_dir() and (vth := read_record(test).get("spike_data", {}).get("vth", 1)) != 1:
        raise InputError(
            f"{test / 'spike_data'} holds spikes of Vth {vth:g}, not 1 (prepared.json); "
            f"rename it to spike_data_vth{vth:g}"
        )
    return [
        v for v in (1, 2, 4) if (test / f"spike_data_vth{v}").is_dir() or (v == 1 and (test / "spike_data").is_dir())
    ]


def predictions(cfg: TablesConfig) -> dict[str, Path]:
    """Name -> folder of --predictions."""
    found = {}
    for text in filter(None, cfg.predictions.split("\n")):
        name, sign, folder = text.partition("=")
        if not (name and sign and folder):
            raise InputError(f"--predictions is '{text}'; expected NAME=DIR")
        if name in found:
            raise InputError(f"--predictions names '{name}' twice")
        if not Path(folder).is_dir():
            raise MissingFileError(f"--predictions {name}: the folder {folder} does not exist")
        found[name] = Path(folder)
    return found


def predicted(name: str, folder: Path, vth: float, dataset: SpikeData, chosen, table: Table) -> dict | None:
    """Sample name -> its 7 files; None and a note where the folder has none at this threshold.

    Raises:
        FileNotFoundError: some of the files are missing; says how many, and names the first ones.
    """
    own = folder / f"vth{vth:g}"
    if not own.is_dir() and (vth != 1 or any(folder.glob("vth*"))):
        table.notes.append(f"{name} has no images at Vth {vth:g}: no folder {own}")
        return None
    root = own if own.is_dir() else folder
    files = {}
    for index in chosen:
        spike, count = dataset.spike_paths[index], len(EXPOSURE.sequence_instants)
        sharps = dataset.sharp_paths[index * count : (index + 1) * count]
        files[f"{spike.parent.name}/{spike.stem}"] = [root / p.parent.name / f"{p.stem}.png" for p in sharps]
    missing = [path for paths in files.values() for path in paths if not path.is_file()]
    if missing:
        raise MissingFileError(
            f"--predictions {name}: {len(missing)} of {len(files) * count} images at Vth {vth:g} are missing: "
            f"{', '.join(map(str, missing[:3]))}{' ...' if len(missing) > 3 else ''}; expected "
            f"{root}/<sequence>/<frame>.png under the names of sharp_data's"
        )
    return files


def read_predictions(paths: list[Path], like: torch.Tensor) -> torch.Tensor:
    """Image files as ``(M, 3, H, W)`` of the size and on the device of ``like``."""
    images = []
    for path in paths:
        images.append(torch.from_numpy(to_float(read_image(path))))
        if images[-1].shape != like.shape[1:]:
            size, wanted = ("x".join(map(str, shape[-2:])) for shape in (images[-1].shape, like.shape))
            raise InputError(f"{path} is {size}, its sharp image {wanted}")
    return torch.stack(images).to(like.device)


def sequence_table(maker: Maker) -> Table:
    """The 7 instants of every test exposure at each firing threshold."""
    cfg, instants = maker.cfg, EXPOSURE.sequence_instants
    table = Table("sequence", "Sequence reconstruction, 7 instants of each exposure", {})
    others = predictions(cfg)
    vths = thresholds(cfg) or [0]
    sets = {vth: maker.dataset("sequence", vth) for vth in vths}
    files = {
        (name, vth): predicted(name, folder, vth or 1, data, maker.chosen(data), table)
        for name, folder in others.items()
        for vth, data in sets.items()
    }
    methods = maker.methods(table)
    run, lpips = maker.lpips(table)
    means = {}
    for vth, data in sets.items():

        def rows(sample, vth=vth):
            sharps = sample["sharps"][0]
            for method in methods:
                images = method.start(sample["blur"], sample["spike"])(instants)[0]
                yield Row(method.title, images, method.reference(sharps), method.name)
            for name in others:
                if files[name, vth]:
                    images = read_predictions(files[name, vth][sample["name"][0]], sharps)
                    yield Row(name, images, sharps, "prediction")

        report = maker.measure(run, data, rows, f"vth{vth:g}", lpips)
        means[vth] = report.means()
    shown = [(vth, metric) for vth in sets for metric in DIGITS if metric in run.metrics]
    table.columns = {"Method": "", "Parameters": ",d"}
    table.columns |= {f"{DIGITS[metric][0]}, Vth {vth:g}": DIGITS[metric][1] for vth, metric in shown}
    table.columns |= {f"published PSNR, Vth {vth}": ".2f" for vth in (1, 2, 4)} | {"source of the published": ""}
    unseen = dict(PUBLISHED_SEQUENCE)
    made = [(method.name, method.title, method.parameters) for method in methods] + [(n, n, None) for n in others]
    for name, title, parameters in made:
        key = "".join(filter(str.isalnum, name.lower()))
        known = unseen.pop(key, (None, {}))[1]
        measured = [means[vth].get(title, {}).get(metric) for vth, metric in shown]
        table.rows.append([title, parameters, *measured, *(known.get(v) for v in (1, 2, 4))])
        table.rows[-1].append(SEQUENCE_SOURCE if known else None)
    for title, known in unseen.values():
        table.rows.append([title, None, *[None] * len(shown), *known.values(), SEQUENCE_SOURCE])
    table.protocol = maker.protocol(report, data, instants, TO_EXPOSURES)
    table.protocol.insert(1, f"spikes at Vth {', '.join(format(vth or 1, 'g') for vth in sets)}")
    if any(method.grey for method in methods):
        table.notes.append(
            "rows of spikes alone: grey images of the spikes' size, square pixels, against the grey sharp image; not "
            "made brighter at higher thresholds"
        )
    table.notes.append(f"published figures: GOPRO test, Vth 1, 2, 4; from {SEQUENCE_SOURCE}; not from the S-SDM paper")
    return table


def ablation_table(maker: Maker) -> Table:
    """The cascade built up step by step at the centre of the exposure: the official test protocol."""
    cfg, centre = maker.cfg, [EXPOSURE.centre]
    table = Table("ablation", "Ablation at the centre of the exposure", {})
    steps = {"sdm": "SDM (raw TFP)", "sdm_bsn": "+ BSN", "teacher": "+ SR: the teacher", "ldn": "+ LDN"}
    methods = maker.methods(table, steps)
    without, last = None, "LDN without the reblur loss"
    if cfg.no_reblur_path:
        weights = replace(maker.weights, deblur=cfg.no_reblur_path)
        without = replace(load_method("ldn", weights, maker.device), name="no_reblur")
        methods.append(without)
        table.notes.append(weights_of(without, last))
    data, (run, lpips) = maker.dataset(True, cfg.vth), maker.lpips(table)

    def rows(sample):
        for method in methods:
            image = method.start(sample["blur"], sample["spike"])(centre)[0]
            yield Row(method.name, image, sample["sharp"], method.name)

    report = maker.measure(run, data, rows, "ablation", lpips)
    means, shown = report.means(), [metric for metric in DIGITS if metric in run.metrics]
    table.columns = {"Method": "", "Parameters": ",d"} | {DIGITS[m][0]: DIGITS[m][1] for m in shown}
    table.columns |= {"published PSNR": ".3f", "published SSIM": ".3f", "published LPIPS": ".3f", "source": ""}
    steps |= {"no_reblur": last} if without else {}
    for method in methods:
        known = PUBLISHED_ABLATION.get(method.name)
        table.rows.append([steps[method.name], method.parameters, *(means[method.name][m] for m in shown)])
        table.rows[-1] += [*(known or [None] * 3), RUN_SOURCE if known else None]
    bsn, sr = (shortest(maker.weights.path(kind)) for kind in ("bsn", "edsr"))
    train = f"python train_deblur.py --base_folder {cfg.base_folder} --bsn_path {bsn} --sr_path {sr}"
    commands = {weight: f"`{train} --lambda_reblur {weight} --exp_name reblur{weight}`" for weight in (100, 0)}
    if not without:
        table.rows.append([f"{last}: train it, see below", *[None] * (len(table.columns) - 1)])
    table.notes += [
        f"the LDN with the reblur loss is trained by {commands[100]}",
        f"without it by {commands[0]}, then --no_reblur_path exp/Deblur/reblur0/ckpts/DeblurNet_last.pth",
    ]
    table.notes.append("the authors' run has no figures for the other rows; its LDN is that of 100 epochs")
    table.protocol = maker.protocol(report, data, centre, "mean over images")
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


def real_table(maker: Maker) -> Table:
    """Captures without a reference: LIQE, and the mean of the reconstructed sequence against the blurry image."""
    cfg, instants = maker.cfg, evenly(EXPOSURE, maker.cfg.reblur_frames)
    table = Table("real", "Real captures, no reference", {})
    liqe, note = liqe_metric(maker.device)
    methods, data = maker.methods(table), maker.dataset(False, cfg.vth)
    scores: dict[str, dict[str, float]] = {method.title: {} for method in methods}

    def rows(sample):
        for method in methods:
            images = method.start(sample["blur"], sample["spike"])
            if liqe:
                scores[method.title][sample["name"][0]] = liqe(images([EXPOSURE.centre])[:, 0])
            mean = sum(images([instant])[:, 0].float() for instant in instants) / len(instants)
            yield Row(method.title, mean, method.reference(sample["blur"]), method.name)

    report = maker.measure(replace(cfg, metrics=("psnr",)), data, rows, "real")
    groups: dict[str, list[str]] = {}
    for name in report.names:
        groups.setdefault(name.split("/")[0], []).append(name)
    table.columns = {"Method": "", "Parameters": ",d"} | {f"LIQE, {group}": ".3f" for group in groups}
    table.columns |= {"LIQE, average": ".3f"} | {f"reblur PSNR, {group}": ".2f" for group in groups}
    table.columns |= {"reblur PSNR, average": ".2f"}

    def averages(values: dict[str, float]) -> list:
        means = [statistics.fmean(values[name] for name in names) for names in groups.values()]
        return [*means, statistics.fmean(means)]

    nothing = [None] * (len(groups) + 1)
    for method in methods:
        psnr = dict(zip(report.names, report.values[method.title]["psnr"], strict=True))
        table.rows.append([method.title, method.parameters])
        table.rows[-1] += averages(scores[method.title]) if liqe else nothing
        table.rows[-1] += nothing if method.name == "blur" else averages(psnr)
    table.notes += [note, "no published figures are known to this program"]
    table.notes.append("reblur PSNR says how well frames add up to the blurry image, not how sharp they are")
    averaging = "mean over the captures of a group, then over groups"
    table.protocol = [f"LIQE of the frame at {EXPOSURE.centre}, in R,G,B"]
    table.protocol.append(f"reblur PSNR: mean of {len(instants)} frames, evenly over the exposure, against the blur")
    table.protocol += [text for text in maker.protocol(report, data, instants, averaging) if "SSIM" not in text]
    return table


@dataclass
class Entry:
    """A line of the efficiency table.

    Args:
        title: its name.
        networks: by title.
        run: computes a number of instants of one exposure.
        layers: the textbook form of what one instant takes: (network, shapes of its inputs).
    """

    title: str
    networks: list[nn.Module]
    run: Callable[[int], object]
    layers: list[tuple[nn.Module, list[tuple[int, ...]]]] = field(default_factory=list)

    def work(self, instants: int) -> float:
        """Multiply-adds as they are executed."""
        with FlopCounter() as counter, torch.inference_mode():
            self.run(instants)
        return counter.total / 2

    def written(self) -> float | None:
        """Multiply-adds of one instant layer by layer, as the networks are written down; nothing is computed."""
        total = 0
        for network, shapes in self.layers:
            with FlopCounter() as counter, torch.no_grad():
                textbook.twin(network).to("meta")(*(torch.empty(shape, device="meta") for shape in shapes))
            total += counter.total / 2
        return total or None


def entries(maker: Maker, height: int, width: int) -> dict[str, Entry]:
    """The networks of the efficiency table on one frame; their cost needs no trained weights."""
    torch.manual_seed(0)
    device, h, w = maker.device, height // 4, width // 4
    blur = torch.rand(1, 3, height, width, device=device)
    spike = (torch.rand(1, EXPOSURE.total, h, w, device=device) < 0.4).to(torch.uint8)
    texture = tfp(spike, EXPOSURE.centre, 9)
    bsn, sr, ldn = (place(build(), device).eval() for build in (BSN, EDSR, Deblur_Net))
    small, large = (1, 1, h, w), (1, 3, height, width)
    layers = {"teacher": [(bsn, [small]), (sr, [small]), (sr, [small])], "ldn": [(ldn, [large, (1, 21, h, w)])]}
    found = {
        "bsn": Entry("BSN", [bsn], lambda count: [bsn(texture) for _ in range(count)], layers["teacher"][:1]),
        "edsr": Entry("EDSR", [sr], lambda count: [sr(texture) for _ in range(count)], layers["teacher"][1:2]),
    }
    for name in maker.names:
        if name.startswith("sdm"):  # parts of the others
            continue
        method = load_method(name, Weights(random=True), device)
        if method.networks:

            def run(count, method=method):
                return method.start(blur, spike)(evenly(EXPOSURE, count))

            found[name] = Entry(method.title, list(method.networks.values()), run, layers.get(name, []))
    return found


def training_steps(device: torch.device, precision: str, batch: int, crop: int) -> dict[str, tuple[Callable, float]]:
    """One optimiser step of each training in its official recipe, on random data, VGG weights random too.

    Args:
        device, precision: where and how.
        batch, crop: at most so many; the recipe's own where that is less.

    Returns:
        Name -> the step, and how many times as many pixels the recipe's own step has.
    """
    torch.manual_seed(0)
    bsn, sr, ldn, san, stir, spk = (
        place(build(), device) for build in (BSN, EDSR, Deblur_Net, SANStudent, STIR, SpkDeblurNet)
    )
    teacher = Teacher.cascade(*(place(build(), device) for build in (BSN, EDSR)))
    distance, instants = place(TeacherLoss("lpips", pretrained=False), device), EXPOSURE.instants()
    perceptual = place(VGGDistance(pretrained=False), device)

    def bsn_loss(blur, spike):
        noisy = tfp(spike, EXPOSURE.centre, 9)
        with autocast(device, precision):
            output = bsn(noisy)
        return F.mse_loss(output.clamp(0, 1).float(), noisy)

    def sr_loss(blur, spike):
        with autocast(device, precision):
            output = sr(tfp(spike, EXPOSURE.centre, EXPOSURE.length))
        return F.mse_loss(output.clamp(0, 1).float(), grey(blur))

    def student_loss(student):
        def loss(blur, spike):
            with autocast(device, precision):
                labels = teacher(blur, spike, instants)
                students = student(blur, Sight.of(student)(blur, spike, instants))
            students = students.float().clamp(0, 1)
            return distance(students, labels) + 100 * reblur_loss(students, blur)

        return loss

    def stir_step_loss(blur, spike):
        chosen = stir_instants(EXPOSURE.total, EXPOSURE.sequence_instants)
        sharp = F.avg_pool2d(grey(blur), 4).repeat(len(chosen), 1, 1, 1)
        with autocast(device, precision):
            images = stir(mirrored_windows(spike, chosen, FRAMES).transpose(0, 1).flatten(0, 1))
        return stir_loss([image.float().clamp(0, 1) for image in images], sharp, perceptual)

    def spk_loss(blur, spike):
        with autocast(device, precision):
            images = spk(*spkdeblurnet_input(spk, blur, spike, EXPOSURE.centre))
        return spkdeblurnet_loss([image.float() for image in images], blur, grey(blur))

    def step(name, network, loss):
        own = SCHEDULES[name]
        count, side = min(batch, own.batch), min(max(crop, 128 if name == "spkdeblurnet" else 64), own.crop)
        blur = torch.rand(count, 3, side, side, device=device)
        spike = (torch.rand(count, EXPOSURE.total, side // 4, side // 4, device=device) < 0.4).to(torch.uint8)
        optimiser = torch.optim.Adam(p for p in network.parameters() if p.requires_grad)

        def run():
            optimiser.zero_grad()
            loss(blur, spike).backward()
            optimiser.step()

        return run, own.batch * own.crop**2 / (count * side**2)

    losses = {"bsn": (bsn, bsn_loss), "edsr": (sr, sr_loss), "ldn": (ldn, student_loss(ldn))}
    losses |= {"san": (san, student_loss(san)), "stir": (stir, stir_step_loss), "spkdeblurnet": (spk, spk_loss)}
    return {name: step(name, *parts) for name, parts in losses.items()}


def typical(run: Callable, device: torch.device, repeats: int) -> float:
    """Seconds of ``run``: the median after one to warm up, which is the figure itself where it takes long."""
    first = timed(run, device)
    return first if first > ENOUGH else statistics.median(timed(run, device) for _ in range(repeats))


def frame_size(cfg: TablesConfig) -> tuple[int, int]:
    """Height and width of --size."""
    parts = cfg.size.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) >= 64 and int(part) % 4 == 0 for part in parts):
        raise InputError(f"--size is '{cfg.size}'; expected HEIGHTxWIDTH, multiples of 4 from 64 on, as 720x1280")
    return int(parts[0]), int(parts[1])


def peak_of(cfg: TablesConfig, name: str, entry: Entry, device: torch.device, extra: list[str]) -> float:
    """Bytes at the peak of one frame; on a CPU measured in a new process, where it is exact."""
    if device.type == "cuda":
        with torch.inference_mode(), autocast(device, cfg.precision):
            return peak_memory(lambda: entry.run(1), device)
    flags = ["--table", "efficiency", "--device", str(device), "--precision", cfg.precision, "--size", cfg.size]
    # Linux counts the peak of the program that starts another as the other's; the shell between them has none.
    shell = ["sh", "-c", '"$@"; exit $?', "sh"] if sys.platform == "linux" else []
    call = [*shell, sys.executable, __file__, *flags, *extra, "--peak", name]
    done = subprocess.run(call, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{name}: measuring its memory failed ({done.stderr.strip().splitlines()[-1]})")
    return float(done.stdout.split()[-1])


def efficiency_table(maker: Maker) -> Table:
    """Parameters, work, memory, time, and what training costs, on the machine at hand."""
    cfg, device = maker.cfg, maker.device
    if cfg.quick:
        cfg = replace(cfg, size="96x128", step_batch=1, step_crop=64)
    if cfg.step_crop % 64:
        raise InputError(f"--step_crop is {cfg.step_crop}; expected a multiple of 64")
    height, width = frame_size(cfg)
    table = Table("efficiency", f"Cost of a {height}×{width} frame and of training", {"Network": ""})
    lines, repeats = entries(maker, height, width), 1 if cfg.quick else 5
    if cfg.peak:
        if cfg.peak not in lines:
            raise InputError(f"--peak is '{cfg.peak}'; expected one of {', '.join(lines)}")
        with torch.inference_mode(), autocast(device, cfg.precision):
            print(peak_memory(lambda: lines[cfg.peak].run(1), device))
        raise SystemExit
    try:
        steps = training_steps(device, cfg.precision, cfg.step_batch, cfg.step_crop)
    except InputError as error:
        steps = {}
        table.notes.append(f"no training steps: {error}")
    table.columns |= {"parameters": ",d", "published parameters": ",d", "GMAC": ".2f", "GMAC, further instant": ".2f"}
    table.columns |= {"GMAC as written": ".2f", "published GMAC, 720×1280": ".1f", "peak memory, MB": ".0f"}
    table.columns |= {"ms": ".1f", "s per training step": ".3g", "steps of the schedule": ",d", "s per epoch": ",.0f"}
    table.columns |= {"authors' s per epoch": ".0f", "whole training, h": ",.1f"}
    extra, hours = ["--methods", ",".join(maker.names)], []
    for name, entry in lines.items():
        parameters, macs, epoch = PUBLISHED_EFFICIENCY.get(name, (None, None, None))
        once, twice = entry.work(1), entry.work(2)
        peak = None
        if cfg.memory and not (cfg.quick and device.type == "cpu"):
            peak = peak_of(cfg, name, entry, device, extra) / 1e6
        with torch.inference_mode(), autocast(device, cfg.precision):
            seconds = typical(lambda entry=entry: entry.run(1), device, repeats)
        row = [entry.title, sum(p.numel() for net in entry.networks for p in net.parameters()), parameters, once / 1e9]
        row += [(twice - once) / 1e9, w / 1e9 if (w := entry.written()) else None, macs, peak, 1000 * seconds]
        if name in steps:
            (run, share), own = steps[name], SCHEDULES[name]
            step, batches = typical(run, device, repeats), -(-cfg.train_samples // own.batch)
            number = own.steps or own.epochs * own.per_batch * batches
            whole = step * share * number / 3600
            hours += [whole] if name in ("bsn", "edsr", "ldn") else []
            row += [step, number, step * share * own.per_batch * batches, epoch, whole]
        table.rows.append(row + [None] * (len(table.columns) - len(row)))
    if hours:
        table.rows.append(["S-SDM, all three stages", *[None] * (len(table.columns) - 2), sum(hours)])
    table.protocol = [
        f"one {height}×{width} image, batch 1, whole frame, one instant with what its exposure shares, median of "
        f"{repeats} after one to warm up",
        f"training step: batch {cfg.step_batch}, crop {cfg.step_crop} or the recipe's own where that is less, random "
        "data, Adam; a student's with teacher and LPIPS-VGG at 5 instants, STIR's with its perceptual loss at 5",
        f"whole training: 1001, 101 and 101 epochs at batch {BATCH}, crop {CROP}; SAN as the LDN; SpkDeblurNet 100,000 "
        f"steps at batch 8, crop 256; STIR 200,000 at batch 8, crop 384; {cfg.train_samples:,d} samples in an epoch "
        "(--train_samples, an assumption: our sources do not give GOPRO's number), without reading and evaluation; "
        "scaled by pixels where the timed step is smaller",
        f"{cfg.precision} on {describe(device)}",
    ]
    table.notes += [
        "GMAC: multiply-adds of convolutions and matrix products as executed (torch's flop counter / 2); 'as written': "
        "layer by layer, as the papers count; at full frames ours executes fewer for BSN (no mirrored padding) "
        "and EDSR (its linear tail is one convolution)",
        "published: counted layer by layer from the authors' program; seconds per epoch from the authors' logs, on a "
        "GPU that they do not name, for their own number of samples",
        "peak memory: beyond what the program holds before the frame, weights and inputs included",
    ]
    return table


MAKERS = {
    "sequence": sequence_table,
    "efficiency": efficiency_table,
    "ablation": ablation_table,
    "real": real_table,
}


def joined(argv: list[str]) -> list[str]:
    """The command line with repeated --predictions as one."""
    rest, found, words = [], [], iter(argv)
    for word in words:
        flag, sign, value = word.partition("=")
        if flag == "--predictions" and (value := value if sign else next(words, None)) is not None:
            found.append(value)
        else:
            rest.append(word)
    return [*rest, "--predictions=" + "\n".join(found)] if found else rest


def main() -> None:
    """Make, print and write the tables."""
    cfg = parse_config(TablesConfig, joined(sys.argv[1:]), description=__doc__)
    real = cfg.data_type == "real"
    fitting = ["efficiency", "real"] if real else ["sequence", "efficiency", "ablation"]
    if cfg.table not in ("all", *fitting):
        raise InputError(
            f"--table {cfg.table} needs --data_type {'GOPRO: real captures have no sharp images' if real else 'real'}"
        )
    maker = Maker(cfg)
    for name in fitting if cfg.table == "all" else [cfg.table]:
        table = MAKERS[name](maker)
        about = {"configuration": as_dict(cfg), "device": describe(maker.device), "about": provenance()}
        table.write(maker.out, about)
        print(table.markdown())
        print(f"{maker.out}/{name}.md, .csv, .json, .tex\n", flush=True)


if __name__ == "__main__":
    command(main)
