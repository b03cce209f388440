"""The training state: what a run needs to go on as if it had never stopped, in ckpts/state.pth.

Each field has a type. A file that lacks one, or holds something else, is refused in one line and left as it is.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import get_type_hints

import torch

from codes.engine import checkpoint, distributed
from codes.engine.device import random_states, restore_random_states
from codes.errors import InputError

FORMAT = 2
"""2: random streams have a purpose (codes/random.py), so crops, order and instants are others than in format 1."""


@dataclass
class State:
    """A training state.

    Args:
        run: what run it is (:meth:`codes.engine.folder.Identity.saved`).
        weights, optimiser, scaler: state dicts.
        rng: random states by device type: 'cpu', 'cuda', 'mps'. All ranks have the same.
        step: optimiser steps made, or dropped.
        total: all that there were to be; the rate depends on it.
        epoch, batch: where in the data the run is.
        sums: of the values since the last line in the log.
        seconds: spent in training.
        done: whether everything is made, the last evaluation too.
        logs: lengths of the log files in bytes; what they hold beyond is cut off.
        dropped, overflows: steps without an update.
        skipped: sample that could not be read -> how often.
        format: :data:`FORMAT`.
    """

    run: dict
    weights: dict
    optimiser: dict
    scaler: dict
    rng: dict
    step: int = 0
    total: int = 0
    epoch: int = 0
    batch: int = 0
    sums: dict = field(default_factory=dict)
    seconds: float = 0.0
    done: bool = False
    logs: dict = field(default_factory=dict)
    dropped: int = 0
    overflows: int = 0
    skipped: dict = field(default_factory=dict)
    format: int = FORMAT

    @classmethod
    def of(cls, run) -> "State":
        """The state of a :class:`codes.engine.run.Run` as it is now."""
        return cls(
            run=run.identity.saved(),
            weights=run.network.state_dict(),
            optimiser=run.optimiser.state_dict(),
            scaler=run.step.scaler.state_dict(),
            rng=random_states(run.device),
            step=run.step_count,
            total=run.total,
            epoch=run.epoch,
            batch=run.batch,
            sums=run.logs.sums,
            seconds=run.seconds,
            done=run.done,
            logs=run.logs.lengths(),
            dropped=run.step.dropped,
            overflows=run.step.overflows,
            skipped=run.feed.skipped,
        )

    def restore(self, run, path: Path) -> None:
        """Bring a run to this state.

        Args:
            run: a new one of the same recipe.

        Raises:
            InputError: something does not fit; the run may be half restored.
        """
        if self.batch > run.feed.plan.batches:
            raise unusable(path, f"'batch' is {self.batch}")
        try:
            run.network.load_state_dict(self.weights)
            run.optimiser.load_state_dict(self._optimiser_for(run))
            run.step.scaler.load_state_dict(self.scaler)
            restore_random_states(self.rng, run.device)
        except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise unusable(path, f"{type(error).__name__}: {str(error)[:100]}") from None
        run.step_count, run.epoch, run.batch = self.step, self.epoch, self.batch
        run.seconds, run.logs.sums, run.feed.skipped = self.seconds, self.sums, self.skipped
        run.step.dropped, run.step.overflows = self.dropped, self.overflows
        run.done = self.done and run.finished
        run.logs.cut(self.logs)

    def _optimiser_for(self, run) -> dict:
        """The optimiser's state, of whose form (fused or not) the device decides on which the run goes on."""
        groups = zip(self.optimiser["param_groups"], run.optimiser.param_groups, strict=True)
        return self.optimiser | {
            "param_groups": [saved | {"fused": own["fused"]} if "fused" in own else saved for saved, own in groups]
        }

    def save(self, path: Path) -> None:
        """Write it; the file appears whole or not at all."""
        checkpoint.save({item.name: getattr(self, item.name) for item in fields(self)}, path)

    @classmethod
    def read(cls, path: Path) -> "State":
        """Read one.

        Raises:
            InputError: no training state of this program, a damaged one, or one of an earlier format.
        """
        content = checkpoint.read(path)
        if not isinstance(content, dict) or not {"weights", "optimiser"} <= content.keys():
            raise unusable(path, "a file of another kind")
        if content.get("format", 1) != FORMAT:
            raise InputError(
                f"{path} is of another version of this program, which drew crops, order and instants from other random "
                "streams; finish the run with that version, choose another --exp_name, or --overwrite to start anew"
            )
        for name, kind in get_type_hints(cls).items():
            value = content.get(name)
            if not isinstance(value, kind) or kind is int and isinstance(value, bool):
                raise unusable(path, f"'{name}' is {type(value).__name__ if name in content else 'missing'}")
        state = cls(**{item.name: content[item.name] for item in fields(cls)})
        state._check(path)
        return state

    def _check(self, path: Path) -> None:
        """Refuse values that cannot be."""
        counts = {name: getattr(self, name) for name in ("step", "total", "epoch", "batch", "dropped", "overflows")}
        for name, value in (counts | self.logs | self.skipped).items():
            if not isinstance(value, int) or value < 0:
                raise unusable(path, f"'{name}' is {value}")
        if any(not isinstance(value, int | float) for value in self.sums.values()):
            raise unusable(path, "a sum is no number")
        for name, kind in {"recipe": dict, "ranks": int, "samples": int, "names": str}.items():
            if not isinstance(self.run.get(name), kind):
                raise unusable(path, f"'{name}' is {type(self.run[name]).__name__ if name in self.run else 'missing'}")
        if any(not isinstance(value, torch.Tensor) for value in self.rng.values()) or "cpu" not in self.rng:
            raise unusable(path, "'rng' holds no random states")


def resume(run) -> State | None:
    """Take a run's folder and go on with the state in it; a new folder is given the run's as its first.

    Returns:
        What the run goes on from, on every rank; None where it starts.

    Raises:
        InputError: the folder is another process's, or holds another run, or a state that cannot be used.
    """
    state = None
    if run.rank == 0:
        for note in run.files.claim(run.cfg.overwrite):
            run.say(note)
        if run.files.state.exists():
            state = State.read(run.files.state)
            run.identity.refuse_another(state.run, run.folder)
        else:
            State.of(run).save(run.files.state)
    state = distributed.broadcast(state)
    if state is not None:
        state.restore(run, run.files.state)
    return state


def unusable(path: Path, why: str) -> InputError:
    """The error for a file that is no training state."""
    return InputError(
        f"{path} is no training state of this program, or it is damaged ({why}); "
        "remove it, choose another --exp_name, or --overwrite"
    )
