r"""Compare what each part of S-SDM adds, on held-out samples: one table, comparison pictures, one animated sequence.

    python scripts/compare.py --base_folder demo/GOPRO --bsn_run demo/exp/BSN/demo --sr_run demo/exp/SR/demo \
        --deblur_run demo/exp/Deblur/demo --out demo/results

Rows: the blurry input; the SDM on raw TFP without any network (window 9 with the official nearest enlarging, window 21
with bilinear); the SDM on the BSN's denoised TFP; the teacher BSN -> EDSR -> SDM; the student LDN. Whatever weights are
missing leave their rows out. Weights that lie in model/ under the official names get rows of their own.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from codes.checkpoint import load_weights  # noqa: E402
from codes.cli import command  # noqa: E402
from codes.config import EvalConfig, as_dict, option, parse_config  # noqa: E402
from codes.dataset import SpikeData  # noqa: E402
from codes.device import choose_device, describe, place  # noqa: E402
from codes.evaluate import Report, Row, measure_rows  # noqa: E402
from codes.figures import curves, pipeline  # noqa: E402
from codes.files import replacing  # noqa: E402
from codes.image import grid, to_uint8, write_animation, write_image  # noqa: E402
from codes.metrics import lpips_network  # noqa: E402
from codes.model.bsn_model import BSN  # noqa: E402
from codes.model.edsr_model import EDSR  # noqa: E402
from codes.model.ldn_model import Deblur_Net  # noqa: E402
from codes.run import provenance  # noqa: E402
from codes.sdm import Teacher  # noqa: E402
from codes.spike import EXPOSURE, spike_window  # noqa: E402

CENTRE = EXPOSURE.centre


@dataclass(frozen=True)
class CompareConfig(EvalConfig):
    """What is compared."""

    bsn_run: str = option("", "run folder of train_bsn.py ('' : none)")
    sr_run: str = option("", "run folder of train_sr.py ('' : none)")
    deblur_run: str = option("", "run folder of train_deblur.py ('' : none)")
    model_folder: str = option(
        "model", "folder with BSN_1000.pth, SR_70.pth, DeblurNet_100.pth, as far as there are any"
    )
    out: str = option("exp/compare", "folder for table.md, results.json, results.csv, pictures and sequences")
    figures: str = option(
        "", "also write the README's figures into this folder: pipeline, comparison, curves, sequence"
    )
    frames: int = option(25, "frames of the animated sequence", low=2, high=97)


class Cascade:
    """The networks of one origin, as far as they are there.

    Args:
        mark: added to the names of the rows.
        paths: weight files of BSN, EDSR and LDN, or None.
        device: where to put them.
    """

    def __init__(self, mark: str, paths: dict[str, Path | None], device: torch.device):
        self.mark = mark
        build = {"bsn": BSN, "sr": EDSR, "deblur": Deblur_Net}
        networks = {
            key: place(load_weights(build[key](), path), device).eval() if path else None for key, path in paths.items()
        }
        self.bsn, self.sr, self.ldn = bsn, sr, _ = networks["bsn"], networks["sr"], networks["deblur"]
        self.teachers = {}
        if bsn:
            self.teachers["SDM + BSN (9, nearest)"] = Teacher.plain(9, "nearest", denoise=bsn)
        if bsn and sr:
            self.teachers["Teacher BSN + EDSR + SDM"] = Teacher.cascade(bsn, sr)

    def student(self, blur: torch.Tensor, spike: torch.Tensor, instant: int) -> torch.Tensor:
        """The student's image at an instant, ``(B, 3, H, W)`` in [0, 1]."""
        return self.ldn(blur, spike_window(spike, instant, 21)).clamp(0, 1)

    def rows(self, sample: dict, sharp: torch.Tensor | None):
        """The rows of this cascade for one sample."""
        kinds = {"SDM + BSN (9, nearest)": "sdm_bsn", "Teacher BSN + EDSR + SDM": "tea"}
        suffix = "_model" if self.mark else ""
        for name, teacher in self.teachers.items():
            image = teacher(sample["blur"], sample["spike"], [CENTRE])[:, 0]
            yield Row(name + self.mark, image, sharp, kinds[name] + suffix)
        if self.ldn:
            image = self.student(sample["blur"], sample["spike"], CENTRE)
            yield Row("Student LDN" + self.mark, image, sharp, "deblur" + suffix)


def trained_weights(folder: str, name: str) -> tuple[Path | None, str]:
    """The last weights of a run folder, and a sentence on how long it trained; (None, '') without a folder."""
    if not folder:
        return None, ""
    path = Path(folder) / "ckpts" / f"{name}_last.pth"
    if not path.is_file():
        raise FileNotFoundError(f"no finished run in {folder}: {path} does not exist")
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "train"][-1]
    return path, f"{name} {last['step']} steps in {last['seconds'] / 60:.1f} min"


def markdown(report: Report) -> str:
    """The table in Markdown."""
    means = report.means()
    titles = {"psnr": "PSNR (dB)", "ssim": "SSIM", "mse": "MSE", "lpips": "LPIPS"}
    digits = {"psnr": 2, "ssim": 3, "mse": 5, "lpips": 3}
    metrics = [metric for metric in titles if any(metric in values for values in means.values())]
    lines = ["| " + " | ".join(["at the centre of the exposure", *(titles[m] for m in metrics), "ms per image"]) + " |"]
    lines.append("|---" * (len(metrics) + 2) + "|")
    for row, values in means.items():
        time = f"{1000 * report.seconds[row] / report.count:.0f}"
        lines.append("| " + " | ".join([row, *(f"{values[m]:.{digits[m]}f}" for m in metrics), time]) + " |")
    return "\n".join(lines)


def sequence(cfg: CompareConfig, sample: dict, cascade: Cascade) -> list[np.ndarray]:
    """Blurry input, SDM without network and student side by side, at ``cfg.frames`` instants of the exposure."""
    blur, spike = sample["blur"][None], sample["spike"][None]
    free = Teacher.plain(21, "bilinear")
    frames = []
    with torch.inference_mode():
        for index in range(cfg.frames):
            instant = EXPOSURE.start + round(index * (EXPOSURE.length - 1) / (cfg.frames - 1))
            cells = [
                (to_uint8(blur[0]), "Blurry input"),
                (to_uint8(free(blur, spike, [instant])[0, 0]), f"SDM, no network, t = {instant - EXPOSURE.start}"),
            ]
            if cascade.ldn:
                cells.append((to_uint8(cascade.student(blur, spike, instant)[0]), "Student LDN" + cascade.mark))
            frames.append(grid(cells, columns=len(cells)))
    return frames


def write_sequence(frames: list[np.ndarray], folder: Path) -> None:
    """Write sequence.gif, there and back, at most 720 pixels wide, and sequence.mp4 as it is."""
    share = min(720 / frames[0].shape[1], 1)
    small = [cv2.resize(frame, None, fx=share, fy=share, interpolation=cv2.INTER_AREA) for frame in frames]
    write_animation(folder / "sequence.gif", small + small[-2:0:-1])
    try:
        write_animation(folder / "sequence.mp4", frames)
    except ValueError as error:
        print(f"no MP4: {error}", file=sys.stderr)


def main() -> None:
    """Measure, print and write."""
    cfg = parse_config(CompareConfig, description=__doc__)
    device, out = choose_device(cfg.device), Path(cfg.out)
    runs = {"bsn": (cfg.bsn_run, "BSN"), "sr": (cfg.sr_run, "SR"), "deblur": (cfg.deblur_run, "DeblurNet")}
    trained = {key: trained_weights(*run) for key, run in runs.items()}
    official = {"bsn": "BSN_1000.pth", "sr": "SR_70.pth", "deblur": "DeblurNet_100.pth"}
    shipped = {
        key: path if (path := Path(cfg.model_folder) / name).is_file() else None for key, name in official.items()
    }
    cascades = [
        Cascade("", {key: path for key, (path, _) in trained.items()}, device),
        Cascade(" [weights in model/]", shipped, device),
    ]
    data = {"use_small": cfg.use_small, "vth": cfg.vth, "cache": cfg.cache}
    dataset = SpikeData(cfg.base_folder, cfg.data_type, "test", use_sharp=True, **data)

    def rows(sample):
        sharp = sample.get("sharp")
        yield Row("Blur", sample["blur"], sharp, "blur")
        for name, length, mode in (
            ("SDM, raw TFP (9, nearest)", 9, "nearest"),
            ("SDM, raw TFP (21, bilinear)", 21, "bilinear"),
        ):
            image = Teacher.plain(length, mode)(sample["blur"], sample["spike"], [CENTRE])[:, 0]
            yield Row(name, image, sharp, f"sdm_{length}_{mode}")
        for cascade in cascades:
            yield from cascade.rows(sample, sharp)

    lpips = lpips_network("alex").to(device) if "lpips" in cfg.metrics else None
    report = measure_rows(cfg, device, dataset, rows, out / "imgs", lpips=lpips)
    lengths = "; ".join(note for _, note in trained.values() if note)
    text = "\n".join(
        [
            markdown(report),
            "",
            f"{report.count} held-out samples of {dataset.folder}, whole frames, "
            f"mean over samples; {describe(device)}.",
            f"Trained for: {lengths}." if lengths else "No network was trained.",
        ]
    )
    print(text)
    with replacing(out / "table.md") as path:
        path.write_text(text + "\n", encoding="utf-8")
    report.write(
        out, {"configuration": as_dict(cfg), "trained": lengths, "device": describe(device), "about": provenance()}
    )
    chosen = next((cascade for cascade in cascades if cascade.ldn), cascades[0])
    sample = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in dataset[0].items()}
    frames = sequence(cfg, sample, chosen)
    write_sequence(frames, out)
    if cfg.figures:
        folder = Path(cfg.figures)
        if report.panels:
            write_image(folder / "comparison.jpg", report.panels[0])
        write_sequence(frames[::2], folder)
        if chosen.bsn and chosen.sr and chosen.ldn:
            write_image(folder / "pipeline.png", pipeline(sample, chosen.bsn, chosen.sr, chosen.ldn))
        titles = {"bsn": "BSN", "sr": "EDSR", "deblur": "LDN"}
        plotted = {title: Path(runs[key][0]) for key, title in titles.items() if runs[key][0]}
        if plotted:
            write_image(folder / "curves.png", curves(plotted))
    print(f"pictures: {out}/imgs/000_0000_panel.png, {out}/sequence.gif, {out}/sequence.mp4")


if __name__ == "__main__":
    command(main)
