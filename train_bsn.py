"""Stage 1 of S-SDM: train the blind-spot denoiser BSN on the short TFP images themselves.

    python train_bsn.py --base_folder GOPRO/ --bsn_len 9 --data_type GOPRO
    python train_bsn.py --test_mode --bsn_path model/BSN_1000.pth --data_type GOPRO

The network sees a TFP image of 9 spike frames and is asked for the same image; since it is blind to each pixel's own
noise, it learns the signal. Source: S-SDM (arXiv 2403.09486), section 3.2.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from codes.dataset import SpikeData
from codes.engine.checkpoint import load_weights
from codes.engine.command import command
from codes.engine.options import Config, option, parse_config
from codes.engine.run import Run
from codes.engine.schedule import cosine
from codes.image import grey
from codes.model.bsn_model import BSN
from codes.report.evaluation import Row, evaluate, test
from codes.spike import EXPOSURE, tfp


@dataclass(frozen=True)
class BSNConfig(Config):
    """The published recipe; options with * are not in the official program."""

    save_folder: str = option("exp/BSN", "where run folders are made", recipe=False)
    epochs: int = option(1001, "passes over the training split", low=1, recipe=False)
    lr: float = option(3e-4, "learning rate of Adam", low=0)
    save_every: int = option(100, "*epochs between saved weights", low=1, recipe=False)
    eval_every: int = option(100, "*epochs between evaluations in training (0: only at the end)", low=0, recipe=False)
    bsn_len: int = option(9, "frames of the TFP window", low=1, high=41)
    width: int = option(0, "required image width (0: whatever the data have)", low=0, recipe=False)
    height: int = option(0, "required image height (0: whatever the data have)", low=0, recipe=False)
    spike_full: bool = option(False, "train on spikes of the image's size, from spike_full/")
    bsn_path: str = option("model/BSN_1000.pth", "weights for --test_mode", recipe=False)
    init_path: str = option("", "*weights to start from, to fine-tune them; '' starts from scratch")


def main() -> None:
    """Train, or evaluate with ``--test_mode``."""
    cfg = parse_config(BSNConfig, description=__doc__)
    data = {"use_small": cfg.use_small, "vth": cfg.vth, "cache": cfg.cache, "skip_bad": cfg.skip_bad_samples}
    data |= {"spike_full": cfg.spike_full, "size": (cfg.height, cfg.width)}
    with Run(cfg, "BSN") as run:
        bsn = run.place(BSN(n_channels=1, n_output=1))

        def rows(sample):
            """TFP and BSN against the sharp grey image at the size of the spikes, at the centre of the exposure."""
            noisy = tfp(sample["spike"], EXPOSURE.centre, cfg.bsn_len)
            reference = {
                key: F.interpolate(grey(sample[key]), noisy.shape[-2:], mode="bilinear")
                for key in ("blur", "sharp")
                if key in sample
            }
            yield Row("Blur", reference["blur"], reference.get("sharp"), "blur")
            yield Row("TFP", noisy, reference.get("sharp"), "tfp")
            yield Row("BSN", bsn(noisy).clamp(0, 1), reference.get("sharp"), "tfp_bsn")

        test_set = SpikeData(cfg.base_folder, cfg.data_type, "test", use_sharp=True, **data)
        if cfg.test_mode:
            load_weights(bsn, cfg.bsn_path).eval()
            return test(run, test_set, rows, weights=[cfg.bsn_path])

        if cfg.init_path:
            load_weights(bsn, cfg.init_path)
        train_set = SpikeData(
            cfg.base_folder, cfg.data_type, cfg.train_split, use_roi=True, roi_size=cfg.roi_size, seed=cfg.seed, **data
        )
        instants = EXPOSURE.instants()
        optimiser = torch.optim.Adam(bsn.parameters(), lr=cfg.lr)
        net = run.begin(
            bsn,
            optimiser,
            train_set,
            official_lr=lambda step, epoch: cfg.lr * cosine(min(epoch / cfg.epochs, 1)),
            steps_per_batch=len(instants),
        )
        for _epoch in run.epochs():
            for batch in run.batches():
                for instant in instants:
                    noisy = tfp(batch["spike"], instant, cfg.bsn_len)
                    with run.autocast():
                        output = net(noisy)
                    if cfg.clip_output:
                        output = output.clamp(0, 1)
                    run.step(F.mse_loss(output.float(), noisy))
                    if run.finished:
                        break
            run.end_epoch(lambda: evaluate(run, test_set, rows, bsn))


if __name__ == "__main__":
    command(main)
