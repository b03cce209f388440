"""How well a frame agrees with what the spikes saw at its instant, where no sharp image exists.

    python scripts/dev/score_capture.py result/098.png --spike car.dat --spike_size 250x400 --at 98

The frame in linear light (--tone), grey, is brought to the size of the spikes (means over areas); the spikes are
averaged over --window frames around the instant. Both are smoothed (Gaussian, --sigma spike pixels), the TFP is
multiplied by the factor that fits best, and the PSNR of the difference on [0, 1] is printed. It is no measure of detail
finer than the spikes' pixels, and favours methods that return the TFP itself; it shows whether edges stand where they
were.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from codes.engine.command import command
from codes.engine.options import Size, option, parse_config


@dataclass(frozen=True)
class ScoreConfig:
    """What to compare, and how."""

    frames: tuple[Path, ...] = option(..., "frames, or the blurry photo itself", positional=True, metavar="IMAGE")
    spike: Path = option("stream.dat", "the stream")
    spike_size: Size | None = option(None, "size of the spikes", low=1)
    at: int = option(68, "spike frame of the instant", low=0)
    window: int = option(9, "frames of the TFP", low=1)
    sigma: float = option(1.0, "of the smoothing, in spike pixels", low=0.1)
    tone: str = option("linear", "curve of the frames' numbers: linear, srgb or gamma:G")
    flip: Literal["none", "vertical", "horizontal", "both"] = option("none", "turn the spikes over")


def main(argv: list[str] | None = None) -> None:
    """Compare and print."""
    cfg = parse_config(ScoreConfig, argv, __doc__)
    import cv2
    import numpy as np

    from codes.image import grey, read_image
    from codes.inference import streams
    from codes.spike import spike_window
    from codes.tone import Tone

    stream = streams.read_stream(cfg.spike, streams.Layout(cfg.spike_size and tuple(cfg.spike_size)))
    stream = spike_window(streams.flip(stream, cfg.flip), cfg.at, cfg.window)
    height, width = stream.shape[1:]
    seen = cv2.GaussianBlur(stream.mean(axis=0, dtype=np.float32), (0, 0), cfg.sigma)
    for path in cfg.frames:
        light = grey(Tone(cfg.tone).linear(read_image(path) / np.float32(255)), -1)[..., 0]
        light = cv2.resize(light, (width, height), interpolation=cv2.INTER_AREA)
        light = cv2.GaussianBlur(light, (0, 0), cfg.sigma)
        gain = (light * seen).sum() / max(float((seen * seen).sum()), 1e-12)
        error = float(np.square(light - gain * seen).mean())
        print(f"{path}: {-10 * np.log10(max(error, 1e-10)):.2f} dB")


if __name__ == "__main__":
    command(main)
