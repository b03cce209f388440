r"""Compare what each part of S-SDM adds, on held-out samples: one table, comparison pictures, one animated sequence.

    python scripts/compare.py --base_folder demo/GOPRO --bsn_run demo/exp/BSN/demo --sr_run demo/exp/SR/demo \
        --deblur_run demo/exp/Deblur/demo --out demo/results

Rows: the blurry input; the SDM on raw TFP without any network (window 9 with the official nearest enlarging, window 21
with bilinear); the SDM on the BSN's denoised TFP; the teacher BSN -> EDSR -> SDM; the student LDN. Whatever weights are
missing leave their rows out. Weights that lie in model/, ours (..._photo.pth) and the authors' under their official
names, get rows of their own. ``--protocol sequence`` measures the 7 instants of each exposure instead of its centre.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from codes.dataset import SpikeData  # noqa: E402
from codes.engine.checkpoint import load_weights  # noqa: E402
from codes.engine.command import command  # noqa: E402
from codes.engine.device import choose_device, describe, place  # noqa: E402
from codes.engine.options import EvalConfig, as_dict, option, parse_config  # noqa: E402
from codes.engine.run import provenance  # noqa: E402
from codes.engine.weights import load_student  # noqa: E402
from codes.errors import InputError, MissingFileError  # noqa: E402
from codes.files import replacing  # noqa: E402
from codes.image import grey, grid, to_uint8, write_animation, write_image  # noqa: E402
from codes.inference.methods import from_student, from_teacher  # noqa: E402
from codes.metrics import lpips_network  # noqa: E402
from codes.model.bsn_model import BSN  # noqa: E402
from codes.model.edsr_model import EDSR  # noqa: E402
from codes.report.evaluation import Report, Row, measure_rows  # noqa: E402
from codes.report.figures import pipeline  # noqa: E402
from codes.report.plots import plot_runs, read_metrics  # noqa: E402
from codes.sdm import Enlarge, Teacher, sdm  # noqa: E402
from codes.spike import EXPOSURE  # noqa: E402

CENTRE = EXPOSURE.centre


@dataclass(frozen=True)
class CompareConfig(EvalConfig):
    """What is compared."""

    bsn_run: str = option("", "run folder of train_bsn.py ('' : none)")
    sr_run: str = option("", "run folder of train_sr.py ('' : none)")
    deblur_run: str = option("", "run folder of train_deblur.py ('' : none)")
    model_folder: str = option(
        "model", "folder with BSN_photo.pth and so on (ours), BSN_1000.pth and so on (the authors')"
    )
    protocol: Literal["centre", "sequence"] = option(
        "centre", "the centre of each exposure, or its 7 instants; for test_mode's protocol: centre"
    )
    spike_gain: Literal["off", "auto", "both"] = option(
        "off", "make spikes as bright as the image for students trained without that (the authors')"
    )
    teacher_rows: bool = option(True, "measure the networks of the teacher too; they take most of the time")
    out: str = option("exp/compare", "folder for table.md, results.json, results.csv, pictures and sequences")
    figures: str = option(
        "", "also write the README's figures into this folder: pipeline, comparison, curves, sequence"
    )
    ceilings: bool = option(
        False, "rows that are given the sharp frames' light: how far the SDM itself could go, with other sensors"
    )
    frames: int = option(25, "frames of the animated sequence", low=2, high=97)


class Cascade:
    """The networks of one origin, as far as they are there.

    Args:
        mark: added to the names of the rows.
        paths: weight files of BSN, EDSR and LDN, or None.
        device: where to put them.
        gain: the option ``spike_gain``.
    """

    def __init__(self, mark: str, paths: dict[str, Path | None], device: torch.device, gain: str = "off"):
        self.mark = mark

        def load(key, build):
            return place(load_weights(build(), path), device).eval() if (path := paths[key]) else None

        self.bsn, self.sr = load("bsn", BSN), load("sr", EDSR)
        self.ldn = place(load_student(paths["deblur"]), device).eval() if paths["deblur"] else None
        self.teachers, self.students = {}, {}  # by the picture's kind
        if self.bsn:
            teacher = Teacher.plain(9, "nearest", denoise=self.bsn)
            self.teachers["sdm_bsn"] = from_teacher("sdm_bsn", "SDM + BSN (9, nearest)", teacher)
        if self.bsn and self.sr:
            teacher = Teacher.cascade(self.bsn, self.sr)
            self.teachers["tea"] = from_teacher("teacher", "Teacher BSN + EDSR + SDM", teacher)
        if self.ldn and (self.ldn.gain or gain != "auto"):
            self.students["deblur"] = from_student("ldn", self.ldn)
        if self.ldn and not self.ldn.gain and gain != "off":
            brightened = load_student(paths["deblur"], gain=True)
            self.students["deblurgain"] = replace(
                from_student("ldn", place(brightened, device).eval()), title="Student LDN + gain"
            )

    def rows(self, sample: dict, sharp: torch.Tensor | None, instants: Sequence[int], teachers: bool):
        """The rows of this cascade for one sample at some instants."""
        suffix = self.mark.strip(" []").replace(" ", "_").replace("'", "")
        for kind, method in ((self.teachers if teachers else {}) | self.students).items():
            images = method.start(sample["blur"], sample["spike"])(instants)[0]
            yield Row(method.title + self.mark, images, sharp, kind + suffix)


def ceilings(blur: torch.Tensor, sharp: torch.Tensor):
    """Rows of an SDM that knows the true light, at the size of the spikes or of the image; both ``(M, 3, H, W)``."""
    enlarge = Enlarge("bilinear")

    def seen(image):  # by the spike camera: the mean of the central 2x2 of each 4x4 block, grey
        return enlarge(grey(F.interpolate(image, scale_factor=0.25, mode="bilinear")))

    yield Row("SDM, noise-free spikes (bilinear)", sdm(blur, seen(blur), seen(sharp)), sharp, "sdm_noise_free")
    yield Row("SDM, true grey frames", sdm(blur, grey(blur), grey(sharp)), sharp, "sdm_true_grey")


def trained_weights(folder: str, name: str) -> tuple[Path | None, str]:
    """The last weights of a run folder, and a sentence on how long it trained; (None, '') without a folder."""
    if not folder:
        return None, ""
    path = Path(folder) / "ckpts" / f"{name}_last.pth"
    if not path.is_file():
        raise MissingFileError(f"no finished run in {folder}: {path} does not exist")
    lines = [line for line in read_metrics(folder) if line["kind"] == "train" and "seconds" in line]
    if not lines:
        raise InputError(f"{Path(folder) / 'metrics.jsonl'} has no line of training; expected a run of this program")
    return path, f"{name} {lines[-1]['step']} steps in {lines[-1]['seconds'] / 60:.1f} min"


PROTOCOLS = {"centre": "at the centre of the exposure", "sequence": "mean over 7 instants of the exposure"}
SHIPPED = {
    " [photo weights]": {"bsn": "BSN_photo.pth", "sr": "SR_photo.pth", "deblur": "DeblurNet_photo.pth"},
    " [authors' weights]": {"bsn": "BSN_1000.pth", "sr": "SR_70.pth", "deblur": "DeblurNet_100.pth"},
}


def markdown(report: Report, protocol: str) -> str:
    """The table in Markdown."""
    means, images = report.means(), len(EXPOSURE.sequence_instants) if protocol == "sequence" else 1
    titles = {"psnr": "PSNR (dB)", "ssim": "SSIM", "mse": "MSE", "lpips": "LPIPS"}
    digits = {"psnr": 2, "ssim": 3, "mse": 5, "lpips": 3}
    metrics = [metric for metric in titles if any(metric in values for values in means.values())]
    lines = ["| " + " | ".join([PROTOCOLS[protocol], *(titles[m] for m in metrics), "ms per image"]) + " |"]
    lines.append("|---" * (len(metrics) + 2) + "|")
    for row, values in means.items():
        time = f"{1000 * report.seconds[row] / report.count / images:.0f}"
        lines.append("| " + " | ".join([row, *(f"{values[m]:.{digits[m]}f}" for m in metrics), time]) + " |")
    return "\n".join(lines)


def sequence(cfg: CompareConfig, sample: dict, cascade: Cascade) -> list[np.ndarray]:
    """Blurry input, SDM without network and student side by side, at ``cfg.frames`` instants of the exposure."""
    blur, spike = sample["blur"][None], sample["spike"][None]
    free = Teacher.plain(21, "bilinear")
    frames, student = [], next(iter(cascade.students.values()), None)
    with torch.inference_mode():
        students = student.start(blur, spike) if student else None
        for index in range(cfg.frames):
            instant = EXPOSURE.start + round(index * (EXPOSURE.length - 1) / (cfg.frames - 1))
            cells = [
                (to_uint8(blur[0]), "Blurry input"),
                (to_uint8(free(blur, spike, [instant])[0, 0]), f"SDM, no network, t = {instant}"),
            ]
            if student:
                cells.append((to_uint8(students([instant])[0, 0]), student.title + cascade.mark))
            frames.append(grid(cells, columns=len(cells)))
    return frames


def write_sequence(frames: list[np.ndarray], folder: Path) -> None:
    """Write sequence.gif, there and back, at most 720 pixels wide, and sequence.mp4 as it is."""
    share = min(720 / frames[0].shape[1], 1)
    small = [cv2.resize(frame, None, fx=share, fy=share, interpolation=cv2.INTER_AREA) for frame in frames]
    write_animation(folder / "sequence.gif", small + small[-2:0:-1])
    try:
        write_animation(folder / "sequence.mp4", frames)
    except InputError as error:
        print(f"no MP4: {error}", file=sys.stderr)


def main() -> None:
    """Measure, print and write."""
    cfg = parse_config(CompareConfig, description=__doc__)
    device, out = choose_device(cfg.device), Path(cfg.out)
    runs = {"bsn": (cfg.bsn_run, "BSN"), "sr": (cfg.sr_run, "SR"), "deblur": (cfg.deblur_run, "DeblurNet")}
    trained = {key: trained_weights(*run) for key, run in runs.items()}
    cascades = [Cascade("", {key: path for key, (path, _) in trained.items()}, device)]
    for mark, names in SHIPPED.items():
        paths = {
            key: path if (path := Path(cfg.model_folder) / name).is_file() else None for key, name in names.items()
        }
        cascades.append(Cascade(mark, paths, device, cfg.spike_gain))
    data = {"use_small": cfg.use_small, "vth": cfg.vth, "cache": cfg.cache}
    whole = cfg.protocol == "sequence"
    dataset = SpikeData(cfg.base_folder, cfg.data_type, "test", use_sharp="sequence" if whole else True, **data)
    instants = EXPOSURE.sequence_instants if whole else (CENTRE,)

    def rows(sample):
        sharp, blur = sample.get("sharp"), sample["blur"].expand(len(instants), -1, -1, -1)
        if "sharps" in sample:
            sharp = sample["sharps"][0]
        yield Row("Blur", blur, sharp, "blur")
        for length, mode in ((9, "nearest"), (9, "bilinear"), (21, "bilinear"))[:: 1 if cfg.ceilings else 2]:
            name = f"SDM, raw TFP ({length}, {mode})"
            images = Teacher.plain(length, mode)(sample["blur"], sample["spike"], instants)[0]
            yield Row(name, images, sharp, f"sdm_{length}_{mode}")
        if cfg.ceilings and sharp is not None:
            yield from ceilings(blur, sharp)
        for cascade in cascades:
            yield from cascade.rows(sample, sharp, instants, cfg.teacher_rows)

    lpips = lpips_network("alex").to(device) if "lpips" in cfg.metrics else None
    report = measure_rows(cfg, device, dataset, rows, out / "imgs", lpips=lpips)
    lengths = "; ".join(note for _, note in trained.values() if note)
    text = "\n".join(
        [
            markdown(report, cfg.protocol),
            "",
            f"{report.count} held-out samples of {dataset.folder}, whole frames, "
            f"mean over samples; {describe(device)}.",
            f"Trained for: {lengths}." if lengths else "Shipped weights, if any: model/README.md.",
        ]
    )
    print(text)
    with replacing(out / "table.md") as path:
        path.write_text(text + "\n", encoding="utf-8")
    report.write(
        out, {"configuration": as_dict(cfg), "trained": lengths, "device": describe(device), "about": provenance()}
    )
    # The best at hand is shown: the shipped weights, else the run's own, else the authors'.
    chosen = next((cascades[index] for index in (1, 0, 2) if cascades[index].ldn), cascades[0])
    sample = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in dataset[0].items()}
    frames = sequence(cfg, sample, chosen)
    write_sequence(frames, out)
    if cfg.figures:
        folder = Path(cfg.figures)
        if report.panels:
            panel = report.panels[0]  # as wide as a page shows it
            share = min(2400 / panel.shape[1], 1)
            panel = cv2.resize(panel, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
            write_image(folder / "comparison.jpg", panel)
        write_sequence(frames[::2], folder)
        if chosen.bsn and chosen.sr and chosen.ldn:
            write_image(folder / "pipeline.png", pipeline(sample, chosen.bsn, chosen.sr, chosen.ldn))
        titles = {"bsn": "BSN", "sr": "EDSR", "deblur": "LDN"}
        plotted = {title: Path(runs[key][0]) for key, title in titles.items() if runs[key][0]}
        if plotted:
            plot_runs(plotted, folder / "curves.png", keys=["loss"], log="y")
    print(f"pictures: {out}/imgs/000_0000_panel.png, {out}/sequence.gif, {out}/sequence.mp4")


if __name__ == "__main__":
    command(main)
