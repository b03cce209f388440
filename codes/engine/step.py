"""One optimiser step: gradient, clipping, update, and what is done where a number is not finite.

Several ranks make every step together: each has its share of the batch, and the gradient is the mean over all samples.

**No waiting.** On a CPU the loss and the norm are read where they are made. A GPU would stand still meanwhile, so a
step there reads *late*: whether loss and norm are finite is found on the device and given to the fused optimiser, which
leaves weights, moments and their step count as they are where it is not so. What the host must do about it, it does
when it reads the two numbers, one step later, by when they have long been copied. Thus a dropped step is dropped at
once, and said, counted and logged under its own number one step late; and a run that stops has made one step more,
which is kept nowhere: :meth:`Step.settle` reads what is left before anything is saved, so the training state is that of
a run that reads at once, and resumes as one. Loss and gradient are shared by the ranks before they are looked at, so
all ranks come to the same. fp16 reads at once, since its scaler's counts hang on each step.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from codes.engine import distributed
from codes.errors import InputError

DROPPED_IN_A_ROW = 100
"""After so many steps in a row without an update (``--on_nan skip``, or fp16) the run stops: it will not recover."""


def reads_late(device: torch.device, precision: str) -> bool:
    """Whether a step on this device reads its numbers one step late; the optimiser must then be a fused one."""
    return device.type == "cuda" and precision != "fp16"


class Later:
    """Numbers that are on their way from a device.

    Args:
        numbers: a tensor; what becomes of it later does not matter.
    """

    def __init__(self, numbers: torch.Tensor):
        self._event = None
        if numbers.device.type == "cuda":
            self._here = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._here.copy_(numbers.detach(), non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._here = numbers.detach().clone()

    def read(self) -> list:
        """The numbers, once they are here; waits for nothing that the device was told afterwards."""
        if self._event is not None:
            self._event.synchronize()
        return self._here.tolist()


@dataclass
class Made:
    """A step that was made, or dropped.

    Args:
        where: the step and its samples, in words.
        last_good: what the run can be continued from, in words.
        numbers: its loss and its norm, until they are read.
        note: called with the reason, if the step was dropped.
        fault: '', or why it was dropped; known once the numbers are read.
    """

    where: str
    last_good: str
    numbers: Later | None = None
    note: Callable[[str], object] | None = None
    fault: str = ""


class Step:
    """Makes steps and counts those that cannot be made.

    Call :meth:`backward`, then :meth:`clip`, then :meth:`update`.

    Args:
        network, optimiser: what is trained.
        device: where.
        precision: 'fp16' scales the loss, so that small gradients do not vanish.
        on_nan: 'stop' or 'skip'.
        say: is told what the user should know.
        late: read late, as explained above; the optimiser is a fused one.

    Attributes:
        share: this rank's part of the samples of the batch; the parts add up to 1.
        dropped: steps whose loss or gradient was not finite.
        overflows: steps that fp16's scaler left out to find a scale that fits.
    """

    def __init__(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        device: torch.device,
        precision: str = "fp32",
        on_nan: str = "stop",
        say: Callable[[str], None] = print,
        late: bool = False,
    ):
        self.network, self.optimiser, self.on_nan, self.say, self.late = network, optimiser, on_nan, say, late
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.share = 1.0
        self.dropped = self.overflows = self._in_a_row = 0
        self.fault, self._warned = "", False
        self._loss: Any = None  # tensors where they are read late, else numbers
        self._norm: Any = math.nan
        self._unread: Made | None = None
        if late and not all(group.get("fused") for group in optimiser.param_groups):
            raise ValueError("a step that reads late needs a fused optimiser")

    def backward(self, loss: torch.Tensor) -> None:
        """The gradient of ``loss``, a mean over the samples of this rank's share."""
        self.fault, self._norm = "", math.nan
        if self.late:
            self._loss = distributed.mean_there(loss.detach(), self.share)
            value = 0.0
        else:
            value = distributed.mean({"loss": loss.item()}, self.share)["loss"]
        self.optimiser.zero_grad(set_to_none=True)
        if not math.isfinite(value):
            self.fault = f"the loss is {value}"
            return
        if distributed.world() > 1:  # DistributedDataParallel takes the mean over ranks; so it is that over samples
            loss = loss * (self.share * distributed.world())
        self.scaler.scale(loss).backward()
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimiser)

    def clip(self, limit: float) -> torch.Tensor | float:
        """Bring the gradient's norm down to ``limit`` (0: leave it).

        Returns:
            What it was, NaN where there is none; a tensor where it is read late.
        """
        if self.fault:
            return math.nan
        norm = nn.utils.get_total_norm([p.grad for p in self.network.parameters() if p.grad is not None])
        if limit > 0:
            nn.utils.clip_grads_with_norm_(self.network.parameters(), limit, norm)
        self._norm = norm if self.late else norm.item()
        if not self.late:
            self._warn_of_zero(self._norm)
        return self._norm

    def _warn_of_zero(self, norm: float) -> None:
        if norm == 0 and not self._warned:
            self._warned = True
            self.say(
                "WARNING: the gradient is exactly 0: every output lies outside [0, 1], where the clip before the loss "
                "lets nothing through, and this run will never learn. Start anew with --no-clip_output, or with "
                "another --seed"
            )

    def update(self, rate: float, where: str, last_good: str, note: Callable[[str], object] | None = None) -> Made:
        """Make the step at a learning rate, if the numbers are finite; else drop it.

        Args:
            rate: of every parameter.
            where: the step and its samples, in words.
            last_good: what the run can be continued from, in words.
            note: is called with the reason if the step is dropped, perhaps at the next call.

        Returns:
            The step; its fault is known at once, or after the next update or :meth:`settle`.

        Raises:
            InputError: a step was dropped, and ``on_nan`` is 'stop', or so were the 100 before it.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        made = Made(where, last_good, note=note)
        if self.late:
            numbers = torch.stack([self._loss, self._norm.to(self._loss.dtype)])
            fused: Any = self.optimiser
            fused.found_inf = 1 - numbers.isfinite().all().float()  # as GradScaler tells a fused optimiser
            fused.step()
            made.numbers = Later(numbers)
            self.settle()
            self._unread = made
            return made
        self._judge(made)
        return made

    def settle(self) -> None:
        """Read what is unread; before anything is saved.

        Raises:
            InputError: as :meth:`update`.
        """
        made, self._unread = self._unread, None
        if made is None:
            return
        loss, self._norm = made.numbers.read()
        made.numbers = None
        self.fault = "" if math.isfinite(loss) else f"the loss is {loss}"
        if not self.fault:
            self._warn_of_zero(self._norm)
        self._judge(made)

    def _judge(self, made: Made) -> None:
        """What follows from a step's loss and norm; the optimiser's step too, where it is still to be made."""
        finite = not self.fault and math.isfinite(self._norm)
        self._in_a_row = 0 if finite else self._in_a_row + 1
        hopeless = self._in_a_row >= DROPPED_IN_A_ROW
        if not self.late and not self.fault and (finite or self.scaler.is_enabled()):
            self.scaler.step(self.optimiser)  # without fp16 the optimiser's own; with it none where not finite
            self.scaler.update()
        if not finite and not self.fault and self.scaler.is_enabled():  # its scale comes down; but not for ever
            self.overflows += 1
            self.fault = f"the gradient's norm is {self._norm} whatever the scale of fp16" if hopeless else ""
        elif not finite and not self.fault:
            self.fault = f"the gradient's norm is {self._norm}"
        made.fault = self.fault
        if not self.fault:
            return
        self.dropped += 1
        if self.on_nan == "stop" or hopeless:
            in_a_row = f", the {self._in_a_row}th in a row" if self._in_a_row > 1 else ""
            skip = "" if hopeless else " or --on_nan skip"
            raise InputError(
                f"{self.fault} at {made.where}{in_a_row}; {made.last_good}; "
                f"try a lower --lr, --grad_clip 1, --precision fp32{skip}"
            )
        self.say(f"WARNING: {self.fault} at {made.where}: the step is dropped")
        if made.note is not None:
            made.note(self.fault)

    @property
    def trouble(self) -> list[str]:
        """What was counted, in words."""
        parts = []
        if self.dropped:
            parts.append(f"{self.dropped} steps dropped whose loss or gradient was not finite")
        if self.overflows:
            parts.append(f"{self.overflows} steps without an update for an overflow of fp16")
        return parts


class Values:
    """What is logged of steps: read at once, or where steps are read late, when a line is due.

    Args:
        step: makes the steps.
        write: takes the means over the samples, {} of a dropped step, and what :meth:`take` was told of when.
    """

    def __init__(self, step: Step, write: Callable[..., None]):
        self.step, self.write = step, write
        self._waiting: list[tuple[Made, list[str], Later, tuple]] = []

    def take(self, made: Made, values: dict[str, torch.Tensor], when: tuple, due: bool) -> None:
        """Values of a step, each a mean over the samples of this rank; ``due``: whether a line is written now."""
        if self.step.late:
            there = torch.stack([value.detach().double() for value in values.values()])
            numbers = Later(distributed.mean_there(there, self.step.share))
            self._waiting.append((made, list(values), numbers, when))
            if due:
                self.settle()
            return
        means = {} if self.step.fault else {key: value.item() for key, value in values.items()}
        self.write(distributed.mean(means, self.step.share) if means else {}, *when)

    def settle(self) -> None:
        """Read what steps have left on the device: whether they were made, and what is to be logged of them."""
        self.step.settle()
        waiting, self._waiting = self._waiting, []
        for made, names, numbers, when in waiting:
            self.write({} if made.fault else dict(zip(names, numbers.read(), strict=True)), *when)
