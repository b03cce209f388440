"""Checkpoints: weights are a plain state dict under the official file name; training state is another file.

Nothing is ever unpickled but tensors and plain values (``weights_only=True``), of no more bytes than the file has
(:mod:`codes.engine.vet`), and no file is seen half-written.
"""

import sys
from pathlib import Path

import torch
from torch import nn

from codes.engine import vet
from codes.errors import InputError, MissingFileError
from codes.files import replacing
from codes.model.registry import NETWORKS, Network


def read(path, hint: str = ""):
    """Load a file of tensors and plain values on the CPU.

    Args:
        hint: what to do when it is missing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint, or holds more than tensors and plain values (which is not executed).
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no checkpoint at {path}" + (f"; {hint}" if hint else ""))
    with open(path, "rb") as file:
        try:
            return vet.load(file, path)
        except (InputError, MemoryError):
            raise
        except Exception:  # a damaged file can make its readers fail in any way
            raise InputError(
                f"{path} is no PyTorch checkpoint, or it is damaged; expected a file saved by torch.save"
            ) from None


def load_weights(network: nn.Module, path, hint: str = "") -> nn.Module:
    """Load the authors' or our weights into a network, strictly; returns the network.

    What other programs wrap around a state dict is taken off (:func:`unwrapped`).

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the file is no state dict, or one of another network; the message says what it looks like. Or a
            weight is not finite.
    """
    return load_state(network, state_dict(path, type(network).__name__, hint), path)


def load_state(network: nn.Module, state: dict[str, torch.Tensor], path) -> nn.Module:
    """Load what :func:`state_dict` read from ``path``, as :func:`load_weights` does."""
    fault = misfit(network, state)
    if fault:
        raise InputError(f"{path} does not fit {type(network).__name__}: {fault}")
    for key, own in network.state_dict().items():
        if not state[key].to(own.dtype).isfinite().all():
            raise InputError(
                f"{path}: {key} holds values that are not finite (NaN or inf), and so would every image; "
                "take weights saved before training diverged"
            )
    network.load_state_dict(state, strict=True)
    return network


WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "model", "network", "net", "weights")
"""Keys under which other programs, and our own state.pth, keep a state dict; an average of the weights comes first."""

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""What DataParallel, torch.compile, Lightning and others write before every key."""


def state_dict(path, name: str, hint: str = "") -> dict[str, torch.Tensor]:
    """The tensors of a weight file by key, unwrapped; ``name`` is the network that they are wanted for.

    What was taken off is said on stderr, unless it is the official program's ``module.`` alone.
    """
    state, taken = unwrapped(read(path, hint))
    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path} holds no state dict of tensors; expected the weights of {name}")
    if taken not in ([], ["'module.'"]):
        print(f"{path}: weights found behind {' '.join(taken)}", file=sys.stderr)
    return state


def unwrapped(state) -> tuple[object, list[str]]:
    """A state dict without what other programs wrap around it, and what that was.

    Taken off are keys of :data:`WRAPPERS` and :data:`PREFIXES`, in any order. Anything else comes back as it is.
    """
    taken = []
    while isinstance(state, dict) and (key := next((k for k in WRAPPERS if isinstance(state.get(k), dict)), None)):
        state = state[key]
        taken.append(f"['{key}']")
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        return state, taken
    while prefix := next((p for p in PREFIXES if state and all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        taken.append(f"'{prefix}'")
    return state, taken


def misfit(network: nn.Module, state: dict[str, torch.Tensor]) -> str:
    """What keeps ``state`` from fitting ``network``, in one line ('' when nothing does)."""
    own = network.state_dict()
    missing, extra = [key for key in own if key not in state], [key for key in state if key not in own]
    shared = [key for key in own if key in state]
    shaped = [key for key in shared if own[key].shape != state[key].shape]
    typed = [key for key in shared if own[key].is_floating_point() != state[key].is_floating_point()]
    parts = []
    for what, keys in (("lacks", missing), ("has the unknown", extra)):
        if keys:
            parts.append(
                f"it {what} key{'s' * (len(keys) > 1)} {keys[0]}" + (f" and {len(keys) - 1} more" if keys[1:] else "")
            )
    if shaped:
        key = shaped[0]
        parts.append(
            f"{key} has shape {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
            + (f", and {len(shaped) - 1} more shapes differ" if shaped[1:] else "")
        )
    if typed:
        key = typed[0]
        parts.append(f"{key} is of {state[key].dtype}, expected {own[key].dtype}")
    look = looks_like(state) if parts else None  # building every network takes a moment
    if look and look.class_name != type(network).__name__:  # a fast form has its name too
        parts.insert(0, f"it looks like the weights of {look.title}")
    return "; ".join(parts)


def looks_like(state: dict[str, torch.Tensor], role: str = "") -> Network | None:
    """The record of the network whose keys these are, or most of them; ``role``: among those of this role."""
    best, found = 0.5, None
    for network in NETWORKS.values():
        if role and network.role != role:
            continue
        # Not on the meta device, where initialising makes PyTorch load its compiler first, which takes seconds.
        with torch.random.fork_rng(devices=[]):
            keys = network.load_class()().state_dict().keys()
        alike = len(keys & state.keys()) / max(len(keys), len(state))
        if alike > best:
            best, found = alike, network
    return found


def save(content, path) -> None:
    """Save tensors and plain values; the file appears whole or not at all."""
    with replacing(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # torch's own writer does not say what the system said
            raise OSError(f"{path} could not be written; is the disk full? ({str(error).splitlines()[0]})") from error
