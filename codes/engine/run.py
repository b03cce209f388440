"""A training run as a recipe sees it; its parts (folder, state, log, step, loader) are joined here.

Repeating the command goes on from ckpts/state.pth: an interrupted run equals an undisturbed one. Under torchrun all
ranks train together: ``--bs`` is each rank's, and a run with the same batch over all ranks is the same run. Rank 0
alone reads and writes the folder and prints.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn

from codes.dataset import SpikeData
from codes.engine import device, distributed
from codes.engine.folder import Folder, Identity
from codes.engine.loader import BatchPlan, Feed, open_split
from codes.engine.log import Log, announcement
from codes.engine.options import as_dict
from codes.engine.provenance import provenance
from codes.engine.state import State, resume
from codes.engine.step import Step, Values, reads_late
from codes.engine.stop import Stop
from codes.metrics import lpips_network


class Run:
    """A training run, or with ``--test_mode`` an evaluation; a context manager.

    Args:
        cfg: the configuration (:class:`codes.engine.options.Config`).
        name: prefix of the weight files: 'BSN', 'SR' or 'DeblurNet'.
    """

    step_count = epoch = batch = total = rank = 0
    seconds = 0.0  # spent in training, over all interruptions
    done = stopped = False  # done: with the last evaluation
    feed: Feed | None = None
    fused: bool | None = None  # of the optimiser: must be, where steps are read late

    def __init__(self, cfg, name: str):
        self.device = distributed.local_device(cfg.device)
        self.cfg = cfg = device.settled(cfg, self.device)
        self.autocast()  # refuses what cannot be, before anything is written
        self.files = Folder(Path(cfg.save_folder) / cfg.exp_name, name)
        self.folder, self.logs = self.files.path, Log(self.files.path, cfg.log_every)
        self.say, self.stop = self.logs.say, Stop(silent=distributed.launched() > 1)
        self.lpips = lpips_network("alex").to(self.device) if "lpips" in cfg.metrics else None
        if cfg.deterministic:
            device.be_deterministic()
        torch.manual_seed(cfg.seed)
        self.late = reads_late(self.device, cfg.precision)
        self.fused = self.late or self.fused

    def __enter__(self) -> "Run":
        distributed.start(self.device)
        self.rank = distributed.rank()
        self.logs.silent = self.rank > 0
        return self

    def __exit__(self, kind, *_error) -> None:
        try:
            if self.feed is not None:
                self.feed.stop()
            self.logs.close()
            self.files.release()
        finally:
            distributed.stop(failed=kind is not None and not self.stopped)

    def place(self, network: nn.Module) -> nn.Module:
        """Bring a network to the run's device."""
        return device.place(network, self.device, self.cfg.precision)

    def autocast(self):
        """The context of the run's precision."""
        return device.autocast(self.device, self.cfg.precision)

    def data(self, split: str, **more) -> SpikeData | None:
        """A split of the data set; None where a training has none to be evaluated on (:func:`open_split`)."""
        return open_split(self.cfg, split, self.say, **more)

    def begin(self, network: nn.Module, optimiser, dataset: SpikeData, steps_per_batch: int = 1) -> Callable:
        """Go on with what lies in the folder, or start; returns the network to call, joined with other ranks."""
        cfg, world = self.cfg, distributed.world()
        plan = BatchPlan(len(dataset), cfg.bs * world, cfg.seed, rank=self.rank, world=world)
        self.network, self.optimiser, self.feed = network, optimiser, Feed(dataset, plan, self.device)
        self.step = Step(network, optimiser, self.device, cfg.precision, cfg.on_nan, self.say, self.late)
        self.backward, self.clip, self.values = self.step.backward, self.step.clip, Values(self.step, self.logs.step)
        self.total = cfg.max_steps or cfg.epochs * plan.batches * steps_per_batch
        self.identity = Identity.of(cfg, dataset, world)
        before = resume(self)
        self._saved, self.saved_step = time.monotonic(), self.step_count
        for line in announcement(self, before, steps_per_batch):
            self.say(line)
        if self.done:
            return network
        if self.rank == 0:
            self.files.describe(as_dict(cfg), provenance())
        self.logs.start(self.step_count, again=self.step_count > 0 and self.batch == plan.batches)
        net = distributed.wrap(network, self.device, static=not cfg.compile)
        return device.compiled(net, self.say) if cfg.compile else net

    @property
    def finished(self) -> bool:
        """Whether all steps are made."""
        return self.step_count >= self.total

    def epochs(self) -> Iterator[int]:
        """The epochs that remain; each must end with :meth:`end_epoch`."""
        if self.done:
            return
        self.feed.start(self.epoch, self.batch, self.cfg.workers)
        self.logs.show_progress(self.step_count, self.total, self.seconds)
        self._clock = time.monotonic()
        with self.stop:
            while not self.done:
                yield self.epoch
        self.say(f"finished at step {self.step_count}; weights: {self.files.weights('last')}")
        if trouble := self.feed.trouble + self.step.trouble:
            self.say("; ".join(trouble))

    def batches(self) -> Iterator[dict]:
        """The batches of the epoch that remain, on the run's device; also where a run is saved and stopped."""
        while self.batch < self.feed.plan.batches and not self.finished:
            batch, faults = self.feed.next(self.batch)
            self.logs.skipped(faults, self.step_count, self.epoch)
            self.step.share = self.feed.plan.share(self.batch)
            if batch:
                yield batch
            self.batch += 1
            if distributed.any_rank(self.stop.asked):
                self._save_state()
                self._save_weights("last")
                self.stopped, path = True, self.files.weights("last")
                self.say(f"stopped at step {self.step_count}; the same command goes on; weights: {path}")
                raise KeyboardInterrupt
            if time.monotonic() - self._saved >= self.cfg.state_every:
                self._save_state()

    def update(self, rate: float) -> None:
        """Make the optimiser's step; where a number is not finite, stop, or with ``--on_nan skip`` drop the step."""
        names, step, epoch = list(self.feed.names), self.step_count, self.epoch
        good = f"the last good state, of step {self.saved_step}, is intact in {self.files.state}"
        note = partial(self.logs.dropped, step, epoch, names)
        self._made = self.step.update(rate, f"step {step}, samples {', '.join(names)}", good, note)
        now = time.monotonic()
        self.seconds, self._clock = self.seconds + now - self._clock, now
        self.last_rate, self.step_count = rate, self.step_count + 1

    def log(self, **values: torch.Tensor) -> None:
        """Log values of the step, each a mean over the samples of the batch; what a dropped step has does not count."""
        when = self.step_count, self.epoch, self.seconds, self.last_rate, self.finished
        self.values.take(self._made, values, when, due=self.finished or self.step_count % self.cfg.log_every == 0)

    def end_epoch(self, evaluation: Callable[[], object]) -> None:
        """Save weights and evaluate (``evaluation`` makes a report, or None) where it is due, always at the end."""
        due = self.finished or bool(self.cfg.eval_every) and self.epoch % self.cfg.eval_every == 0
        if due:
            for label in (self.epoch, "last") if self.finished else (self.epoch,):
                self._save_weights(label)
            self.logs.evaluation(evaluation(), self.step_count, self.epoch)
            self._clock = time.monotonic()  # what is measured is training
        if self.batch == self.feed.plan.batches:
            self.epoch, self.batch = self.epoch + 1, 0
        self.done = self.finished
        if due:  # last: a run that is killed before this point saves and evaluates again
            self._save_state()

    def _save_state(self) -> None:
        self.values.settle()
        if self.rank == 0:
            State.of(self).save(self.files.state)
        self._saved, self.saved_step = time.monotonic(), self.step_count

    def _save_weights(self, label) -> None:
        self.values.settle()
        if self.rank == 0:
            self.files.save_weights(self.network, label)
