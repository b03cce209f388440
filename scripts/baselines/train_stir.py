"""STIR (Fan et al., NeurIPS 2024) on the same data, by its authors' recipe.

    python scripts/baselines/train_stir.py --base_folder GOPRO/
    python scripts/baselines/train_stir.py --test_mode --stir_path model/STIR_pretrain.pth

It makes the grey image at an instant from spikes alone, and learns from the sharp images in sharp_data, which S-SDM
does without. How the data are brought to what it wants: codes/baselines/adapters.py.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from codes.engine.command import command  # noqa: E402
from codes.engine.options import Config, option, parse_config, refuse_idle  # noqa: E402
from codes.errors import InputError  # noqa: E402


@dataclass(frozen=True)
class STIRConfig(Config):
    """The published recipe."""

    save_folder: Path = option("exp/STIR", "where run folders are made", group="official", recipe=False)
    lr: float = option(1e-4, "learning rate of Adam", low=0, group="official")
    bs: int = option(8, "batch size; with torchrun, of each rank", low=1, group="official")
    roi_size: int = option(384, "side of the training crop in image pixels: 96 spike pixels", low=64, group="official")
    max_steps: int = option(200_000, "optimiser steps", low=1, group="run", recipe=False)
    instants: Literal["centre", "sequence"] = option(
        "sequence", "sharp images to learn from: at the centre; or those 5 of the 7 whose 61 frames the stream holds"
    )
    flips: bool = option(True, "turn and mirror training crops at random")
    perceptual: bool = option(True, "the perceptual loss, which fetches VGG-19")
    stir_path: Path = option("model/STIR_pretrain.pth", "weights for --test_mode", recipe=False)
    init_path: Path | None = option(None, "weights to start from, to fine-tune them")

    def __post_init__(self):
        refuse_idle(self, "beside --max_steps", "epochs")
        if self.data_type == "real" and not self.test_mode:
            raise InputError("--data_type real has no sharp images, and supervised training needs them")
        if self.roi_size % 64:
            raise InputError(f"--roi_size is {self.roi_size}; STIR's crops must be multiples of 64")


def main(argv: list[str] | None = None) -> None:
    """Train, or evaluate with ``--test_mode``."""
    cfg = parse_config(STIRConfig, argv)

    import torch
    from torch.nn import functional as F

    from codes.baselines.adapters import VGGDistance, stir_images, stir_instants, stir_loss
    from codes.baselines.stir_model import FRAMES, STIR
    from codes.engine.run import Run
    from codes.engine.schedule import learning_rate
    from codes.engine.weights import load_network
    from codes.image import grey
    from codes.report.evaluation import Row, evaluate, test
    from codes.spike import EXPOSURE, mirrored_windows, tfi, tfp

    hint = "train it, or fetch the authors' (model/README.md)"
    with Run(cfg, "STIR") as run:
        path = cfg.stir_path if cfg.test_mode else cfg.init_path
        stir = run.place(load_network("stir", path, hint) if path else STIR())

        def light(sharp, spike):
            """What the spike camera sees of ``(B, 3, H, W)``: grey, at the size of the spikes."""
            return F.interpolate(grey(sharp), spike.shape[-2:], mode="bilinear")

        def rows(sample):
            """TFP, TFI and STIR against the sharp grey image at the size of the spikes, at the exposure's centre."""
            spike, centre = sample["spike"], EXPOSURE.centre
            sharp = light(sample["sharp"], spike) if "sharp" in sample else None
            yield Row("TFP", tfp(spike, centre, 9), sharp, "tfp")
            yield Row("TFI", tfi(spike, centre), sharp, "tfi")
            yield Row("STIR", stir_images(stir, spike, [centre]), sharp, "stir")

        test_set = run.data("test", use_sharp=True)
        if cfg.test_mode:
            stir.eval()
            return test(run, test_set, rows, weights=[path])

        sequence = cfg.instants == "sequence"
        known = EXPOSURE.sequence_instants if sequence else (EXPOSURE.centre,)
        instants = stir_instants(EXPOSURE.total, known)
        crops = {"use_roi": True, "roi_size": cfg.roi_size, "seed": cfg.seed, "flips": cfg.flips}
        train_set = run.data(cfg.train_split, use_sharp="sequence" if sequence else True, **crops)
        perceptual = run.place(VGGDistance()) if cfg.perceptual else None
        optimiser = torch.optim.Adam(stir.parameters(), lr=cfg.lr, weight_decay=4e-4, fused=run.fused)
        net = run.begin(stir, optimiser, train_set)
        for _epoch in run.epochs():
            for batch in run.batches():
                spike, sharps = batch["spike"], batch["sharps"] if sequence else batch["sharp"][:, None]
                windows = mirrored_windows(spike, instants, FRAMES).transpose(0, 1).flatten(0, 1)  # side by side
                targets = torch.cat([light(sharps[:, known.index(instant)], spike) for instant in instants])
                with run.autocast():
                    images = net(windows)
                images = [image.float().clamp(0, 1) if cfg.clip_output else image.float() for image in images]
                loss = stir_loss(images, targets, perceptual)
                run.backward(loss)
                run.clip(cfg.grad_clip)
                official = cfg.lr * 0.7 ** (run.step_count // 50_000)
                run.update(learning_rate(cfg.lr_schedule, cfg.lr, run.step_count, run.total, official))
                run.log(loss=loss)
            run.end_epoch(lambda: test_set and evaluate(run, test_set, rows, stir))


if __name__ == "__main__":
    command(main)
