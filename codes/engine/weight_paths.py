"""The options that name weights, by the records of the networks: ``--bsn_path``, ``--sr_path`` and so on."""

from dataclasses import make_dataclass
from pathlib import Path

from codes.engine.options import option
from codes.errors import InputError, MissingFileError
from codes.model.registry import weight_options

WeightPaths = make_dataclass(
    "WeightPaths",
    [
        (name, Path | None, option(None, f"{about}; or a finished run's folder", group="weights", metavar="FILE"))
        for name, about in weight_options().items()
    ],
    frozen=True,
)
"""A configuration's base with a path, or None, for each network."""


def given_weights(cfg) -> dict[str, str]:
    """Flag ('bsn', 'sr', 'deblur', ...) -> weight file, of those options of ``cfg`` that are given.

    Raises:
        MissingFileError, InputError: as in :func:`weight_file`.
    """
    paths = {name: getattr(cfg, name) for name in weight_options()}
    return {name.removesuffix("_path"): str(weight_file(name, path)) for name, path in paths.items() if path}


def weight_file(name: str, path: Path) -> Path:
    """The weight file that an option names: itself, or the last of a run folder.

    Raises:
        MissingFileError: it does not exist, or no weights are in the folder.
        InputError: the folder holds several.
    """
    if not path.is_dir():
        if not path.is_file():
            raise MissingFileError(f"no weights: --{name} {path} does not exist")
        return path
    found = sorted(path.glob("ckpts/*_last.pth"))
    if not found:
        raise MissingFileError(f"--{name} {path}: no finished run is in this folder, it has no ckpts/*_last.pth")
    if len(found) > 1:
        raise InputError(f"--{name} {path} holds several: {', '.join(file.name for file in found)}; name one")
    return found[0]
