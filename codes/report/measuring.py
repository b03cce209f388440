"""What the benchmark and the table of costs measure with: seconds, FLOPs, the machine's own rates, peak memory."""

import statistics
import time
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopCounter(TorchDispatchMode):
    """Adds up what torch's flop counter knows of each operation; the counter itself cannot nest gradients."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation and count it; one that stands for others is taken apart first."""
        if func._overloadpacket not in flop_registry and func is not torch.ops.prim.device.default:
            with self:
                out = func.decompose(*args, **(kwargs or {}))
            if out is not NotImplemented:
                return out
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told, so that a clock read next is right."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def timed(run: Callable, device: torch.device) -> float:
    """Seconds of one call."""
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def matrix_rate(device: torch.device) -> float:
    """FLOP/s of a 2048-cubed fp32 matrix product."""
    a = torch.rand(2048, 2048, device=device)
    return 2 * 2048**3 / statistics.median(timed(lambda: a @ a, device) for _ in range(9))


def copy_rate(device: torch.device) -> float:
    """Bytes/s read and written by a copy of 64 MB."""
    source = torch.rand(2**24, device=device)
    target = torch.zeros_like(source)
    return 2 * source.nbytes / statistics.median(timed(lambda: target.copy_(source), device) for _ in range(9))


def peak_memory(run: Callable, device: torch.device) -> float:
    """Bytes that ``run`` needs at its peak beyond what is held before it; exact only in a process of its own."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before

    import resource  # not on Windows

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    before = peak()
    run()
    return peak() - before
