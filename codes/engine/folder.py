"""The folder of a training run: whose it is, and what run it holds.

    save_folder/exp_name/     ckpts/  imgs/  tensorboard/  opt.txt  config.yml  results.txt  metrics.jsonl
    save_folder/.exp_name.lock

One process trains in a folder, and a folder holds one recipe on one data set. Nothing is deleted. The lock lies beside
the folder, not in it, and stays when it is released: so it is the same file for everybody, also while ``--overwrite``
moves the folder away.
"""

import errno
import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import filelock
import yaml
from torch import nn

from codes.dataset import SpikeData
from codes.engine import checkpoint
from codes.engine.options import recipe
from codes.errors import InputError, readable
from codes.files import remove_abandoned, write_text

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What file systems without locks answer: Lustre with noflock, some NFS, sshfs, some of FUSE."""


class Folder:
    """A run's folder.

    Args:
        name: prefix of the weight files: 'BSN', 'SR' or 'DeblurNet'.
    """

    def __init__(self, path: Path, name: str):
        self.path, self.name = path, name
        self.images, self.state = path / "imgs", path / "ckpts" / "state.pth"
        self._lock: filelock.BaseFileLock | None = None

    def weights(self, label) -> Path:
        """The weight file of an epoch, or 'last'."""
        return self.path / "ckpts" / f"{self.name}_{label}.pth"

    def save_weights(self, network: nn.Module, label) -> None:
        """Save weights as a plain state dict under the official file name."""
        state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
        checkpoint.save(state, self.weights(label))

    def claim(self, overwrite: bool = False) -> list[str]:
        """Lock the folder and tidy up; with ``overwrite`` an earlier run is kept under another name.

        Returns:
            What the user should know, a line each.

        Raises:
            InputError: another process trains here, or the folder's name is none for TensorBoard.
        """
        if readable(self.path) != str(self.path):
            raise InputError(
                f"{readable(self.path)} is no name in UTF-8, as TensorBoard needs it: choose another --save_folder or "
                "--exp_name (where the system is set to LC_ALL=C, LC_ALL=C.UTF-8 mends it)"
            )
        notes = [self._take_lock()]
        self.path.mkdir(parents=True, exist_ok=True)
        for folder in (self.path, self.path / "ckpts", self.images):
            remove_abandoned(folder)
        if overwrite and any(self.path.iterdir()):
            kept = self.path.with_name(f"{self.path.name}_old_{datetime.now():%Y%m%d_%H%M%S_%f}")
            self.path.rename(kept)
            notes.append(f"the earlier run is kept in {kept}")
        return [note for note in notes if note]

    def release(self) -> None:
        """Let others train here. The system does it too, however the process ends."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def describe(self, values: dict, about: list[str]) -> None:
        """Write config.yml, which ``--config`` reads back, and the official opt.txt.

        Args:
            about: comment lines for config.yml.
        """
        text = "".join(f"# {line}\n" for line in about) + yaml.safe_dump(values, sort_keys=False)
        write_text(self.path / "config.yml", readable(text))
        write_text(self.path / "opt.txt", readable("".join(f"{key}: {value}\n" for key, value in values.items())))

    def _take_lock(self) -> str:
        """Hold the lock from here on; a line where the file system has none."""
        path = self.path.with_name(f".{self.path.name}.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        owner = ""
        with suppress(OSError, ValueError):
            owner = path.read_text(encoding="utf-8").strip()
        try:
            lock = filelock.FileLock(path, fallback_to_soft=False)
        except TypeError:  # of before version 4
            lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise InputError(
                f"another process (number {owner or 'unknown'}) is training in {self.path}; choose another --exp_name"
            ) from None
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in NO_LOCKS:
                raise
            return (
                f"WARNING: {path.parent} cannot be locked, its file system has no locks ({error}); "
                "see to it that no second process trains with this --exp_name"
            )
        self._lock = lock
        with suppress(OSError):  # where a locked file cannot be written, its owner stays unknown
            path.write_text(str(os.getpid()), encoding="utf-8")
        return ""


@dataclass(frozen=True)
class Identity:
    """What run it is: a run goes on only with the same recipe on the same samples.

    Args:
        recipe: the options that shape the weights; ``bs`` is the batch over all ranks, however many they are.
        defaults: the same options as their defaults, for a run from before one of them came.
        ranks: processes that train together.
        names: of the samples, which stay when a data set is moved.
        data: where they lie, for messages.
    """

    recipe: dict
    defaults: dict
    ranks: int
    names: list[str]
    data: Path

    @classmethod
    def of(cls, cfg, dataset: SpikeData, ranks: int) -> "Identity":
        """That of a configuration (:class:`codes.engine.options.Config`) and its training split."""
        options = recipe(cfg) | {"bs": cfg.bs * ranks}
        return cls(options, recipe(type(cfg)()), ranks, dataset.names, dataset.folder)

    @property
    def checksum(self) -> str:
        """Of the names."""
        return hashlib.sha256(os.fsencode("\n".join(self.names))).hexdigest()

    def saved(self) -> dict:
        """For the training state."""
        return {"recipe": self.recipe, "ranks": self.ranks, "samples": len(self.names), "names": self.checksum}

    def refuse_another(self, saved: dict, folder: Path) -> None:
        """Go on only with the same run.

        Args:
            saved: what :meth:`saved` gave then.

        Raises:
            InputError: another one lies there; says what differs and what to do.
        """
        if unknown := sorted(saved["recipe"].keys() - self.recipe.keys()):
            raise InputError(
                f"{folder} holds a run of another script or version: one with --{unknown[0]}, which this one has not; "
                "choose another --exp_name, or --overwrite to start anew (the old run is kept)"
            )
        before = self.defaults | saved["recipe"]
        for key, now in self.recipe.items():
            if (other := before[key]) != now:
                if key == "bs" and (saved["ranks"], self.ranks) != (1, 1):
                    other, now = batch_in_words(other, saved["ranks"]), batch_in_words(now, self.ranks)
                raise InputError(
                    f"{folder} holds a run with --{key} {other}, not {now}; "
                    "choose another --exp_name, the same options, or --overwrite to start anew (the old run is kept)"
                )
        if saved["samples"] != len(self.names):
            raise InputError(
                f"{folder} holds a run on {saved['samples']} samples, but the data set has {len(self.names)}; "
                "choose another --exp_name or --overwrite"
            )
        if saved["names"] != self.checksum:
            raise InputError(
                f"{folder} holds a run on other samples than those of {self.data}; give that data set "
                "(it may be moved), choose another --exp_name, or --overwrite to start anew (the old run is kept)"
            )


def batch_in_words(size: int, ranks: int) -> str:
    """A batch of ``size`` over all ranks: '4', or '2 on each of 2 ranks'."""
    return f"{size // ranks} on each of {ranks} ranks" if ranks > 1 else str(size)
