"""Check a data set before days of training: ours, the authors', or real captures (RSB).

    python scripts/check_dataset.py GOPRO
    python scripts/check_dataset.py RSB --data_type real

Every sample's partners, sizes, number of frames, firing rate, and whether image and spikes show the same scene: a
stream that is flipped, shifted or packed otherwise is recognised and named. Prints a table per sequence, writes a
contact sheet (blurry image, sharp image, long and short TFP), and ends with exit code 0 only if everything is sound.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import command
from codes.engine.options import option, parse_config
from codes.exposure import SCALE


@dataclass(frozen=True)
class CheckConfig:
    """What is checked, and where the pictures go."""

    folder: Path = option(
        ...,
        "the data set: the folder that holds train/ and test/, or spike_data/ and blur_data/",
        positional=True,
        metavar="FOLDER",
    )
    data_type: Literal["GOPRO", "real"] = option("GOPRO", "'real' has no sharp images")
    scale: int = option(SCALE, "image pixels per spike pixel, each way", low=1)
    sheet: Path = option("exp/check/contact_sheet.jpg", "where the contact sheet goes")
    sheet_rows: int = option(12, "samples on the contact sheet, one of a sequence", low=0)


def main(argv: list[str] | None = None) -> None:
    """Check, print, write the contact sheet."""
    cfg = parse_config(CheckConfig, argv)
    from codes.inference.soundness import check

    check(cfg.folder, cfg.data_type == "GOPRO", cfg.scale, cfg.sheet, cfg.sheet_rows)


if __name__ == "__main__":
    command(main)
