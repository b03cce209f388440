"""Networks with their weights, by the records of :mod:`codes.model.registry`."""

import inspect
from pathlib import Path

from torch import nn

from codes.engine.checkpoint import load_state, looks_like, state_dict
from codes.model.registry import NETWORKS, Network, network_of

SHIPPED = Path(__file__).resolve().parents[2] / "model"
"""The folder of the weights that come with the program."""


def load_network(key: str, path, hint: str = "") -> nn.Module:
    """The network of a record with the weights of a file, which decides its settings; on the CPU.

    Raises:
        MissingFileError, InputError: as in :func:`codes.engine.checkpoint.load_weights`.
    """
    network = network_of(key)
    return _built(network, state_dict(path, network.class_name, hint), path)


def _built(network: Network, state: dict, path) -> nn.Module:
    return load_state(network.load_class()(**network.settings(state)), state, path)


def new_student(key: str, **settings) -> nn.Module:
    """An untrained student.

    Args:
        **settings: arguments of its constructor; those that it does not have are left out.
    """
    build = network_of(key, "student").load_class()
    known = inspect.signature(build).parameters
    return build(**{name: value for name, value in settings.items() if name in known})


def load_student(path, gain: bool = False, hint: str = "") -> nn.Module:
    """The student of a weight file, whichever it is.

    Args:
        gain: make spikes as bright as the image (:func:`codes.student.exposure_gain`) even where the weights were
            trained without, as the authors' were.

    Raises:
        MissingFileError, InputError: as in :func:`codes.engine.checkpoint.load_weights`.
    """
    state = state_dict(path, "a student", hint)
    student = _built(looks_like(state, role="student") or network_of("ldn"), state, path)
    if gain:
        student.gain = True  # type: ignore[assignment]
    return student


class Weights:
    """Where the weights of the networks are.

    Args:
        official: where no file is given, take the authors' if it is in model/; else ours.
        gain: make spikes as bright as the image for students that were trained without that.
        random: no files: networks with random weights, to time them.
        **paths: files by flag ('bsn', 'sr', 'deblur', ...); '' is one of those in model/.
    """

    def __init__(self, official: bool = False, gain: bool = False, random: bool = False, **paths: str):
        known = {network.flag for network in NETWORKS.values()}
        if unknown := paths.keys() - known:
            raise TypeError(f"no network has the flag {unknown.pop()}; there are {', '.join(sorted(known))}")
        self.official, self.gain, self.random, self.paths = official, gain, random, paths

    def path(self, key: str) -> Path:
        """The file of a network; it need not exist."""
        network = network_of(key)
        if self.paths.get(network.flag):
            return Path(self.paths[network.flag])
        ours, theirs = SHIPPED / network.files[0], SHIPPED / network.files[-1]
        return theirs if theirs.is_file() and (self.official or not ours.is_file()) else ours

    def files(self, *keys: str) -> tuple[str, ...]:
        """The files of several networks, as a method notes them."""
        return () if self.random else tuple(str(self.path(key)) for key in keys)

    def load(self, key: str) -> nn.Module:
        """The network with its weights, on the CPU; of a student's flag, whichever student the file holds."""
        network = network_of(key)
        if self.random:
            return network.load_class()()
        hint = f"give --{network.flag}_path, or see model/README.md"
        if network.role == "student":
            return load_student(self.path(key), self.gain, hint)
        return load_network(key, self.path(key), hint)


def record_of(network: nn.Module) -> Network:
    """The record of a network that was built: of its class, or of the class whose fast form that is."""
    records = {record.load_class(): record for record in NETWORKS.values()}
    return next(records[ancestor] for ancestor in type(network).__mro__ if ancestor in records)
