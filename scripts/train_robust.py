"""Train SDMNet, a student for captures that are not ideal, on scenes with known light.

    python scripts/make_scenes.py --base_folder GOPRO --deblur_path model/DeblurNet_photo.pth --out SCENES --count 6000
    python scripts/train_robust.py --base_folder SCENES --save_folder exp/SDMNet --max_steps 20000

Each step draws for each scene how it is recorded (threshold, noise, light, spike pixels, misalignment, exposure) and
compares the student at two instants with the frames that are known.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import command  # noqa: E402
from codes.engine.options import CropsConfig, option, parse_config, refuse_idle  # noqa: E402
from codes.errors import InputError  # noqa: E402
from codes.model.registry import STUDENT, network_of, robust  # noqa: E402

Drawn = Literal["vth", "noise", "light", "dim", "ratio", "phase", "corners", "stretch", "settled", "grey"]


@dataclass(frozen=True)
class RobustConfig(CropsConfig):
    """The recipe."""

    base_folder: Path = option("SCENES", "scenes of scripts/make_scenes.py", group="official", recipe=False)
    save_folder: Path = option("exp/SDMNet", "where run folders are made", group="run", recipe=False)
    student: str = option(STUDENT, "which student", choices=tuple(robust()), group="the student")
    init_path: Path | None = option(
        None, "weights to start from; of SDMNet also an LDN's, with pyramid and gain", group="the student"
    )
    inner: int = option(
        48,
        "channels inside the residual blocks (an LDN has 64); of more in --init_path the strongest are kept",
        low=1,
        high=64,
        group="the student",
    )
    instants: int = option(2, "instants of each scene and step, of the 7 known", low=1, high=7, group="the student")
    without: tuple[Drawn, ...] = option((), "what stays as in the paper, for trials", group="the student")
    test_mode: bool = option(False, "not here: scripts/train_student.py evaluates", group="official", recipe=False)
    eval_folder: Path | None = option(
        None, "data set whose test split is evaluated (default: none)", group="the student", recipe=False
    )
    roi_size: int = option(128, "side of the training crop in image pixels", low=16, high=132, group="official")
    eval_every: int = option(
        0, "epochs between saved weights and their evaluation (0: only at the end)", low=0, group="run", recipe=False
    )

    def __post_init__(self):
        super().__post_init__()
        refuse_idle(self, "on scenes", "train_split", "clip_output", "skip_bad_samples")
        if self.test_mode:
            how = f"scripts/train_student.py --test_mode --student {self.student} --student_path FILE"
            raise InputError(f"weights are evaluated by {how}")
        if self.student != "sdmnet":
            refuse_idle(self, f"with --student {self.student}", "inner")
        if not self.eval_folder:
            refuse_idle(self, "without --eval_folder", "data_type", "use_small", "vth", "cache")


def main(argv: list[str] | None = None) -> None:
    """Train."""
    cfg = parse_config(RobustConfig, argv)

    import torch
    from torch.nn import functional as F

    from codes.engine.run import Run
    from codes.engine.schedule import learning_rate
    from codes.engine.weights import load_student, new_student, record_of
    from codes.making.draws import Draws
    from codes.model.sdmnet_model import SDMNet
    from codes.report.evaluation import Row, evaluate
    from codes.spike import EXPOSURE
    from codes.student import Sight

    record = network_of(cfg.student)
    with Run(cfg, record.prefix) as run:
        student = load_student(cfg.init_path) if cfg.init_path else new_student(cfg.student)
        if cfg.student == "sdmnet" and not isinstance(student, SDMNet):
            student = SDMNet().begin_as(student)
        if record_of(student) != record:
            raise InputError(
                f"--init_path {cfg.init_path} holds {record_of(student).title}; give weights of {record.title}, or none"
            )
        if cfg.student == "sdmnet":
            student = student.narrowed(cfg.inner)
        student = run.place(student)
        sight = Sight.of(student)

        def rows(sample):
            """The student against the sharp image at the centre of the exposure."""
            blur, spike, sharp = sample["blur"], sample["spike"], sample.get("sharp")
            yield Row("Blur", blur, sharp, "blur")
            image = student(blur, sight(blur, spike, [EXPOSURE.centre]))[:, 0].clamp(0, 1)
            yield Row(record.title, image, sharp, "deblur")

        test_set = run.data("test", folder=cfg.eval_folder, use_sharp=True) if cfg.eval_folder else None
        scenes = Draws(cfg.base_folder, cfg.roi_size, cfg.instants, cfg.seed, cfg.without, sight=sight)
        optimiser = torch.optim.Adam(student.parameters(), lr=cfg.lr, fused=run.fused)
        net = run.begin(student, optimiser, scenes)
        for _epoch in run.epochs():
            for batch in run.batches():
                with run.autocast():
                    images = net(batch["blur"], batch["spike"]).float()  # (B, M, 3, H, W)
                loss = F.l1_loss(images, batch["sharps"])
                run.backward(loss)
                run.clip(cfg.grad_clip)
                run.update(learning_rate(cfg.lr_schedule, cfg.lr, run.step_count, run.total))
                run.log(loss=loss)
            run.end_epoch(lambda: test_set and evaluate(run, test_set, rows, student))


if __name__ == "__main__":
    command(main)
