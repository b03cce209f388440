"""Data made and read the straightforward way, for the benchmarks in this folder to compare with."""

from pathlib import Path

import cv2
import numpy as np
import torch

from codes.making.sensor import GAIN, VTH_UNIT


def read_dat(path, height: int, width: int) -> np.ndarray:
    """Spikes ``(T, height, width)`` of a .dat file: the first pixel is the lowest bit, the lowest row comes first."""
    bits = np.unpackbits(np.fromfile(path, np.uint8), bitorder="little")
    return bits.reshape(-1, height, width)[:, ::-1]


def write_dat(path, spikes: np.ndarray) -> None:
    """The reverse of :func:`read_dat`."""
    Path(path).write_bytes(np.packbits(spikes[:, ::-1].astype(bool), bitorder="little").tobytes())


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


def read_sample(folder: Path, name: str, top: int, left: int, side: int) -> list[torch.Tensor]:
    """A crop of blurry image and spikes, from the whole of both, float32."""
    image = cv2.imread(str(folder / "blur_data" / f"{name}.png")).transpose(2, 0, 1) / 255
    spike = read_dat(folder / "spike_data" / f"{name}.dat", image.shape[1] // 4, image.shape[2] // 4)
    parts = image[:, top : top + side, left : left + side], spike[:, top // 4 :, left // 4 :]
    return [torch.from_numpy(np.float32(x)) for x in (parts[0], parts[1][:, : side // 4, : side // 4])]


def quality(first: torch.Tensor, second: torch.Tensor) -> tuple[float, float]:
    """scikit-image's PSNR and SSIM of two images ``(1, C, H, W)`` in the official convention, on [-1, 1]."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    first, second = (np.clip(image[0].permute(1, 2, 0).cpu().numpy() * 2 - 1, -1, 1) for image in (first, second))
    psnr = peak_signal_noise_ratio(first, second, data_range=2)
    return psnr, structural_similarity(first, second, channel_axis=2, data_range=2)
