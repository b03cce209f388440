"""A training run: its folder, its steps, its logs, and how it is continued.

    save_folder/exp_name/
        ckpts/    {NAME}_{epoch}.pth weights; {NAME}_last.pth when the run ends or is stopped; state.pth to go on from
        imgs/     {epoch:03}_{index:04}_{kind}.png and comparison panels of the evaluations
        tensorboard/  opt.txt  config.yml  results.txt  metrics.jsonl

Repeating the command continues where state.pth was written; what the logs hold beyond that point is cut off first,
so that no step is logged twice and an interrupted run equals an undisturbed one. One folder holds one recipe; another
one is refused. Nothing is deleted.

Started by torchrun, all ranks train together (distributed.py): ``--bs`` is each rank's, and a run with the same
batch over all ranks is the same run. Rank 0 alone reads and writes the folder and prints.
"""

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import ModuleType

import torch
import yaml
from torch import nn
from tqdm import tqdm

from codes.dataset import SpikeData
from codes.engine import checkpoint, distributed
from codes.engine.device import autocast, be_deterministic, compiled, describe, place
from codes.engine.loader import BatchPlan, loader
from codes.engine.options import as_dict, recipe
from codes.engine.schedule import learning_rate
from codes.errors import InputError
from codes.files import remove_abandoned, replacing
from codes.metrics import lpips_network

try:
    import fcntl
except ImportError:  # Windows: folders are not locked
    fcntl = None

LOGS = ("metrics.jsonl", "results.txt")
DROPPED_IN_A_ROW = 100
"""After so many steps in a row without an update (``--on_nan skip``, or fp16) the run stops: it will not recover."""
STATE = {
    **{key: dict for key in ("recipe", "weights", "optimiser", "scaler", "sums", "logs")},
    **{key: int for key in ("samples", "step", "epoch", "batch")},
    **{"rng": torch.Tensor, "seconds": float, "done": bool},
}
"""What state.pth holds, by type; 'ranks', 'average', 'trouble' and 'names' came later."""
PRINT_SECONDS = 20
"""Between progress lines where there is no terminal for a progress bar."""


class Run:
    """What a recipe does not want to say each time. Use as a context manager.

    Args:
        cfg: the configuration (:class:`codes.engine.options.Config`).
        name: prefix of the weight files: 'BSN', 'SR' or 'DeblurNet'.
    """

    def __init__(self, cfg, name: str):
        self.cfg, self.name = cfg, name
        self.folder = Path(cfg.save_folder) / cfg.exp_name
        self.device = distributed.local_device(cfg.device)
        self.rank, self.world = 0, 1
        autocast(self.device, cfg.precision)  # refuses what cannot be, before anything is written
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=cfg.precision == "fp16")
        self.step_count = self.epoch = self.batch = self.total = 0
        self.seconds = 0.0  # spent in training, over all interruptions
        self.sums: dict[str, float] = {}
        self.share = 1.0  # this rank's part of the batch
        self.stopping = self.stopped = self.warned = self.done = False
        self.board = self.bar = self.lock = None
        self.names: list[str] = []  # samples of the batch
        self.skipped: dict[str, int] = {}  # sample that could not be read -> how often
        self.dropped = self.overflows = self._dropped_in_a_row = 0  # steps without an update
        self.lpips = lpips_network("alex").to(self.device) if "lpips" in cfg.metrics else None
        if cfg.skip_bad_samples and distributed.launched() > 1:
            raise InputError("--skip_bad_samples is for one process: the shares of several would no longer be equal")
        if cfg.deterministic:
            be_deterministic()
        torch.manual_seed(cfg.seed)

    def __enter__(self) -> "Run":
        distributed.start(self.device)
        self.rank, self.world = distributed.rank(), distributed.world()
        return self

    def __exit__(self, kind, *_error) -> None:
        try:
            self._close()
        finally:
            distributed.stop(failed=kind is not None and not self.stopped)

    def _close(self) -> None:
        self._source = None  # ends the loader's processes, which heed no SIGTERM, whatever still refers to this run
        if self.bar is not None:
            self.bar.close()
        if self.board is not None:
            self.board.close()
        if self.lock is not None:
            with suppress(OSError):  # of a folder that can no longer be written, whatever was the matter is said
                (self.folder / ".lock").unlink(missing_ok=True)
            self.lock.close()

    # What the recipe asks for ----------------------------------------

    def place(self, network: nn.Module) -> nn.Module:
        """Bring a network to the run's device."""
        return place(network, self.device)

    def autocast(self):
        """The context of the run's precision."""
        return autocast(self.device, self.cfg.precision)

    def begin(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        dataset: SpikeData,
        official_lr: Callable[[int, int], float],
        steps_per_batch: int = 1,
    ) -> nn.Module:
        """Open the folder and continue what lies there, or start.

        Args:
            network, optimiser: what is trained.
            dataset: the training split.
            official_lr: the rate of (step, epoch) under ``--lr_schedule official``.
            steps_per_batch: optimiser steps that the recipe makes of one batch.

        Returns:
            What to call in the training loop: the network, made to learn together with the other ranks, and compiled
            with ``--compile``.
        """
        cfg = self.cfg
        self.network, self.optimiser, self.dataset, self.official_lr = network, optimiser, dataset, official_lr
        self.plan = BatchPlan(len(dataset), cfg.bs * self.world, cfg.seed, rank=self.rank, world=self.world)
        self.total = cfg.max_steps or cfg.epochs * self.plan.batches * steps_per_batch
        self.average = [p.detach().clone() for p in network.parameters()] if cfg.ema else []
        self._open_folder()
        count = sum(p.numel() for p in network.parameters() if p.requires_grad)
        self.say(f"{type(network).__name__}: {count:,} parameters to train, {cfg.precision} on {describe(self.device)}")
        self.say(
            f"data: {dataset.folder}, {len(dataset)} samples, split '{cfg.train_split}'; batches of "
            f"{batch_in_words(cfg.bs, self.world)}, crop {cfg.roi_size}, {self.plan.batches} batches per epoch"
        )
        self.say(f"output: {self.folder}; step {self.step_count} of {self.total}")
        self.done = self.done and self.finished
        if self.done:
            self.say("this run is finished; give more --epochs or --max_steps to go on, or --overwrite to start anew")
            return network
        self._open_logs()
        self.plan.first_epoch, self.plan.first_batch = self.epoch, self.batch
        net = distributed.wrap(network, self.device)
        return compiled(net, self.say) if cfg.compile else net

    @property
    def finished(self) -> bool:
        """Whether all steps are made."""
        return self.step_count >= self.total

    def epochs(self) -> Iterator[int]:
        """The epochs that remain; each must end with :meth:`end_epoch`."""
        if self.done:
            return
        # Not before: what the recipe does to its data set after begin() reaches the loader's processes.
        self._source = iter(loader(self.dataset, self.plan, self.cfg.workers, self.device.type == "cuda"))
        self.bar = tqdm(
            total=self.total,
            initial=self.step_count,
            unit="step",
            dynamic_ncols=True,
            disable=self.rank > 0 or not sys.stderr.isatty(),
        )
        self._clock = self._printed = time.monotonic()
        self._first = self.step_count, self.seconds
        previous = signal.signal(signal.SIGINT, self._stop), signal.signal(signal.SIGTERM, self._stop)
        try:
            while not self.done:
                yield self.epoch
        finally:
            signal.signal(signal.SIGINT, previous[0])
            signal.signal(signal.SIGTERM, previous[1])
        self.say(f"finished at step {self.step_count}; weights: {self._weights_path('last')}")
        if self.trouble:
            self.say(self.trouble)

    @property
    def trouble(self) -> str:
        """What the run went on after, in one line; '' if nothing."""
        parts = []
        if self.skipped:
            names = sorted(self.skipped)
            parts.append(
                f"{len(names)} samples that could not be read skipped {sum(self.skipped.values())} times "
                f"({', '.join(names[:3])}{' ...' if names[3:] else ''})"
            )
        if self.dropped:
            parts.append(f"{self.dropped} steps dropped whose loss or gradient was not finite")
        if self.overflows:
            parts.append(f"{self.overflows} steps without an update for an overflow of fp16")
        return "; ".join(parts)

    def batches(self) -> Iterator[dict]:
        """The batches of the epoch that remain, on the run's device; also where a run is saved and stopped."""
        while self.batch < self.plan.batches and not self.finished:
            batch = next(self._source)
            self.share = self.plan.share(self.batch)
            self._skip(batch.pop("faults", {}))
            if batch:
                self.names, self._any_sample = batch["name"], True
                yield {
                    key: value.to(self.device, non_blocking=True) if isinstance(value, torch.Tensor) else value
                    for key, value in batch.items()
                }
            self.batch += 1
            if self.batch == self.plan.batches and not self._any_sample:
                raise InputError(f"no sample of {self.dataset.folder} can be read; see {self.folder / 'results.txt'}")
            if distributed.any_rank(self.stopping):
                self._save_state()
                self._save_weights("last")
                self.say(
                    f"stopped at step {self.step_count}; the same command goes on; "
                    f"weights: {self._weights_path('last')}"
                )
                self.stopped = True
                raise KeyboardInterrupt
            if time.monotonic() - self._saved >= self.cfg.state_every:
                self._save_state()

    def step(self, loss: torch.Tensor, **parts: torch.Tensor) -> None:
        """One optimiser step down the gradient of ``loss``; ``parts`` are logged beside it.

        Each must be a mean over the samples of this rank's batch; what is followed and logged is the mean over all.

        Raises:
            ValueError: the loss or its gradient is not finite; with ``--on_nan skip``, if so for 100 steps in a row.
        """
        values = {"loss": loss.item(), **{key: value.item() for key, value in parts.items()}}
        if self.world > 1:
            values = distributed.mean(values, self.share)
            loss = loss * (self.share * self.world)  # whose mean over ranks is the mean over samples
        rate = self._rate()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        logged = (self.step_count + 1) % self.cfg.log_every == 0
        self.optimiser.zero_grad(set_to_none=True)
        fault = "" if math.isfinite(values["loss"]) else f"the loss is {values['loss']}"
        if not fault:
            self.scaler.scale(loss).backward()
            if not self.warned and (logged or self.step_count == 0):
                self._watch_gradient()
            fault = self._update()
        if fault:
            self._drop(fault)
            values = {}
        self.step_count += 1
        if self.average and not fault:  # over about as many steps as there were, at first
            decay = min(self.cfg.ema, self.step_count / (self.step_count + 10))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.network.parameters()], 1 - decay)
        now = time.monotonic()
        self.seconds, self._clock = self.seconds + now - self._clock, now
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        if values:
            self.sums["steps"] = self.sums.get("steps", 0) + 1
        self.bar.update()
        if logged or self.finished:
            self._log_step(rate)

    def end_epoch(self, evaluation: Callable[[], object] | None = None) -> None:
        """Save weights and evaluate where that is due, always at the end of the run.

        Args:
            evaluation: makes a :class:`codes.report.evaluation.Report`; None: never evaluated.
        """
        cfg, whole = self.cfg, self.batch == self.plan.batches
        saving = self.finished or (whole and self.epoch % cfg.save_every == 0)
        if saving:
            self._save_weights(self.epoch)
        if self.finished:
            self._save_weights("last")
        if evaluation is not None and (self.finished or cfg.eval_every and self.epoch % cfg.eval_every == 0):
            with self._averaged():
                self.report(evaluation())
            self._clock = time.monotonic()  # what is measured is training
        if whole:
            self.epoch, self.batch, self._any_sample = self.epoch + 1, 0, False
        # Last, so that a run that is killed before this point saves and evaluates again.
        self.done = self.finished
        if saving:
            self._save_state()

    def report(self, report) -> None:
        """Log an evaluation: official lines in results.txt, rows in metrics.jsonl, scalars and panels in TensorBoard.

        Args:
            report: a :class:`codes.report.evaluation.Report`.
        """
        if self.rank > 0:
            return
        self.say(
            f"epoch {self.epoch}, step {self.step_count}: {report.count} samples, {report.milliseconds:.0f} ms each"
        )
        for line in report.lines():
            self.say(line)
        for row, values in report.means().items():
            self._record({"kind": "eval", "step": self.step_count, "epoch": self.epoch, "row": row, **values})
            for metric, value in values.items():
                self.board.add_scalar(f"{metric}/{row}", value, self.step_count)
        for index, panel in enumerate(report.panels):
            self.board.add_image(f"sample/{index}", panel[..., ::-1], self.step_count, dataformats="HWC")

    def say(self, text: str) -> None:
        """Print a line, and keep it in results.txt once the folder is open; rank 0 alone."""
        if self.rank > 0:
            return
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
        if self._log_open:
            with open(self.folder / "results.txt", "a", encoding="utf-8") as file:
                file.write(text + "\n")

    # Folder, state and logs ------------------------------------------

    _log_open = False
    _saved, _saved_step = 0.0, 0

    _any_sample = False

    def _lock_folder(self) -> None:
        """Let no second process train in the folder; the system takes the lock back however this one ends."""
        if fcntl is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = open(self.folder / ".lock", "a+", encoding="utf-8")
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise InputError(
                f"another process (number {owner}) is training in {self.folder}; choose another --exp_name"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self.lock = lock

    def _open_folder(self) -> None:
        state = distributed.broadcast(self._claim_folder() if self.rank == 0 else None)
        if state is None:
            return
        try:
            self.network.load_state_dict(state["weights"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.scaler.load_state_dict(state["scaler"])
            for own, saved in zip(self.average, state.get("average", ()), strict=True):
                own.copy_(saved)
            torch.set_rng_state(state["rng"])
            self.skipped, self.dropped, self.overflows = state.get("trouble", (self.skipped, 0, 0))
        except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise self._unusable(f"{type(error).__name__}: {str(error)[:100]}") from None
        self.step_count, self.epoch, self.batch = (state[key] for key in ("step", "epoch", "batch"))
        self.sums, self.seconds, self.done = state["sums"], state["seconds"], state["done"]
        self._saved, self._saved_step = time.monotonic(), self.step_count
        self._any_sample = self.batch > 0
        if self.rank > 0:
            return
        for name in LOGS:
            with open(self.folder / name, "a+b") as file:
                file.truncate(min(state["logs"][name], file.tell()))
        if not (self.done and self.finished):
            self._write_description()

    def _claim_folder(self) -> dict | None:
        """Lock the folder and read the state in it; a new folder is begun instead, and has none."""
        state_path = self.folder / "ckpts" / "state.pth"
        self._lock_folder()
        for folder in (self.folder, self.folder / "ckpts", self.folder / "imgs"):
            remove_abandoned(folder)
        if self.cfg.overwrite and any(path.name != ".lock" for path in self.folder.iterdir()):
            kept = self.folder.with_name(f"{self.folder.name}_old_{datetime.now():%Y%m%d_%H%M%S_%f}")
            self.folder.rename(kept)
            (kept / ".lock").unlink(missing_ok=True)
            print(f"the earlier run is kept in {kept}")
            self._lock_folder()
        if not state_path.exists():
            self._write_description()
            self._save_state()
            return None
        state = checkpoint.read(state_path)
        if not isinstance(state, dict) or "recipe" not in state:
            raise self._unusable("a file of another kind")
        for key, kind in STATE.items():
            if not isinstance(state.get(key), kind):
                raise self._unusable(f"'{key}' is {type(state[key]).__name__ if key in state else 'missing'}")
        lengths = [state["logs"].get(name) for name in LOGS]
        counts = {key: state[key] for key in ("step", "epoch", "batch")} | dict(zip(LOGS, lengths, strict=True))
        for key, value in counts.items():
            if not isinstance(value, int) or value < 0 or (key == "batch" and value > self.plan.batches):
                raise self._unusable(f"'{key}' is {value}")
        if any(not isinstance(value, int | float) for value in (*state["sums"].values(), state["seconds"])):
            raise self._unusable("a sum is no number")
        own = self._recipe()
        before = recipe(type(self.cfg)()) | state["recipe"]  # an option that came later had its default
        for key in own:
            if (other := before[key]) != own[key]:
                now = own[key]
                if key == "bs" and (ranks := int(state.get("ranks") or 1), self.world) != (1, 1):
                    other, now = batch_in_words(other // ranks, ranks), batch_in_words(self.cfg.bs, self.world)
                raise InputError(
                    f"{self.folder} holds a run with --{key} {other}, not {now}; "
                    "choose another --exp_name, the same options, or --overwrite to start anew (the old run is kept)"
                )
        if state["samples"] != len(self.dataset):
            raise InputError(
                f"{self.folder} holds a run on {state['samples']} samples, but the data set has {len(self.dataset)}; "
                "choose another --exp_name or --overwrite"
            )
        if state.get("names", checksum := self._checksum()) != checksum:
            raise InputError(
                f"{self.folder} holds a run on other samples than those of {self.dataset.folder}; give that data set "
                "(it may be moved), choose another --exp_name, or --overwrite to start anew (the old run is kept)"
            )
        return state

    def _checksum(self) -> str:
        """Of the samples' names, which stay when a data set is moved."""
        return hashlib.sha256(os.fsencode("\n".join(self.dataset.names))).hexdigest()

    def _unusable(self, why: str) -> ValueError:
        return InputError(
            f"{self.folder / 'ckpts' / 'state.pth'} is no training state of this program, or it is damaged ({why}); "
            "remove it, choose another --exp_name, or --overwrite"
        )

    def _recipe(self) -> dict:
        """What shapes the weights; ``bs`` is the batch over all ranks, however many they are."""
        return {**recipe(self.cfg), "bs": self.cfg.bs * self.world}

    def _open_logs(self) -> None:
        if self.rank > 0:
            return
        # TensorBoard loads TensorFlow where there is one, for seconds and with lines on stderr; nothing here needs it.
        sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
        from torch.utils.tensorboard import SummaryWriter  # takes a second: not for every import

        self._log_open = True
        # With a full epoch its evaluation is still to come, perhaps again: then this step is purged and written anew.
        again = self.step_count > 0 and self.batch == self.plan.batches
        self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.step_count + 1 - again)
        if again:
            for record in map(json.loads, (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()):
                if record["kind"] == "train" and record["step"] == self.step_count:
                    self._show_step(record)

    def _show_step(self, record: dict) -> None:
        """A training record as scalars of TensorBoard."""
        for key in record.keys() - {"kind", "step", "epoch", "seconds"}:
            self.board.add_scalar(f"train/{key}", record[key], record["step"])

    def _write_description(self) -> None:
        values = as_dict(self.cfg)
        lines = [f"# {line}" for line in provenance()]
        with replacing(self.folder / "config.yml") as path:
            path.write_text("\n".join(lines) + "\n" + yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        with replacing(self.folder / "opt.txt") as path:
            path.write_text("".join(f"{key}: {value}\n" for key, value in values.items()), encoding="utf-8")

    def _save_state(self) -> None:
        if self.rank > 0:
            return
        lengths = {name: path.stat().st_size if (path := self.folder / name).exists() else 0 for name in LOGS}
        checkpoint.save(
            {
                "recipe": self._recipe(),
                "ranks": self.world,
                "samples": len(self.dataset),
                "names": self._checksum(),
                "weights": self.network.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.scaler.state_dict(),
                "average": self.average,
                "rng": torch.get_rng_state(),
                "step": self.step_count,
                "epoch": self.epoch,
                "batch": self.batch,
                "sums": self.sums,
                "seconds": self.seconds,
                "done": self.done,
                "trouble": (self.skipped, self.dropped, self.overflows),
                "logs": lengths,
            },
            self.folder / "ckpts" / "state.pth",
        )
        self._saved, self._saved_step = time.monotonic(), self.step_count

    def _weights_path(self, label) -> Path:
        return self.folder / "ckpts" / f"{self.name}_{label}.pth"

    def _save_weights(self, label) -> None:
        if self.rank > 0:
            return
        with self._averaged():
            state = {key: value.detach().cpu().contiguous() for key, value in self.network.state_dict().items()}
            checkpoint.save(state, self._weights_path(label))

    @contextmanager
    def _averaged(self):
        """The network with the average of its weights, where ``--ema`` asks for one."""
        parameters = list(self.network.parameters()) if self.average else []
        trained = [p.detach().clone() for p in parameters]
        try:
            for p, average in zip(parameters, self.average, strict=True):
                p.data.copy_(average)
            yield
        finally:
            for p, own in zip(parameters, trained, strict=True):
                p.data.copy_(own)

    def _rate(self) -> float:
        if self.cfg.lr_schedule == "official":
            return self.official_lr(self.step_count, self.epoch)
        return learning_rate(self.cfg.lr_schedule, self.cfg.lr, self.step_count, self.total)

    def _update(self) -> str:
        """Clip the gradient and make the optimiser's step; says what is wrong if the gradient is not finite.

        An overflow of fp16 is nothing wrong: the scaler leaves out the step and lowers its scale. But not for ever.
        """
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimiser)
        if self.cfg.grad_clip > 0:
            norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.cfg.grad_clip)
        else:
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        finite = math.isfinite(norm)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimiser)
            self.scaler.update()
            if not finite:
                self.overflows += 1
                if self._dropped_in_a_row + 1 >= DROPPED_IN_A_ROW:
                    return f"the gradient's norm is {norm.item()} whatever the scale of fp16"
            self._dropped_in_a_row = 0 if finite else self._dropped_in_a_row + 1
            return ""
        if not finite:
            return f"the gradient's norm is {norm.item()}"
        self._dropped_in_a_row = 0
        self.optimiser.step()
        return ""

    def _drop(self, fault: str) -> None:
        """A step that cannot be made: the end of the run, or with ``--on_nan skip`` a step less."""
        where = f"{fault} at step {self.step_count}, samples {', '.join(self.names)}"
        self.dropped, self._dropped_in_a_row = self.dropped + 1, self._dropped_in_a_row + 1
        if self.cfg.on_nan == "stop" or self._dropped_in_a_row >= DROPPED_IN_A_ROW:
            in_a_row = f", the {self._dropped_in_a_row}th in a row" if self._dropped_in_a_row > 1 else ""
            skip = " or --on_nan skip" if self._dropped_in_a_row < DROPPED_IN_A_ROW else ""
            raise InputError(
                f"{where}{in_a_row}; the last good state, of step {self._saved_step}, is intact in "
                f"{self.folder / 'ckpts' / 'state.pth'}; try a lower --lr, --grad_clip 1, --precision fp32{skip}"
            )
        self.say(f"WARNING: {where}: the step is dropped")
        if self.rank == 0:
            self._record(
                {
                    "kind": "dropped",
                    "step": self.step_count,
                    "epoch": self.epoch,
                    "why": fault,
                    "samples": list(self.names),
                }
            )

    def _skip(self, faults: dict[str, str]) -> None:
        """Count samples that could not be read; the first time, say which."""
        for name, fault in faults.items():
            if name not in self.skipped:
                self.say(f"WARNING: skipped {name}: {fault}")
                self._record(
                    {"kind": "skipped", "step": self.step_count, "epoch": self.epoch, "sample": name, "why": fault}
                )
            self.skipped[name] = self.skipped.get(name, 0) + 1

    def _watch_gradient(self) -> None:
        """Say so when nothing is learned: outputs outside [0, 1] get no gradient through the official clip."""
        if any(p.grad is not None and p.grad.any() for p in self.network.parameters()):
            return
        self.warned = True
        self.say(
            f"WARNING: at step {self.step_count} the gradient is exactly 0: every output lies outside [0, 1], where "
            "the clip before the loss lets nothing through, and this run will never learn. "
            "Start anew with --no-clip_output, or with another --seed"
        )

    def _log_step(self, rate: float) -> None:
        steps = self.sums.pop("steps", 0)  # none where all were dropped
        means = {key: value / steps for key, value in self.sums.items()}
        self.sums = {}
        if self.rank > 0:
            return
        place = {"step": self.step_count, "epoch": self.epoch, "seconds": round(self.seconds, 1)}
        record = {"kind": "train", **place, "lr": rate, **means}
        self._record(record)
        self._show_step(record)
        loss = means.get("loss", math.nan)
        self.bar.set_postfix(loss=f"{loss:.4g}", lr=f"{rate:.2e}", epoch=self.epoch)
        now = time.monotonic()
        if self.bar.disable and (now - self._printed > PRINT_SECONDS or self.finished):
            self._printed = now
            speed = (self.step_count - self._first[0]) / (self.seconds - self._first[1])
            left = (self.total - self.step_count) / speed
            print(
                f"step {self.step_count}/{self.total}  epoch {self.epoch}  loss {loss:.5f}  lr {rate:.2e}  "
                f"{speed:.2f} step/s  {left / 60:.1f} min left",
                flush=True,
            )

    def _record(self, record: dict) -> None:
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def _stop(self, _signal, _frame) -> None:
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True
        if self.world > 1:  # decided together, and torchrun sends the signal also when another rank has failed
            return
        print("\nstopping after this batch (once more: at once)", file=sys.stderr, flush=True)


def batch_in_words(size: int, ranks: int) -> str:
    """'4', or '4 on each of 2 ranks'."""
    return f"{size} on each of {ranks} ranks" if ranks > 1 else str(size)


def provenance() -> list[str]:
    """Command, git commit and library versions, one a line."""
    root = Path(__file__).resolve().parents[2]
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = "unknown"
    import cv2
    import numpy

    return [
        "command: " + " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        f"commit: {commit}",
        f"python {sys.version.split()[0]}, torch {torch.__version__}, "
        f"numpy {numpy.__version__}, opencv {cv2.__version__}",
    ]
