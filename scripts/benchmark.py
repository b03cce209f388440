"""How fast the program is, line by line, against the textbook way of the same thing on the same machine.

    python scripts/benchmark.py [--device auto] [--quick] [--only TEXT] [--json FILE]

Both ways are warmed up, checked against each other, then timed in alternation; a figure is the median of its runs, so
that the ratio holds on a noisy machine. Work is the multiply-adds of the convolutions (2 FLOP each), set against the
machine's own fp32 matrix product, measured in the same run. --quick takes small sizes, which say little about speed.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from codes import metrics  # noqa: E402
from codes.cli import Parser, command  # noqa: E402
from codes.dataset import SpikeData  # noqa: E402
from codes.device import choose_device, describe, place  # noqa: E402
from codes.evaluate import synchronize  # noqa: E402
from codes.files import replacing  # noqa: E402
from codes.image import grey, write_image  # noqa: E402
from codes.losses import TeacherLoss, reblur_loss  # noqa: E402
from codes.model.bsn_model import BSN, ShiftConv  # noqa: E402
from codes.model.edsr_model import EDSR  # noqa: E402
from codes.model.ldn_model import Deblur_Net  # noqa: E402
from codes.run import provenance  # noqa: E402
from codes.sdm import Teacher, sdm  # noqa: E402
from codes.simulate import GAIN, VTH_UNIT, integrate_and_fire, spikes_from_frames  # noqa: E402
from codes.spike import EXPOSURE, read_dat, spike_window, spike_windows, tfp, write_dat  # noqa: E402

# Multiply-adds per spike pixel of the networks (S-SDM at 180x320: BSN 122.5 GMAC without the square, EDSR 113.1;
# LDN 15.9 at 720x1280), from which the work of every line follows.
BSN_MACS, EDSR_MACS, LDN_MACS = 2.126e6, 1.9635e6, 2.760e5


@dataclass
class Line:
    """One line of the table; ``fast`` and ``naive`` return what is compared (None: nothing)."""

    name: str
    fast: Callable
    naive: Callable
    macs: float = 0.0
    tolerance: float = 1e-4


# The textbook ways ------------------------------------------------------------


def naive_read_dat(path, height: int, width: int) -> np.ndarray:
    """Frame by frame and bit by bit."""
    data = np.fromfile(path, np.uint8)
    size = height * width // 8
    frames = []
    for start in range(0, len(data), size):
        frame = np.zeros((size, 8), np.float64)
        for bit in range(8):
            frame[:, bit] = (data[start : start + size] & (1 << bit)) >> bit
        frames.append(np.flipud(frame.reshape(height, width)))
    return np.array(frames)


def naive_sample(folder: Path, name: str, top: int, left: int, side: int):
    """Whole blurry and sharp pictures and the whole stream, for a crop of two of them."""
    blur = cv2.imread(str(folder / "blur_data" / f"{name}.png")).transpose(2, 0, 1) / 255
    sharp = cv2.imread(str(folder / "sharp_data" / f"{name}.png")).transpose(2, 0, 1) / 255
    spike = naive_read_dat(folder / "spike_data" / f"{name}.dat", blur.shape[1] // 4, blur.shape[2] // 4)
    rows, columns = slice(top, top + side), slice(left, left + side)
    spike = spike[:, top // 4 : (top + side) // 4, left // 4 : (left + side) // 4]
    return tuple(torch.from_numpy(np.float32(x)) for x in (blur[:, rows, columns], spike, sharp[:, rows, columns]))


def naive_simulate(frames: np.ndarray, warmup: np.ndarray, path, noise: bool = False):
    """A loop of whole-array expressions; then, if asked for, noise spike by spike and packing bit by bit to a file."""
    voltage, threshold = np.zeros_like(warmup), np.float32(VTH_UNIT)
    spikes = []
    for frame in [warmup, *frames]:
        voltage = voltage + frame * np.float32(GAIN)
        spikes.append(voltage > threshold)
        voltage = np.where(voltage > threshold, np.mod(voltage, threshold), voltage)
    clean = np.array(spikes[1:])
    if not noise:
        return clean
    line, position, rng = clean.transpose(1, 2, 0).ravel().copy(), 0.0, np.random.default_rng(0)
    while True:
        position += rng.normal(140, 50)
        if position >= len(line):
            break
        line[max(int(position), 0)] = 1
    noisy = line.reshape(*warmup.shape, len(frames)).transpose(2, 0, 1)
    with open(path, "wb") as file:
        for frame in noisy:
            bits = np.flipud(frame).reshape(-1, 8)
            packed = np.zeros(len(bits), np.uint8)
            for bit in range(8):
                packed += (bits[:, bit] << bit).astype(np.uint8)
            file.write(packed.tobytes())
    return None


class NaiveShiftConv(nn.Module):
    """The half-plane convolution as it is described: pad, pad, convolve, activate, crop."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv = conv

    def forward(self, x):
        """``(B, C, h, w)`` to ``(B, C', h, w)``."""
        x = F.pad(F.pad(x, (0, 0, 1, 0)), (1, 1, 1, 1), mode="replicate")
        return F.leaky_relu(self.conv(x), 0.1)[:, :, :-1]


def naive_copy(network: nn.Module, build: Callable) -> nn.Module:
    """A plain twin in the default memory layout: same weights; BSN with textbook convolutions."""
    twin = build()
    twin.load_state_dict(network.state_dict())
    for module in list(twin.modules()):
        for name, child in module.named_children():
            if isinstance(child, ShiftConv):
                setattr(module, name, NaiveShiftConv(child.conv))
    return twin.to(next(network.parameters()).device)


def naive_teacher(bsn, sr, blur, spike, instants) -> list[torch.Tensor]:
    """Instant by instant, the long window enlarged anew for each."""
    images = []
    for instant in instants:
        tfp_long = sr(tfp(spike, EXPOSURE.centre, EXPOSURE.length)).clamp(0, 1)
        tfp_short = sr(bsn(tfp(spike, instant, 9)).clamp(0, 1)).clamp(0, 1)
        images.append(sdm(blur, tfp_long, tfp_short))
    return images


def naive_metrics(first: np.ndarray, second: np.ndarray) -> torch.Tensor:
    """scikit-image's PSNR and SSIM of ``(H, W, 3)`` float32 images in [0, 1]."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    psnr = peak_signal_noise_ratio(first, second, data_range=1)
    return torch.tensor([psnr, structural_similarity(first, second, channel_axis=2, data_range=1)])


# The lines ------------------------------------------------------------


def make_lines(device: torch.device, quick: bool, folder: Path) -> list[Line]:
    """All lines of the table, with their data made in ``folder``."""
    torch.manual_seed(0)
    height, width, crop, batch = (72, 128, 64, 1) if quick else (720, 1280, 512, 4)
    h, w, side = height // 4, width // 4, crop // 4
    rng = np.random.default_rng(0)
    frames = np.stack([cv2.GaussianBlur(rng.random((h, w), np.float32), (0, 0), 3) for _ in range(EXPOSURE.total)])
    warmup = rng.random((h, w), np.float32)
    split = folder / "train"
    write_dat(split / "spike_data" / "s" / "1.dat", spikes_from_frames(frames, 0))
    photo = cv2.GaussianBlur(rng.random((height, width, 3), np.float32), (0, 0), 1.5)
    photo = np.uint8(255 * np.clip((photo - 0.35) / 0.3, 0, 1))
    for kind in ("blur_data", "sharp_data"):
        write_image(split / kind / "s" / "1.png", photo)
    dat = split / "spike_data" / "s" / "1.dat"
    data = SpikeData(folder, "GOPRO", "train", use_roi=True, roi_size=crop)
    cached_data = SpikeData(folder, "GOPRO", "train", use_roi=True, roi_size=crop, cache=folder / "cache")
    cut_rng = np.random.default_rng((0, 0, 0))
    top, left = (int(cut_rng.integers((extent - crop) // 4 + 1)) * 4 for extent in (height, width))

    def samples(load):
        """Eight in a row, as a loader does it, so that its memory is warm."""

        def run():
            for _ in range(8):
                item = load()
            return item

        return run

    def textbook():
        return naive_sample(split, "s/1", top, left, crop)[:2]

    def simulated():
        write_dat(folder / "fast.dat", spikes_from_frames(frames, 0))

    blur = torch.rand(batch, 3, crop, crop, device=device)
    spike = (torch.rand(batch, EXPOSURE.total, side, side, device=device) < 0.4).to(torch.uint8)
    whole = torch.rand(1, 3, height, width, device=device)
    stream = (torch.rand(1, EXPOSURE.total, h, w, device=device) < 0.4).to(torch.uint8)
    texture = tfp(stream, EXPOSURE.centre, 9)
    bsn, sr, ldn = (place(build(), device) for build in (BSN, EDSR, Deblur_Net))
    nbsn, nsr, nldn = naive_copy(bsn, BSN), naive_copy(sr, EDSR), naive_copy(ldn, Deblur_Net)
    instants = EXPOSURE.instants()
    teacher = Teacher.cascade(place(BSN(), device), place(EDSR(), device))
    teacher.denoise.load_state_dict(bsn.state_dict())
    teacher.enlarge.load_state_dict(sr.state_dict())

    def step(network, loss):
        """A training step without the update, so that both ways stay comparable; returns the gradient's norm."""

        def run():
            network.zero_grad(set_to_none=True)
            value = loss()
            value.backward()
            norm = torch.stack([p.grad.norm() for p in network.parameters() if p.grad is not None]).norm()
            return torch.stack([value.detach(), norm])

        return run

    def bsn_loss(network):
        noisy = tfp(spike, EXPOSURE.centre, 9)
        return lambda: F.mse_loss(network(noisy), noisy)

    def sr_loss(network):
        return lambda: F.mse_loss(network(tfp(spike, EXPOSURE.centre, 97)), grey(blur))

    def ldn_loss(distance, cached=False):
        kept = teacher.textures(spike, instants).half() if cached else None

        def run():
            students = ldn(blur, spike_windows(spike, instants, 21))
            labels = teacher.labels(blur, kept) if cached else teacher(blur, spike, instants)
            return distance(students, labels) + 100 * reblur_loss(students, blur)

        return run

    def naive_ldn_loss(distance):
        def run():
            students = [nldn(blur, spike_window(spike, t, 21)) for t in instants]
            labels = naive_teacher(nbsn, nsr, blur, spike, instants)
            tea = sum(distance(s[:, None], t.detach()[:, None]) for s, t in zip(students, labels, strict=True)) / len(
                instants
            )
            return tea + 100 * F.mse_loss(sum(students) / len(instants), blur)

        return run

    def forward(network, *inputs):
        def run():
            with torch.inference_mode():
                return network(*inputs)

        return run

    def sequence():
        with torch.inference_mode():
            parts = [
                spike_windows(stream, range(t, min(t + 8, EXPOSURE.stop)), 21)
                for t in range(EXPOSURE.start, EXPOSURE.stop, 8)
            ]
            return torch.cat([ldn(whole, part)[0] for part in parts]).mean(dim=(1, 2, 3))

    def naive_sequence():
        with torch.inference_mode():
            frames = (nldn(whole, spike_window(stream, t, 21))[0] for t in range(EXPOSURE.start, EXPOSURE.stop))
            return torch.stack([frame.mean() for frame in frames])

    other = (whole + 0.05 * torch.randn_like(whole)).clamp(0, 1)
    arrays = [image[0].permute(1, 2, 0).cpu().numpy() for image in (whole, other)]

    def measured():
        return torch.stack([metrics.psnr(whole, other)[0], metrics.ssim(whole, other)[0]]).cpu()

    ssim = TeacherLoss("ssim")
    crops, images = batch * side * side, batch * len(instants) * side * side
    student_macs = 3 * images * LDN_MACS
    teacher_macs = images * (BSN_MACS + EDSR_MACS) + crops * EDSR_MACS
    square = max(h, w) ** 2 * BSN_MACS
    return [
        Line(f".dat decode {EXPOSURE.total}x{h}x{w}", lambda: read_dat(dat, h, w), lambda: naive_read_dat(dat, h, w)),
        Line(
            f"8 training samples, crop {crop} of {height}x{width}",
            samples(lambda: itemgetter("blur", "spike")(data[0])),
            samples(textbook),
        ),
        Line(
            "8 training samples from --cache",
            samples(lambda: itemgetter("blur", "spike")(cached_data[0])),
            samples(textbook),
        ),
        Line(
            "sensor, noise-free",
            lambda: integrate_and_fire(frames, warmup),
            lambda: naive_simulate(frames, warmup, folder / "n.dat"),
        ),
        Line("sensor, noise, packing", simulated, lambda: naive_simulate(frames, warmup, folder / "n.dat", noise=True)),
        Line("BSN step", step(bsn, bsn_loss(bsn)), step(nbsn, bsn_loss(nbsn)), 3 * crops * BSN_MACS, 1e-3),
        Line("EDSR step", step(sr, sr_loss(sr)), step(nsr, sr_loss(nsr)), 3 * crops * EDSR_MACS, 1e-3),
        Line(
            "LDN step, SSIM",
            step(ldn, ldn_loss(ssim)),
            step(nldn, naive_ldn_loss(ssim)),
            student_macs + teacher_macs,
            1e-2,
        ),
        Line(
            "LDN step, SSIM, --teacher_cache",
            step(ldn, ldn_loss(ssim, cached=True)),
            step(nldn, naive_ldn_loss(ssim)),
            student_macs,
            1e-2,
        ),
        Line(
            f"teacher, {len(instants)} instants",
            lambda: teacher(blur, spike, instants),
            lambda: torch.stack(naive_teacher(nbsn, nsr, blur, spike, instants), dim=1).detach(),
            teacher_macs,
        ),
        Line(f"BSN forward {h}x{w}", forward(bsn, texture), forward(nbsn, texture), square),
        Line(f"EDSR forward {h}x{w}", forward(sr, texture), forward(nsr, texture), h * w * EDSR_MACS),
        Line(
            f"LDN forward {height}x{width}",
            forward(ldn, whole, spike_window(stream, EXPOSURE.centre, 21)),
            forward(nldn, whole, spike_window(stream, EXPOSURE.centre, 21)),
            h * w * LDN_MACS,
        ),
        Line("97-frame sequence", sequence, naive_sequence, 97 * h * w * LDN_MACS),
        Line(f"PSNR + SSIM {height}x{width}", measured, lambda: naive_metrics(*arrays)),
    ]


def matrix_rate(device: torch.device) -> float:
    """FLOP/s of a 2048-cubed fp32 matrix product."""
    a = torch.rand(2048, 2048, device=device)
    return 2 * 2048**3 / statistics.median(timed(lambda: a @ a, device) for _ in range(7))


def timed(run: Callable, device: torch.device) -> float:
    """Seconds of one call."""
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def flat(result) -> torch.Tensor:
    """A tensor, an array, or several of them, as one row of float64."""
    parts = result if isinstance(result, tuple | list) else [result]
    return torch.cat([torch.as_tensor(part).detach().cpu().double().flatten() for part in parts])


def measure(line: Line, device: torch.device, repeats: int) -> tuple[float, float]:
    """Median seconds of the fast and of the naive way, in alternation, after a check that they agree."""
    results = [run() for run in (line.fast, line.naive)]
    if results[0] is not None and results[1] is not None:
        first, second = (flat(result) for result in results)
        gap = (first - second).abs().max().item()
        scale = max(second.abs().max().item(), 1.0)
        if gap > line.tolerance * scale:
            raise ValueError(
                f"{line.name}: the two ways differ by {gap:.3g}, more than {line.tolerance:g} of {scale:.3g}"
            )
    pairs = [(timed(line.fast, device), timed(line.naive, device)) for _ in range(repeats)]
    return tuple(statistics.median(column) for column in zip(*pairs, strict=True))


def main() -> None:
    """Measure and print."""
    parser = Parser(description=__doc__)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run at all")
    parser.add_argument("--only", default="", metavar="TEXT", help="lines whose name holds this text")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="runs of each way")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    if args.repeats < 1:
        raise ValueError(f"--repeats is {args.repeats}; it must be at least 1")
    device = choose_device(args.device)
    rate = matrix_rate(device)
    print(f"{describe(device)}; fp32 matrix product {rate / 1e9:.0f} GFLOP/s; {provenance()[2]}\n")
    print("| line | ms | textbook, ms | ratio | GFLOP | share of the matrix product |\n|---|---|---|---|---|---|")
    table = []
    with tempfile.TemporaryDirectory() as folder:
        for line in make_lines(device, args.quick, Path(folder)):
            if args.only.lower() not in line.name.lower():
                continue
            fast, naive = measure(line, device, args.repeats)
            work = f"{2 * line.macs / 1e9:.1f} | {2 * line.macs / fast / rate:.0%}" if line.macs else "– | –"
            print(f"| {line.name} | {1e3 * fast:.1f} | {1e3 * naive:.1f} | {naive / fast:.1f}× | {work} |", flush=True)
            table.append(
                {"line": line.name, "seconds": fast, "naive": naive, "ratio": naive / fast, "flop": 2 * line.macs}
            )
    if args.json:
        about = {"device": describe(device), "matrix_product": rate, "about": provenance(), "lines": table}
        with replacing(args.json) as path:
            path.write_text(json.dumps(about, indent=1))


if __name__ == "__main__":
    command(main)
