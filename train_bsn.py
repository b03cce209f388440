"""Stage 1 of S-SDM: train the blind-spot denoiser BSN on the short TFP images themselves.

    python train_bsn.py --base_folder GOPRO/ --bsn_len 9 --data_type GOPRO
    python train_bsn.py --test_mode --bsn_path model/BSN_1000.pth --data_type GOPRO

The network sees a TFP image of 9 spike frames and is asked for the same image; since it is blind to each pixel's own
noise, it learns the signal. Source: S-SDM (arXiv 2403.09486), section 3.2.
"""

from dataclasses import dataclass
from pathlib import Path

from codes.engine.command import command
from codes.engine.options import Config, option, parse_config, refuse_even


@dataclass(frozen=True)
class BSNConfig(Config):
    """The published recipe."""

    save_folder: Path = option("exp/BSN", "where run folders are made", group="official", recipe=False)
    epochs: int = option(1001, "passes over the training split", low=1, group="official", recipe=False)
    lr: float = option(3e-4, "learning rate of Adam", low=0, group="official")
    eval_every: int = option(
        100, "epochs between saved weights and their evaluation (0: only at the end)", low=0, group="run", recipe=False
    )
    bsn_len: int = option(9, "frames of the TFP window", low=1, high=41, group="official")
    width: int = option(0, "required image width (0: whatever the data have)", low=0, group="official", recipe=False)
    height: int = option(0, "required image height (0: whatever the data have)", low=0, group="official", recipe=False)
    spike_full: bool = option(False, "train on spikes of the image's size, from spike_full/", group="official")
    bsn_path: Path = option("model/BSN_1000.pth", "weights for --test_mode", group="official", recipe=False)
    init_path: Path | None = option(None, "weights to start from, to fine-tune them", group="beyond")

    def __post_init__(self):
        refuse_even(self, "bsn_len")


def main(argv: list[str] | None = None) -> None:
    """Train, or evaluate with ``--test_mode``."""
    cfg = parse_config(BSNConfig, argv)

    import torch
    from torch.nn import functional as F

    from codes.engine.checkpoint import load_weights
    from codes.engine.run import Run
    from codes.engine.schedule import cosine, learning_rate
    from codes.image import grey
    from codes.model.bsn_model import BSN
    from codes.report.evaluation import Row, evaluate, test
    from codes.spike import EXPOSURE, tfp

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

        layout = {"spike_full": cfg.spike_full, "size": (cfg.height, cfg.width)}
        test_set = run.data("test", use_sharp=True, **layout)
        if cfg.test_mode:
            load_weights(bsn, cfg.bsn_path).eval()
            return test(run, test_set, rows, weights=[cfg.bsn_path])

        if cfg.init_path:
            load_weights(bsn, cfg.init_path)
        train_set = run.data(cfg.train_split, use_roi=True, roi_size=cfg.roi_size, seed=cfg.seed, **layout)
        instants = EXPOSURE.instants()
        optimiser = torch.optim.Adam(bsn.parameters(), lr=cfg.lr, fused=run.fused)
        net = run.begin(bsn, optimiser, train_set, steps_per_batch=len(instants))
        for epoch in run.epochs():
            for batch in run.batches():
                for instant in instants:
                    noisy = tfp(batch["spike"], instant, cfg.bsn_len)
                    with run.autocast():
                        output = net(noisy)
                    if cfg.clip_output:
                        output = output.clamp(0, 1)
                    loss = F.mse_loss(output.float(), noisy)
                    run.backward(loss)
                    run.clip(cfg.grad_clip)
                    official = cfg.lr * cosine(min(epoch / cfg.epochs, 1))
                    run.update(learning_rate(cfg.lr_schedule, cfg.lr, run.step_count, run.total, official))
                    run.log(loss=loss)
                    if run.finished:
                        break
            run.end_epoch(lambda: test_set and evaluate(run, test_set, rows, bsn))


if __name__ == "__main__":
    command(main)
