"""The way of the samples to a training: their order, and the processes that read them."""

import os
import signal
from collections.abc import Iterator

import cv2
import numpy as np
import torch

from codes.dataset import SpikeData
from codes.engine import distributed


class BatchPlan:
    """The order of training, decided by the seed: an iterator over batches of (index, epoch).

    Several ranks draw the same batches, and each takes every ``world``-th sample of them. Where a batch has fewer
    samples than there are ranks, the others take its first one, with a :meth:`share` of 0.

    Args:
        samples: number of samples.
        batch_size: samples in a batch, over all ranks; the last batch of an epoch may be smaller.
        seed: seed of the order.
        first_epoch, first_batch: where to begin, to continue an interrupted run.
        rank, world: whose share is asked for, of how many.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        seed: int,
        first_epoch: int = 0,
        first_batch: int = 0,
        rank: int = 0,
        world: int = 1,
    ):
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self.first_epoch, self.first_batch = first_epoch, first_batch
        self.rank, self.world = rank, world

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        return -(-self.samples // self.batch_size)

    def share(self, batch: int) -> float:
        """What part of the samples of an epoch's batch number ``batch`` is this rank's."""
        size = min(self.batch_size, self.samples - batch * self.batch_size)
        return len(range(self.rank, size, self.world)) / size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, first = self.first_epoch, self.first_batch
        while True:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.samples)
            for batch in range(first, self.batches):
                chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
                own = chosen[self.rank :: self.world]
                yield [(int(index), epoch) for index in (own if len(own) else chosen[:1])]
            epoch, first = epoch + 1, 0


def loader(dataset: SpikeData, batch_sampler=None, workers: int = -1, pin: bool = False) -> torch.utils.data.DataLoader:
    """A loader over ``batch_sampler``, or one by one in order.

    Args:
        dataset: the data set.
        batch_sampler: for example a :class:`BatchPlan`.
        workers: loader processes; -1 is one per core, at most 4 (of several ranks, each its part of the cores).
        pin: pinned memory, for a GPU.
    """
    if workers < 0:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = min(4, max(1, cores // distributed.launched_here()))
    order = {"batch_sampler": batch_sampler} if batch_sampler is not None else {"batch_size": 1}
    # A forked child that inherits OpenCV's thread pool can wait for it for ever; the processes are the parallelism.
    cv2.setNumThreads(0)
    return torch.utils.data.DataLoader(
        dataset,
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=_leave_signals_to_parent,
        collate_fn=_collate,
        **order,
    )


def _collate(samples: list[dict]) -> dict:
    """A batch of the samples that could be read; ``faults``, if there are any, has the others: name -> why."""
    faults = {sample["name"]: sample["fault"] for sample in samples if "fault" in sample}
    good = [sample for sample in samples if "fault" not in sample]
    batch = torch.utils.data.default_collate(good) if good else {}
    return {**batch, "faults": faults} if faults else batch


def _leave_signals_to_parent(_worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the parent decides, and ends its loaders."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
