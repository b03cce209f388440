#!/usr/bin/env python
"""Make tests/golden anew: the reference values, thinned out and rounded, without weights and what needs them.

``python scripts/dev/thin_golden.py FULL [--out tests/golden]``; tests/golden/README.md says what is done to the values.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

WEIGHTS = {"ldn_official_256x320", "ldn_loss_trained"}
"""What networks with stored weights put out; it is compared where the full folder is."""
ROUNDED = {"bsn": 6, "edsr": 5, "ldn": 6, "spkdeblurnet": 5, "stir": 6}
"""Decimals of what a network puts out, by the first word of its file: a tenth of the tolerance, or less."""
INPUTS = {"blur", "x", "flow", "tfi"}
KEPT = 3000
"""About so many values of an output are kept."""


def thinned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every k-th value in C order, and (k, *shape); k is odd and no multiple of 3, 5 or 7, so no column is left out."""
    step = max(1, values.size // KEPT)
    while any(step % prime == 0 for prime in (2, 3, 5, 7)):
        step += 1
    return values.ravel()[::step], np.array([step, *values.shape], np.int32)


def thin(source: Path, target: Path) -> None:
    """Write the compact form of one .npz file; large outputs ``a`` become ``a`` and ``a:thinned``."""
    decimals, arrays = ROUNDED.get(source.stem.split("_")[0]), {}
    with np.load(source) as file:
        for key, values in file.items():
            if decimals is None or values.dtype != np.float32 or key in INPUTS:
                arrays[key] = values
            else:
                arrays[key], arrays[f"{key}:thinned"] = thinned(values.round(decimals))
    np.savez_compressed(target, **arrays)


def main(argv=None) -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("full", type=Path, help="the full folder")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "tests" / "golden")
    args = parser.parse_args(argv)
    for source in sorted(args.full.rglob("*")):
        target = args.out / source.relative_to(args.full)
        if source.suffix not in (".npz", ".json", ".dat") or source.stem in WEIGHTS:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".npz":
            thin(source, target)
        elif source.suffix == ".json":
            target.write_text(json.dumps(json.loads(source.read_text()), separators=(",", ":")) + "\n")
        else:
            shutil.copyfile(source, target)


if __name__ == "__main__":
    main()
