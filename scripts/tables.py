r"""Methods side by side, and the paper's tables with their published figures: Markdown, CSV, JSON, LaTeX, a page.

    python scripts/tables.py --base_folder DATA --protocol sequence
    python scripts/tables.py --base_folder DATA --methods blur sdm21 ldn --deblur_path exp/Deblur/test --no-shipped
    python scripts/tables.py --table sequence --base_folder GOPRO --predictions REFID=DIR
    python scripts/tables.py --table ablation --base_folder GOPRO --no_reblur_path DeblurNet_last.pth
    python scripts/tables.py --table efficiency
    python scripts/tables.py --table real --base_folder RSB --data_type real

methods: every method whose weights are there, at the centre of each exposure or its 7 instants, at each firing
threshold that the data hold (--vth: at that one). A method has a row for each of its weights: those given by
--bsn_path, --sr_path, --deblur_path and so on (a file, or the folder of a finished run), then those in model/, ours and
the authors', their file names in brackets.

The paper's tables have one row for a method, of the weights given, else the authors' in model/, else ours. sequence:
the 7 instants of every test exposure at each firing threshold. ablation: the cascade built up step by step at the
centre. real: captures without a reference; LIQE if pyiqa is there, and how well the reconstructed sequence adds up to
the blurry image. efficiency: parameters, multiply-adds, peak memory and time on the machine at hand. 'all' makes those
that --data_type allows.

index.html shows the tables, every sample, sorted and plotted, and the pictures of the first ones (--eval_images).

Parts (--shard I/N) leave the figures of their samples in parts/; --shard merge/N writes the tables from them.

Images of another program, DIR/[vthV/]<sequence>/<frame>.png named as in sharp_data, get a row by
--predictions NAME=DIR.
"""

import dataclasses
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import command  # noqa: E402
from codes.engine.options import (  # noqa: E402
    EvalConfig,
    Size,
    as_dict,
    option,
    parse_config,
    weight_file,
    weights_of,
    with_weights,
)
from codes.engine.shard import WHOLE, Shard, shard_option  # noqa: E402
from codes.errors import InputError, MissingFileError, one_line  # noqa: E402
from codes.model.registry import ALONG, method_names, weight_options  # noqa: E402

SHARP, REAL = ("sequence", "ablation", "efficiency"), ("real", "efficiency")
QUALITY = ("methods", "sequence", "ablation")
USED_BY = {  # an option that some tables do not heed is refused with them
    "protocol": ("methods",),
    "shipped": ("methods",),
    "ceilings": QUALITY,
    "predictions": QUALITY,
    "no_reblur_path": ("ablation",),
    "reblur_frames": ("real",),
    "shard": (*QUALITY, "real"),
    **dict.fromkeys(("size", "quick", "memory", "peak"), ("efficiency",)),
}


@with_weights
@dataclass(frozen=True)
class TablesConfig(EvalConfig):
    """Which tables, from what."""

    table: Literal["methods", "sequence", "ablation", "efficiency", "real", "all"] = option("methods", "which table")
    methods: tuple[str, ...] = option(
        (), "which methods; none: all whose weights are there", choices=tuple(method_names())
    )
    protocol: Literal["centre", "sequence"] = option("centre", "the centre of each exposure, or its 7 instants")
    out: Path = option("exp/tables", "folder for <table>.md, .csv, .json, .tex and pictures (imgs/)")
    metrics: tuple[Literal["psnr", "ssim", "mse", "lpips"], ...] = option(
        ("psnr", "ssim", "lpips"), "metrics; lpips is left out where its weights cannot be had"
    )
    eval_samples: int = option(0, "samples, spread evenly over the test split (0: all)", low=0)
    spike_gain: Literal["off", "auto", "both"] = option(
        "off", "make spikes as bright as the image for students trained without that (the authors'); both: two rows"
    )
    shipped: bool = option(True, "rows of 'methods' for the weights in model/, beside those given")
    predictions: tuple[str, ...] = option((), "images of another program", metavar="NAME=DIR")
    ceilings: bool = option(
        False, "rows that are given the sharp frames' light: how far the SDM itself could go, with other sensors"
    )
    no_reblur_path: Path | None = option(
        None, "weights of an LDN trained with --lambda_reblur 0, for 'ablation'", group="weights and hardware"
    )
    reblur_frames: int = option(13, "frames of 'real' whose mean is compared with the blurry image", low=1, high=97)
    size: Size = option("720x1280", "image size of 'efficiency'", low=64, multiple=4)
    quick: bool = option(False, "'efficiency' at 96x128, each thing once: does it run at all")
    memory: bool = option(True, "measure peak memory; on a CPU each network in a process of its own")
    shard: Shard = shard_option("samples")
    peak: str = option("", "only print the peak memory of a network of 'efficiency', in bytes (used by the script)")

    def __post_init__(self):
        allowed = REAL if self.data_type == "real" else SHARP
        if self.table not in ("methods", "all", *allowed):
            other = "GOPRO: real captures have no sharp images" if self.data_type == "real" else "real"
            raise InputError(f"--table {self.table} needs --data_type {other}")
        for field in dataclasses.fields(self):
            tables, value = USED_BY.get(field.name, ()), getattr(self, field.name)
            if tables and self.table not in ("all", *tables) and str(value) != str(field.default):
                raise InputError(f"--{field.name} has no effect on --table {self.table}; it is for {', '.join(tables)}")
        if self.data_type == "real" and (self.predictions or self.ceilings):
            raise InputError("--predictions and --ceilings need sharp images, which --data_type real has not")


def find_methods(cfg: TablesConfig, device, notes: list[str], titles: dict | None = None, each: bool = False) -> list:
    """The methods whose weights are there, on ``device``.

    Args:
        notes: what is left out is added.
        titles: name -> title, of those methods that are wanted; None: all, as they are called.
        each: for each method one of each of its weights, not the first at hand alone.
    """
    from codes.engine.weights import Weights
    from codes.inference.methods import load_method

    names = [name for name in titles or method_names() if not cfg.methods or name in cfg.methods]
    given = weights_of(cfg)
    sources = [(given, True)]
    if each:
        sources = [(given, False), ({}, False), ({}, True)] if cfg.shipped else [(given, False)]
    found, missing = {}, {}
    for paths, official in sources:
        for name in names:
            for gain in (False, True):
                try:
                    method = load_method(name, Weights(official=official, gain=gain, **paths), device)
                except FileNotFoundError as error:
                    missing[name] = f"{name} is left out: {one_line(error)}"
                    break
                shipped = [path for path in method.weights if path not in given.values()]
                if shipped and not cfg.shipped:
                    break
                title = (titles or {}).get(name, method.title) + " + gain" * gain
                if each and shipped:
                    title += f" [{', '.join(Path(path).stem for path in shipped)}]"
                dim = any(getattr(network, "gain", True) is False for network in method.networks.values())
                if not (dim and cfg.spike_gain == "auto"):
                    found.setdefault((name, method.weights, gain), dataclasses.replace(method, title=title))
                if not dim or cfg.spike_gain == "off":
                    break
    known = {name for name, _, _ in found}
    notes += [note for name, note in missing.items() if name not in known]
    return list(found.values())


def thresholds(cfg: TablesConfig) -> list[float]:
    """--vth, else those of the firing thresholds 1, 2 and 4 whose spikes the test split holds; [0]: it is as it is."""
    from codes.making.preparation import read_record

    if cfg.vth:
        return [cfg.vth]
    test = cfg.base_folder / "test"
    if (test / "spike_data").is_dir() and (vth := read_record(test).get("spike_data", {}).get("vth", 1)) != 1:
        raise InputError(
            f"{test / 'spike_data'} holds spikes of Vth {vth:g}, not 1 (prepared.json); "
            f"rename it to spike_data_vth{vth:g}"
        )
    folders = {1: ("spike_data", "spike_data_vth1"), 2: ("spike_data_vth2",), 4: ("spike_data_vth4",)}
    return [vth for vth, names in folders.items() if any((test / name).is_dir() for name in names)] or [0]


def predictions(cfg: TablesConfig) -> dict[str, Path]:
    """Name -> folder of --predictions."""
    found = {}
    for text in cfg.predictions:
        name, sign, folder = text.partition("=")
        if not (name and sign and folder):
            raise InputError(f"--predictions is '{text}'; expected NAME=DIR")
        if name in found:
            raise InputError(f"--predictions names '{name}' twice")
        if not Path(folder).is_dir():
            raise MissingFileError(f"--predictions {name}: the folder {folder} does not exist")
        found[name] = Path(folder)
    return found


def trained_for(cfg: TablesConfig) -> list[str]:
    """A note on how long the runs trained whose folders are given."""
    from codes.report.plots import read_metrics

    notes = []
    for path in (getattr(cfg, name) for name in weight_options()):
        if path and path.is_dir():
            lines = [line for line in read_metrics(path) if line["kind"] == "train" and "seconds" in line]
            if not lines:
                raise InputError(f"{path / 'metrics.jsonl'} has no line of training; expected a run of this program")
            notes.append(f"{path}: {lines[-1]['step']} steps in {lines[-1]['seconds'] / 60:.1f} min")
    return notes


def quality(cfg: TablesConfig, name: str, device):
    """The table 'methods', 'sequence' or 'ablation'."""
    from codes.report.tables import PUBLISHED, Quality

    common = {"published": PUBLISHED.get(name), "predictions": predictions(cfg), "ceilings": cfg.ceilings}
    common["notes"] = notes = []
    if name == "ablation":
        methods = ablation(cfg, device, notes)
        asked = Quality(name, "Ablation at the centre of the exposure", "centre", methods, [cfg.vth], **common)
    else:
        vths = thresholds(cfg)
        methods = find_methods(cfg, device, notes, each=name == "methods")
        protocol = "sequence" if name == "sequence" else cfg.protocol
        at = {"centre": "the centre of the exposure", "sequence": "7 instants of each exposure"}[protocol]
        title = f"Sequence reconstruction, {at}" if name == "sequence" else f"Methods side by side, {at}"
        asked = Quality(name, title, protocol, methods, vths, **common)
    notes += trained_for(cfg)
    return asked.table(cfg, device, cfg.out, parts_of(cfg))


def ablation(cfg: TablesConfig, device, notes: list[str]) -> list:
    """The steps of the cascade, and how to train and show an LDN without the reblur loss."""
    from codes.engine.weights import Weights
    from codes.inference.methods import load_method
    from codes.report.tables import shortest

    steps = {"sdm": "SDM (raw TFP)", "sdm_bsn": "+ BSN", "teacher": "+ SR: the teacher", "ldn": "+ LDN"}
    methods = find_methods(cfg, device, notes, steps)
    if cfg.no_reblur_path:
        weights = Weights(deblur=str(weight_file("no_reblur_path", cfg.no_reblur_path)))
        without = load_method("ldn", weights, device)
        methods.append(dataclasses.replace(without, name="no_reblur", title="LDN without the reblur loss"))
    train = f"python train_deblur.py --base_folder {cfg.base_folder}"
    for flag, file in zip(("bsn", "sr"), next((m.weights for m in methods if m.name == "teacher"), ()), strict=False):
        train += f" --{flag}_path {shortest(file)}"
    commands = {weight: f"`{train} --lambda_reblur {weight} --exp_name reblur{weight}`" for weight in (100, 0)}
    notes += [
        f"the LDN with the reblur loss is trained by {commands[100]}",
        f"without it by {commands[0]}, then --no_reblur_path exp/Deblur/reblur0",
    ]
    return methods


def efficiency(cfg: TablesConfig, name: str, device):
    """The table 'efficiency'; its networks need no trained weights."""
    import torch

    from codes.engine.device import autocast
    from codes.engine.weights import Weights
    from codes.inference.methods import load_method
    from codes.report.efficiency import efficiency_table, entries
    from codes.report.measuring import peak_memory

    names = cfg.methods or [name for name in method_names() if not name.endswith(ALONG)]
    parts = ("sdm", "sdm21", "sdm_tfi", "sdm_bsn", "sdm_stir")  # of others
    names = [name for name in names if name not in parts]
    size = Size(96, 128) if cfg.quick else cfg.size

    def made(where):
        methods = [load_method(name, Weights(random=True), where) for name in names]
        # What has attention over the whole image, or looks for motion, asks for a device that computes.
        counted = [m for m in methods if where.type != "meta" or not (m.whole or m.name.endswith(ALONG))]
        return entries(counted, where, *size)

    def peak(key: str) -> float:  # on a CPU measured in a new process, where it is exact
        if device.type == "cuda":
            with torch.inference_mode(), autocast(device, cfg.precision):
                return peak_memory(lambda: lines[key].run(1), device)
        # Linux counts the peak of the program that starts another as the other's; the shell between them has none.
        shell = ["sh", "-c", '"$@"; exit $?', "sh"] if sys.platform == "linux" else []
        call = [*shell, sys.executable, __file__, "--table", "efficiency", "--device", str(device), "--size", str(size)]
        call += ["--precision", cfg.precision, "--methods", *names, "--peak", key]
        done = subprocess.run(call, capture_output=True, text=True)
        if done.returncode:
            raise InputError(f"{key}: measuring its memory failed ({done.stderr.strip().splitlines()[-1]})")
        return float(done.stdout.split()[-1])

    lines = made(device)
    if not lines:
        raise InputError(f"--methods {' '.join(cfg.methods)}: none of them has networks; name others, or none")
    if cfg.peak:
        with torch.inference_mode(), autocast(device, cfg.precision):
            print(peak_memory(lambda: lines[cfg.peak].run(1), device))
        raise SystemExit
    wanted = cfg.memory and not (cfg.quick and device.type == "cpu")
    return efficiency_table(
        lines, made(torch.device("meta")), size, device, cfg.precision, 1 if cfg.quick else 5, peak if wanted else None
    )


def real(cfg: TablesConfig, name: str, device):
    """The table 'real'."""
    from codes.report.tables import real_table

    notes = []
    methods = find_methods(cfg, device, notes)
    notes += trained_for(cfg)
    table = real_table(cfg, device, cfg.out, methods, cfg.reblur_frames, parts_of(cfg))
    if table:
        table.notes += notes
    return table


def parts_of(cfg: TablesConfig):
    """Where parts leave the figures of their samples; None for the whole."""
    from codes.report.page import made_by
    from codes.report.parts import Parts

    return None if cfg.shard == WHOLE else Parts(cfg.shard, cfg.out / "parts", made_by()["Command"])


def main(argv: list[str] | None = None) -> None:
    """Make, print and write the tables."""
    cfg = parse_config(TablesConfig, argv)
    from codes.engine.device import choose_device, describe
    from codes.engine.provenance import provenance
    from codes.report.page import Page, Section, made_by

    device, makers = choose_device(cfg.device), {"efficiency": efficiency, "real": real}
    wanted = (REAL if cfg.data_type == "real" else SHARP) if cfg.table == "all" else (cfg.table,)
    page = Page("S-SDM: " + ", ".join(wanted))
    whole = {key: value for key, value in as_dict(cfg).items() if key != "shard"}
    for name in wanted:
        if cfg.shard.is_part and name == "efficiency":  # not of samples: whoever merges makes it
            continue
        table = makers.get(name, quality)(cfg, name, device)
        if not table:
            print(f"{cfg.out}/parts: {name}, part {cfg.shard}", flush=True)
            continue
        table.about |= {"configuration": whole, "device": describe(device), "about": provenance()}
        table.write(cfg.out)
        page.sections += [Section(table.title, table), *table.sections]
        page.about = {"Data": str(cfg.base_folder), "Device": describe(device)} | made_by()
        page.write(cfg.out / "index.html")
        print(table.markdown())
        pictures = ", imgs/" if cfg.eval_images and name != "efficiency" else ""
        print(f"{cfg.out}/{name}.md, .csv, .json, .tex, index.html{pictures}\n", flush=True)


if __name__ == "__main__":
    command(main)
