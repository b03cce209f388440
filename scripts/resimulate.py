"""Make training data with known sharp frames from nothing but captures: no sharp image is ever seen.

    python scripts/resimulate.py --base_folder GOPRO --out RESIM --count 1000
    python scripts/train_student.py --base_folder RESIM/GOPRO ...

The deblurred image of a capture (by the training-free SDM, or by a student with --deblur_path, its frames joined along
the motion) has some blur, noise and ghosts left. Three times smaller it is sharp and clean: a small photograph of the
same scene. Such photographs are moved before a simulated camera and sensor, as make_demo_data.py does with real ones;
what comes out are blurry images, spikes and the sharp frames that belong to them. Of the captures only blurry images
and spikes are read.

    RESIM/pictures/*.png     the small photographs, and pictures.json, how they were made
    RESIM/GOPRO/train/...    the data set, in the GOPRO layout

The same command goes on where it was interrupted; a larger --count adds samples.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import command
from codes.engine.options import parse_config
from codes.making.options import ResimulateConfig


def main(argv: list[str] | None = None) -> None:
    """Deblur, shrink, simulate."""
    cfg = parse_config(ResimulateConfig, argv, __doc__)
    from codes.making.resimulation import resimulate

    resimulate(cfg)


if __name__ == "__main__":
    command(main)
