"""The lines of scripts/dev/benchmark.py: what the program does, and the other way to the same result.

A network's other way is its plain form (codes/model, codes/baselines) in PyTorch's default memory layout; where both
are the same, as on a GPU, the line says what the layout brings. That of data and metrics is scripts/dev/references.py.
A line's name stays as it is, so that commits can be compared.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from codes import metrics
from codes.baselines.san_student import SANStudent
from codes.dataset import SpikeData
from codes.engine.device import autocast, place
from codes.engine.options import EvalConfig
from codes.engine.weights import Weights
from codes.fast import plain, quicken
from codes.flow import seen_by_spikes
from codes.image import grey, write_image
from codes.inference.methods import from_student, load_method
from codes.losses import TeacherLoss, reblur_loss
from codes.making.sensor import inherent_noise, integrate_and_fire, spikes_from_frames
from codes.model.bsn_model import BSN
from codes.model.edsr_model import EDSR
from codes.model.ldn_model import Deblur_Net
from codes.motion import Joined
from codes.random import rng
from codes.report.evaluation import Row, measure_rows
from codes.sdm import Teacher
from codes.spike import EXPOSURE, read_dat, spike_window, spike_windows, tfp, write_dat
from scripts.dev import references


@dataclass
class Line:
    """One line of the table.

    Args:
        ours: the program's way; what it returns is compared with the other's (None: nothing).
        other: the other way; None where there is none.
        bytes: what must be read and written at least, where no network is involved.
        tolerance: largest difference, relative to the largest value.
        memory: whether to measure the peak memory of both.
    """

    name: str
    ours: Callable
    other: Callable | None = None
    bytes: float = 0.0
    tolerance: float = 1e-4
    memory: bool = False


def plain_copy(network: nn.Module) -> nn.Module:
    """The plain form of a network with the same weights, in the default memory layout."""
    return plain(copy.deepcopy(network)).to(memory_format=torch.contiguous_format)


class Networks:
    """The paper's networks in one of the two forms.

    Args:
        context: makes the context that they are computed in.
    """

    def __init__(self, bsn: nn.Module, sr: nn.Module, ldn: nn.Module, context: Callable):
        self.bsn, self.sr, self.ldn, self.context = bsn, sr, ldn, context
        self.teacher = Teacher.cascade(copy.deepcopy(bsn), copy.deepcopy(sr))


class Lines:
    """The data and networks of all lines.

    Args:
        precision: of our way; the other is computed in fp32.
        quick: small sizes.
        folder: an empty folder for a data set of one sample.
        fast: our way in the forms for a CPU whatever the device.
    """

    def __init__(self, device: torch.device, precision: str, quick: bool, folder: Path, fast: bool = False):
        torch.manual_seed(0)
        self.device, self.precision, self.folder = device, precision, folder
        self.size = self.height, self.width = (72, 128) if quick else (720, 1280)
        self.crop, self.batch = (64, 1) if quick else (512, 4)
        self.h, self.w, side = self.height // 4, self.width // 4, self.crop // 4
        random = np.random.default_rng(0)
        self.frames = np.stack(
            [cv2.GaussianBlur(random.random((self.h, self.w), np.float32), (0, 0), 3) for _ in range(EXPOSURE.total)]
        )
        self.split = folder / "GOPRO" / "test"
        self.dat = self.split / "spike_data" / "s" / "1.dat"
        write_dat(self.dat, spikes_from_frames(self.frames, 0))
        # As fine as a photograph: such a PNG takes 1.2 MB at 720p.
        photo = cv2.GaussianBlur(random.random((self.height, self.width, 3), np.float32), (0, 0), 1.5)
        photo = np.uint8(255 * np.clip((photo - 0.35) / 0.3, 0, 1))
        for kind, image in (("blur_data", photo), ("sharp_data", np.roll(photo, 1, axis=1))):
            write_image(self.split / kind / "s" / "1.png", image)
        batch, crop = self.batch, self.crop
        self.blur = torch.rand(batch, 3, crop, crop, device=device)
        self.spike = (torch.rand(batch, EXPOSURE.total, side, side, device=device) < 0.4).to(torch.uint8)
        self.whole = torch.rand(1, 3, self.height, self.width, device=device)
        self.stream = (torch.rand(1, EXPOSURE.total, self.h, self.w, device=device) < 0.4).to(torch.uint8)
        self.instants = EXPOSURE.instants()

        self.form = torch.device("cpu") if fast else device
        networks = [quicken(place(build(), device, precision), self.form) for build in (BSN, EDSR, Deblur_Net)]
        copies = [plain_copy(network) for network in networks]
        self.ours = Networks(*networks, lambda: autocast(device, precision))
        self.plain = Networks(*copies, lambda: autocast(device, "fp32"))

    def __iter__(self) -> Iterator[Line]:
        for lines in (self.data, self.training, self.inference, self.baselines):
            yield from lines()

    def both(self, name: str, run: Callable[[Networks], Callable], **options) -> Line:
        """A line of the two forms of networks; ``run`` makes of one what is timed."""
        return Line(name, run(self.ours), run(self.plain), **options)

    def data(self) -> list[Line]:
        """Reading and simulating."""
        frames, h, w = EXPOSURE.total, self.h, self.w
        warmup = np.random.default_rng(1).random((h, w), np.float32)
        data, cached = (
            SpikeData(self.folder / "GOPRO", "GOPRO", "test", use_roi=True, roi_size=self.crop, cache=cache)
            for cache in ("", self.folder / "cache")
        )
        draw = rng("crops", 0, 0, 0)  # as the data set draws it for seed, epoch and index 0
        top, left = (int(draw.integers((extent - self.crop) // 4 + 1)) * 4 for extent in self.size)
        cube, packed = frames * h * w, frames * h * w / 8
        sample = packed + self.crop**2 * (12 + frames / 16)
        clean = integrate_and_fire(self.frames, warmup)

        def eight(load):
            """Eight in a row, as a loader does it, so that its memory is warm."""
            return lambda: [load() for _ in range(8)][-1]

        reference_sample = partial(references.read_sample, self.split, "s/1", top, left, self.crop)

        def noise():
            inherent_noise((frames, h, w), np.random.default_rng(0))

        def reference_noise():
            references.add_noise(clean, np.random.default_rng(0))

        def sensor():
            write_dat(self.folder / "ours.dat", spikes_from_frames(self.frames, 0))

        def reference_sensor():
            random = np.random.default_rng(0)
            spikes = references.simulate(self.frames, random.random((h, w), np.float32))
            references.write_dat(self.folder / "other.dat", references.add_noise(spikes, random))

        return [
            Line(
                f".dat decode {frames}x{h}x{w}",
                lambda: read_dat(self.dat, h, w),
                lambda: references.read_dat(self.dat, h, w).copy(),
                bytes=packed + cube,
            ),
            Line(
                f"8 training samples, crop {self.crop} of {self.height}x{self.width}",
                eight(lambda: itemgetter("blur", "spike")(data[0])),
                eight(reference_sample),
                bytes=8 * sample,
            ),
            Line(
                "8 training samples from --cache",
                eight(lambda: itemgetter("blur", "spike")(cached[0])),
                eight(reference_sample),
                bytes=8 * sample,
            ),
            Line(
                "sensor, noise-free",
                lambda: integrate_and_fire(self.frames, warmup),
                lambda: references.simulate(self.frames, warmup),
                bytes=5 * cube,
            ),
            Line("noise", noise, reference_noise, bytes=cube),
            Line("sensor, noise, packing", sensor, reference_sensor, bytes=4 * cube + packed),
        ]

    @staticmethod
    def step(network, loss: Callable) -> Callable:
        """A training step without the update, so that both ways stay comparable; it returns loss and gradient norm."""

        def run():
            network.zero_grad(set_to_none=True)
            value = loss()
            value.backward()
            norm = torch.stack([p.grad.float().norm() for p in network.parameters() if p.grad is not None]).norm()
            return torch.stack([value.detach(), norm])

        return run

    def training(self) -> list[Line]:
        """Training steps."""
        blur, spike, instants = self.blur, self.spike, self.instants
        noisy = tfp(spike, EXPOSURE.centre, 9)
        kept = self.ours.teacher.textures(spike, instants).half()

        def bsn(networks):
            def loss():
                with networks.context():
                    output = networks.bsn(noisy)
                return F.mse_loss(output.float(), noisy)

            return self.step(networks.bsn, loss)

        def sr(networks):
            def loss():
                with networks.context():
                    output = networks.sr(tfp(spike, EXPOSURE.centre, EXPOSURE.length))
                return F.mse_loss(output.float(), grey(blur))

            return self.step(networks.sr, loss)

        def ldn(distance, cached=False):
            def run(networks):
                def loss():
                    with networks.context():
                        labels = Teacher.labels(blur, kept) if cached else networks.teacher(blur, spike, instants)
                        students = networks.ldn(blur, spike_windows(spike, instants, 21))
                    return distance(students.float(), labels) + 100 * reblur_loss(students.float(), blur)

                return self.step(networks.ldn, loss)

            return run

        def teacher(networks):
            return self.inferring(networks, lambda: networks.teacher(blur, spike, instants))

        ssim, lpips = TeacherLoss("ssim"), place(TeacherLoss("lpips", pretrained=False), self.device, self.precision)
        return [
            self.both("BSN step", bsn, tolerance=1e-3),
            self.both("EDSR step", sr, tolerance=1e-3),
            self.both("LDN step, SSIM", ldn(ssim), tolerance=1e-2),
            self.both("LDN step, SSIM, --teacher_cache", ldn(ssim, cached=True), tolerance=1e-2),
            self.both("LDN step, LPIPS (random VGG)", ldn(lpips), tolerance=1e-2, memory=True),
            self.both(f"teacher, {len(instants)} instants", teacher),
        ]

    def inference(self) -> list[Line]:
        """Whole frames."""
        size = f"{self.height}x{self.width}"
        texture = tfp(self.stream, EXPOSURE.centre, 9)
        centre = spike_window(self.stream, EXPOSURE.centre, 21)
        other = (self.whole + 0.05 * torch.randn_like(self.whole)).clamp(0, 1)
        test_set = SpikeData(self.folder / "GOPRO", "GOPRO", "test", use_sharp=True)

        def sequence(networks):
            def run():
                image = networks.ldn.encode(self.whole)
                windows = (spike_window(self.stream, t, 21) for t in range(EXPOSURE.start, EXPOSURE.stop))
                frames = (networks.ldn.decode(self.whole, image, window) for window in windows)
                return torch.stack([frame.float().mean() for frame in frames])

            return self.inferring(networks, run)

        def quality():
            return [metrics.compute_img_metric(self.whole, other, name) for name in ("psnr", "ssim")]

        def tested(networks):
            def rows(sample):  # as in train_deblur.py
                blur, spike = sample["blur"], sample["spike"]
                yield Row("Blur", blur, sample["sharp"], "blur")
                yield Row("SDM", networks.teacher(blur, spike, [EXPOSURE.centre])[:, 0], sample["sharp"], "tea")
                student = networks.ldn(blur, spike_window(spike, EXPOSURE.centre, 21))
                yield Row("Deblur_Net", student.clamp(0, 1), sample["sharp"], "deblur")

            precision = self.precision if networks is self.ours else "fp32"
            cfg = EvalConfig(metrics=("psnr", "ssim"), eval_images=0, workers=0, precision=precision)

            def run():
                means = measure_rows(cfg, self.device, test_set, rows, self.folder).means()
                return [value for columns in means.values() for value in columns.values()]

            return run

        photo = F.interpolate(torch.rand(1, 3, self.h, self.w, device=self.device), scale_factor=4, mode="bicubic")[0]

        def pan(instants):
            return torch.stack([photo.roll(round((t - EXPOSURE.centre) * self.width / 2000), -1) for t in instants])

        panned = pan(range(EXPOSURE.start, EXPOSURE.stop)).mean(dim=0).clamp(0, 1)
        lights = (seen_by_spikes(grey(pan([t])))[0, 0] for t in range(EXPOSURE.total))
        watching = torch.stack([torch.rand_like(light) < light for light in lights])

        def joined(networks):
            return self.inferring(networks, lambda: Joined(panned, pan, spike=watching)(EXPOSURE.sequence_instants))

        return [
            self.both(f"BSN forward {self.h}x{self.w}", lambda n: self.inferring(n, lambda: n.bsn(texture))),
            self.both(f"EDSR forward {self.h}x{self.w}", lambda n: self.inferring(n, lambda: n.sr(texture))),
            self.both(f"LDN forward {size}", lambda n: self.inferring(n, lambda: n.ldn(self.whole, centre))),
            self.both("97-frame sequence", sequence),
            Line(f"7 frames {size} joined along the motion, but for the student", joined(self.ours)),
            Line(
                f"PSNR + SSIM {size}",
                quality,
                lambda: references.quality(self.whole, other),
                bytes=24 * self.height * self.width,
            ),
            self.both("test mode, per sample", tested, tolerance=1e-3),
        ]

    def baselines(self) -> list[Line]:
        """A training step of SAN, and the baselines' methods on a whole frame, at the centre; two have one form."""
        size = f"{self.height}x{self.width}"
        side = min(self.crop, 128)
        image, events = self.blur[..., :side, :side], self.spike[:, :96, : side // 4, : side // 4]

        def step(student, precision):
            def loss():
                with autocast(self.device, precision):
                    output = student(image, events[:, None])[:, 0]
                return F.mse_loss(output.float(), image)

            return self.step(student, loss)

        def frame(networks, method):
            return self.inferring(networks, lambda: method.start(self.whole, self.stream)([EXPOSURE.centre])[:, 0])

        san = quicken(place(SANStudent(), self.device, self.precision), self.form)
        copied, method = plain_copy(san), partial(load_method, weights=Weights(random=True), device=self.device)
        return [
            Line(f"SAN step, crop {side}, 1 instant", step(san, self.precision), step(copied, "fp32"), tolerance=1e-3),
            Line(
                f"Student SAN {size}",
                frame(self.ours, from_student("san", san)),
                frame(self.plain, from_student("san", copied)),
                tolerance=1e-3,
            ),
            Line(f"STIR, spikes alone {size}", frame(self.ours, method("stir"))),
            Line(f"SpkDeblurNet (supervised) {size}", frame(self.ours, method("spkdeblurnet"))),
        ]

    @staticmethod
    def inferring(networks: Networks, run: Callable) -> Callable:
        """``run`` in inference mode and in the networks' context."""

        def wrapped():
            with torch.inference_mode(), networks.context():
                return run()

        return wrapped
