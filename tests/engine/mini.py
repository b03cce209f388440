"""A recipe as small as can be, to try a run with: one convolution that learns to blur less."""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from codes.engine.command import command  # noqa: E402
from codes.engine.options import Config, option, parse_config  # noqa: E402


@dataclass(frozen=True)
class MiniConfig(Config):
    """What a recipe has at least."""

    lr: float = option(1e-2, "learning rate", low=0, group="official")
    width: int = option(8, "an option of its own", low=1, group="official")


def main(argv=None):
    cfg = parse_config(MiniConfig, argv)

    import torch
    from torch import nn
    from torch.nn import functional as F

    from codes.engine.run import Run
    from codes.engine.schedule import learning_rate
    from codes.report.evaluation import Row, evaluate

    with Run(cfg, "Mini") as run:
        mini = run.place(nn.Sequential(nn.Conv2d(3, cfg.width, 3, padding=1), nn.ReLU(), nn.Conv2d(cfg.width, 3, 1)))

        def rows(sample):
            yield Row("Mini", mini(sample["blur"]).clamp(0, 1), sample["blur"], "mini")

        test_set = run.data("test")
        train_set = run.data(cfg.train_split, use_roi=True, roi_size=cfg.roi_size, seed=cfg.seed)
        net = run.begin(mini, torch.optim.Adam(mini.parameters(), lr=cfg.lr, fused=run.fused), train_set)
        for _epoch in run.epochs():
            for batch in run.batches():
                with run.autocast():
                    output = net(batch["blur"])
                loss = F.mse_loss(output.float(), batch["blur"])
                run.backward(loss)
                run.clip(cfg.grad_clip)
                run.update(learning_rate(cfg.lr_schedule, cfg.lr, run.step_count, run.total, official=cfg.lr))
                run.log(loss=loss)
            run.end_epoch(lambda: test_set and evaluate(run, test_set, rows, mini))


if __name__ == "__main__":
    command(main)
