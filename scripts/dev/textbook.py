"""The textbook way of what the program does, for scripts/dev/benchmark.py and the tests to compare with.

Each function or class does what its namesake in ``codes`` does, with the same result, as one would write it down from
the paper: bit by bit, instant by instant, whole pictures for a crop, padded copies, the default memory layout.
"""

import contextlib
import shutil
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from codes.baselines.san_model import SAN
from codes.baselines.spkdeblurnet_model import SpkDeblurNet
from codes.baselines.stir_model import STIR
from codes.image import grey
from codes.making.sensor import GAIN, VTH_UNIT
from codes.model.bsn_model import BSN, mirror_index, rotate
from codes.model.edsr_model import EDSR
from codes.model.ldn_model import Deblur_Net
from codes.sdm import sdm
from codes.spike import EXPOSURE, spike_window, tfp
from scripts.dev.textbook_neighbours import TextbookSAN, TextbookSpkDeblurNet, TextbookSTIR

# Data --------------------------------------------------------------------------


def read_dat(path, height: int, width: int) -> np.ndarray:
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


def read_sample(folder: Path, name: str, top: int = 0, left: int = 0, side: int = 0) -> tuple[torch.Tensor, ...]:
    """Whole blurry and sharp pictures and the whole stream, for a crop of two of them (side 0: all)."""
    blur = cv2.imread(str(folder / "blur_data" / f"{name}.png")).transpose(2, 0, 1) / 255
    sharp = cv2.imread(str(folder / "sharp_data" / f"{name}.png")).transpose(2, 0, 1) / 255
    spike = read_dat(folder / "spike_data" / f"{name}.dat", blur.shape[1] // 4, blur.shape[2] // 4)
    if side:
        rows, columns = slice(top, top + side), slice(left, left + side)
        blur, sharp = blur[:, rows, columns], sharp[:, rows, columns]
        spike = spike[:, top // 4 : (top + side) // 4, left // 4 : (left + side) // 4]
    return tuple(torch.from_numpy(np.float32(x)) for x in (blur, spike, sharp))


def simulate(frames: np.ndarray, warmup: np.ndarray) -> np.ndarray:
    """The noise-free sensor, a loop of whole-array expressions."""
    voltage, threshold = np.zeros_like(warmup), np.float32(VTH_UNIT)
    spikes = []
    for frame in [warmup, *frames]:
        voltage = voltage + frame * np.float32(GAIN)
        spikes.append(voltage > threshold)
        voltage = np.where(voltage > threshold, np.mod(voltage, threshold), voltage)
    return np.array(spikes[1:])


def add_noise(spikes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise spike by spike along the line (H, W, T)."""
    frames, height, width = spikes.shape
    line, position = spikes.transpose(1, 2, 0).flatten(), 0.0
    while True:
        position += rng.normal(140, 50)
        if position >= len(line):
            return line.reshape(height, width, frames).transpose(2, 0, 1)
        if position >= 0:
            line[int(position)] = 1


def write_dat(path, spikes: np.ndarray) -> None:
    """Frame by frame and bit by bit."""
    with open(path, "wb") as file:
        for frame in spikes:
            bits = np.flipud(frame).reshape(-1, 8)
            packed = np.zeros(len(bits), np.uint8)
            for bit in range(8):
                packed += (bits[:, bit] << bit).astype(np.uint8)
            file.write(packed.tobytes())


def prepare(raw_folder: Path, out: Path, seed: int = 0) -> dict[str, float]:
    """The official steps on interpolated frames on disk, each exposure's frames read anew by every step.

    Returns:
        Seconds of decoding, blur, spikes and writing.
    """
    seconds = dict.fromkeys(("decode", "blur", "spikes", "write"), 0.0)

    @contextlib.contextmanager
    def timed(kind):
        begun = time.perf_counter()
        yield
        seconds[kind] += time.perf_counter() - begun

    for sequence in sorted(path for path in raw_folder.iterdir() if path.is_dir()):
        paths = sorted(sequence.iterdir(), key=lambda p: (p.stem.split("_")[0], int((p.stem + "_-1").split("_")[1])))
        folders = {kind: out / f"{kind}_data" / sequence.name for kind in ("blur", "spike", "sharp")}
        for folder in folders.values():
            folder.mkdir(parents=True)
        starts = range(0, len(paths) - 96, 104)
        for start in starts:
            with timed("decode"):
                frames = [cv2.imread(str(path)) for path in paths[start : start + 97]]
            with timed("blur"):
                mean = np.uint8(np.rint(np.mean(frames, axis=0)))
            with timed("write"):
                cv2.imwrite(str(folders["blur"] / f"{start // 8 + 6:06}.png"), mean)
        for start in starts:
            if start >= 20 and start + 117 <= len(paths):
                name = f"{start // 8 + 6:06}"
                with timed("decode"):
                    frames = [cv2.imread(str(path)) for path in paths[start - 20 : start + 117]]
                with timed("spikes"):
                    rng = np.random.default_rng((seed, zlib.crc32(f"{sequence.name}/{name}".encode())))
                    _spikes(frames, rng, folders["spike"] / f"{name}.dat")
        for index in range(6, len(paths) // 8 + 1, 13):
            with timed("write"):
                shutil.copy(paths[8 * index], folders["sharp"] / f"{index:06}.png")
    return seconds


def _spikes(images: list[np.ndarray], rng: np.random.Generator, path: Path) -> None:
    """Every whole frame to float, to a quarter of the size, grey, through the sensor."""
    light = []
    for image in images:
        frame = torch.from_numpy(image.transpose(2, 0, 1)[None] / 255).float()
        light.append(grey(F.interpolate(frame, scale_factor=0.25, mode="bilinear"))[0, 0].numpy())
    spikes = simulate(np.array(light), rng.random(light[0].shape, np.float32))
    write_dat(path, add_noise(spikes, rng))


# Networks ----------------------------------------------------------------------


class TextbookBSN(BSN):
    """The whole mirrored square four times, every half-plane convolution on a padded copy."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As :meth:`BSN.forward`."""
        height, width = x.shape[-2:]
        side = max(height, width)
        x = x.index_select(-2, mirror_index(height, side, x.device))
        x = x.index_select(-1, mirror_index(width, side, x.device))
        x = self._unet(torch.cat([rotate(x, quarter) for quarter in range(4)]))
        x = F.pad(x, (0, 0, 1, 0))[:, :, :-1]
        x = torch.cat([rotate(part, -quarter) for quarter, part in enumerate(x.chunk(4))], dim=1)
        x = F.leaky_relu(self.nin_A(x), 0.1)
        x = self.nin_C(F.leaky_relu(self.nin_B(x), 0.1))
        top, left = (side - height) // 2, (side - width) // 2
        return x[..., top : top + height, left : left + width]

    def _unet(self, image):
        def shift_conv(x, layer):
            x = F.pad(F.pad(x, (0, 0, 1, 0)), (1, 1, 1, 1), mode="replicate")
            return F.leaky_relu(layer.conv(x), 0.1)[:, :, :-1]

        def encode(x, layers):
            for layer in (layers.conv1, layers.conv2, layers.conv3):
                x = shift_conv(x, layer)
            return F.max_pool2d(F.pad(x, (0, 0, 1, 0))[:, :, :-1], 2) if layers.pool else x

        def decode(x, skip, layers):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            rows, columns = (a - b for a, b in zip(skip.shape[-2:], x.shape[-2:], strict=True))
            x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
            x = torch.cat([x, skip], dim=1)
            for layer in (layers.conv1, layers.conv2, layers.conv3, layers.conv4):
                x = shift_conv(x, layer)
            return x

        unet = self.unet
        first = encode(image, unet.enc1)
        x = decode(encode(encode(first, unet.enc2), unet.enc3), first, unet.dec2)
        return decode(x, image, unet.dec1)


class TextbookEDSR(EDSR):
    """Layer by layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As :meth:`EDSR.forward`."""
        head = self.head(self.sub_mean(x))
        x = head
        for block in self.body[:-1]:
            x = x + block.body[2](F.relu(block.body[0](x)))
        return self.add_mean(self.tail[1](self.tail[0](head + self.body[-1](x))))


class TextbookLDN(Deblur_Net):
    """Layer by layer, one instant at a time."""

    def forward(self, blur: torch.Tensor, spike: torch.Tensor) -> torch.Tensor:
        """As :meth:`Deblur_Net.forward` for one instant."""
        image = F.relu(self.blur_enc2[0](F.relu(self.blur_enc[0](blur))))
        events = F.relu(self.spike_enc2[0](F.relu(self.spike_enc[0](spike.to(blur.dtype)))))
        x = torch.cat([image, events], dim=1)
        pools = F.adaptive_avg_pool2d, F.adaptive_max_pool2d
        mean, peak = (self.ca.fc[2](F.relu(self.ca.fc[0](pool(x, 1)))) for pool in pools)
        x = x * torch.sigmoid(mean + peak)
        maps = torch.cat([x.mean(dim=1, keepdim=True), x.max(dim=1, keepdim=True)[0]], dim=1)
        x = x * torch.sigmoid(self.sa.conv1(maps))
        for block in (self.resBlock1, self.resBlock2):
            x = x + block.conv_block[3](F.relu(block.conv_block[0](x)))
        x = F.relu(self.decoder2[0](F.relu(self.decoder1[0](x))))
        return self.pred(torch.cat([blur, x], dim=1))


TEXTBOOK = {
    BSN: TextbookBSN,
    EDSR: TextbookEDSR,
    Deblur_Net: TextbookLDN,
    SpkDeblurNet: TextbookSpkDeblurNet,
    STIR: TextbookSTIR,
    SAN: TextbookSAN,
}
"""The textbook form of each network."""


def twin(network: nn.Module) -> nn.Module:
    """The textbook form of a network with the same weights, in the default memory layout and the same mode."""
    options = {"S_in_chs": network.spike_frames} if isinstance(network, SpkDeblurNet) else {}
    copy = TEXTBOOK[next(kind for kind in type(network).__mro__ if kind in TEXTBOOK)](**options)
    copy.load_state_dict(network.state_dict())
    parameter = next(network.parameters())
    return copy.to(parameter.device, parameter.dtype).train(network.training)


def teacher(bsn, sr, blur, spike, instants) -> list[torch.Tensor]:
    """Instant by instant, the long window enlarged anew for each, with autograd's bookkeeping."""
    images = []
    for instant in instants:
        tfp_long = sr(tfp(spike, EXPOSURE.centre, EXPOSURE.length)).clamp(0, 1)
        tfp_short = sr(bsn(tfp(spike, instant, 9)).clamp(0, 1)).clamp(0, 1)
        images.append(sdm(blur, tfp_long, tfp_short).detach())
    return images


# Losses and metrics --------------------------------------------------------------


def ssim_loss(im1: torch.Tensor, im2: torch.Tensor) -> torch.Tensor:
    """1 - SSIM with a Gaussian window by grouped convolutions, as in pytorch_msssim; images ``(B, C, H, W)``."""
    offsets = torch.arange(11, device=im1.device, dtype=im1.dtype) - 5
    kernel = torch.exp(-(offsets**2) / (2 * 1.5**2))
    channels = im1.shape[1]
    kernel = (kernel / kernel.sum()).expand(channels, 1, 1, 11)

    def blurred(x):
        return F.conv2d(F.conv2d(x, kernel, groups=channels), kernel.transpose(2, 3), groups=channels)

    mean1, mean2 = blurred(im1), blurred(im2)
    var1, var2 = blurred(im1 * im1) - mean1**2, blurred(im2 * im2) - mean2**2
    covariance = blurred(im1 * im2) - mean1 * mean2
    c1, c2 = 0.01**2, 0.03**2
    structure = (2 * covariance + c2) / (var1 + var2 + c2)
    return 1 - (structure * (2 * mean1 * mean2 + c1) / (mean1**2 + mean2**2 + c1)).mean()


def student_loss(students, labels, blur, distance, lambda_reblur: float = 100.0) -> torch.Tensor:
    """The mean distance to the labels, instant by instant, and the reblur loss; both are lists of ``(B, 3, H, W)``."""
    tea = sum(distance(label, student) for label, student in zip(labels, students, strict=True)) / len(labels)
    return tea + lambda_reblur * F.mse_loss(sum(students) / len(students), blur)


def quality(first: torch.Tensor, second: torch.Tensor) -> tuple[float, float]:
    """scikit-image's PSNR and SSIM of two images ``(1, C, H, W)`` in the official convention, on [-1, 1]."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    first, second = (np.clip(image[0].permute(1, 2, 0).cpu().numpy() * 2 - 1, -1, 1) for image in (first, second))
    psnr = peak_signal_noise_ratio(first, second, data_range=2)
    return psnr, structural_similarity(first, second, channel_axis=2, data_range=2)


def test_sample(bsn, sr, ldn, folder: Path, name: str) -> list[float]:
    """What test mode measures of one sample: PSNR and SSIM of blurry image, teacher and student."""
    device = next(ldn.parameters()).device
    blur, spike, sharp = (x[None].to(device) for x in read_sample(folder, name))
    with torch.no_grad():
        image = teacher(bsn, sr, blur, spike, [EXPOSURE.centre])[0]
        student = ldn(blur, spike_window(spike, EXPOSURE.centre, 21)).clamp(0, 1)
    return [value for prediction in (blur, image, student) for value in quality(prediction, sharp)]


def sr_loss(sr, blur: torch.Tensor, spike: torch.Tensor) -> torch.Tensor:
    """EDSR's loss on a batch."""
    return F.mse_loss(sr(tfp(spike, EXPOSURE.centre, EXPOSURE.length)), grey(blur))
