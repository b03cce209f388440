"""What a run writes down: metrics.jsonl, results.txt, TensorBoard, and the progress on the screen.

metrics.jsonl has one record a line, each with ``kind`` ('train', 'eval', 'dropped', 'skipped'), ``step`` and ``epoch``;
results.txt what was said. At a resume both are cut back to what the training state knows, so that no step is logged
twice.
"""

import json
import math
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from tqdm import tqdm

from codes.engine.device import describe
from codes.engine.folder import batch_in_words
from codes.engine.schedule import change_of_end
from codes.files import as_json

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FILES = ("metrics.jsonl", "results.txt")
PRINT_SECONDS = 20
"""Between progress lines where there is no terminal for a progress bar."""


class Log:
    """A run's log; of several ranks one has it, for the others it does nothing.

    Args:
        every: steps between lines.
        silent: write and print nothing.

    Attributes:
        sums: of the values since the last line.
    """

    def __init__(self, folder: Path, every: int = 10, silent: bool = False):
        self.folder, self.every, self.silent = folder, every, silent
        self.sums: dict[str, float] = {}
        self._file_open = False
        self._board: SummaryWriter | None = None
        self._progress: Progress | None = None

    def lengths(self) -> dict[str, int]:
        """Bytes of the log files."""
        return {name: path.stat().st_size if (path := self.folder / name).exists() else 0 for name in FILES}

    def cut(self, lengths: dict[str, int]) -> None:
        """Cut the log files back to these lengths."""
        for name in FILES if not self.silent else ():
            with open(self.folder / name, "a+b") as file:
                file.truncate(min(lengths.get(name, 0), file.tell()))

    def start(self, step: int, again: bool) -> None:
        """Open TensorBoard and results.txt.

        Args:
            again: the last step's evaluation is still to come, perhaps once more.
        """
        if self.silent:
            return
        # TensorBoard loads TensorFlow where there is one, for seconds and with lines on stderr; nothing here needs it.
        sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
        from torch.utils.tensorboard import SummaryWriter  # takes a second: not for every import

        self._file_open = True
        # What lies beyond is purged; a step whose evaluation is made again is written anew.
        self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step + 1 - again)
        if again:
            for record in map(json.loads, (self.folder / FILES[0]).read_text(encoding="utf-8").splitlines()):
                if record["kind"] == "train" and record["step"] == step:
                    self._show(record)

    def show_progress(self, step: int, total: int, seconds: float) -> None:
        """Begin to show how far training is: steps made, steps to make, seconds spent so far."""
        if not self.silent:
            self._progress = Progress(step, total, seconds)

    def say(self, text: str) -> None:
        """Print a line, and keep it in results.txt once the log is open."""
        if self.silent:
            return
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
        if self._file_open:
            with open(self.folder / FILES[1], "a", encoding="utf-8") as file:
                file.write(text + "\n")

    def record(self, kind: str, step: int, epoch: int, **values) -> dict:
        """Add a line to metrics.jsonl."""
        record = {"kind": kind, "step": step, "epoch": epoch, **values}
        if not self.silent:
            with open(self.folder / FILES[0], "a", encoding="utf-8") as file:
                file.write(as_json(record, indent=None) + "\n")
        return record

    def dropped(self, step: int, epoch: int, samples: list[str], why: str) -> None:
        """Record a step that was not made."""
        self.record("dropped", step, epoch, why=why, samples=samples)

    def skipped(self, faults: dict[str, str], step: int, epoch: int) -> None:
        """Say and note which samples could not be read, and why."""
        for name, why in faults.items():
            self.say(f"WARNING: skipped {name}: {why}")
            self.record("skipped", step, epoch, sample=name, why=why)

    def step(self, values: dict[str, float], step: int, epoch: int, seconds: float, rate: float, last: bool) -> None:
        """Count a step's values, none where it was dropped; every so often log their means.

        Args:
            step, epoch: when: steps made, and the epoch.
            seconds: spent so far.
            last: the run ends with this step.
        """
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.sums["steps"] = self.sums.get("steps", 0) + bool(values)
        if self._progress is not None:
            self._progress.bar.update()
        if step % self.every and not last:
            return
        sums, self.sums = self.sums, {}
        steps = sums.pop("steps")
        means = {key: value / steps for key, value in sums.items()}
        record = self.record("train", step, epoch, seconds=round(seconds, 1), lr=rate, **means)
        if not self.silent:
            self._show(record)
            self._progress.show(step, epoch, seconds, rate, means.get("loss", math.nan))

    def evaluation(self, report, step: int, epoch: int) -> None:
        """An evaluation: official lines in results.txt, rows in metrics.jsonl, scalars and panels in TensorBoard.

        Args:
            report: a :class:`codes.report.evaluation.Report`, or None where there was nothing to evaluate.
            step, epoch: when.
        """
        if self.silent or report is None:
            return
        self.say(f"epoch {epoch}, step {step}: {report.count} samples, {report.milliseconds:.0f} ms each")
        for text in report.lines():
            self.say(text)
        for row, values in report.means().items():
            self.record("eval", step, epoch, row=row, **values)
            for metric, value in values.items():
                self._board.add_scalar(f"{metric}/{row}", value, step)
        for index, panel in enumerate(report.panels):
            self._board.add_image(f"sample/{index}", panel[..., ::-1], step, dataformats="HWC")

    def close(self) -> None:
        """Close what is open."""
        if self._progress is not None:
            self._progress.bar.close()
        if self._board is not None:
            self._board.close()

    def _show(self, record: dict) -> None:
        """A training record as scalars of TensorBoard."""
        for key in record.keys() - {"kind", "step", "epoch", "seconds"}:
            self._board.add_scalar(f"train/{key}", record[key], record["step"])


class Progress:
    """A progress bar on a terminal, else a line now and then."""

    def __init__(self, step: int, total: int, seconds: float):
        self.total, self._first, self._printed = total, (step, seconds), time.monotonic()
        self.bar = tqdm(total=total, initial=step, unit="step", dynamic_ncols=True, disable=not sys.stderr.isatty())

    def show(self, step: int, epoch: int, seconds: float, rate: float, loss: float) -> None:
        """Where training is."""
        self.bar.set_postfix(loss=f"{loss:.4g}", lr=f"{rate:.2e}", epoch=epoch)
        now = time.monotonic()
        if self.bar.disable and (now - self._printed > PRINT_SECONDS or step >= self.total):
            self._printed = now
            speed = (step - self._first[0]) / max(seconds - self._first[1], 1e-9)
            left = (self.total - step) / speed
            print(
                f"step {step}/{self.total}  epoch {epoch}  loss {loss:.5f}  lr {rate:.2e}  "
                f"{speed:.2f} step/s  {left / 60:.1f} min left",
                flush=True,
            )


def announcement(run, before, steps_per_batch: int = 1) -> list[str]:
    """What a run tells as it begins.

    Args:
        run: a :class:`codes.engine.run.Run`.
        before: the :class:`codes.engine.state.State` that it goes on from, or None.
        steps_per_batch: optimiser steps that each batch serves for.
    """
    cfg, network, dataset, plan = run.cfg, run.network, run.feed.dataset, run.feed.plan
    count = sum(p.numel() for p in network.parameters() if p.requires_grad)
    batch = batch_in_words(plan.batch_size, plan.world)
    lines = [
        f"{type(network).__name__}: {count:,} parameters to train, {cfg.precision} on {describe(run.device)}",
        f"data: {dataset.folder}, {len(dataset)} samples, split '{cfg.train_split}'; batches of {batch}, "
        f"crop {cfg.roi_size}, {plan.batches} batches per epoch"
        + (f" of {steps_per_batch} steps each" if steps_per_batch > 1 else ""),
        f"output: {run.folder}; step {run.step_count} of {run.total}",
    ]
    if run.done:
        climbs = " (the rate then climbs again)" if cfg.lr_schedule in ("onecycle", "cosine") else ""
        more = f"give more --epochs or --max_steps to go on{climbs}, or --overwrite to start anew"
        lines.append(f"this run is finished; {more}")
    elif before is not None:
        note = change_of_end(cfg.lr_schedule, cfg.lr, run.step_count, before.total, run.total)
        lines += [note] if note else []
    return lines
