"""How fast the program is, line by line, against the textbook way of the same thing on the same machine.

    python scripts/dev/benchmark.py [--device auto] [--precision fp32] [--quick] [--only TEXT] [--json FILE]

Both ways (the other one: textbook.py) are checked against each other, then timed in alternation; a figure
is the median of its runs, so that the ratio holds on a noisy machine. Work is counted, not assumed: the multiply-adds
of convolutions and matrix products (2 FLOP each) as torch's counter sees them, ours and the textbook's, and the bytes
that a line without networks must read and write at least. They are set against the machine's own fp32 matrix product
and memory copy, measured in the same run. Lines marked with memory are run once more in processes of their own for
their peak. --precision bf16 runs our way in bf16, the textbook's in fp32. --quick takes small sizes, which say little
about speed.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from codes import metrics  # noqa: E402
from codes.baselines.adapters import spkdeblurnet_input  # noqa: E402
from codes.baselines.san_student import SANStudent  # noqa: E402
from codes.dataset import SpikeData  # noqa: E402
from codes.engine.command import Parser, command  # noqa: E402
from codes.engine.device import autocast, choose_device, describe, keep_memory, place  # noqa: E402
from codes.engine.options import EvalConfig  # noqa: E402
from codes.engine.run import provenance  # noqa: E402
from codes.errors import InputError  # noqa: E402
from codes.files import replacing  # noqa: E402
from codes.image import grey, write_image  # noqa: E402
from codes.inference.methods import Weights, load_method  # noqa: E402
from codes.losses import TeacherLoss, reblur_loss  # noqa: E402
from codes.making.sensor import inherent_noise, integrate_and_fire, spikes_from_frames  # noqa: E402
from codes.model.bsn_model import BSN  # noqa: E402
from codes.model.edsr_model import EDSR  # noqa: E402
from codes.model.ldn_model import Deblur_Net  # noqa: E402
from codes.report.evaluation import Row, measure_rows  # noqa: E402
from codes.sdm import Teacher  # noqa: E402
from codes.spike import EXPOSURE, mirrored_windows, read_dat, spike_window, spike_windows, tfp, write_dat  # noqa: E402
from scripts.dev import textbook  # noqa: E402
from codes.report.measuring import FlopCounter, copy_rate, matrix_rate, peak_memory, timed  # noqa: E402
from scripts.make_demo_data import at_least  # noqa: E402

LONG, VERY_LONG = 10.0, 60.0
"""Seconds of a run, from which on it is timed only once; and from which on the run that checks it must do."""


@dataclass
class Line:
    """One line of the table.

    Args:
        name: its name.
        fast, naive: our way and the textbook's; what they return is compared (None: nothing).
        bytes: what must be read and written at least, where no network is involved.
        tolerance: largest difference, relative to the largest value.
        memory: whether to measure the peak memory of both.
    """

    name: str
    fast: Callable
    naive: Callable
    bytes: float = 0.0
    tolerance: float = 1e-4
    memory: bool = False


class Bench:
    """The data and networks of all lines.

    Args:
        device: where to compute.
        precision: of our way.
        quick: small sizes.
        folder: an empty folder for a data set of one sample.
    """

    def __init__(self, device: torch.device, precision: str, quick: bool, folder: Path):
        torch.manual_seed(0)
        self.device, self.precision, self.folder = device, precision, folder
        self.size = self.height, self.width = (72, 128) if quick else (720, 1280)
        self.crop, self.batch = (64, 1) if quick else (512, 4)
        self.h, self.w, side = self.height // 4, self.width // 4, self.crop // 4
        rng = np.random.default_rng(0)
        self.frames = np.stack(
            [cv2.GaussianBlur(rng.random((self.h, self.w), np.float32), (0, 0), 3) for _ in range(EXPOSURE.total)]
        )
        self.split = folder / "GOPRO" / "test"
        self.dat = self.split / "spike_data" / "s" / "1.dat"
        write_dat(self.dat, spikes_from_frames(self.frames, 0))
        # As fine as a photograph: such a PNG takes 1.2 MB at 720p.
        photo = cv2.GaussianBlur(rng.random((self.height, self.width, 3), np.float32), (0, 0), 1.5)
        photo = np.uint8(255 * np.clip((photo - 0.35) / 0.3, 0, 1))
        for kind, image in (("blur_data", photo), ("sharp_data", np.roll(photo, 1, axis=1))):
            write_image(self.split / kind / "s" / "1.png", image)
        batch, crop = self.batch, self.crop
        self.blur = torch.rand(batch, 3, crop, crop, device=device)
        self.spike = (torch.rand(batch, EXPOSURE.total, side, side, device=device) < 0.4).to(torch.uint8)
        self.whole = torch.rand(1, 3, self.height, self.width, device=device)
        self.stream = (torch.rand(1, EXPOSURE.total, self.h, self.w, device=device) < 0.4).to(torch.uint8)
        self.networks = [place(build(), device) for build in (BSN, EDSR, Deblur_Net)]
        self.twins = [textbook.twin(network) for network in self.networks]
        frozen = [place(build(), device) for build in (BSN, EDSR)]
        for copy, network in zip(frozen, self.networks, strict=False):
            copy.load_state_dict(network.state_dict())
        self.teacher = Teacher.cascade(*frozen)
        self.instants = EXPOSURE.instants()

    def data_lines(self) -> list[Line]:
        """Reading and simulating."""
        frames, h, w = EXPOSURE.total, self.h, self.w
        warmup = np.random.default_rng(1).random((h, w), np.float32)
        data, cached = (
            SpikeData(self.folder / "GOPRO", "GOPRO", "test", use_roi=True, roi_size=self.crop, cache=cache)
            for cache in ("", self.folder / "cache")
        )
        cut = np.random.default_rng((0, 0, 0))  # as the data set draws it for seed, epoch and index 0
        top, left = (int(cut.integers((extent - self.crop) // 4 + 1)) * 4 for extent in self.size)
        cube, packed = frames * h * w, frames * h * w / 8
        sample_bytes = packed + self.crop**2 * (12 + frames / 16)
        clean = integrate_and_fire(self.frames, warmup)

        def samples(load):
            """Eight in a row, as a loader does it, so that its memory is warm."""

            def run():
                for _ in range(8):
                    item = load()
                return item

            return run

        def naive_sample():
            return textbook.read_sample(self.split, "s/1", top, left, self.crop)[:2]

        def noisy():
            inherent_noise((frames, h, w), np.random.default_rng(0))

        def naive_noisy():
            textbook.add_noise(clean, np.random.default_rng(0))

        def sensor():
            write_dat(self.folder / "fast.dat", spikes_from_frames(self.frames, 0))

        def naive_sensor():
            rng = np.random.default_rng(0)
            spikes = textbook.simulate(self.frames, rng.random((h, w), np.float32))
            textbook.write_dat(self.folder / "naive.dat", textbook.add_noise(spikes, rng))

        return [
            Line(
                f".dat decode {frames}x{h}x{w}",
                lambda: read_dat(self.dat, h, w),
                lambda: textbook.read_dat(self.dat, h, w),
                packed + cube,
            ),
            Line(
                f"8 training samples, crop {self.crop} of {self.height}x{self.width}",
                samples(lambda: itemgetter("blur", "spike")(data[0])),
                samples(naive_sample),
                8 * sample_bytes,
            ),
            Line(
                "8 training samples from --cache",
                samples(lambda: itemgetter("blur", "spike")(cached[0])),
                samples(naive_sample),
                8 * sample_bytes,
            ),
            Line(
                "sensor, noise-free",
                lambda: integrate_and_fire(self.frames, warmup),
                lambda: textbook.simulate(self.frames, warmup),
                5 * cube,
            ),
            Line("noise", noisy, naive_noisy, cube),
            Line("sensor, noise, packing", sensor, naive_sensor, 4 * cube + packed),
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

    def training_lines(self) -> list[Line]:
        """Training steps."""
        step = self.step
        (bsn, sr, ldn), (nbsn, nsr, nldn) = self.networks, self.twins
        blur, spike, instants = self.blur, self.spike, self.instants
        noisy = tfp(spike, EXPOSURE.centre, 9)

        def bsn_loss():
            with self.autocast():
                output = bsn(noisy)
            return F.mse_loss(output.float(), noisy)

        def sr_loss():
            with self.autocast():
                output = sr(tfp(spike, EXPOSURE.centre, EXPOSURE.length))
            return F.mse_loss(output.float(), grey(blur))

        def ldn_loss(distance, cached=False):
            kept = self.teacher.textures(spike, instants).half() if cached else None

            def run():
                with self.autocast():
                    labels = self.teacher.labels(blur, kept) if cached else self.teacher(blur, spike, instants)
                    students = ldn(blur, spike_windows(spike, instants, 21))
                return distance(students.float(), labels) + 100 * reblur_loss(students.float(), blur)

            return run

        def naive_ldn_loss(distance):
            def run():
                labels = textbook.teacher(nbsn, nsr, blur, spike, instants)
                students = [nldn(blur, spike_window(spike, t, 21)) for t in instants]
                return textbook.student_loss(students, labels, blur, distance)

            return run

        lpips = place(TeacherLoss("lpips", pretrained=False), self.device)
        return [
            Line("BSN step", step(bsn, bsn_loss), step(nbsn, lambda: F.mse_loss(nbsn(noisy), noisy)), tolerance=1e-3),
            Line("EDSR step", step(sr, sr_loss), step(nsr, lambda: textbook.sr_loss(nsr, blur, spike)), tolerance=1e-3),
            Line(
                "LDN step, SSIM",
                step(ldn, ldn_loss(TeacherLoss("ssim"))),
                step(nldn, naive_ldn_loss(textbook.ssim_loss)),
                tolerance=1e-2,
            ),
            Line(
                "LDN step, SSIM, --teacher_cache",
                step(ldn, ldn_loss(TeacherLoss("ssim"), cached=True)),
                step(nldn, naive_ldn_loss(textbook.ssim_loss)),
                tolerance=1e-2,
            ),
            Line(
                "LDN step, LPIPS (random VGG)",
                step(ldn, ldn_loss(lpips)),
                step(nldn, naive_ldn_loss(lambda label, student: lpips.lpips(student, label).mean())),
                tolerance=1e-2,
                memory=True,
            ),
            Line(
                f"teacher, {len(instants)} instants",
                self.inference(lambda: self.teacher(blur, spike, instants)),
                lambda: torch.stack(textbook.teacher(nbsn, nsr, blur, spike, instants), dim=1),
            ),
        ]

    def inference_lines(self) -> list[Line]:
        """Whole frames."""
        (bsn, sr, ldn), (nbsn, nsr, nldn) = self.networks, self.twins
        h, w, height, width = self.h, self.w, self.height, self.width
        texture = tfp(self.stream, EXPOSURE.centre, 9)
        centre = spike_window(self.stream, EXPOSURE.centre, 21)
        exposure = range(EXPOSURE.start, EXPOSURE.stop)
        other = (self.whole + 0.05 * torch.randn_like(self.whole)).clamp(0, 1)
        test_set = SpikeData(self.folder / "GOPRO", "GOPRO", "test", use_sharp=True)

        def plain(network, *inputs):
            def run():
                with torch.no_grad():
                    return network(*inputs)

            return run

        def sequence():
            image, means = ldn.encode(self.whole), []
            for t in exposure:
                means.append(ldn.decode(self.whole, image, spike_window(self.stream, t, 21)).float().mean())
            return torch.stack(means)

        def naive_sequence():
            with torch.no_grad():
                return torch.stack([nldn(self.whole, spike_window(self.stream, t, 21)).mean() for t in exposure])

        def quality():
            return [metrics.compute_img_metric(self.whole, other, name) for name in ("psnr", "ssim")]

        def rows(sample):  # as in train_deblur.py
            blur, spike = sample["blur"], sample["spike"]
            yield Row("Blur", blur, sample["sharp"], "blur")
            yield Row("SDM", self.teacher(blur, spike, [EXPOSURE.centre])[:, 0], sample["sharp"], "tea")
            student = ldn(blur, spike_window(spike, EXPOSURE.centre, 21))
            yield Row("Deblur_Net", student.clamp(0, 1), sample["sharp"], "deblur")

        def tested():
            cfg = EvalConfig(metrics=("psnr", "ssim"), eval_images=0, workers=0, precision=self.precision)
            means = measure_rows(cfg, self.device, test_set, rows, self.folder).means()
            return [value for columns in means.values() for value in columns.values()]

        return [
            Line(f"BSN forward {h}x{w}", self.inference(lambda: bsn(texture)), plain(nbsn, texture)),
            Line(f"EDSR forward {h}x{w}", self.inference(lambda: sr(texture)), plain(nsr, texture)),
            Line(
                f"LDN forward {height}x{width}",
                self.inference(lambda: ldn(self.whole, centre)),
                plain(nldn, self.whole, centre),
            ),
            Line("97-frame sequence", self.inference(sequence), naive_sequence),
            Line(
                f"PSNR + SSIM {height}x{width}",
                quality,
                lambda: textbook.quality(self.whole, other),
                24 * height * width,
            ),
            Line(
                "test mode, per sample",
                tested,
                lambda: textbook.test_sample(nbsn, nsr, nldn, self.split, "s/1"),
                tolerance=1e-3,
            ),
        ]

    def neighbour_lines(self) -> list[Line]:
        """A training step of SAN; the neighbours' methods (codes/methods.py) on a whole frame, at the centre."""
        blur, stream, centre = self.whole, self.stream, [EXPOSURE.centre]
        methods = {
            name: load_method(name, Weights(random=True), self.device) for name in ("san", "stir", "spkdeblurnet")
        }
        networks = {name: next(iter(method.networks.values())) for name, method in methods.items()}
        twins = {name: textbook.twin(network) for name, network in networks.items()}

        def naive_san():
            events = mirrored_windows(stream, centre, 96)[:, 0].float()
            down, right = -self.height % 16, -self.width % 16
            events = F.pad(events, (0, right // 4, 0, down // 4), mode="replicate")
            image = twins["san"](events, F.pad(blur, (0, right, 0, down), mode="replicate"))[0]
            return image[..., : self.height, : self.width].clamp(0, 1)

        def naive_stir():
            image = twins["stir"](mirrored_windows(stream, centre, 61)[:, 0])
            return image.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2).expand(-1, 3, -1, -1)

        def naive_spkdeblurnet():
            inputs = spkdeblurnet_input(networks["spkdeblurnet"], blur, stream, EXPOSURE.centre)
            return twins["spkdeblurnet"](*inputs)[0].flip(1).clamp(0, 1)

        def plain(run):
            def wrapped():
                with torch.no_grad():
                    return run()

            return wrapped

        ways = {"san": naive_san, "stir": naive_stir, "spkdeblurnet": naive_spkdeblurnet}
        student = place(SANStudent(), self.device)
        naive = textbook.twin(student)
        side = min(self.crop, 128)
        image, events = self.blur[..., :side, :side], self.spike[:, :96, : side // 4, : side // 4]

        def san_loss():
            with self.autocast():
                output = student(image, events[:, None])[:, 0]
            return F.mse_loss(output.float(), image)

        naive_step = self.step(naive, lambda: F.mse_loss(naive(events, image)[0], image))
        step = Line(f"SAN step, crop {side}, 1 instant", self.step(student, san_loss), naive_step, tolerance=1e-3)
        return [step] + [
            Line(
                f"{methods[name].title} {self.height}x{self.width}",
                self.inference(lambda name=name: methods[name].start(blur, stream)(centre)[:, 0]),
                plain(way),
                tolerance=1e-3,
            )
            for name, way in ways.items()
        ]

    def lines(self) -> list[Line]:
        """All lines of the table."""
        return self.data_lines() + self.training_lines() + self.inference_lines() + self.neighbour_lines()

    def autocast(self):
        """The context of our way's precision."""
        return autocast(self.device, self.precision)

    def inference(self, run: Callable) -> Callable:
        """``run`` in inference mode and in our way's precision."""

        def wrapped():
            with torch.inference_mode(), self.autocast():
                return run()

        return wrapped


def flat(result) -> torch.Tensor:
    """Tensors, arrays or numbers, or several of them, as one row of float64 on the CPU."""
    parts = result if isinstance(result, tuple | list) else [result]
    return torch.cat([torch.as_tensor(part).detach().cpu().double().flatten() for part in parts])


def measure(line: Line, bench: Bench, repeats: int) -> dict:
    """Seconds, ratio and work of both ways, after a check that they agree."""

    def naive():
        """The textbook way, with the memory that a program has which does nothing about it."""
        keep_memory(False)
        try:
            return line.naive()
        finally:
            keep_memory(bench.device.type == "cpu")

    results, work, first = [], [], []
    for run in (line.fast, naive):
        with FlopCounter() as counter:
            first.append(timed(lambda run=run: results.append(run()), bench.device))
        work.append(counter.total)
    if results[0] is not None:
        a, b = map(flat, results)
        gap, scale = (a - b).abs().max().item(), max(b.abs().max().item(), 1.0)
        tolerance = line.tolerance if bench.precision == "fp32" else 0.1
        if not gap <= tolerance * scale:  # NaN too
            raise InputError(f"{line.name}: the two ways differ by {gap:.3g}, more than {tolerance:g} of {scale:.3g}")
    results.clear()
    repeats = 1 if max(first) > LONG else repeats
    pairs = [tuple(first)]
    if max(first) < VERY_LONG:
        pairs = [(timed(line.fast, bench.device), timed(naive, bench.device)) for _ in range(repeats)]
    fast, naive = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {"line": line.name, "seconds": fast, "naive": naive, "ratio": naive / fast, "runs": repeats} | {
        "flop": work[0],
        "naive_flop": work[1],
        "bytes": line.bytes,
    }


def peaks(name: str, args) -> list[float]:
    """Peak memory of our way and of the textbook's, each measured in a new process."""
    options = ["--device", args.device, "--precision", args.precision, *(["--quick"] if args.quick else [])]
    found = []
    for way in ("fast", "naive"):
        call = [sys.executable, __file__, *options, "--only", name, "--peak", way]
        done = subprocess.run(call, capture_output=True, text=True)
        if done.returncode:
            raise InputError(f"{name}: measuring its memory failed ({done.stderr.strip().splitlines()[-1]})")
        found.append(float(done.stdout.split()[-1]))
    return found


def cells(row: dict, matrix: float, copy: float) -> str:
    """A line of the table."""
    work = share = memory = "–"
    if row["flop"]:
        work = f"{row['flop'] / 1e9:.3g} GFLOP"
        if abs(row["naive_flop"] / row["flop"] - 1) > 0.01:
            work += f" (textbook {row['naive_flop'] / 1e9:.3g})"
        share = f"{row['flop'] / row['seconds'] / matrix:.0%}"
    elif row["bytes"]:
        work = f"{row['bytes'] / 1e6:.3g} MB"
        share = f"{row['bytes'] / row['seconds'] / copy:.0%}"
    if "memory" in row:
        memory = f"{row['memory'] / 1e9:.2g} GB (textbook {row['naive_memory'] / 1e9:.2g})"
    times = f"{1e3 * row['seconds']:.4g} | {1e3 * row['naive']:.4g} | {row['ratio']:.1f}×"
    return f"| {row['line']} | {times} | {work} | {share} | {memory} |"


def main() -> None:
    """Measure and print."""
    parser = Parser(description=__doc__)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"), help="of our way")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run at all")
    parser.add_argument("--only", default="", metavar="TEXT", help="lines whose name holds this text")
    repeats = "runs of each way; one of those over 10 s"
    parser.add_argument("--repeats", type=at_least(1), default=5, metavar="N", help=repeats)
    parser.add_argument("--no_memory", action="store_true", help="leave the peaks of memory out")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    parser.add_argument("--peak", choices=("fast", "naive"), help="only print the peak memory of one way of a line")
    args = parser.parse_args()
    device = choose_device(args.device)
    folder = Path(tempfile.mkdtemp())
    try:
        bench = Bench(device, args.precision, args.quick, folder)
        lines = [line for line in bench.lines() if args.only.lower() in line.name.lower()]
        if not lines:
            raise InputError(f"--only {args.only}: no line's name holds that")
        if args.peak:
            print(peak_memory(getattr(lines[0], args.peak), device))
            return
        matrix, copy = matrix_rate(device), copy_rate(device)
        print(
            f"{describe(device)}, {args.precision}; fp32 matrix product {matrix / 1e9:.0f} GFLOP/s, "
            f"copy {copy / 1e9:.1f} GB/s; {provenance()[2]}\n"
        )
        print("| line | ms | textbook, ms | ratio | work | share of the machine's rate | peak memory |")
        print("|---|---|---|---|---|---|---|")
        table = []
        for line in lines:
            row = measure(line, bench, args.repeats)
            if line.memory and not args.no_memory:
                row["memory"], row["naive_memory"] = peaks(line.name, args)
            print(cells(row, matrix, copy), flush=True)
            table.append(row)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if args.json:
        about = {"device": describe(device), "precision": args.precision, "matrix_product": matrix, "copy": copy}
        with replacing(args.json) as path:
            path.write_text(json.dumps({**about, "about": provenance(), "lines": table}, indent=1))


if __name__ == "__main__":
    command(main)
