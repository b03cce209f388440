"""Spike streams from one format to another: .dat (also with padded rows, or the other bit order), .npy, .npz.

    python scripts/convert_spikes.py capture.npz stream.dat
    python scripts/convert_spikes.py raw.dat stream.dat --spike_size 250x400 --row_bits 416
    python scripts/convert_spikes.py stream.dat stream.npy --spike_size 250x400

What is written is the usual: a .dat file as codes.spike says (rows bottom-up, the first pixel in the lowest bit, no
padding), or an array (T, h, w) of zeros and ones, its first row on top, under the key 'spk' in an .npz.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import command  # noqa: E402
from codes.engine.options import Size, option, parse_config  # noqa: E402
from codes.errors import InputError  # noqa: E402


@dataclass(frozen=True)
class ConvertConfig:
    """What to convert, and how it is laid out."""

    source: Path = option("", "the stream: .dat, .npy or .npz", positional=True)
    target: Path = option("", "the new file: .dat, .npy or .npz", positional=True)
    spike_size: Size | None = option(None, "size of the frames; needed for .dat and packed arrays", low=1)
    row_bits: int = option(0, "bits of a row in a .dat file, where rows are padded", low=0)
    bit_order: Literal["little", "big"] = option("little", "which bit of a byte is its first pixel, in the source")
    key: str = option("", "name of the array in an .npz file")
    axes: Literal["auto", "thw", "hwt"] = option("auto", "axes of an array; auto: as --spike_size says, or thw")
    flip: Literal["none", "vertical", "horizontal", "both"] = option("none", "turn the frames over")
    frames: str = option("", "frames to keep; otherwise all", metavar="START:END")


def main() -> None:
    """Read, turn over, write."""
    cfg = parse_config(ConvertConfig)
    import numpy as np

    from codes.dat import write_dat
    from codes.files import replacing
    from codes.inference import streams

    suffix = cfg.target.suffix.lower()
    if suffix not in streams.SUFFIXES:
        raise InputError(f"{cfg.target}: expected a name that ends in {', '.join(streams.SUFFIXES)}")
    layout = streams.Layout(cfg.spike_size and tuple(cfg.spike_size), cfg.row_bits, cfg.bit_order, cfg.key, cfg.axes)
    spike = streams.flip(streams.read_stream(cfg.source, layout), cfg.flip)
    if cfg.frames:
        start, colon, stop = cfg.frames.partition(":")
        if not (colon and start.isdecimal() and stop.isdecimal() and int(start) < int(stop) <= len(spike)):
            raise InputError(f"--frames is '{cfg.frames}'; expected START:END within the {len(spike)} frames")
        spike = spike[int(start) : int(stop)]
    if suffix == ".dat":
        write_dat(cfg.target, spike)
    else:
        with replacing(cfg.target) as temporary:
            np.savez_compressed(temporary, spk=spike) if suffix == ".npz" else np.save(temporary, spike)
    print(f"{cfg.target}: {len(spike)} frames of {spike.shape[1]}x{spike.shape[2]}, {100 * spike.mean():.2f} % fire")


if __name__ == "__main__":
    command(main)
