"""Make training data with known sharp frames from nothing but captures: no sharp image is ever seen.

    python scripts/resimulate.py --base_folder GOPRO --out RESIM --count 1000
    python train_deblur.py --base_folder RESIM/GOPRO --train_split train --teacher sharp --tea_loss l1 ...

The deblurred image of a capture (by the training-free SDM, or by a student with --deblur_path) has some blur, noise and
ghosts left. Three times smaller it is sharp and clean: a small photograph of the same scene. Such photographs are moved
before a simulated camera and sensor, as make_demo_data.py does with real ones; what comes out are blurry images, spikes
and the sharp frames that belong to them. Of the captures only blurry images and spikes are read.

    RESIM/pictures/*.png     the small photographs, and pictures.json, how they were made
    RESIM/GOPRO/train/...    the data set, in the GOPRO layout

The same command goes on where it was interrupted; a larger --count adds samples.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

from codes.dataset import SpikeData  # noqa: E402
from codes.engine.command import Parser, command  # noqa: E402
from codes.engine.device import choose_device, keep_memory, place  # noqa: E402
from codes.engine.loader import loader  # noqa: E402
from codes.engine.textures import describe_network  # noqa: E402
from codes.engine.weights import load_student  # noqa: E402
from codes.errors import InputError  # noqa: E402
from codes.files import replacing  # noqa: E402
from codes.image import to_uint8, write_image  # noqa: E402
from codes.sdm import Teacher  # noqa: E402
from codes.spike import EXPOSURE  # noqa: E402
from codes.student import Sight  # noqa: E402
from scripts import make_demo_data  # noqa: E402
from scripts.make_demo_data import at_least, check_drawing, frame_size  # noqa: E402


def make_parser() -> Parser:
    """Every flag with its default."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--base_folder", type=Path, default="GOPRO", help="the captures: a data set in the GOPRO or RSB layout")
    add("--data_type", choices=("GOPRO", "real"), default="GOPRO", help="layout of the captures")
    add("--split", choices=("train", "test"), default="train", help="split of the captures")
    add("--vth", type=at_least(0, float), default=0, metavar="V", help="firing threshold of the captures' spikes")
    add("--out", type=Path, default="RESIM", help="folder of the new data set")
    add("--deblur_path", metavar="FILE", help="weights of a student that deblurs the captures; none: the SDM")
    add("--shrink", type=at_least(1, float), default=3, metavar="F", help="how many times smaller the photographs are")
    add("--size", type=frame_size, default="192x320", metavar="HxW", help="image size of the new data set")
    add("--count", type=at_least(1), default=1000, metavar="N", help="samples of the new data set")
    motion = "least and greatest motion over the exposure in pixels"
    add("--motion", type=at_least(0, float), nargs=2, default=(5.0, 120.0), metavar=("MIN", "MAX"), help=motion)
    vths = "firing thresholds to simulate"
    add("--new_vth", type=at_least(0, float, True), nargs="+", default=(1.0,), metavar="V", help=vths)
    add("--seed", type=at_least(0), default=0, help="same seed, same bytes")
    add("--device", default="auto", help="where a student runs: auto, cpu, cuda, cuda:N or mps")
    add(
        "--workers", type=at_least(1), default=argparse.SUPPRESS, metavar="N", help="samples rendered at a time (cores)"
    )
    return parser


def shrunk(image: torch.Tensor, factor: float) -> np.ndarray:
    """An image ``(3, H, W)`` in [0, 1], ``factor`` times smaller by the mean over areas, as uint8 ``(h, w, 3)``."""
    picture = image.clamp(0, 1).permute(1, 2, 0).cpu().numpy()
    small = cv2.resize(picture, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    return to_uint8(small.transpose(2, 0, 1))


def write_pictures(args, folder: Path) -> int:
    """Deblur the captures at the centre of the exposure and write them small; those that exist stay."""
    captures = SpikeData(args.base_folder, args.data_type, args.split, vth=args.vth)
    device = choose_device(args.device)
    teacher, student = Teacher.plain(21, "bilinear"), None
    if args.deblur_path:
        student = place(load_student(args.deblur_path), device).eval()
    about = {"captures": str(captures.folder), "vth": args.vth, "shrink": args.shrink}
    about["student"] = describe_network(student) if student else "none: the SDM on 21 frames, bilinear"
    record = folder / "pictures.json"
    try:
        before = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else about
        before = dict(before)
    except (ValueError, TypeError, RecursionError):
        raise InputError(f"{record} is damaged; delete the folder or choose another --out") from None
    if before != about:
        changed = ", ".join(key for key in about if before.get(key) != about[key])
        raise InputError(f"{folder} was made otherwise ({changed}); choose another --out")
    with replacing(record) as temporary:
        temporary.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    with torch.inference_mode():
        for sample in tqdm(loader(captures), desc="captures", unit="capture", leave=False, disable=None):
            path = folder / f"{sample['name'][0].replace('/', '_')}.png"
            if path.is_file():
                continue
            blur, spike, centre = sample["blur"].to(device), sample["spike"].to(device), [EXPOSURE.centre]
            if student is None:
                image = teacher(blur, spike, centre)[0, 0]
            else:
                image = student(blur, Sight.of(student)(blur, spike, centre))[0, 0]
            write_image(path, shrunk(image, args.shrink))
    return len(captures)


def main(arguments: list[str] | None = None) -> None:
    """Deblur, shrink, simulate."""
    args = make_parser().parse_args(arguments)
    keep_memory()
    motion = [pixels * 720 / args.size[0] for pixels in args.motion]  # that script's unit is 720p
    check_drawing(motion, args.new_vth)
    pictures = args.out / "pictures"
    print(f"{pictures}: {write_pictures(args, pictures)} photographs, {args.shrink:g} times smaller than the captures")
    words = [
        "--photos",
        pictures,
        "--out",
        args.out / "GOPRO",
        "--size",
        f"{args.size[0]}x{args.size[1]}",
        "--train",
        args.count,
    ]
    words += [
        "--test",
        0,
        "--test_photos",
        "--motion",
        *(f"{pixels:.17g}" for pixels in motion),
        "--vth",
        *args.new_vth,
        "--seed",
        args.seed,
    ]
    words += ["--workers", args.workers] if "workers" in args else []
    make_demo_data.main([str(word) for word in words])


if __name__ == "__main__":
    command(main)
