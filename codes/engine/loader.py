"""The way of the samples to a training: their order, and the processes that read them."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import torch

from codes.dataset import SpikeData
from codes.engine import distributed
from codes.engine.transfer import Transfer
from codes.errors import InputError, MissingFileError
from codes.image import IMAGES
from codes.random import rng


def open_split(cfg, split: str, say: Callable[[str], None], folder: str = "", **more) -> SpikeData | None:
    """A split of the data set that a configuration names; None where a training has none to be evaluated on.

    Args:
        cfg: the configuration (:class:`codes.engine.options.Config`).
        split: 'train' or 'test'.
        say: is told where there is none.
        folder: another data set than ``--base_folder``.
        **more: further arguments of :class:`codes.dataset.SpikeData`.
    """
    if cfg.skip_bad_samples and distributed.launched() > 1:
        raise InputError("--skip_bad_samples is for one process: the shares of several would no longer be equal")
    folder = folder or cfg.base_folder
    own = {"use_small": cfg.use_small, "vth": cfg.vth, "cache": cfg.cache, "skip_bad": cfg.skip_bad_samples}
    try:
        data = SpikeData(folder, cfg.data_type, split, **own | more)
        images = sum(path.suffix.lower() in IMAGES for path in data.folder.glob("blur_data/[!.]*/[!.]*"))
        if images > len(data) and not cfg.use_small:
            say(f"{data.folder}: {images - len(data)} blurry images without a stream are left out (check_dataset.py)")
        return data
    except MissingFileError as error:
        if cfg.test_mode or split == cfg.train_split or not Path(folder).is_dir():
            raise
        say(f"nothing is evaluated in training: {error}")
        return None


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
            order = rng("order", self.seed, epoch).permutation(self.samples)
            for batch in range(first, self.batches):
                chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
                own = chosen[self.rank :: self.world]
                yield [(int(index), epoch) for index in (own if len(own) else chosen[:1])]
            epoch, first = epoch + 1, 0


class Feed:
    """The batches of a training, on its device; and what could not be read of them.

    Args:
        dataset: the training split.
        plan: the order.
        device: where batches go.

    Attributes:
        skipped: sample that could not be read -> how often.
        names: the samples of the last batch.
    """

    def __init__(self, dataset: SpikeData, plan: BatchPlan, device: torch.device):
        self.dataset, self.plan, self.transfer = dataset, plan, Transfer(dataset, device)
        self.skipped: dict[str, int] = {}
        self.names: list[str] = []
        self._source: Iterator[dict] | None = None
        self._any_sample = False

    def start(self, epoch: int, batch: int, workers: int) -> None:
        """Begin at a batch of an epoch. What is done to the data set later does not reach the loader's processes."""
        self.plan.first_epoch, self.plan.first_batch = epoch, batch
        self._any_sample = 0 < batch < self.plan.batches
        self._source = iter(loader(self.transfer.source, self.plan, workers, self.transfer.pin))

    def next(self, batch: int) -> tuple[dict, dict[str, str]]:
        """The epoch's batch number ``batch``, and why samples of it were left out the first time: name -> why.

        The batch is empty where no sample of it can be read.

        Raises:
            InputError: that is so of a whole epoch.
        """
        content = next(self._source)
        faults = content.pop("faults", {})
        news = {name: fault for name, fault in faults.items() if name not in self.skipped}
        for name in faults:
            self.skipped[name] = self.skipped.get(name, 0) + 1
        if content:
            self.names, self._any_sample = content["name"], True
        if batch == self.plan.batches - 1:
            if not self._any_sample:
                raise InputError(f"no sample of {self.dataset.folder} can be read; {next(iter(faults.values()))}")
            self._any_sample = False
        return self.transfer(content), news

    def stop(self) -> None:
        """End the loader's processes, which heed no SIGTERM."""
        self._source = None

    @property
    def trouble(self) -> list[str]:
        """What was skipped, in words."""
        names = sorted(self.skipped)
        shown = ", ".join(names[:3]) + (" ..." if names[3:] else "")
        count = sum(self.skipped.values())
        return [f"{len(names)} samples that could not be read skipped {count} times ({shown})"] if names else []


def loader(
    dataset: torch.utils.data.Dataset, batch_sampler=None, workers: int = -1, pin: bool = False
) -> torch.utils.data.DataLoader:
    """A loader over ``batch_sampler``, or one by one in order.

    Args:
        dataset: the data set, or a part of it.
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
