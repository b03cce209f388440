"""SpkDeblurNet (Chen et al., NeurIPS 2023) on the same data, by its authors' recipe.

    python scripts/baselines/train_spkdeblurnet.py --base_folder GOPRO/
    python scripts/baselines/train_spkdeblurnet.py --test_mode --spkdeblurnet_path model/SpkDeblurNet.pth

It makes the sharp image at an instant from the blurry one and the spikes around it, and learns from the sharp images in
sharp_data, which S-SDM does without. How the data are brought to what it wants: codes/baselines/adapters.py.
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
class SpkDeblurNetConfig(Config):
    """The published recipe."""

    save_folder: Path = option("exp/SpkDeblurNet", "where run folders are made", group="official", recipe=False)
    lr: float = option(1e-4, "learning rate of Adam", low=0, group="official")
    bs: int = option(8, "batch size; with torchrun, of each rank", low=1, group="official")
    roi_size: int = option(256, "side of the training crop in image pixels", low=68, group="official")
    max_steps: int = option(100_000, "optimiser steps", low=1, group="run", recipe=False)
    instants: Literal["centre", "sequence"] = option(
        "centre", "sharp images to learn from: at the centre; or one at random of the 7 of the sequence protocol"
    )
    flips: bool = option(True, "turn and mirror training crops at random")
    spike_scale: Literal["4", "2"] = option(
        "4", "image pixels per spike pixel; 2 for data prepared with --scale 2, the size that the network is made for"
    )
    spike_frames: int = option(56, "spike frames that the network is given: officially 56 or 65", low=1, high=137)
    tfi_gain: float = option(
        2.0, "by what the TFI is multiplied: 2 makes white 1 at the paper's Vth 2; 1 does at Vth 1", low=0.001
    )
    spkdeblurnet_path: Path = option("model/SpkDeblurNet.pth", "weights for --test_mode", recipe=False)
    init_path: Path | None = option(None, "weights to start from, to fine-tune them")

    def __post_init__(self):
        refuse_idle(self, "beside --max_steps", "epochs")
        refuse_idle(self, "on SpkDeblurNet, whose images are never clipped before the loss", "clip_output")
        if self.init_path:
            refuse_idle(self, "with --init_path, whose file decides it", "spike_frames", "tfi_gain")
        if self.data_type == "real" and not self.test_mode:
            raise InputError("--data_type real has no sharp images, and supervised training needs them")


def main(argv: list[str] | None = None) -> None:
    """Train, or evaluate with ``--test_mode``."""
    cfg = parse_config(SpkDeblurNetConfig, argv)

    import torch

    from codes.baselines.adapters import spkdeblurnet_input, spkdeblurnet_loss
    from codes.baselines.spkdeblurnet_model import SpkDeblurNet
    from codes.engine.run import Run
    from codes.engine.schedule import cosine, learning_rate
    from codes.engine.weights import load_network
    from codes.image import grey
    from codes.random import rng
    from codes.report.evaluation import Row, evaluate, test
    from codes.spike import EXPOSURE

    hint = "train it, or fetch the authors' (model/README.md)"
    with Run(cfg, "SpkDeblurNet") as run:
        path = cfg.spkdeblurnet_path if cfg.test_mode else cfg.init_path
        network = load_network("spkdeblurnet", path, hint) if path else SpkDeblurNet(cfg.spike_frames, cfg.tfi_gain)
        network = run.place(network)

        def rows(sample):
            """The network's three images against the sharp one at the exposure's centre."""
            blur, sharp = sample["blur"], sample.get("sharp")
            yield Row("Blur", blur, sharp, "blur")
            images = network(*spkdeblurnet_input(network, blur, sample["spike"], EXPOSURE.centre))
            deblurred, from_spikes, from_blur = (image.float().clamp(0, 1) for image in images)
            yield Row("SpkDeblurNet", deblurred.flip(1), sharp, "spkdeblurnet")
            yield Row("spike_recon", from_spikes, grey(sharp) if sharp is not None else None, "spike_recon")
            yield Row("quick_sharp", from_blur.flip(1), sharp, "quick_sharp")

        scale = int(cfg.spike_scale)
        test_set = run.data("test", use_sharp=True, scale=scale)
        if cfg.test_mode:
            network.eval()
            return test(run, test_set, rows, weights=[path])

        sequence = cfg.instants == "sequence"
        known = EXPOSURE.sequence_instants if sequence else (EXPOSURE.centre,)
        crops = {"use_roi": True, "roi_size": cfg.roi_size, "seed": cfg.seed, "flips": cfg.flips, "scale": scale}
        train_set = run.data(cfg.train_split, use_sharp="sequence" if sequence else True, **crops)
        optimiser = torch.optim.Adam(network.parameters(), lr=cfg.lr, fused=run.fused)
        net = run.begin(network, optimiser, train_set)
        for _epoch in run.epochs():
            for batch in run.batches():
                index = int(rng("instants", cfg.seed, run.step_count).integers(len(known)))
                sharp = (batch["sharps"][:, index] if sequence else batch["sharp"]).flip(1)
                inputs = spkdeblurnet_input(network, batch["blur"], batch["spike"], known[index])
                with run.autocast():
                    images = net(*inputs)
                red, green, blue = sharp.split(1, dim=1)
                luminance = 0.299 * red + 0.587 * green + 0.114 * blue
                loss = spkdeblurnet_loss([image.float() for image in images], sharp, luminance)
                run.backward(loss)
                run.clip(cfg.grad_clip)
                official = cfg.lr * (0.01 + 0.99 * cosine(run.step_count / run.total))  # down to a hundredth
                run.update(learning_rate(cfg.lr_schedule, cfg.lr, run.step_count, run.total, official))
                run.log(loss=loss)
            run.end_epoch(lambda: test_set and evaluate(run, test_set, rows, network))


if __name__ == "__main__":
    command(main)
