"""Make the scenes that scripts/train_robust.py trains on from nothing but captures.

    python scripts/make_scenes.py --base_folder GOPRO --deblur_path model/DeblurNet_photo.pth --out SCENES --count 6000

As in scripts/resimulate.py, the captures are deblurred (by the training-free SDM without --deblur_path, the frames
joined along the motion) and shrunk to small clean photographs; these move before a simulated camera. Kept are the light
and the frames, not spikes: the sensor is simulated in training, another each time. No sharp image is read.

    SCENES/pictures/*.png    the small photographs, and pictures.json, how they were made
    SCENES/NNNNN/            light.npy, images.npy of a scene, 3.3 MB; scenes.json, what they are drawn from

The same command goes on where it was interrupted; a larger --count adds scenes.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import command
from codes.engine.options import parse_config
from codes.making.options import ScenesConfig


def main(argv: list[str] | None = None) -> None:
    """Deblur, shrink, render."""
    cfg = parse_config(ScenesConfig, argv, __doc__)
    from codes.making.scenes import make_scenes

    make_scenes(cfg)


if __name__ == "__main__":
    command(main)
