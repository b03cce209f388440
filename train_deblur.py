r"""Stage 3 of S-SDM: distil the teacher BSN -> EDSR -> SDM into the Lightweight Deblurring Network.

    python train_deblur.py --base_folder GOPRO/ --bsn_path model/BSN_1000.pth --sr_path model/SR_70.pth \
        --lambda_reblur 100 --data_type GOPRO
    python train_deblur.py --test_mode --bsn_path model/BSN_1000.pth --sr_path model/SR_70.pth \
        --deblur_path model/DeblurNet_100.pth --data_type GOPRO

At five instants of the exposure the student's image is drawn to the teacher's, and the mean of the student's five
images to the blurry photograph. No sharp image is read, so the official program trains on the split that it is tested
on (``--train_split``). Source: S-SDM (arXiv 2403.09486), sections 3.3 and 3.4. The way of the weights in model/, which
learn from known sharp frames instead of a teacher, is scripts/train_student.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from codes.engine.command import command
from codes.engine.options import Config, option, parse_config, refuse_even, refuse_idle


@dataclass(frozen=True)
class DeblurConfig(Config):
    """The published recipe."""

    save_folder: Path = option("exp/Deblur", "where run folders are made", group="official", recipe=False)
    train_split: Literal["train", "test"] = option(
        "test", "split to train on; officially test, whose sharp images are not read", group="beyond"
    )
    bsn_path: Path = option("model/BSN_1000.pth", "weights of BSN", group="official")
    sr_path: Path = option("model/SR_70.pth", "weights of EDSR", group="official")
    deblur_path: Path = option(
        "model/DeblurNet_100.pth", "weights of the student for --test_mode", group="official", recipe=False
    )
    spike_deblur_len: int = option(21, "spike frames given to the student", low=1, high=41, group="official")
    spike_bsn_len: int = option(9, "frames of the teacher's short TFP window", low=1, high=41, group="official")
    blur_step: int = option(
        24, "spike frames between the instants of a training step", low=1, high=96, group="official"
    )
    lambda_tea: float = option(1.0, "weight of the teacher loss", low=0, group="official")
    lambda_reblur: float = option(100.0, "weight of the reblur loss", low=0, group="official")
    use_ssim: bool = option(False, "add 1 - SSIM to the teacher loss", group="official")
    tea_loss: Literal["lpips", "lpips_rgb", "ssim", "l1", "ssim+l1"] = option(
        "lpips",
        "distance to the teacher; lpips is given B,G,R in [0, 1] as officially, lpips_rgb what it was trained for, "
        "R,G,B in [-1, 1]; both fetch VGG-16",
        group="beyond",
    )
    teacher: Literal["cascade", "sdm"] = option(
        "cascade", "BSN -> EDSR -> SDM; or the SDM on TFP of 21 frames, bilinear, without any network", group="beyond"
    )
    teacher_cache: Path | None = option(
        None,
        "folder that keeps the teacher's textures of whole frames, 11 MB per sample at 720x1280 and 5 instants",
        group="beyond",
        recipe=bool,
    )
    init_path: Path | None = option(None, "weights of a student to start from, to fine-tune it", group="beyond")

    def __post_init__(self):
        refuse_even(self, "spike_deblur_len", "spike_bsn_len")
        if self.teacher == "sdm":
            refuse_idle(self, "with --teacher sdm", "spike_bsn_len", "bsn_path", "sr_path")
        if self.init_path:
            refuse_idle(self, "with --init_path, whose file decides it", "spike_deblur_len")
        if "ssim" in self.tea_loss:
            refuse_idle(self, f"with --tea_loss {self.tea_loss}", "use_ssim")


def main(argv: list[str] | None = None) -> None:
    """Train, or evaluate with ``--test_mode``."""
    cfg = parse_config(DeblurConfig, argv)

    import torch

    from codes.engine.run import Run
    from codes.engine.schedule import cosine, learning_rate
    from codes.engine.textures import kept
    from codes.engine.weights import load_network, load_student
    from codes.labels import Distilled, fixed_instants
    from codes.losses import TeacherLoss, reblur_loss
    from codes.model.ldn_model import Deblur_Net
    from codes.report.evaluation import Row, evaluate, test
    from codes.sdm import Teacher
    from codes.spike import EXPOSURE
    from codes.student import Sight

    with Run(cfg, "DeblurNet") as run:
        path = cfg.deblur_path if cfg.test_mode else cfg.init_path
        ldn = run.place(load_student(path) if path else Deblur_Net(cfg.spike_deblur_len))
        sight, teacher = Sight.of(ldn), Teacher.plain()
        if cfg.teacher == "cascade":
            hint = "train it (train_bsn.py, train_sr.py), fetch it (model/README.md), or give --teacher sdm"
            bsn, edsr = load_network("bsn", cfg.bsn_path, hint), load_network("edsr", cfg.sr_path, hint)
            teacher = run.place(Teacher.cascade(bsn, edsr, cfg.spike_bsn_len))

        def rows(sample):
            """Teacher and student against the sharp image at the centre of the exposure."""
            blur, spike, sharp, instants = sample["blur"], sample["spike"], sample.get("sharp"), [EXPOSURE.centre]
            yield Row("Blur", blur, sharp, "blur")
            yield Row("SDM", teacher(blur, spike, instants)[:, 0], sharp, "tea")
            yield Row("Deblur_Net", ldn(blur, sight(blur, spike, instants))[:, 0].clamp(0, 1), sharp, "deblur")

        test_set = run.data("test", use_sharp=True)
        if cfg.test_mode:
            files = [cfg.bsn_path, cfg.sr_path] if cfg.teacher == "cascade" else []
            return test(run, test_set, rows, weights=[*files, cfg.deblur_path])

        train_set = run.data(cfg.train_split, use_roi=True, roi_size=cfg.roi_size, seed=cfg.seed)
        teacher_loss = run.place(TeacherLoss(cfg.tea_loss + "+ssim" * cfg.use_ssim))
        optimiser = torch.optim.Adam(ldn.parameters(), lr=cfg.lr, fused=run.fused)
        net = run.begin(ldn, optimiser, train_set)
        source = Distilled(teacher, fixed_instants(cfg.blur_step))
        source = kept(source, run, train_set) if cfg.teacher_cache else source

        def rate(step):
            """Officially T_max = epochs, stepped once per batch: a slip, the rate swings with 2 * epochs steps."""
            return learning_rate(cfg.lr_schedule, cfg.lr, step, run.total, cfg.lr * cosine(step / cfg.epochs))

        for _epoch in run.epochs():
            for batch in run.batches():
                blur, spike, instants = batch["blur"], batch["spike"], source.instants(run.step_count)
                with run.autocast():
                    labels = source.labels(batch, instants)  # (B, M, 3, H, W)
                    students = net(blur, sight(blur, spike, instants)).float()
                if cfg.clip_output:
                    students = students.clamp(0, 1)
                tea, reblur = teacher_loss(students, labels), reblur_loss(students, blur)
                loss = cfg.lambda_tea * tea + cfg.lambda_reblur * reblur
                run.backward(loss)
                run.clip(cfg.grad_clip)
                run.update(rate(run.step_count))
                run.log(loss=loss, tea=tea, reblur=reblur)
            run.end_epoch(lambda: test_set and evaluate(run, test_set, rows, ldn))


if __name__ == "__main__":
    command(main)
