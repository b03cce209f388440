"""Where the program runs and in which precision."""

import contextlib

import torch
from torch import nn


def choose_device(name: str) -> torch.device:
    """The device that ``--device`` names: 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.

    Raises:
        ValueError: no such device here; says what there is.
    """
    mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and (kind != "cuda" or not number.isdigit())):
        raise ValueError(f"--device is '{name}'; expected auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(
            f"--device {name}: this machine offers {count or 'no'} CUDA device{'s' * (count != 1)} to PyTorch; "
            "use --device auto or cpu"
        )
    if kind == "mps" and not mps:
        raise ValueError("--device mps: PyTorch finds no Apple GPU here; use --device auto or cpu")
    return torch.device(name)


def describe(device: torch.device) -> str:
    """A device in words."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def autocast(device: torch.device, precision: str):
    """The autocast context of a precision: 'fp32' (none), 'bf16' or 'fp16' (on a GPU)."""
    if precision == "fp32":
        return contextlib.nullcontext()
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("--precision fp16 needs a GPU; on a CPU use fp32 or bf16")
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


def place(network: nn.Module, device: torch.device) -> nn.Module:
    """Bring a network to a device, its convolutions in the channels-last layout, which is faster."""
    return network.to(device, memory_format=torch.channels_last)
