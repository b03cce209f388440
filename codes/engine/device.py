"""Where the program runs and in which precision."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from codes.errors import InputError
from codes.fast import quicken


def choose_device(name: str) -> torch.device:
    """The device that ``--device`` names: 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.

    With a CPU the process is told to keep its memory (:func:`keep_memory`).

    Raises:
        ValueError: no such device here; says what there is.
    """
    mps = torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    if name == "cpu":
        keep_memory()
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and (kind != "cuda" or not number.isdecimal())):
        raise InputError(f"--device is '{name}'; expected auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise InputError(
            f"--device {name}: this machine offers {count or 'no'} CUDA device{'s' * (count != 1)} to PyTorch; "
            "use --device auto or cpu"
        )
    if kind == "mps" and not mps:
        raise InputError("--device mps: PyTorch finds no Apple GPU here; use --device auto or cpu")
    if number:  # what takes the current GPU, as the loader's pinned memory does, takes this one too
        torch.cuda.set_device(int(number))
    return torch.device(name)


def keep_memory() -> None:
    """Let the C library reuse the memory of freed tensors instead of giving it back to the system.

    Fresh memory comes in pages that the system clears one by one, which can take longer than the operation that
    fills them. glibc only; nothing elsewhere. The memory is given back when the process ends.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(-4, 0)  # M_MMAP_MAX: blocks that come from the system, and go back to it
            mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: free memory that is kept


def be_deterministic() -> None:
    """Operations with the same result each time; PyTorch warns of one that it does not have in such a form."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of all random generators that a training on ``device`` draws from, by device type."""
    states = {"cpu": torch.get_rng_state()}
    if device.type in ("cuda", "mps"):
        states[device.type] = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.mps.get_rng_state()
    return states


def restore_random_states(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Go on drawing where :func:`random_states` was taken; of a device that was not there, where it is."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    if device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])


def describe(device: torch.device) -> str:
    """A device in words."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def settled(cfg, device: torch.device):
    """A configuration whose ``precision`` is no longer 'auto': 'bf16' where the device has instructions for it.

    Else it is 'fp32': a CPU that has none takes three times as long in bf16.
    """
    if cfg.precision != "auto":
        return cfg
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported") if device.type == "cpu" else ()
        native = any(getattr(torch.cpu, name, bool)() for name in asked)
    return replace(cfg, precision="bf16" if native else "fp32")


def autocast(device: torch.device, precision: str):
    """The autocast context of a precision: 'fp32' and 'tf32' (none), 'bf16', or 'fp16' (on a GPU).

    On an NVIDIA GPU it also says, from here on, what products of float32 numbers are rounded to: with 'fp32' to
    nothing, else to TF32, so that the gradient, which is computed after the context, is computed alike. (PyTorch by
    itself rounds those of convolutions, and others not.) Beside bf16 and fp16, which lose more, that is for what stays
    float32: LPIPS.
    """
    if precision == "tf32" and device.type != "cuda":
        raise InputError(f"--precision tf32 needs an NVIDIA GPU, not {device.type}; use fp32 or bf16")
    if precision == "fp16" and device.type == "cpu":
        raise InputError("--precision fp16 needs a GPU; on a CPU use fp32 or bf16")
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
    if precision in ("fp32", "tf32"):
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


def place(network: nn.Module, device: torch.device, precision: str = "fp32") -> nn.Module:
    """Bring a network to a device, in the layout and the form that are fast there.

    That is channels-last, but on an NVIDIA GPU in fp32, where cuDNN has slow convolutions for it (docs/speed.md).
    """
    plain = device.type == "cuda" and precision == "fp32"
    layout = torch.contiguous_format if plain else torch.channels_last
    return quicken(network.to(device, memory_format=layout), device)


def compiled(network: nn.Module, say: Callable[[str], None]) -> Callable:
    """``network`` through torch.compile; itself from the first failure on, which ``say`` is told in one line."""
    with contextlib.suppress(ImportError, AttributeError):  # of this PyTorch; takes a second, so not at the top
        from torch._functorch import config

        # Else the gradient is compiled within backward(), past what falls back here.
        config.force_non_lazy_backward_lowering = True
    ways = [torch.compile(network), network]

    def call(*inputs):
        try:
            return ways[0](*inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a missing compiler or Triton, an operation that it does not know, ...
            if len(ways) == 1:
                raise
            ways.pop(0)
            say(f"--compile: torch.compile failed, the run goes on without it ({' '.join(str(error).split())[:200]})")
            return network(*inputs)

    return call
