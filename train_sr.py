"""Stage 2 of S-SDM: train the super-resolution EDSR to bring long TFP images to the size of the photograph.

    python train_sr.py --base_folder GOPRO/ --data_type GOPRO
    python train_sr.py --test_mode --bsn_path model/BSN_1000.pth --sr_path model/SR_70.pth --data_type GOPRO

The mean of all spikes under the exposure is a low-resolution picture of the blurry photograph in grey, so the two are a
training pair that needs no sharp image. Source: S-SDM (arXiv 2403.09486), section 3.2.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch.nn import functional as F

from codes.dataset import SpikeData
from codes.engine.checkpoint import load_weights
from codes.engine.command import command
from codes.engine.options import Config, option, parse_config
from codes.engine.run import Run
from codes.image import grey
from codes.model.bsn_model import BSN
from codes.model.edsr_model import EDSR
from codes.report.evaluation import Row, evaluate, test
from codes.sdm import Enlarge, Teacher, sdm
from codes.spike import EXPOSURE, tfp


@dataclass(frozen=True)
class SRConfig(Config):
    """The published recipe; options with * are not in the official program."""

    save_folder: str = option("exp/SR", "where run folders are made", recipe=False)
    lr: float = option(2e-4, "learning rate of Adam", low=0)
    learn_from: Literal["long", "both"] = option(
        "long",
        "*long: the long window and the blurry image; both: also BSN's short windows and the sharp frames of a data "
        "set whose sharp images are made from captures (scripts/resimulate.py)",
    )
    bsn_len: int = option(
        9, "frames of the short TFP window, for the evaluation and --learn_from both", low=1, high=137
    )
    bsn_path: str = option("model/BSN_1000.pth", "weights of BSN, for --test_mode and --learn_from both")
    sr_path: str = option("model/SR_70.pth", "weights of EDSR for --test_mode", recipe=False)
    init_path: str = option("", "*weights to start from, to fine-tune them; '' starts from scratch")


def main() -> None:
    """Train, or evaluate with ``--test_mode``."""
    cfg = parse_config(SRConfig, description=__doc__)
    data = {"use_small": cfg.use_small, "vth": cfg.vth, "cache": cfg.cache, "skip_bad": cfg.skip_bad_samples}
    with Run(cfg, "SR") as run:
        edsr = run.place(EDSR(color_num=1))
        nearest = Enlarge("nearest")

        def training_rows(sample):
            """The long window, enlarged, against the blurry image in grey: what the network is trained for."""
            blur, long = grey(sample["blur"]), tfp(sample["spike"], EXPOSURE.centre, EXPOSURE.length)
            yield Row("Blur_SR", edsr(long).clamp(0, 1), blur, "blur_sr")
            yield Row("Blur_Resize", nearest(long), blur, "blur_resize")

        def rows(sample):
            """All official rows: the teacher, and each step towards it."""
            yield Row("Blur", sample["blur"], sample.get("sharp"), "blur")
            sharp = grey(sample["sharp"]) if "sharp" in sample else None
            spike, denoised = sample["spike"], teacher.denoised(sample["spike"], EXPOSURE.centre)
            tfp_long, tfp_short = teacher.long(spike), teacher.enlarge(denoised).clamp(0, 1)
            yield Row("SDM", sdm(sample["blur"], tfp_long, tfp_short), sample.get("sharp"), "tea")
            yield Row("Blur_SR", tfp_long, grey(sample["blur"]), "blur_sr")
            yield Row(
                "Blur_Resize",
                nearest(tfp(spike, EXPOSURE.centre, EXPOSURE.length)),
                grey(sample["blur"]),
                "blur_resize",
            )
            yield Row("BSN_SR", tfp_short, sharp, "bsn_sr")
            yield Row("BSN_Resize", nearest(denoised), sharp, "bsn_resize")
            yield Row("TFP_Resize", nearest(tfp(spike, EXPOSURE.centre, cfg.bsn_len)), sharp, "tfp_resize")

        evaluated = (
            cfg.test_mode or cfg.learn_from == "long" or (Path(cfg.base_folder) / "test" / "spike_data").is_dir()
        )
        if evaluated:
            test_set = SpikeData(cfg.base_folder, cfg.data_type, "test", use_sharp=cfg.test_mode, **data)
        else:  # as resimulate.py makes them
            run.say(f"{cfg.base_folder} has no test split: nothing is evaluated in training")
        if cfg.test_mode:
            bsn = load_weights(run.place(BSN()), cfg.bsn_path)
            teacher = Teacher.cascade(bsn, load_weights(edsr, cfg.sr_path), cfg.bsn_len)
            return test(run, test_set, rows, weights=[cfg.bsn_path, cfg.sr_path])

        if cfg.init_path:
            load_weights(edsr, cfg.init_path)
        crops = {"use_roi": True, "roi_size": cfg.roi_size, "seed": cfg.seed}
        crops["use_sharp"] = "sequence" if cfg.learn_from == "both" else False
        train_set = SpikeData(cfg.base_folder, cfg.data_type, cfg.train_split, **crops, **data)
        if cfg.learn_from == "both":
            denoiser = Teacher.plain(cfg.bsn_len, denoise=load_weights(run.place(BSN()), cfg.bsn_path))
        optimiser = torch.optim.Adam([p for p in edsr.parameters() if p.requires_grad], lr=cfg.lr)
        net = run.begin(edsr, optimiser, train_set, official_lr=lambda step, epoch: cfg.lr)
        for _epoch in run.epochs():
            for batch in run.batches():
                low, high = tfp(batch["spike"], EXPOSURE.centre, EXPOSURE.length), grey(batch["blur"])
                with run.autocast():
                    if cfg.learn_from == "both":
                        index = run.step_count % len(EXPOSURE.sequence_instants)
                        short = denoiser.denoised(batch["spike"], EXPOSURE.sequence_instants[index])
                        low, high = torch.cat([low, short]), torch.cat([high, grey(batch["sharps"][:, index])])
                    output = net(low)
                if cfg.clip_output:
                    output = output.clamp(0, 1)
                run.step(F.mse_loss(output.float(), high))
            run.end_epoch((lambda: evaluate(run, test_set, training_rows, edsr)) if evaluated else None)


if __name__ == "__main__":
    command(main)
