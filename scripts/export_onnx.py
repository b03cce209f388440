r"""The networks as ONNX files, which other programs run without PyTorch.

    python -m pip install -r requirements-export.txt
    python scripts/export_onnx.py --out exp/onnx
    python scripts/export_onnx.py --networks ldn --deblur_path exp/Deblur/test --precision fp32 fp16 --out exp/onnx

NETWORK.onnx, and NETWORK_fp16.onnx with weights and arithmetic of 16 bits (places in an image excepted): height, width
and batch are free, inputs and outputs are float32 in both. A student has the inputs blur (B, 3, H, W) and spike
(B, C, H/4, W/4) of one instant; the denoiser and the enlarger have tfp (B, 1, h, w). The file's metadata say what they
mean: order of colours, ranges, the window of each channel, the gain. docs/pages.md has an example with onnxruntime and
numpy alone.

Each file is compared with PyTorch in float32 at three sizes and refused if they differ by more than 1e-4 (float16:
2e-3), and both are timed. Networks without weights are left out, and named. --pt2 also keeps what the float32 file is
made from: a program of torch.export, NETWORK.pt2, which torch.export.load reads without this repository.
"""

import functools
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import command  # noqa: E402
from codes.engine.options import option, parse_config, refuse_idle, weights_of, with_weights  # noqa: E402
from codes.errors import InputError, one_line  # noqa: E402
from codes.model.registry import NETWORKS  # noqa: E402

EXPORTED = tuple(key for key, network in NETWORKS.items() if network.role in ("student", "denoiser", "enlarger"))
SIZES = ((1, 16, 24), (2, 33, 20), (1, 45, 80))
"""Batch and size of the spikes at which a file is compared."""
TIMED = (1, 64, 64)
"""The same where it is timed, three times, of which the smallest counts; images are 256×256."""
LARGEST = {"fp32": 1e-4, "fp16": 2e-3}
"""Largest difference from PyTorch in float32; images are in [0, 1], half a grey level of 255 is 2e-3."""


@with_weights
@dataclass(frozen=True)
class ExportConfig:
    """What to export."""

    networks: tuple[str, ...] = option((), "which; none: all whose weights are there", choices=EXPORTED)
    precision: tuple[Literal["fp32", "fp16"], ...] = option(("fp32",), "of weights and arithmetic; fp32 is always made")
    pt2: bool = option(False, "also NETWORK.pt2, a program of torch.export")
    out: Path = option("exp/onnx", "folder for the files")

    def __post_init__(self):
        for key, network in NETWORKS.items():
            if key not in EXPORTED:
                refuse_idle(self, f"here: {network.title} is not exported", f"{network.flag}_path")
            elif self.networks and key not in self.networks:
                refuse_idle(self, f"with --networks {' '.join(self.networks)}", f"{network.flag}_path")


def windows_of(sight) -> list[list[int]] | None:
    """[start, stop) of each channel in frames from the instant, found from what single frames do; None: no means."""
    import torch

    reach = 128
    frames = torch.eye(2 * reach + 1)[None, :, None]  # frame t fires in pixel t alone
    weights = sight(torch.zeros(1, 3, 4, 4), frames, [reach])[0, 0, :, 0]
    windows = []
    for channel in weights:
        (seen,) = channel.nonzero(as_tuple=True)
        if not len(seen) or not torch.allclose(channel[seen[0] : seen[-1] + 1], torch.tensor(1 / len(seen))):
            return None
        windows.append([int(seen[0]) - reach, int(seen[-1]) + 1 - reach])
    return windows


def metadata(key: str, network, weights) -> dict[str, str]:
    """What a program must know to use a file."""
    import json
    from dataclasses import replace

    from codes.engine.provenance import provenance
    from codes.exposure import EXPOSURE
    from codes.student import LARGEST_GAIN, Sight

    record = NETWORKS[key]
    about = {"program": "S-SDM", "network": record.title, "role": record.role, "weights": weights.path(key).name}
    about |= {"colour": record.colour, "range": "[0, 1]; outputs are not clipped", "about": "; ".join(provenance()[1:])}
    if record.role != "student":
        about["tfp"] = "mean of spike frames, zeros and ones, (B, 1, h, w)"
        return about
    sight = Sight.of(network)
    frames = replace(sight, gain=False, kind=sight.kind.replace("intervals", "pyramid"))  # the same windows
    outside = "frames outside the stream are left out of a mean; none: 0"
    about |= {"blur": "(B, 3, H, W)", "spike": f"(B, {sight.frames}, H/4, W/4), means over windows around the instant"}
    about |= {"scale": "4", "spike_input": sight.kind, "windows": json.dumps(windows_of(frames))}
    about |= {
        "stream_ends": outside if frames.kind == "pyramid" else "mirrored",
        "gain": "on" if sight.gain else "off",
        "largest_gain": f"{LARGEST_GAIN:g}",
    }
    if sight.kind == "intervals":
        about["spike"] += "; each spike is spread over the frames since the spike before (Intervals in codes/spike.py)"
    about["gain_formula"] = "spike * min(mean(grey(blur)) / mean(spikes of the exposure), largest_gain)"
    about |= {"grey": "0.11 B + 0.59 G + 0.3 R", "exposure": json.dumps([EXPOSURE.start, EXPOSURE.stop])}
    return about


def module(network, role: str, precision: str = "fp32"):
    """A network as it is exported: a student's two steps in one; float32 outside, whatever it computes with."""
    import copy

    import torch
    from torch import nn

    kind = {"fp32": torch.float32, "fp16": torch.float16}[precision]

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = copy.deepcopy(network).to(kind)

    class Single(Whole):
        def forward(self, tfp):
            return self.network(tfp.to(kind)).float()

    class Student(Whole):
        def forward(self, blur, spike):
            blur, spike = blur.to(kind), spike.to(kind)
            return self.network.decode(blur, self.network.encode(blur), spike).float()

    return (Student() if role == "student" else Single()).eval()


def inputs(network, role: str, batch: int, height: int, width: int) -> dict:
    """Random inputs by name."""
    import torch

    if role != "student":
        return {"tfp": torch.rand(batch, 1, height, width)}
    return {
        "blur": torch.rand(batch, 3, 4 * height, 4 * width),
        "spike": torch.rand(batch, network.spike_dim, height, width),
    }


def export(key: str, network, path: Path, about: dict[str, str], precision: str = "fp32", pt2: bool = False) -> None:
    """Write a file with weights and arithmetic of a precision, float32 outside."""
    import logging
    import warnings

    import onnx
    import torch
    from torch.export import Dim

    from codes.files import replacing

    role, block = NETWORKS[key].role, getattr(network, "multiple", 4) // 4
    batch, height, width = Dim("batch", min=1, max=1024), Dim("height", min=8, max=4096), Dim("width", min=8, max=4096)
    spikes = {0: batch, 2: block * height, 3: block * width}
    shapes = {"tfp": spikes, "spike": spikes, "blur": {0: batch, 2: 4 * block * height, 3: 4 * block * width}}
    example = inputs(network, role, 2, 12 * block, 20 * block)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dynamic = tuple(shapes[name] for name in example)
        program = torch.export.export(module(network, role, precision), tuple(example.values()), dynamic_shapes=dynamic)
        if pt2:
            with replacing(path.with_suffix(".pt2")) as temporary:
                torch.export.save(program, temporary)
        model = torch.onnx.export(
            program,
            dynamo=True,
            input_names=list(example),
            output_names=["image"],
            external_data=False,
            verbose=False,
        ).model_proto
    if block > 1:
        model = padded(model, 4 * block)
    onnx.helper.set_model_props(model, about)
    onnx.checker.check_model(model)
    with replacing(path) as temporary:
        onnx.save(model, temporary)


def padded(model, multiple: int):
    """A student for sides that are multiples of ``multiple``, made one for multiples of 4: it pads with copies."""
    from onnx import compose, parser

    head = f"<ir_version: {model.ir_version}, opset_import: [{', '.join(_opsets(model))}]>"
    before = parser.parse_model(
        head
        + f"""before (float[B,3,H,W] blur, float[B,C,h,w] spike)
            => (float[B,3,X,Y] wide, float[B,C,x,y] spikes, int64[2] sides)
        {{
            sides = Shape <start = 2> (blur)
            multiple = Constant <value = int64[2] {{{multiple}, {multiple}}}> ()
            less = Neg (sides)
            missing = Mod (less, multiple)
            four = Constant <value = int64[2] {{4, 4}}> ()
            fewer = Div (missing, four)
            none = Constant <value = int64[6] {{0, 0, 0, 0, 0, 0}}> ()
            pads = Concat <axis = 0> (none, missing)
            wide = Pad <mode = "edge"> (blur, pads)
            pads_of_spikes = Concat <axis = 0> (none, fewer)
            spikes = Pad <mode = "edge"> (spike, pads_of_spikes)
        }}"""
    )
    after = parser.parse_model(
        head
        + """after (float[B,3,X,Y] uncut, int64[2] size) => (float[B,3,H,W] image)
        {
            begin = Constant <value = int64[2] {0, 0}> ()
            axes = Constant <value = int64[2] {2, 3}> ()
            image = Slice (uncut, begin, size, axes)
        }"""
    )
    model = compose.add_prefix(model, "inner_")
    model = compose.merge_models(before, model, [("wide", "inner_blur"), ("spikes", "inner_spike")])
    return compose.merge_models(model, after, [("inner_image", "uncut"), ("sides", "size")])


def _opsets(model) -> list[str]:
    return [f'"{opset.domain}": {opset.version}' for opset in model.opset_import]


def compare(network, role: str, path: Path) -> tuple[float, float, float]:
    """(largest difference from PyTorch in float32, milliseconds of PyTorch, of ONNX Runtime)."""
    import numpy as np
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # With one thread the time of the processor, on which other programs have no claim.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    plain, worst, times = module(network, role), 0.0, [float("inf")] * 2
    for size in (*SIZES, *[TIMED] * 3):
        example = inputs(network, role, *size)
        arrays, made = {name: tensor.numpy() for name, tensor in example.items()}, []
        ways = (functools.partial(_run, plain, example), functools.partial(session.run, None, arrays))
        for number, way in enumerate(ways):
            start = clock()
            made.append(way()[0])
            if size == TIMED:
                times[number] = min(times[number], 1000 * (clock() - start))
        worst = max(worst, float(np.abs(made[0] - made[1]).max()))
    return worst, *times


def _run(network, example: dict) -> list:
    import torch

    with torch.inference_mode():
        return [network(*example.values()).numpy()]


def main(argv: list[str] | None = None) -> None:
    """Export, compare, time."""
    cfg = parse_config(ExportConfig, argv)
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"{error}: python -m pip install -r requirements-export.txt") from None
    import torch

    from codes.engine.weights import Weights

    torch.manual_seed(0)
    weights = Weights(**weights_of(cfg))
    done = 0
    for key in cfg.networks or EXPORTED:
        try:
            network = weights.load(key).eval()  # the plain form: only codes.engine.device.place gives others
        except FileNotFoundError as error:
            if cfg.networks:
                raise
            print(f"{NETWORKS[key].title} is left out: {one_line(error)}")
            continue
        about, role = metadata(key, network, weights), NETWORKS[key].role
        for precision in dict.fromkeys(("fp32", *cfg.precision)):
            path = cfg.out / f"{key}{'_fp16' * (precision == 'fp16')}.onnx"
            export(key, network, path, about | {"precision": precision}, precision, cfg.pt2 and precision == "fp32")
            worst, torch_ms, onnx_ms = compare(network, role, path)
            print(
                f"{path}: {path.stat().st_size / 1e6:.1f} MB, largest difference {worst:.1e}; "
                f"with 64x64 spikes PyTorch {torch_ms:.1f} ms, ONNX Runtime {onnx_ms:.1f} ms, "
                f"threads: {torch.get_num_threads()}"
            )
            if not worst <= LARGEST[precision]:
                path.unlink()
                raise InputError(
                    f"{path} differs from PyTorch by {worst:.1e} (at most {LARGEST[precision]:g}); removed"
                )
            done += 1
    if not done:
        raise InputError("there are no weights of any network; give --deblur_path, or see model/README.md")


if __name__ == "__main__":
    command(main)
