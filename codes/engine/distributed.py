"""Several processes that train or evaluate together, started by torchrun: one on each GPU, on one machine or more.

    torchrun --nproc_per_node=2 train_deblur.py ...

Each process (a rank) computes on its share of every batch; DistributedDataParallel takes the mean of the gradients.
Rank 0 alone writes and prints. Gradients travel by nccl between CUDA devices and by gloo between CPUs; the few numbers
and reports that are exchanged besides travel by gloo. Without torchrun no process group is made, and every function
here is the trivial one.

A process that fails ends, and the others notice at their next exchange. The first to fail says why, the others end
without a word (:func:`first_to_fail`).

A process that dies without a word, in the middle of a gradient too, ends the others in seconds. On CPUs its connections
are closed, which gloo notices in whatever exchange it is in. On GPUs torchrun ends the processes of its own machine;
between machines nccl sees the connection end, in an exchange that is under way (:data:`NCCL`), and gloo does at the
next batch, for which all ranks ask whether one is to stop. :data:`TIMEOUT` is for one that hangs and lives.
"""

import atexit
import contextlib
import os
import warnings
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from codes.engine.device import choose_device
from codes.errors import InputError

TIMEOUT = timedelta(minutes=10)
"""For one exchange. Between two of them lies at most a training step, an evaluated sample or a saved file."""

NCCL = {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "3"}
"""Settings of nccl, where the environment has none. 3, PyTorch's default, is said because what is promised hangs on it:
an exchange that fails ends the process, instead of a host that waits for its GPU for ever. Not
TORCH_NCCL_BLOCKING_WAIT: it makes the host wait in each exchange, and a step must not wait."""

STORE_TIMEOUT = timedelta(seconds=5)


def launched() -> int:
    """Number of processes that torchrun started for this run, over all machines; 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if under_torchrun() else 1


def under_torchrun() -> bool:
    """Whether torchrun started this process, if only this one: gradients then travel, so that one GPU tries nccl."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launched_here() -> int:
    """Like :func:`launched`, on this machine alone."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if launched() > 1 else 1


def local_rank() -> int:
    """Number of this process among those of its machine."""
    return int(os.environ["LOCAL_RANK"]) if launched() > 1 else 0


def local_device(name: str) -> torch.device:
    """The device that ``--device`` names, for this process: among several, the GPU of its number on its machine.

    Raises:
        ValueError: no such device here, or none for each process.
    """
    if launched() == 1:
        return choose_device(name)
    if name.startswith("cuda:"):
        raise InputError(f"--device {name} with {launched()} processes; give auto or cuda, and each takes a GPU")
    device = choose_device(name)
    if device.type == "mps":
        raise InputError(f"--device {name} with {launched()} processes: an Apple GPU takes one; give --device cpu")
    if device.type == "cuda":
        if launched_here() > torch.cuda.device_count():
            raise InputError(
                f"{launched_here()} processes, but this machine offers {torch.cuda.device_count()} CUDA devices to "
                "PyTorch; give torchrun a smaller --nproc_per_node, or --device cpu"
            )
        device = torch.device("cuda", local_rank())
    return device


def start(device: torch.device) -> None:
    """Join the processes that torchrun started; nothing without torchrun.

    Args:
        device: of this process (:func:`local_device`).
    """
    if not under_torchrun() or device.type == "mps":  # gloo takes no tensors of an Apple GPU
        return
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
        os.environ.update({key: os.environ.get(key, value) for key, value in NCCL.items()})
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    # With torch 2.6, and earlier ones, a rank can hang where DistributedDataParallel holds the last reference: it is
    # dropped under the interpreter's lock, for which a thread of gloo waits that the group waits for.
    atexit.register([dist.group.WORLD].clear)


def stop(failed: bool = False) -> None:
    """Leave the other processes; wait for them first, unless this one ``failed``."""
    if not (dist.is_available() and dist.is_initialized()):
        return
    if failed:
        first_to_fail()  # before the others can notice
        with contextlib.suppress(RuntimeError):  # what failed is the error to report
            getattr(dist.group.WORLD, "abort", bool)()  # exchanges under way will not end (torch 2.6 or later)
            dist.destroy_process_group()
        return
    try:
        barrier()
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process; 0 writes and prints."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def barrier() -> None:
    """Wait until every process is here."""
    broadcast(None)


def broadcast(value):
    """Rank 0's ``value``, for every rank."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def gather(value) -> list:
    """Every rank's ``value`` in order, on rank 0; an empty list on the others."""
    if world() == 1:
        return [value]
    box = [None] * world() if rank() == 0 else None
    dist.gather_object(value, box)
    return box or []


def mean(values: dict[str, float], share: float) -> dict[str, float]:
    """The mean over samples of the ranks' means.

    Args:
        values: this rank's means, under the same names on every rank.
        share: this rank's part of the samples; the parts add up to 1.
    """
    if world() == 1:
        return values
    sums = torch.tensor([value * share for value in values.values()], dtype=torch.float64)
    dist.all_reduce(sums)
    return dict(zip(values, sums.tolist(), strict=True))


def mean_there(values: torch.Tensor, share: float) -> torch.Tensor:
    """:func:`mean` of a tensor, where it is and without waiting: float64 of the same shape, the same numbers."""
    values = values.double()
    if world() > 1:
        values = values * share
        dist.all_reduce(values)
    return values


def any_rank(flag: bool) -> bool:
    """Whether ``flag`` is set on any rank."""
    if world() == 1:
        return flag
    count = torch.tensor(int(flag))
    dist.all_reduce(count)
    return count.item() > 0


def wrap(network: nn.Module, device: torch.device, static: bool = True) -> nn.Module:
    """The network to train with: its gradients are the mean over ranks. The network itself without torchrun.

    Gradients are the buckets that travel, not copies of them. A network that uses all of its weights, as all do but
    SpkDeblurNet, uses them in every step: the order of its gradient is found once.

    Args:
        network: on ``device``, which must be this process's own.
        device: of this process.
        static: False for a network that is to be compiled, which does not go together with that.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return network
    # Weights that are used in parts have gradients in another layout: a copy of some kilobytes, not worth a warning.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    if device.type == "cuda":  # STIR's statistics are those of the whole batch; there is no such layer for CPUs
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    unused = getattr(network, "unused_parameters", False)
    return nn.parallel.DistributedDataParallel(
        network,
        device_ids=[device] if device.type == "cuda" else None,
        find_unused_parameters=unused,
        gradient_as_bucket_view=True,
        static_graph=static and not unused,
    )


def first_to_fail() -> bool:
    """Whether this process was the first to ask this: it says what went wrong, and no line appears twice."""
    if launched() == 1:
        return True
    try:
        store = dist.TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=STORE_TIMEOUT
        )
        key = f"first_to_fail/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        return store.compare_set(key, "", os.environ["RANK"]).decode() == os.environ["RANK"]
    except RuntimeError:  # nobody is left to ask: rather twice than never
        return True


def is_loss_of_contact(error: RuntimeError) -> bool:
    """Whether an error says that another process ended or cannot be reached."""
    return launched() > 1 and (
        isinstance(error, dist.DistError) or any(word in str(error).lower() for word in ("gloo", "nccl"))
    )
