"""One optimiser step: gradient, clipping, update, and what is done where a number is not finite.

Several ranks make every step together: each has its share of the batch, and the gradient is the mean over all samples.
"""

import math
from collections.abc import Callable

import torch
from torch import nn

from codes.engine import distributed
from codes.errors import InputError

DROPPED_IN_A_ROW = 100
"""After so many steps in a row without an update (``--on_nan skip``, or fp16) the run stops: it will not recover."""


class Step:
    """Makes steps and counts those that cannot be made.

    Call :meth:`backward`, then :meth:`clip`, then :meth:`update`.

    Args:
        network, optimiser: what is trained.
        device: where.
        precision: 'fp16' scales the loss, so that small gradients do not vanish.
        on_nan: 'stop' or 'skip'.
        say: is told what the user should know.

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
    ):
        self.network, self.optimiser, self.on_nan, self.say = network, optimiser, on_nan, say
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.share = 1.0
        self.dropped = self.overflows = self._in_a_row = 0
        self.fault, self._norm, self._warned = "", math.nan, False

    def backward(self, loss: torch.Tensor) -> None:
        """The gradient of ``loss``, a mean over the samples of this rank's share."""
        self.fault, self._norm = "", math.nan
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

    def clip(self, limit: float) -> float:
        """Bring the gradient's norm down to ``limit`` (0: leave it); returns what it was, NaN where there is none."""
        if self.fault:
            return math.nan
        norm = nn.utils.get_total_norm([p.grad for p in self.network.parameters() if p.grad is not None])
        if limit > 0:
            nn.utils.clip_grads_with_norm_(self.network.parameters(), limit, norm)
        self._norm = norm.item()
        if self._norm == 0 and not self._warned:
            self._warned = True
            self.say(
                "WARNING: the gradient is exactly 0: every output lies outside [0, 1], where the clip before the loss "
                "lets nothing through, and this run will never learn. Start anew with --no-clip_output, or with "
                "another --seed"
            )
        return self._norm

    def update(self, rate: float, where: str, last_good: str) -> str:
        """Make the step at a learning rate, if the numbers are finite; else drop it.

        Args:
            rate: of every parameter.
            where: the step and its samples, in words.
            last_good: what the run can be continued from, in words.

        Returns:
            '', or why the step was dropped.

        Raises:
            InputError: a step was dropped, and ``on_nan`` is 'stop', or so were the 100 before it.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        finite = not self.fault and math.isfinite(self._norm)
        self._in_a_row = 0 if finite else self._in_a_row + 1
        hopeless = self._in_a_row >= DROPPED_IN_A_ROW
        if not self.fault and (finite or self.scaler.is_enabled()):
            self.scaler.step(self.optimiser)  # without fp16 the optimiser's own; with it none where not finite
            self.scaler.update()
        if not finite and not self.fault and self.scaler.is_enabled():  # its scale comes down; but not for ever
            self.overflows += 1
            self.fault = f"the gradient's norm is {self._norm} whatever the scale of fp16" if hopeless else ""
        elif not finite and not self.fault:
            self.fault = f"the gradient's norm is {self._norm}"
        if self.fault:
            self.dropped += 1
            if self.on_nan == "stop" or hopeless:
                in_a_row = f", the {self._in_a_row}th in a row" if self._in_a_row > 1 else ""
                skip = "" if hopeless else " or --on_nan skip"
                raise InputError(
                    f"{self.fault} at {where}{in_a_row}; {last_good}; "
                    f"try a lower --lr, --grad_clip 1, --precision fp32{skip}"
                )
            self.say(f"WARNING: {self.fault} at {where}: the step is dropped")
        return self.fault

    @property
    def trouble(self) -> list[str]:
        """What was counted, in words."""
        parts = []
        if self.dropped:
            parts.append(f"{self.dropped} steps dropped whose loss or gradient was not finite")
        if self.overflows:
            parts.append(f"{self.overflows} steps without an update for an overflow of fp16")
        return parts
