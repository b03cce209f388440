"""Stage 2 of S-SDM: train the super-resolution EDSR to bring long TFP images to the size of the photograph.

    python train_sr.py --base_folder GOPRO/ --data_type GOPRO
    python train_sr.py --test_mode --bsn_path model/BSN_1000.pth --sr_path model/SR_70.pth --data_type GOPRO

The mean of all spikes under the exposure is a low-resolution picture of the blurry photograph in grey, so the two are a
training pair that needs no sharp image. Source: S-SDM (arXiv 2403.09486), section 3.2.
"""

from dataclasses import dataclass
from pathlib import Path

from codes.engine.command import command
from codes.engine.options import Config, option, parse_config, refuse_even


@dataclass(frozen=True)
class SRConfig(Config):
    """The published recipe."""

    save_folder: Path = option("exp/SR", "where run folders are made", group="official", recipe=False)
    lr: float = option(2e-4, "learning rate of Adam", low=0, group="official")
    bsn_len: int = option(
        9, "frames of the short TFP window, for --test_mode", low=1, high=41, group="official", recipe=False
    )
    bsn_path: Path = option("model/BSN_1000.pth", "weights of BSN for --test_mode", group="official", recipe=False)
    sr_path: Path = option("model/SR_70.pth", "weights of EDSR for --test_mode", group="official", recipe=False)
    init_path: Path | None = option(None, "weights to start from, to fine-tune them", group="beyond")

    def __post_init__(self):
        refuse_even(self, "bsn_len")


def main(argv: list[str] | None = None) -> None:
    """Train, or evaluate with ``--test_mode``."""
    cfg = parse_config(SRConfig, argv)

    import torch
    from torch.nn import functional as F

    from codes.engine.checkpoint import load_weights
    from codes.engine.run import Run
    from codes.engine.schedule import learning_rate
    from codes.image import grey
    from codes.model.bsn_model import BSN
    from codes.model.edsr_model import EDSR
    from codes.report.evaluation import Row, evaluate, test
    from codes.sdm import Enlarge, Teacher, sdm
    from codes.spike import EXPOSURE, tfp, tfp_long

    with Run(cfg, "SR") as run:
        edsr, nearest = run.place(EDSR(color_num=1)), Enlarge("nearest")

        def training_rows(sample):
            """The long window, enlarged, against the blurry image in grey: what the network is trained for."""
            blur, long = grey(sample["blur"]), tfp_long(sample["spike"])
            yield Row("Blur_SR", edsr(long).clamp(0, 1), blur, "blur_sr")
            yield Row("Blur_Resize", nearest(long), blur, "blur_resize")

        def rows(sample):
            """All official rows: the teacher, and each step towards it."""
            blur, spike, sharp = sample["blur"], sample["spike"], sample.get("sharp")
            yield Row("Blur", blur, sharp, "blur")
            grey_sharp = grey(sharp) if sharp is not None else None
            denoised = teacher.denoised(spike, EXPOSURE.centre)
            long, short = teacher.long(spike), teacher.enlarge(denoised).clamp(0, 1)
            yield Row("SDM", sdm(blur, long, short), sharp, "tea")
            yield Row("Blur_SR", long, grey(blur), "blur_sr")
            yield Row("Blur_Resize", nearest(tfp_long(spike)), grey(blur), "blur_resize")
            yield Row("BSN_SR", short, grey_sharp, "bsn_sr")
            yield Row("BSN_Resize", nearest(denoised), grey_sharp, "bsn_resize")
            yield Row("TFP_Resize", nearest(tfp(spike, EXPOSURE.centre, cfg.bsn_len)), grey_sharp, "tfp_resize")

        test_set = run.data("test", use_sharp=cfg.test_mode)
        if cfg.test_mode:
            bsn = load_weights(run.place(BSN()), cfg.bsn_path)
            teacher = Teacher.cascade(bsn, load_weights(edsr, cfg.sr_path), cfg.bsn_len)
            return test(run, test_set, rows, weights=[cfg.bsn_path, cfg.sr_path])

        if cfg.init_path:
            load_weights(edsr, cfg.init_path)
        train_set = run.data(cfg.train_split, use_roi=True, roi_size=cfg.roi_size, seed=cfg.seed)
        optimiser = torch.optim.Adam([p for p in edsr.parameters() if p.requires_grad], lr=cfg.lr, fused=run.fused)
        net = run.begin(edsr, optimiser, train_set)
        for _epoch in run.epochs():
            for batch in run.batches():
                with run.autocast():
                    output = net(tfp_long(batch["spike"]))
                if cfg.clip_output:
                    output = output.clamp(0, 1)
                loss = F.mse_loss(output.float(), grey(batch["blur"]))
                run.backward(loss)
                run.clip(cfg.grad_clip)
                run.update(learning_rate(cfg.lr_schedule, cfg.lr, run.step_count, run.total, official=cfg.lr))
                run.log(loss=loss)
            run.end_epoch(lambda: test_set and evaluate(run, test_set, training_rows, edsr))


if __name__ == "__main__":
    command(main)
