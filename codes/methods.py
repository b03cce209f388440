"""Every way from a blurry image and its spikes to sharp images, under one name each.

What deblurs, compares and measures (codes/inference.py, scripts/reproduce_tables.py, scripts/robustness.py ...) takes
its methods from here; a new one is one function in :data:`METHODS`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from codes.checkpoint import load_weights
from codes.device import place
from codes.model.bsn_model import BSN
from codes.model.edsr_model import EDSR
from codes.model.ldn_model import Deblur_Net
from codes.sdm import Teacher
from codes.spike import EXPOSURE, mirrored
from codes.student import load_student, student_input
from codes.tiles import Tiled, decode_tiles

Images = Callable[[Sequence[int]], torch.Tensor]
"""From M instants to ``(B, M, 3, H, W)`` in [0, 1], B,G,R."""


@dataclass(frozen=True)
class Method:
    """A way to sharp images.

    Args:
        name: the key in :data:`METHODS`.
        title: the name of its row in a table.
        start: from ``blur`` ``(B, 3, H, W)``, B,G,R in [0, 1], ``spike`` ``(B, T, H/4, W/4)`` of zeros and ones, and
            the exposure (anything with ``start`` and ``stop``) to :data:`Images`; what all instants share is computed
            here.
        networks: by title, for parameters and operations.
        weights: the files behind them.
    """

    name: str
    title: str
    start: Callable[..., Images]
    networks: dict[str, nn.Module] = field(default_factory=dict)
    weights: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """Number of parameters of all networks."""
        return sum(weight.numel() for network in self.networks.values() for weight in network.parameters())


SHIPPED = Path(__file__).resolve().parents[1] / "model"
FILES = {
    "bsn": ("BSN_photo.pth", "BSN_1000.pth"),
    "sr": ("SR_photo.pth", "SR_70.pth"),
    "deblur": ("DeblurNet_photo.pth", "DeblurNet_100.pth"),
}
"""Names in model/: ours, the authors'."""


@dataclass(frozen=True)
class Weights:
    """Where the weights of the networks are.

    Args:
        bsn, sr, deblur: files; '' is one of those in model/.
        official: of those, take the authors' where they are there; else ours.
        gain: make spikes as bright as the image for students that were trained without that.
    """

    bsn: str = ""
    sr: str = ""
    deblur: str = ""
    official: bool = False
    gain: bool = False

    def path(self, kind: str) -> Path:
        """The file of 'bsn', 'sr' or 'deblur'; it need not exist."""
        if getattr(self, kind):
            return Path(getattr(self, kind))
        ours, theirs = (SHIPPED / name for name in FILES[kind])
        return theirs if self.official and theirs.is_file() else ours

    def load(self, kind: str) -> nn.Module:
        """The network with its weights, on the CPU."""
        hint = f"give --{kind}_path, or see model/README.md"
        if kind == "deblur":
            return load_student(self.path(kind), self.gain, hint)
        return load_weights({"bsn": BSN, "sr": EDSR}[kind](), self.path(kind), hint)


def from_teacher(name: str, title: str, teacher: Teacher, networks=None, weights=()) -> Method:
    """A method whose images are the SDM's: the teacher's, or a part of it."""

    def start(blur, spike, exposure=EXPOSURE) -> Images:
        long, half = teacher.long(spike, exposure), teacher.length // 2
        spike = mirrored(spike, half)

        def images(instants):
            short = teacher.short(spike, [instant + half for instant in instants])
            return teacher.labels(blur, torch.cat([long, short], dim=1))

        return images

    return Method(name, title, start, networks or {}, tuple(weights))


def from_student(name: str, title: str, ldn: Deblur_Net, weights=(), tile: int = 0) -> Method:
    """A method whose images are a student's; ``tile``: side of tiles in image pixels, 0 is the whole image."""

    def start(blur, spike, exposure=EXPOSURE) -> Images:
        half = 0 if ldn.kind == "pyramid" else ldn.spike_dim // 2  # a pyramid knows where a stream ends
        longer = mirrored(spike, half) if half else spike
        shifted = slice(exposure.start + half, exposure.stop + half)
        image = None if tile else ldn.encode(blur)

        def images(instants):
            seen = student_input(ldn, blur, longer, [instant + half for instant in instants], shifted)
            frames = []
            for index in range(len(instants)):
                one = seen[:, index]
                frame = decode_tiles(ldn, blur, one, tile) if tile else ldn.decode(blur, image, one)
                frames.append(frame.float().clamp(0, 1))
            return torch.stack(frames, dim=1)

        return images

    return Method(name, title, start, {"LDN": ldn}, tuple(weights))


def blurry(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """The input itself."""

    def start(blur, spike, exposure=EXPOSURE) -> Images:
        return lambda instants: blur[:, None].expand(-1, len(instants), -1, -1, -1)

    return Method("blur", "Blur", start)


def sdm_plain(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """The SDM on raw TFP of 9 frames, nearest enlarging: the paper's cascade without its networks."""
    return from_teacher("sdm", "SDM, raw TFP (9, nearest)", Teacher.plain(9, "nearest"))


def sdm_wide(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """The SDM on raw TFP of 21 frames, bilinear enlarging: the best without a network."""
    return from_teacher("sdm21", "SDM, raw TFP (21, bilinear)", Teacher.plain(21, "bilinear"))


def sdm_bsn(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """The SDM on BSN's denoised TFP, nearest enlarging."""
    bsn = place(weights.load("bsn"), device).eval()
    denoise = Tiled.bsn(bsn, tile // 4) if tile else bsn
    teacher = Teacher.plain(9, "nearest", denoise=denoise)
    return from_teacher("sdm_bsn", "SDM + BSN (9, nearest)", teacher, {"BSN": bsn}, [str(weights.path("bsn"))])


def cascade(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """The official teacher."""
    bsn, sr = (place(weights.load(kind), device).eval() for kind in ("bsn", "sr"))
    parts = (Tiled.bsn(bsn, tile // 4), Tiled.edsr(sr, tile // 4)) if tile else (bsn, sr)
    files = [str(weights.path(kind)) for kind in ("bsn", "sr")]
    return from_teacher("teacher", "Teacher BSN + EDSR + SDM", Teacher.cascade(*parts), {"BSN": bsn, "EDSR": sr}, files)


def student(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """The student."""
    ldn = place(weights.load("deblur"), device).eval()
    return from_student("ldn", "Student LDN", ldn, [str(weights.path("deblur"))], tile)


METHODS: dict[str, Callable[..., Method]] = {
    "blur": blurry,
    "sdm": sdm_plain,
    "sdm21": sdm_wide,
    "sdm_bsn": sdm_bsn,
    "teacher": cascade,
    "ldn": student,
}
"""Name -> (weights, device, tile) -> :class:`Method`. ``tile``: side of tiles in image pixels, 0 is the whole image."""


def load_method(name: str, weights: Weights = Weights(), device=torch.device("cpu"), tile: int = 0) -> Method:  # noqa: B008
    """The method of a name, its networks on ``device`` in eval mode.

    Raises:
        ValueError: no such method, or weights that do not fit.
        FileNotFoundError: weights that are not there.
    """
    if name not in METHODS:
        raise ValueError(f"method '{name}'; expected one of {', '.join(METHODS)}")
    return METHODS[name](weights, device, tile)
