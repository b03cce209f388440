"""Every way from a blurry image and its spikes to sharp images, under one name each.

What deblurs, compares and measures (codes/inference.py, scripts/reproduce_tables.py, scripts/robustness.py ...) takes
its methods from here; a new one is one function in :data:`METHODS`.

Methods that are given spikes alone return grey images (:attr:`Method.grey`): the light at the size of the spikes, as
bright as the firing rate is, enlarged with square pixels as in the official row TFP_Resize, the same in B, G and R.
They are compared with the grey sharp image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from codes.baselines.adapters import load_spkdeblurnet, spkdeblurnet_input, stir_images
from codes.baselines.san_student import SANStudent
from codes.baselines.spkdeblurnet_model import SpkDeblurNet
from codes.baselines.stir_model import FRAMES, STIR
from codes.engine.checkpoint import load_weights
from codes.engine.device import place
from codes.engine.students import load_student
from codes.errors import InputError
from codes.image import grey
from codes.inference.tiles import Tiled, decode_tiles
from codes.model.bsn_model import BSN
from codes.model.edsr_model import EDSR
from codes.model.ldn_model import Deblur_Net
from codes.sdm import Enlarge, Teacher
from codes.spike import EXPOSURE, middle_tfi, mirrored, tfp
from codes.student import Student, student_input

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
        grey: whether the images are grey, of the spikes alone.
        whole: whether the image cannot be computed in tiles: its networks look at all of it.
    """

    name: str
    title: str
    start: Callable[..., Images]
    networks: dict[str, nn.Module] = field(default_factory=dict)
    weights: tuple[str, ...] = ()
    grey: bool = False
    whole: bool = False

    def reference(self, sharp: torch.Tensor) -> torch.Tensor:
        """What the images are compared with: ``sharp`` ``(..., 3, H, W)``, or its grey in all three channels."""
        return grey(sharp).expand_as(sharp) if self.grey else sharp

    @property
    def parameters(self) -> int:
        """Number of parameters of all networks."""
        return sum(weight.numel() for network in self.networks.values() for weight in network.parameters())


SHIPPED = Path(__file__).resolve().parents[2] / "model"
FILES = {
    "bsn": ("BSN_photo.pth", "BSN_1000.pth"),
    "sr": ("SR_photo.pth", "SR_70.pth"),
    "deblur": ("DeblurNet_photo.pth", "DeblurNet_100.pth"),
    "san": ("SAN.pth", "SAN.pth"),
    "stir": ("STIR.pth", "STIR_pretrain.pth"),
    "spkdeblurnet": ("SpkDeblurNet.pth", "gopro_56_100000_SpikeDeblur.pth"),
}
"""Names in model/: ours, the authors'. Of the last three none is shipped."""

TITLES = {"bsn": "BSN", "sr": "EDSR", "deblur": "the student", "san": "SAN", "stir": "STIR"} | {
    "spkdeblurnet": "SpkDeblurNet"
}
"""The networks behind the options ``--bsn_path``, ``--sr_path`` and so on."""


def weight_options() -> dict[str, str]:
    """Name -> help of the options ``--bsn_path``, ``--sr_path`` and so on."""
    files = {kind: " or ".join(f"model/{name}" for name in dict.fromkeys(names)) for kind, names in FILES.items()}
    return {f"{kind}_path": f"weights of {title} (default: {files[kind]})" for kind, title in TITLES.items()}


@dataclass(frozen=True)
class Weights:
    """Where the weights of the networks are.

    Args:
        bsn, sr, deblur, san, stir, spkdeblurnet: files; '' is one of those in model/.
        official: of those, take the authors' where they are there; else ours.
        gain: make spikes as bright as the image for students that were trained without that.
        random: no files: networks with random weights, to time them.
    """

    bsn: str = ""
    sr: str = ""
    deblur: str = ""
    san: str = ""
    stir: str = ""
    spkdeblurnet: str = ""
    official: bool = False
    gain: bool = False
    random: bool = False

    def path(self, kind: str) -> Path:
        """The file of 'bsn', 'sr', ...; it need not exist."""
        if getattr(self, kind):
            return Path(getattr(self, kind))
        ours, theirs = (SHIPPED / name for name in FILES[kind])
        return theirs if theirs.is_file() and (self.official or not ours.is_file()) else ours

    def files(self, *kinds: str) -> tuple[str, ...]:
        """The files of several, as a method notes them."""
        return () if self.random else tuple(str(self.path(kind)) for kind in kinds)

    def load(self, kind: str) -> nn.Module:
        """The network with its weights, on the CPU."""
        build = {"bsn": BSN, "sr": EDSR, "deblur": Deblur_Net, "san": SANStudent, "stir": STIR}.get(kind, SpkDeblurNet)
        if self.random:
            return build()
        hint = f"give --{kind}_path, or see model/README.md"
        if kind in ("deblur", "san"):
            return load_student(self.path(kind), self.gain, hint)
        if kind == "spkdeblurnet":
            return load_spkdeblurnet(self.path(kind), hint)
        return load_weights(build(), self.path(kind), hint)


def whole_only(title: str, tile: int) -> None:
    """Refuse tiles for a method whose networks look at the whole image."""
    if tile:
        raise InputError(f"{title} computes whole images only: leave out --tile, or give 0")


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


def from_student(name: str, title: str, ldn: Student, weights=(), tile: int = 0) -> Method:
    """A method whose images are a student's; ``tile``: side of tiles in image pixels, 0 is the whole image."""
    whole = isinstance(ldn, SANStudent)
    if whole:
        whole_only(title, tile)

    def start(blur, spike, exposure=EXPOSURE) -> Images:
        half = ldn.spike_dim // 2 if ldn.kind == "frames" else 0  # the others know where a stream ends
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

    return Method(name, title, start, {"SAN" if whole else "LDN": ldn}, tuple(weights), whole=whole)


def from_spikes(name: str, title: str, light: Callable, networks=None, weights=()) -> Method:
    """A method whose images are grey, of the spikes alone.

    Args:
        name, title, networks, weights: as in :class:`Method`.
        light: from spikes ``(B, T, h, w)`` and an instant to ``(B, 1, h, w)`` in [0, 1].
    """

    def start(blur, spike, exposure=EXPOSURE) -> Images:
        def images(instants):
            seen = torch.cat([light(spike, instant).float() for instant in instants], dim=1)
            large = Enlarge("nearest", blur.shape[-1] // spike.shape[-1])(seen)
            return large[:, :, None].expand(-1, -1, 3, -1, -1)

        return images

    return Method(name, title, start, networks or {}, tuple(weights), grey=True, whole=bool(networks))


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
    return from_teacher("sdm_bsn", "SDM + BSN (9, nearest)", teacher, {"BSN": bsn}, weights.files("bsn"))


def sdm_stir(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """The SDM on STIR's image, nearest enlarging: STIR in the place of BSN and its short TFP."""
    network, title = place(weights.load("stir"), device).eval(), "SDM + STIR (61, nearest)"
    whole_only(title, tile)
    teacher = Teacher.plain(FRAMES, "nearest", denoise=network, raw=True)
    method = from_teacher("sdm_stir", title, teacher, {"STIR": network}, weights.files("stir"))
    return replace(method, whole=True)


def cascade(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """The official teacher."""
    bsn, sr = (place(weights.load(kind), device).eval() for kind in ("bsn", "sr"))
    parts = (Tiled.bsn(bsn, tile // 4), Tiled.edsr(sr, tile // 4)) if tile else (bsn, sr)
    networks, files = {"BSN": bsn, "EDSR": sr}, weights.files("bsn", "sr")
    return from_teacher("teacher", "Teacher BSN + EDSR + SDM", Teacher.cascade(*parts), networks, files)


def student(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """The student."""
    ldn = place(weights.load("deblur"), device).eval()
    return from_student("ldn", "Student LDN", ldn, weights.files("deblur"), tile)


def san_student(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """SAN in the LDN's place."""
    san, title = place(weights.load("san"), device).eval(), "Student SAN"
    whole_only(title, tile)
    return from_student("san", title, san, weights.files("san"))


def spkdeblurnet(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """SpkDeblurNet, which learned from sharp images; each instant is an image and a window of its own."""
    network, title = place(weights.load("spkdeblurnet"), device).eval(), "SpkDeblurNet (supervised)"
    whole_only(title, tile)

    def start(blur, spike, exposure=EXPOSURE) -> Images:
        def images(instants):
            inputs = (spkdeblurnet_input(network, blur, spike, instant) for instant in instants)
            frames = [network(*one)[0].flip(1).float().clamp(0, 1) for one in inputs]
            return torch.stack(frames, dim=1)

        return images

    files = weights.files("spkdeblurnet")
    return Method("spkdeblurnet", title, start, {"SpkDeblurNet": network}, files, whole=True)


def spikes_tfp(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """TFP of 9 frames, mirrored at the stream's ends: the short window of the cascade as it is."""
    return from_spikes("tfp", "TFP (9), spikes alone", lambda spike, instant: tfp(mirrored(spike, 4), instant + 4, 9))


def spikes_tfi(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """TFI as Spike-Zoo has it, looked for within 20 frames on either side."""
    return from_spikes("tfi", "TFI, spikes alone", lambda spike, instant: middle_tfi(spike, instant, 20, both=True))


def spikes_stir(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """STIR's image."""
    network, title = place(weights.load("stir"), device).eval(), "STIR, spikes alone"
    whole_only(title, tile)

    def light(spike, instant):
        return stir_images(network, spike, [instant])

    return from_spikes("stir", title, light, {"STIR": network}, weights.files("stir"))


METHODS: dict[str, Callable[..., Method]] = {
    "blur": blurry,
    "tfp": spikes_tfp,
    "tfi": spikes_tfi,
    "stir": spikes_stir,
    "sdm": sdm_plain,
    "sdm21": sdm_wide,
    "sdm_bsn": sdm_bsn,
    "sdm_stir": sdm_stir,
    "teacher": cascade,
    "ldn": student,
    "san": san_student,
    "spkdeblurnet": spkdeblurnet,
}
"""Name -> (weights, device, tile) -> :class:`Method`. ``tile``: side of tiles in image pixels, 0 is the whole image."""


def load_method(name: str, weights: Weights = Weights(), device=torch.device("cpu"), tile: int = 0) -> Method:  # noqa: B008
    """The method of a name, its networks on ``device`` in eval mode.

    Raises:
        ValueError: no such method, or weights that do not fit.
        FileNotFoundError: weights that are not there.
    """
    if name not in METHODS:
        raise InputError(f"method '{name}'; expected one of {', '.join(METHODS)}")
    return METHODS[name](weights, device, tile)
