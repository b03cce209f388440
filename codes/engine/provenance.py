"""What a result was made by."""

import subprocess
import sys
from pathlib import Path

import torch

from codes.engine.shard import without_shard


def provenance() -> list[str]:
    """Command (of the whole, also in a part), git commit and library versions, one a line."""
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
        "command: " + " ".join([Path(sys.argv[0]).name, *without_shard(sys.argv[1:])]),
        f"commit: {commit}",
        f"python {sys.version.split()[0]}, torch {torch.__version__}, "
        f"numpy {numpy.__version__}, opencv {cv2.__version__}",
    ]
