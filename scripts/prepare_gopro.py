"""Make the spike data set from GOPRO, or from any high-speed video, in one pass and without intermediate files.

    python scripts/prepare_gopro.py --raw_folder GOPRO/test/raw_data --multi
    python scripts/prepare_gopro.py --raw_folder GOPRO/train/raw_data --vth 1 2 4 --workers 8
    python scripts/prepare_gopro.py --raw_folder XVFI/test --interp none --out GOPRO/test
    python scripts/prepare_gopro.py --video clip.mp4 --out OWN/train

The raw folder holds one folder of numbered images per sequence (or the images themselves). blur_data, spike_data and
sharp_data come beside it, as the official scripts make them (codes/making/preparation.py says what of which frames).
The published figures used XVFI for the frames between; feed its output with --interp none. The same command goes on
where it was interrupted; what exists is not made again. prepared.json keeps the options: with others, a folder is not
added to. --shard I/N makes a part of the sequences, as on many machines (docs/data.md).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import command
from codes.engine.options import parse_config
from codes.making.options import PrepareConfig


def main(argv: list[str] | None = None) -> None:
    """Make blurry images, spikes and sharp frames."""
    cfg = parse_config(PrepareConfig, argv, __doc__)
    from codes.making.batch import prepare

    prepare(cfg)


if __name__ == "__main__":
    command(main)
