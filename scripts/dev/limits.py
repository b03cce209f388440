"""What training and inference cost at least on a GPU, on paper: by operations and by bytes, and which of them binds.

    python scripts/dev/limits.py [--train N] [--test N]

Nothing is computed: the plain networks (codes/model, codes/baselines) run on the device 'meta', which knows shapes
alone, forward and backward, and torch's counter adds up what convolutions and matrix products multiply (2 FLOP each).
Bytes are what the same operations must read and write, their inputs, weights and results once each, as if all else
(activations, padding, losses) were fused into them: a step cannot take less. The GPU's rates are those of an NVIDIA
H100 SXM's data sheet, rounded. The larger of both times binds; a real step takes a multiple of it where layers are
small. STIR and SpkDeblurNet, which switch autocast off in parts, do not run on 'meta'.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from codes.engine.command import command
from codes.engine.options import option, parse_config

RATES = {"fp32": (67e12, 4), "TF32": (400e12, 4), "bf16": (800e12, 2)}
"""Name -> FLOP/s, bytes of a number."""

MEMORY = 3e12
"""Bytes/s."""


@dataclass(frozen=True)
class LimitsConfig:
    """What is counted."""

    train: int = option(0, "samples of the training split, for hours of the official schedule (0: none)", low=0)
    test: int = option(0, "samples of the test split, on which the LDN trains", low=0)
    batch: int = option(4, "batch of a step", low=1)
    crop: int = option(512, "side of a step's crops", low=64)


@dataclass
class Work:
    """A line: FLOP, and numbers that are moved."""

    name: str
    flop: float
    numbers: float

    def seconds(self, precision: str) -> tuple[float, float]:
        """By operations and by bytes."""
        rate, size = RATES[precision]
        return self.flop / rate, self.numbers * size / MEMORY


def count(name: str, run: Callable[[], object]) -> Work:
    """The work of ``run``, on meta tensors."""
    import torch
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import flop_registry

    from codes.report.measuring import FlopCounter

    class Counter(FlopCounter):
        """Counts the numbers too."""

        numbers = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            before = self.total
            out = super().__torch_dispatch__(func, types, args, kwargs)
            if self.total > before and func._overloadpacket in flop_registry:
                tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
                self.numbers += sum(x.numel() for x in tensors)
            return out

    with Counter() as counter:
        run()
    return Work(name, counter.total, counter.numbers)


def lines(cfg: LimitsConfig) -> list[Work]:
    """The benchmark's lines that have networks."""
    import torch

    from codes.losses import TeacherLoss, reblur_loss
    from codes.model.registry import NETWORKS
    from codes.sdm import Teacher
    from codes.spike import EXPOSURE
    from codes.student import Sight

    with torch.device("meta"):
        made = {key: record.load_class()().to("meta").eval() for key, record in NETWORKS.items()}
        lpips = TeacherLoss("lpips", pretrained=False).to("meta")
        small, side = cfg.crop // 4, cfg.crop
        blur = torch.empty(cfg.batch, 3, side, side)
        spike = torch.empty(cfg.batch, EXPOSURE.total, small, small, dtype=torch.uint8)
        noisy, whole, texture = (
            torch.empty(shape) for shape in ((cfg.batch, 1, small, small), (1, 3, 720, 1280), (1, 1, 180, 320))
        )
        stream = torch.empty(1, EXPOSURE.total, 180, 320, dtype=torch.uint8)
    teacher = Teacher.cascade(*(NETWORKS[key].load_class()().to("meta") for key in ("bsn", "edsr")), 9)
    instants, ldn = EXPOSURE.instants(), made["ldn"]

    def student(key, image, spikes, moments):
        return made[key](image, Sight.of(made[key])(image, spikes, moments))

    def ldn_step(kind):
        def run():
            labels = torch.empty(cfg.batch, len(instants), 3, side, side, device="meta")
            if kind != "cached":
                labels = teacher(blur, spike, instants)
            students = student("ldn", blur, spike, instants)
            distance = lpips(students, labels) if kind == "lpips" else (students - labels).abs().mean()
            (distance + reblur_loss(students, blur)).backward()

        return run

    def frames():
        image = ldn.encode(whole)
        for window in Sight.of(ldn).anywhere(whole, stream, range(20, 117)).unbind(1):
            ldn.decode(whole, image, window)

    step = f"step, {cfg.batch} crops of {side}"
    found = [
        count(f"BSN {step}", lambda: made["bsn"](noisy).square().mean().backward()),
        count(f"EDSR {step}", lambda: made["edsr"](noisy).square().mean().backward()),
        count(f"LDN {step}, 5 instants, `--tea_loss l1` or SSIM", ldn_step("teacher")),
        count("the same with `--teacher_cache`", ldn_step("cached")),
        count("the same with the official LPIPS, without cache", ldn_step("lpips")),
    ]
    with torch.no_grad():
        found += [
            count("BSN, a frame of 180x320", lambda: made["bsn"](texture)),
            count("EDSR, a frame of 180x320", lambda: made["edsr"](texture)),
            count("LDN, a frame of 720x1280", lambda: student("ldn", whole, stream, [68])),
            count("LDN, the 97 frames of an exposure", frames),
            count("SAN, a frame of 720x1280", lambda: student("san", whole, stream, [68])),
        ]
    return found


def main(argv: list[str] | None = None) -> None:
    """Count and print."""
    cfg = parse_config(LimitsConfig, argv)
    found = lines(cfg)
    print("| line | GFLOP | GB at fp32 |" + "".join(f" {name}: ms, binds |" for name in RATES) + " steps/s at most |")
    print("|---" * (4 + len(RATES)) + "|")
    for work in found:
        cells, least = [], 0.0
        for precision in RATES:
            by_flop, by_bytes = work.seconds(precision)
            least = max(by_flop, by_bytes)
            cells.append(f"{1000 * least:.3g}, {'operations' if by_flop > by_bytes else 'bytes'}")
        print(
            f"| {work.name} | {work.flop / 1e9:,.0f} | {4 * work.numbers / 1e9:.2f} | {' | '.join(cells)} | "
            f"{1 / least:,.0f} |"
        )
    if cfg.train and cfg.test:
        print(
            "\n| official schedule | steps |" + "".join(f" {name}, hours |" for name in RATES) + " samples/s in bf16 |"
        )
        print("|---" * (3 + len(RATES)) + "|")
        schedule = {"BSN": (0, 1001, cfg.train, 5), "EDSR": (1, 101, cfg.train, 1), "LDN, LPIPS": (4, 101, cfg.test, 1)}
        for name, (index, epochs, samples, per_batch) in schedule.items():
            steps, work = epochs * -(-samples // cfg.batch) * per_batch, found[index]
            least = {precision: max(work.seconds(precision)) for precision in RATES}
            hours = " | ".join(f"{steps * seconds / 3600:.3g}" for seconds in least.values())
            print(f"| {name} | {steps:,} | {hours} | {cfg.batch / per_batch / least['bf16']:,.0f} |")


if __name__ == "__main__":
    command(main)
