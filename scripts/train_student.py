"""A student on known sharp frames: the way of the weights in model/, beyond the paper.

    python scripts/resimulate.py --base_folder CAPTURES --out resim1 --new_vth 1 2 4
    python scripts/train_student.py --base_folder resim1/GOPRO --eval_folder VALIDATION
    python scripts/train_student.py --test_mode --base_folder VALIDATION --student_path DeblurNet_last.pth

scripts/resimulate.py moves pictures that were made of captures before a simulated camera anew. Of such data the sharp
frames are known, although no sharp image of the captures ever was. The defaults are the published recipe: the student
sees the whole stream (pyramid), as bright as the image (gain), at a threshold drawn for each sample, of crops that are
turned and mirrored at random, and is drawn to the sharp frames at two of the seven instants of the sequence protocol.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import command  # noqa: E402
from codes.engine.options import CropsConfig, option, parse_config, refuse_idle  # noqa: E402
from codes.errors import InputError  # noqa: E402
from codes.model.registry import network_of, students  # noqa: E402


@dataclass(frozen=True)
class StudentConfig(CropsConfig):
    """The recipe of the weights in model/."""

    save_folder: Path = option("exp/Student", "where run folders are made", group="run", recipe=False)
    student: str = option("ldn", "which student", choices=tuple(students()), group="the student")
    student_spikes: Literal["frames", "pyramid", "intervals"] = option(
        "pyramid",
        "what the LDN sees: 21 frames around the instant, or the whole stream, in spikes or in light by intervals",
        group="the student",
    )
    spike_gain: bool = option(True, "make spikes of any threshold as bright as the blurry image", group="the student")
    init_path: Path | None = option(None, "weights of a student to start from, to fine-tune it", group="the student")
    student_path: Path | None = option(None, "weights for --test_mode", group="the student", recipe=False)
    train_vth: tuple[Literal["0.5", "1", "2", "4", "8"], ...] = option(
        ("1", "2", "4"), "firing thresholds of the training spikes, one drawn for each sample", group="the student"
    )
    instants: int = option(2, "instants of a step, drawn from the 7 of the data", low=1, high=7, group="the student")
    flips: bool = option(True, "turn and mirror training crops at random", group="the student")
    eval_folder: Path | None = option(
        None, "data set whose test split is evaluated (default: --base_folder)", group="the student", recipe=False
    )
    clip_output: bool = option(False, "clip outputs to [0, 1] before the loss", group="beyond")
    eval_every: int = option(
        0, "epochs between saved weights and their evaluation (0: only at the end)", low=0, group="run", recipe=False
    )

    def __post_init__(self):
        super().__post_init__()
        if self.student != "ldn":
            refuse_idle(self, f"with --student {self.student}", "student_spikes")
        if network_of(self.student).robust:
            refuse_idle(self, f"with --student {self.student}, which always has it", "spike_gain")
        if self.init_path:
            refuse_idle(self, "with --init_path, whose file decides it", "student_spikes", "spike_gain")
        if self.test_mode and not self.student_path:
            raise InputError("--test_mode needs --student_path, the weights to evaluate")


def main(argv: list[str] | None = None) -> None:
    """Train, or evaluate with ``--test_mode``."""
    cfg = parse_config(StudentConfig, argv)

    import torch
    from torch.nn import functional as F

    from codes.engine.run import Run
    from codes.engine.schedule import learning_rate
    from codes.engine.weights import load_network, new_student
    from codes.labels import KnownSharp
    from codes.report.evaluation import Row, evaluate, test
    from codes.sdm import Teacher
    from codes.spike import EXPOSURE
    from codes.student import Sight

    record, plain = network_of(cfg.student), Teacher.plain()
    with Run(cfg, record.prefix) as run:
        path = cfg.student_path if cfg.test_mode else cfg.init_path
        wishes: dict = {"gain": cfg.spike_gain}
        if cfg.student == "ldn":
            wishes["spike_input"] = cfg.student_spikes
        student = run.place(load_network(cfg.student, path) if path else new_student(cfg.student, **wishes))
        sight = Sight.of(student)

        def rows(sample):
            """The SDM without a network, and the student, against the sharp image at the centre of the exposure."""
            blur, spike, sharp, instants = sample["blur"], sample["spike"], sample.get("sharp"), [EXPOSURE.centre]
            yield Row("Blur", blur, sharp, "blur")
            yield Row("SDM", plain(blur, spike, instants)[:, 0], sharp, "sdm")
            image = student(blur, sight(blur, spike, instants))[:, 0].clamp(0, 1)
            yield Row(record.class_name, image, sharp, "deblur")

        test_set = run.data("test", folder=cfg.eval_folder, use_sharp=True)
        if cfg.test_mode:
            return test(run, test_set, rows, weights=[cfg.student_path])

        source = KnownSharp(cfg.instants, cfg.seed)
        crops = {"use_roi": True, "roi_size": cfg.roi_size, "seed": cfg.seed, "flips": cfg.flips} | source.wants
        vth, *more = map(float, cfg.train_vth)
        train_set = run.data(cfg.train_split, **crops, vth=vth, more_vth=more)
        optimiser = torch.optim.Adam(student.parameters(), lr=cfg.lr, fused=run.fused)
        net = run.begin(student, optimiser, train_set)
        for _epoch in run.epochs():
            for batch in run.batches():
                blur, spike, instants = batch["blur"], batch["spike"], source.instants(run.step_count)
                with run.autocast():
                    images = net(blur, sight(blur, spike, instants)).float()
                if cfg.clip_output:
                    images = images.clamp(0, 1)
                loss = F.l1_loss(images, source.labels(batch, instants))
                run.backward(loss)
                run.clip(cfg.grad_clip)
                run.update(learning_rate(cfg.lr_schedule, cfg.lr, run.step_count, run.total))
                run.log(loss=loss)
            run.end_epoch(lambda: test_set and evaluate(run, test_set, rows, student))


if __name__ == "__main__":
    command(main)
