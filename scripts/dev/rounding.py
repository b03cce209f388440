"""What TF32 and bf16 change in the results of networks and losses, without the hardware that computes in them.

    python scripts/dev/rounding.py [--only TEXT]

The inputs of every convolution and matrix product are rounded to the mantissa of the type (TF32: 10 bits, bf16: 7), to
nearest and to even, and multiplied and added up in fp32, as tensor cores do; bf16 rounds the results too. What lies
between these operations stays fp32, which under autocast it is not everywhere.

Released weights, where there are some, see a random, smooth image, and spikes that follow it; SAN has none, so random
ones, as have LPIPS and VGG-19 (theirs may not be at hand). Golden lines are the networks, inputs and expected values of
tests/golden. Of a loss both its value and its gradient by the images are compared. --only keeps lines with a text.
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
    only: str = option("", "lines whose name holds this text")
    seed: int = option(0, "of the image and the spikes")


def rounded(x, bits: int):
    """float32 ``x`` with a mantissa of ``bits`` bits, to nearest, ties to even; what is not float32 as it is."""
    import torch

    if not isinstance(x, torch.Tensor) or x.dtype != torch.float32:
        return x
    cut, number = 23 - bits, x.contiguous().view(torch.int32)
    number = number + (2 ** (cut - 1) - 1) + ((number >> cut) & 1)
    return (number >> cut << cut).view(torch.float32)


def golden_lines() -> dict:
    """Name -> (what computes an output, what the reference program put out): the networks of tests/golden."""
    import json

    import numpy as np
    import torch

    from codes.baselines.spkdeblurnet_model import SpkDeblurNet
    from codes.baselines.stir_model import STIR
    from codes.model.bsn_model import BSN
    from codes.model.edsr_model import EDSR
    from codes.model.ldn_model import Deblur_Net
    from tests.baselines.test_neighbours import filled_by
    from tests.conftest import COMPACT, filled, known, rnd

    def keys(name):
        return json.loads((COMPACT / name.lower() / f"{name.lower()}_keys.json").read_text())["keys"]

    def line(file, key, network, *inputs, pick=lambda output: output):
        expected = known(COMPACT / f"{file}.npz")[key]
        where = torch.from_numpy(~np.ma.getmaskarray(expected))
        return lambda: pick(network(*inputs))[where], torch.from_numpy(np.ma.getdata(expected))[where]

    random = np.random.default_rng(0)
    blur = torch.from_numpy(random.random((1, 3, 128, 128)).astype(np.float32))
    spike = torch.from_numpy(random.random((1, 56, 64, 64)) < 0.3)
    tfi = torch.from_numpy(known(COMPACT / "spkdeblurnet" / "spkdeblurnet_A.npz")["tfi"])
    few, many = (
        torch.from_numpy(np.random.default_rng(0).random(shape) < 0.3) for shape in ((1, 21, 64, 80), (1, 61, 128, 128))
    )
    spk = filled_by(SpkDeblurNet(56), keys("SpkDeblurNet"))
    return {
        "golden BSN": line("s-sdm/bsn_128x128", "out", filled(BSN()), rnd(1, 1, 128, 128)),
        "golden EDSR": line("s-sdm/edsr_45x80", "out", filled(EDSR()), rnd(1, 1, 45, 80)),
        "golden LDN": line("s-sdm/ldn_256x320", "out", filled(Deblur_Net()), rnd(1, 3, 256, 320), few),
        "golden STIR": line("stir/stir_A", "out", filled_by(STIR(), keys("STIR")), many),
        "golden SpkDeblurNet": line(
            "spkdeblurnet/spkdeblurnet_A", "sharp", spk, blur, spike, tfi, pick=lambda output: output[0]
        ),
    }


def main(argv: list[str] | None = None) -> None:
    """Compute, compare and print."""
    cfg = parse_config(RoundingConfig, argv)

    import torch
    from torch.nn import functional as F
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    from codes.baselines import adapters
    from codes.baselines.san_student import SANStudent
    from codes.engine.weights import Weights
    from codes.fast import plain
    from codes.image import grey
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
    bsn, edsr, ldn, sdmnet = (plain(weights.load(key)).eval() for key in ("bsn", "edsr", "ldn", "sdmnet"))
    san = SANStudent().eval()
    blur = F.interpolate(torch.rand(1, 3, side // 8, side // 8), (side, side), mode="bicubic").clamp(0, 1)
    light = F.interpolate(blur.mean(1, keepdim=True), (side // 4, side // 4), mode="area")
    spike = (torch.rand(1, EXPOSURE.total, side // 4, side // 4) < 0.5 * light).to(torch.uint8)
    texture, instants, few = tfp(spike, EXPOSURE.centre, 9), EXPOSURE.instants(), (44, 92)
    teacher, seen = Teacher.cascade(bsn, edsr), Sight.of(ldn)(blur, spike, instants)
    with torch.no_grad():
        labels, images = teacher(blur, spike, instants), ldn(blur, seen)

    def gradient(network, spikes, terms):
        loss = TeacherLoss(terms, pretrained=False)

        def run():
            network.zero_grad()
            students = network(blur, spikes)
            (loss(students, labels[:, : students.shape[1]]) + 100 * reblur_loss(students, blur)).backward()
            return torch.cat([weight.grad.flatten() for weight in network.parameters()])

        return run

    def by_images(loss):
        """Value and gradient of a loss of the students' images."""

        def value():
            return loss(images, labels).detach()[None]

        def slope():
            given = images.clone().requires_grad_()
            return torch.autograd.grad(loss(given, labels), given)[0]

        return value, slope

    def stir_loss(students, labels):
        first, last = (grey(each.flatten(0, 1)) for each in (students, labels))
        return adapters.stir_loss([F.avg_pool2d(first, 2**level) for level in range(5)], last, vgg)

    def spkdeblurnet_loss(students, labels):
        one, sharp = students[:, 0], labels[:, 0]
        return adapters.spkdeblurnet_loss((one, grey(one), one), sharp, grey(sharp))

    vgg = adapters.VGGDistance(pretrained=False)
    losses = {terms: TeacherLoss(terms, pretrained=False) for terms in ("l1", "ssim", "lpips", "lpips_rgb")}
    losses |= {
        "reblur": lambda students, labels: reblur_loss(students, blur),
        "STIR's": stir_loss,
        "SpkDeblurNet's": spkdeblurnet_loss,
        "SAN's": lambda students, labels: adapters.san_distillation_loss(students, labels),
    }

    def free(run):
        def wrapped():
            with torch.no_grad():
                return run()

        return wrapped

    ways = {
        "BSN": free(lambda: bsn(texture)),
        "EDSR": free(lambda: edsr(texture)),
        "teacher": free(lambda: teacher(blur, spike, instants)),
        "LDN": free(lambda: ldn(blur, seen)),
        "SDMNet": free(lambda: sdmnet(blur, Sight.of(sdmnet)(blur, spike, few))),
        "SAN, random weights": free(lambda: san(blur, Sight.of(san)(blur, spike, few))),
    }
    ways = {name: (run, None) for name, run in ways.items()}
    ways |= {name: (free(run), expected) for name, (run, expected) in golden_lines().items()}
    for name, loss in losses.items():
        value, slope = by_images(loss)
        ways |= {f"loss {name}: value": (value, None), f"loss {name}: gradient": (slope, None)}
    for terms in ("ssim", "lpips"):
        ways[f"gradient of the LDN's weights, {terms} + 100 reblur"] = gradient(ldn, seen, terms), None
    spikes = Sight.of(sdmnet)(blur, spike, few)
    ways["gradient of SDMNet's weights, ssim + 100 reblur"] = gradient(sdmnet, spikes, "ssim"), None
    print("| what | " + " | ".join(f"{name}, largest error | relative" for name in BITS) + " |")
    print("|---" * (1 + 2 * len(BITS)) + "|")
    for name, (run, expected) in ways.items():
        if cfg.only.lower() not in name.lower():
            continue
        exact, cells = run() if expected is None else expected, []
        for bits in BITS.values():
            with Rounding(bits):
                off = run() - exact
            cells += [f"{off.abs().max():.1e}", f"{off.norm() / exact.norm():.1e}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    command(main)
