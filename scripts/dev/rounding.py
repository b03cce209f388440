"""What TF32 and bf16 change in the networks' results, without the hardware that computes in them.

    python scripts/dev/rounding.py [--size 128]

The inputs of every convolution and matrix product are rounded to the mantissa of the type (TF32: 10 bits, bf16: 7), to
nearest and to even, and multiplied and added up in fp32, as tensor cores do; bf16 rounds the results too. What lies
between these operations stays fp32, which under autocast it is not everywhere. Weights are those in
model/; the image is a random, smooth one, the spikes follow it.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from codes.engine.command import command
from codes.engine.options import option, parse_config

BITS = {"TF32": 10, "bf16": 7}


@dataclass(frozen=True)
class RoundingConfig:
    """What is compared."""

    size: int = option(128, "side of the image", low=64)
    seed: int = option(0, "of the image and the spikes")


def rounded(x, bits: int):
    """float32 ``x`` with a mantissa of ``bits`` bits, to nearest, ties to even; what is not float32 as it is."""
    import torch

    if not isinstance(x, torch.Tensor) or x.dtype != torch.float32:
        return x
    cut, number = 23 - bits, x.contiguous().view(torch.int32)
    number = number + (2 ** (cut - 1) - 1) + ((number >> cut) & 1)
    return (number >> cut << cut).view(torch.float32)


def main(argv: list[str] | None = None) -> None:
    """Compute, compare and print."""
    cfg = parse_config(RoundingConfig, argv)

    import torch
    from torch.nn import functional as F
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    from codes.engine.weights import Weights
    from codes.fast import plain
    from codes.losses import TeacherLoss, reblur_loss
    from codes.sdm import Teacher
    from codes.spike import EXPOSURE, tfp
    from codes.student import Sight

    class Rounding(TorchDispatchMode):
        """Rounds what convolutions and matrix products multiply."""

        def __init__(self, bits: int):
            super().__init__()
            self.bits = bits

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            counted = func._overloadpacket in flop_registry
            if counted:
                args = [rounded(x, self.bits) for x in args]
            out = func(*args, **(kwargs or {}))
            return rounded(out, self.bits) if counted and self.bits < 10 else out

    torch.manual_seed(cfg.seed)
    weights, side = Weights(), cfg.size
    bsn, edsr, ldn = (plain(weights.load(key)).eval() for key in ("bsn", "edsr", "ldn"))
    blur = F.interpolate(torch.rand(1, 3, side // 8, side // 8), (side, side), mode="bicubic").clamp(0, 1)
    light = F.interpolate(blur.mean(1, keepdim=True), (side // 4, side // 4), mode="area")
    spike = (torch.rand(1, EXPOSURE.total, side // 4, side // 4) < 0.5 * light).to(torch.uint8)
    texture, instants = tfp(spike, EXPOSURE.centre, 9), EXPOSURE.instants()
    teacher, seen = Teacher.cascade(bsn, edsr), Sight.of(ldn)(blur, spike, instants)
    labels, images = teacher(blur, spike, instants), ldn(blur, seen).detach()
    ssim = TeacherLoss("ssim")

    def gradient():
        ldn.zero_grad()
        students = ldn(blur, seen)
        (ssim(students, labels) + 100 * reblur_loss(students, blur)).backward()
        return torch.cat([weight.grad.flatten() for weight in ldn.parameters()])

    def free(run):
        with torch.no_grad():
            return run()

    ways = {
        "BSN": lambda: free(lambda: bsn(texture)),
        "EDSR": lambda: free(lambda: edsr(texture)),
        "teacher": lambda: free(lambda: teacher(blur, spike, instants)),
        "LDN": lambda: free(lambda: ldn(blur, seen)),
        "loss: SSIM": lambda: free(lambda: ssim(images, labels))[None],
        "loss: reblur": lambda: free(lambda: reblur_loss(images, blur))[None],
        "gradient of the LDN, SSIM + 100 reblur": gradient,
    }
    print("| what | " + " | ".join(f"{name}: largest error | relative error" for name in BITS) + " |")
    print("|---" * (1 + 2 * len(BITS)) + "|")
    for name, run in ways.items():
        exact, cells = run(), []
        for bits in BITS.values():
            with Rounding(bits):
                off = run() - exact
            cells += [f"{off.abs().max():.1e}", f"{off.norm() / exact.norm():.1e}"]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    command(main)
