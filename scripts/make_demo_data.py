"""Make a small data set in the GOPRO layout from photographs, with exact ground truth (see codes/making/synthesis.py).

    python scripts/make_demo_data.py --out GOPRO --size 360x640 --train 32 --test 8

Nothing is downloaded: without --photos it uses four photographs that come with scikit-image. The folder also
gets ``demo_data.json`` (the options, the photographs) and ``{train,test}/samples.json`` (what was drawn for
each sample). The same command goes on where it was interrupted; a larger --train or --test adds samples.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import command
from codes.engine.options import parse_config
from codes.making.options import DemoConfig


def main(argv: list[str] | None = None) -> None:
    """Make the data set that the command line asks for."""
    cfg = parse_config(DemoConfig, argv, __doc__)
    from codes.making.demo import make_data_set

    make_data_set(cfg)


if __name__ == "__main__":
    command(main)
