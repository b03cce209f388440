"""The official step for blurry images, from interpolated frames on disk. In one pass: scripts/prepare_gopro.py.

Example: python scripts/blur_syn.py --raw_folder GOPRO/test/raw_data
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import command  # noqa: E402
from scripts.prepare_gopro import main  # noqa: E402

if __name__ == "__main__":
    command(lambda: main(description=__doc__, outputs=("blur",), interp="none"))
