r"""The supervised neighbours on the same data: SpkDeblurNet (NeurIPS 2023) and STIR (NeurIPS 2024).

    python scripts/baselines/train_supervised.py --network spkdeblurnet --base_folder GOPRO/
    python scripts/baselines/train_supervised.py --network stir --base_folder GOPRO/
    python scripts/baselines/train_supervised.py --test_mode --network stir

Both learn from the sharp images in sharp_data, which S-SDM does without. SpkDeblurNet makes the sharp image at an
instant from the blurry one and the spikes around it, STIR the grey image from spikes alone. The recipes are those that
their authors published; how the data are brought to what the networks want is told in codes/neighbours.py.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from codes.baselines.adapters import (
    VGGDistance,
    spkdeblurnet_input,
    spkdeblurnet_loss,
    stir_images,
    stir_instants,
    stir_loss,
)
from codes.baselines.spkdeblurnet_model import SpkDeblurNet
from codes.baselines.stir_model import FRAMES, STIR
from codes.dataset import SpikeData
from codes.engine.checkpoint import load_weights
from codes.engine.command import command
from codes.engine.options import Config, option, parse_config
from codes.engine.run import Run
from codes.engine.schedule import cosine
from codes.engine.weights import load_network
from codes.errors import InputError
from codes.image import grey
from codes.report.evaluation import Row, evaluate, test
from codes.spike import EXPOSURE, mirrored_windows, tfi, tfp


@dataclass(frozen=True)
class SupervisedConfig(Config):
    """What is trained, and how; where a default depends on the network, 0 or '' stands for the published one."""

    network: Literal["spkdeblurnet", "stir"] = option("spkdeblurnet", "which network")
    save_folder: str = option("", "where run folders are made ('' : exp/SpkDeblurNet, exp/STIR)", recipe=False)
    lr: float = option(1e-4, "learning rate of Adam", low=0)
    bs: int = option(8, "batch size; with torchrun, of each rank", low=1)
    roi_size: int = option(0, "side of the training crop in image pixels (0: 256; STIR 384, 96 spike pixels)", low=0)
    epochs: int = option(0, "passes over the training split (0: --max_steps decides)", low=0, recipe=False)
    max_steps: int = option(0, "optimiser steps (0: 100,000; STIR 200,000)", low=0, recipe=False)
    instants: Literal["auto", "centre", "sequence"] = option(
        "auto",
        "sharp images to learn from: that of the centre, or the 7 of the sequence protocol, of which SpkDeblurNet "
        "takes one at random in each step and STIR those 5 whose 61 frames the stream holds; auto: centre; STIR "
        "sequence",
    )
    flips: bool = option(True, "turn and mirror training crops at random")
    spike_scale: Literal["4", "2"] = option(
        "4", "image pixels per spike pixel; 2 for data prepared with --scale 2, the size that SpkDeblurNet is made for"
    )
    spike_frames: int = option(56, "spike frames that SpkDeblurNet is given: officially 56 or 65", low=1, high=137)
    tfi_gain: float = option(
        2.0,
        "by what SpkDeblurNet's TFI is multiplied: 2 makes white 1 at the paper's Vth 2; 1 does at Vth 1",
        low=0.001,
    )
    perceptual: bool = option(True, "STIR's perceptual loss, which fetches VGG-19")
    spkdeblurnet_path: str = option("model/SpkDeblurNet.pth", "weights of SpkDeblurNet for --test_mode", recipe=False)
    stir_path: str = option("model/STIR_pretrain.pth", "weights of STIR for --test_mode", recipe=False)
    clip_output: bool = option(
        True, "clip STIR's images to [0, 1] before the loss, as officially; off, no start is dead (SpkDeblurNet: never)"
    )
    init_path: str = option("", "weights to start from, to fine-tune them; '' starts from scratch")


@dataclass(frozen=True)
class Recipe:
    """What the authors of a network chose."""

    name: str
    crop: int
    steps: int
    instants: str
    weight_decay: float


RECIPES = {
    "spkdeblurnet": Recipe("SpkDeblurNet", crop=256, steps=100_000, instants="centre", weight_decay=0.0),
    "stir": Recipe("STIR", crop=384, steps=200_000, instants="sequence", weight_decay=4e-4),
}


def main() -> None:
    """Train, or evaluate with ``--test_mode``."""
    cfg = parse_config(SupervisedConfig, description=__doc__)
    recipe, is_stir = RECIPES[cfg.network], cfg.network == "stir"
    if cfg.data_type == "real" and not cfg.test_mode:
        raise InputError("--data_type real has no sharp images, and supervised training needs them; use GOPRO's layout")
    cfg = replace(
        cfg,
        save_folder=cfg.save_folder or f"exp/{recipe.name}",
        roi_size=cfg.roi_size or recipe.crop,
        max_steps=cfg.max_steps or (0 if cfg.epochs else recipe.steps),
        epochs=cfg.epochs or 1,
        instants=recipe.instants if cfg.instants == "auto" else cfg.instants,
    )
    scale = int(cfg.spike_scale)
    if is_stir and cfg.roi_size % (16 * scale):
        raise InputError(f"--roi_size is {cfg.roi_size}; STIR's crops must be multiples of {16 * scale}")
    if not is_stir and cfg.roi_size < 68:
        raise InputError(f"--roi_size is {cfg.roi_size}; SpkDeblurNet's crops must be at least 68")
    data = {"use_small": cfg.use_small, "vth": cfg.vth, "cache": cfg.cache, "skip_bad": cfg.skip_bad_samples}
    with Run(cfg, recipe.name) as run:
        if cfg.test_mode:
            hint = "train it (scripts/baselines/train_supervised.py) or fetch the authors' (model/README.md)"
            network = load_weights(STIR(), cfg.stir_path, hint) if is_stir else None
            network = run.place(network or load_network("spkdeblurnet", cfg.spkdeblurnet_path, hint)).eval()
        else:
            network = STIR() if is_stir else SpkDeblurNet(cfg.spike_frames, cfg.tfi_gain)
            network = run.place(load_weights(network, cfg.init_path) if cfg.init_path else network)

        def light(sharp, spike):
            """What the spike camera sees of ``(B, 3, H, W)``: grey, at the size of the spikes."""
            return F.interpolate(grey(sharp), spike.shape[-2:], mode="bilinear")

        def stir_rows(sample):
            """TFP, TFI and STIR against the sharp grey image at the size of the spikes, at the exposure's centre."""
            spike, centre = sample["spike"], EXPOSURE.centre
            sharp = light(sample["sharp"], spike) if "sharp" in sample else None
            yield Row("TFP", tfp(spike, centre, 9), sharp, "tfp")
            yield Row("TFI", tfi(spike, centre), sharp, "tfi")
            yield Row("STIR", stir_images(network, spike, [centre]), sharp, "stir")

        def spkdeblurnet_rows(sample):
            """SpkDeblurNet's three images against the sharp one at the exposure's centre."""
            blur, sharp = sample["blur"], sample.get("sharp")
            yield Row("Blur", blur, sharp, "blur")
            images = network(*spkdeblurnet_input(network, blur, sample["spike"], EXPOSURE.centre))
            deblurred, from_spikes, from_blur = (image.float().clamp(0, 1) for image in images)
            yield Row("SpkDeblurNet", deblurred.flip(1), sharp, "spkdeblurnet")
            yield Row("spike_recon", from_spikes, grey(sharp) if sharp is not None else None, "spike_recon")
            yield Row("quick_sharp", from_blur.flip(1), sharp, "quick_sharp")

        rows = stir_rows if is_stir else spkdeblurnet_rows
        test_set = SpikeData(cfg.base_folder, cfg.data_type, "test", use_sharp=True, scale=scale, **data)
        if cfg.test_mode:
            return test(run, test_set, rows, weights=[cfg.stir_path if is_stir else cfg.spkdeblurnet_path])

        crops = {"use_roi": True, "roi_size": cfg.roi_size, "seed": cfg.seed, "flips": cfg.flips, "scale": scale}
        known = EXPOSURE.sequence_instants if cfg.instants == "sequence" else (EXPOSURE.centre,)
        use_sharp = "sequence" if cfg.instants == "sequence" else True
        train_set = SpikeData(cfg.base_folder, cfg.data_type, cfg.train_split, use_sharp=use_sharp, **crops, **data)
        perceptual = run.place(VGGDistance()) if is_stir and cfg.perceptual else None
        optimiser = torch.optim.Adam(network.parameters(), lr=cfg.lr, weight_decay=recipe.weight_decay)

        def official_lr(step, epoch):
            """SpkDeblurNet: a cosine from lr to lr / 100 over all steps. STIR: times 0.7 every 50,000 steps."""
            if is_stir:
                return cfg.lr * 0.7 ** (step // 50_000)
            return cfg.lr * (0.01 + 0.99 * cosine(step / run.total))

        net = run.begin(network, optimiser, train_set, official_lr)
        for _epoch in run.epochs():
            for batch in run.batches():
                blur, spike = batch["blur"], batch["spike"]
                sharps = batch["sharps"] if use_sharp == "sequence" else batch["sharp"][:, None]
                if is_stir:  # all instants side by side in the batch
                    instants = stir_instants(EXPOSURE.total, known)
                    targets = torch.cat([light(sharps[:, known.index(instant)], spike) for instant in instants])
                    with run.autocast():
                        images = net(mirrored_windows(spike, instants, FRAMES).transpose(0, 1).flatten(0, 1))
                    images = [image.float().clamp(0, 1) if cfg.clip_output else image.float() for image in images]
                    run.step(stir_loss(images, targets, perceptual))
                else:
                    index = int(np.random.default_rng((cfg.seed, run.step_count)).integers(len(known)))
                    inputs, sharp = spkdeblurnet_input(network, blur, spike, known[index]), sharps[:, index].flip(1)
                    with run.autocast():
                        images = net(*inputs)
                    red, green, blue = sharp.split(1, dim=1)
                    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
                    run.step(spkdeblurnet_loss([image.float() for image in images], sharp, luminance))
            run.end_epoch(lambda: evaluate(run, test_set, rows, network))


if __name__ == "__main__":
    command(main)
