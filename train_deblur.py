r"""Stage 3 of S-SDM: distil the teacher BSN -> EDSR -> SDM into the Lightweight Deblurring Network.

    python train_deblur.py --base_folder GOPRO/ --bsn_path model/BSN_1000.pth --sr_path model/SR_70.pth \
        --lambda_reblur 100 --data_type GOPRO
    python train_deblur.py --test_mode --bsn_path model/BSN_1000.pth --sr_path model/SR_70.pth \
        --deblur_path model/DeblurNet_100.pth --data_type GOPRO

At five instants of the exposure the student's image is drawn to the teacher's, and the mean of the student's five
images to the blurry photograph. No sharp image is read, so the official program trains on the split that it is tested
on (``--train_split``). With ``--teacher sharp`` the labels are the sharp frames of a data set that
scripts/resimulate.py made from captures. Source: S-SDM (arXiv 2403.09486), sections 3.3 and 3.4.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from codes.baselines.san_student import SANStudent
from codes.baselines.stir_model import FRAMES, STIR
from codes.dataset import SpikeData
from codes.engine.checkpoint import load_weights
from codes.engine.command import command
from codes.engine.options import Config, option, parse_config
from codes.engine.run import Run
from codes.engine.schedule import cosine
from codes.engine.textures import cached_textures
from codes.engine.weights import load_student
from codes.errors import InputError
from codes.losses import TeacherLoss, reblur_loss, spike_loss
from codes.model.bsn_model import BSN
from codes.model.edsr_model import EDSR
from codes.model.ldn_model import Deblur_Net
from codes.report.evaluation import Row, evaluate, test
from codes.sdm import Teacher
from codes.spike import EXPOSURE, hold_out
from codes.student import Sight, exposure_gain


@dataclass(frozen=True)
class DeblurConfig(Config):
    """The published recipe; options with * are not in the official program."""

    save_folder: str = option("exp/Deblur", "where run folders are made", recipe=False)
    train_split: Literal["train", "test"] = option(
        "test", "*split to train on; officially test, whose sharp images are not read"
    )
    bsn_path: str = option("model/BSN_1000.pth", "weights of BSN")
    sr_path: str = option("model/SR_70.pth", "weights of EDSR")
    deblur_path: str = option("model/DeblurNet_100.pth", "weights of the student for --test_mode", recipe=False)
    spike_deblur_len: int = option(21, "spike frames given to the student", low=1, high=41)
    spike_bsn_len: int = option(9, "frames of the teacher's short TFP window", low=1, high=41)
    blur_step: int = option(24, "spike frames between the instants of a training step", low=1, high=96)
    lambda_tea: float = option(1.0, "weight of the teacher loss", low=0)
    lambda_reblur: float = option(100.0, "weight of the reblur loss", low=0)
    lambda_spike: float = option(
        0.0, "*weight of the spike-consistency loss: the student's light at its instants against hidden spikes", low=0
    )
    use_ssim: bool = option(False, "add 1 - SSIM to the teacher loss")
    tea_loss: Literal["lpips", "ssim", "l1", "ssim+l1", "lpips+ssim"] = option(
        "lpips", "*distance to the teacher; lpips fetches VGG-16"
    )
    lpips_input: Literal["official", "rgb"] = option(
        "official", "*what LPIPS is given: B,G,R in [0, 1] as officially, or R,G,B in [-1, 1]"
    )
    student: Literal["ldn", "san"] = option(
        "ldn", "*the student: the LDN, or for comparison SAN (2.4 M parameters), which is given 96 frames"
    )
    short: Literal["bsn", "stir"] = option(
        "bsn", "*what makes the cascade's short texture: BSN of the short TFP, or STIR of 61 spike frames"
    )
    stir_path: str = option("model/STIR_pretrain.pth", "*weights of STIR for --short stir")
    teacher: Literal["cascade", "sdm", "sharp"] = option(
        "cascade",
        "*BSN -> EDSR -> SDM; the SDM on plain TFP without any network; or sharp_data of a data set whose sharp images "
        "are made from captures (scripts/resimulate.py), at its 7 instants",
    )
    sdm_len: int = option(21, "*short window of --teacher sdm", low=1, high=41)
    sdm_enlarge: Literal["nearest", "bilinear"] = option("bilinear", "*enlarging of --teacher sdm")
    student_spikes: Literal["frames", "pyramid"] = option(
        "frames",
        "*what the student sees of the spikes: the frames around the instant, or the whole stream in 21 windows",
    )
    spike_gain: Literal["off", "auto"] = option(
        "off",
        "*auto: multiply the student's spikes by mean(grey blurry image) / mean(long TFP), for any firing threshold",
    )
    instants: int = option(
        0,
        "*instants of a training step, one drawn from each of N equal parts of the exposure (of the 7 with --teacher "
        "sharp); 0: every blur_step-th frame (all 7)",
        low=0,
        high=97,
    )
    train_vth: tuple[Literal["1", "2", "4", "8"], ...] = option(
        (), "*firing thresholds of the training spikes, of which each sample is given one at random; by default --vth"
    )
    flips: bool = option(False, "*turn and mirror training crops at random")
    eval_folder: str = option(
        "", "*data set whose test split is evaluated in training; '' is --base_folder", recipe=False
    )
    init_path: str = option("", "*weights of a student to start from, to fine-tune it; '' starts from scratch")
    teacher_cache: str = option(
        "",
        "*folder that keeps the teacher's textures of whole frames in float16, 11.1 MB per sample at 720x1280 and 5 "
        "instants, made at the start; '' makes them crop by crop in every step",
        recipe=bool,
    )


def load_teacher(cfg: DeblurConfig, run: Run) -> Teacher:
    """The frozen teacher that the configuration names; with ``--teacher sharp`` it is only compared with."""
    if cfg.teacher != "cascade":
        return Teacher.plain(cfg.sdm_len, cfg.sdm_enlarge)
    hint = "train it (train_bsn.py, train_sr.py), fetch it (README, 'Weights'), or give --teacher sdm, which needs none"
    sr = load_weights(EDSR(), cfg.sr_path, hint)
    if cfg.short == "stir":
        stir = load_weights(STIR(), cfg.stir_path, "train it (scripts/baselines), or see model/README.md")
        return run.place(Teacher.cascade(stir, sr, FRAMES, raw=True))
    return run.place(Teacher.cascade(load_weights(BSN(), cfg.bsn_path, hint), sr, cfg.spike_bsn_len))


def new_student(cfg: DeblurConfig) -> torch.nn.Module:
    """The student that is trained: from scratch, or from ``--init_path``, which must see the same of the spikes."""
    if cfg.student == "san":
        san = SANStudent(cfg.spike_gain == "auto")
        return load_weights(san, cfg.init_path) if cfg.init_path else san
    frames = 21 if cfg.student_spikes == "pyramid" else 2 * (cfg.spike_deblur_len // 2) + 1
    ldn = Deblur_Net(frames, cfg.student_spikes, cfg.spike_gain == "auto")
    return load_weights(ldn, cfg.init_path) if cfg.init_path else ldn


def step_instants(cfg: DeblurConfig, step: int) -> tuple[int, ...]:
    """The instants of a training step."""
    if cfg.teacher == "sharp":
        count, known = cfg.instants or 7, EXPOSURE.sequence_instants
        chosen = np.random.default_rng((cfg.seed, step)).permutation(len(known))[:count]
        return tuple(known[index] for index in sorted(chosen))
    if cfg.instants:
        return EXPOSURE.random_instants(cfg.instants, (cfg.seed, step))
    return EXPOSURE.instants(cfg.blur_step)


def main() -> None:
    """Train, or evaluate with ``--test_mode``."""
    cfg = parse_config(DeblurConfig, description=__doc__)
    if cfg.teacher_cache and (cfg.instants or cfg.teacher == "sharp"):
        raise InputError("--teacher_cache keeps textures at fixed instants; leave out --instants and --teacher sharp")
    if cfg.teacher_cache and len(cfg.train_vth) > 1:
        raise InputError("--teacher_cache keeps the textures of one threshold; give --train_vth one, or leave it out")
    if cfg.student == "san" and (cfg.roi_size % 64 or cfg.student_spikes != "frames"):
        raise InputError("--student san needs a --roi_size that is a multiple of 64, and --student_spikes frames")
    if cfg.teacher == "sharp" and cfg.instants > 7:
        raise InputError(f"--instants {cfg.instants}: --teacher sharp has 7")
    data = {"use_small": cfg.use_small, "vth": cfg.vth, "cache": cfg.cache, "skip_bad": cfg.skip_bad_samples}
    with Run(cfg, "SAN" if cfg.student == "san" else "DeblurNet") as run:
        if cfg.test_mode:
            ldn = run.place(load_student(cfg.deblur_path, gain=cfg.spike_gain == "auto")).eval()
        else:
            ldn = run.place(new_student(cfg))
        teacher = load_teacher(cfg, run)

        def rows(sample):
            """Teacher and student against the sharp image at the centre of the exposure."""
            blur, spike = sample["blur"], sample["spike"]
            yield Row("Blur", blur, sample.get("sharp"), "blur")
            yield Row("SDM", teacher(blur, spike, [EXPOSURE.centre])[:, 0], sample.get("sharp"), "tea")
            student = ldn(blur, Sight.of(ldn)(blur, spike, [EXPOSURE.centre]))[:, 0]
            name = "SAN" if isinstance(ldn, SANStudent) else "Deblur_Net"
            yield Row(name, student.clamp(0, 1), sample.get("sharp"), "deblur")

        test_folder = cfg.base_folder if cfg.test_mode else cfg.eval_folder or cfg.base_folder
        evaluated = cfg.test_mode or cfg.teacher != "sharp" or (Path(test_folder) / "test" / "spike_data").is_dir()
        if evaluated:
            test_set = SpikeData(test_folder, cfg.data_type, "test", use_sharp=True, **data)
        else:  # as resimulate.py makes them
            run.say(f"{test_folder} has no test split: nothing is evaluated in training (--eval_folder)")
        if cfg.test_mode:
            short = cfg.stir_path if cfg.short == "stir" else cfg.bsn_path
            teachers = [short, cfg.sr_path] if cfg.teacher == "cascade" else []
            return test(run, test_set, rows, weights=[*teachers, cfg.deblur_path])

        known = "sequence" if cfg.teacher == "sharp" else False
        crops = {"use_roi": True, "roi_size": cfg.roi_size, "seed": cfg.seed, "flips": cfg.flips, "use_sharp": known}
        first, *more = [float(vth) for vth in cfg.train_vth] or [cfg.vth]
        data |= {"vth": first, "more_vth": more}
        train_set = SpikeData(cfg.base_folder, cfg.data_type, cfg.train_split, **crops, **data)
        terms = cfg.tea_loss + ("+ssim" if cfg.use_ssim and "ssim" not in cfg.tea_loss else "")
        teacher_loss = run.place(TeacherLoss(terms, cfg.lpips_input))
        optimiser = torch.optim.Adam(ldn.parameters(), lr=cfg.lr)
        # Officially T_max = epochs, stepped once per batch: a slip, the rate swings with a period of 2 * epochs steps.
        net = run.begin(ldn, optimiser, train_set, official_lr=lambda step, epoch: cfg.lr * cosine(step / cfg.epochs))
        if cfg.teacher_cache and not run.done:
            train_set.textures = cached_textures(run, teacher, train_set, step_instants(cfg, 0))
        for _epoch in run.epochs():
            for batch in run.batches():
                blur, spike = batch["blur"], batch["spike"]
                instants = step_instants(cfg, run.step_count)
                with run.autocast():
                    if cfg.teacher == "sharp":
                        labels = batch["sharps"][:, [EXPOSURE.sequence_instants.index(instant) for instant in instants]]
                    else:
                        textures = batch["textures"] if cfg.teacher_cache else teacher.textures(spike, instants)
                        labels = teacher.labels(blur, textures)  # (B, M, 3, H, W)
                    shown = spike
                    if cfg.lambda_spike:
                        shown, rates = hold_out(spike, instants, (cfg.seed, run.step_count))
                    students = net(blur, Sight.of(ldn)(blur, shown, instants))
                students = students.float().clamp(0, 1) if cfg.clip_output else students.float()
                tea, reblur = teacher_loss(students, labels), reblur_loss(students, blur)
                loss, parts = cfg.lambda_tea * tea + cfg.lambda_reblur * reblur, {"tea": tea, "reblur": reblur}
                if cfg.lambda_spike:
                    light = rates * exposure_gain(blur, spike)[:, None, None, None]
                    parts["spike"] = spike_loss(students, light)
                    loss = loss + cfg.lambda_spike * parts["spike"]
                run.step(loss, **parts)
            run.end_epoch((lambda: evaluate(run, test_set, rows, ldn)) if evaluated else None)


if __name__ == "__main__":
    command(main)
