"""The official step for sharp frames, from interpolated frames on disk. In one pass: scripts/prepare_gopro.py.

Example: python scripts/sharp_extract.py --raw_folder GOPRO/test/raw_data
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import command
from codes.engine.options import parse_config
from codes.making.options import SharpConfig


def main(argv: list[str] | None = None) -> None:
    """Make the sharp frames."""
    cfg = parse_config(SharpConfig, argv, __doc__)
    from codes.making.batch import prepare

    prepare(cfg)


if __name__ == "__main__":
    command(main)
