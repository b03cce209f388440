"""Every way from a blurry image and its spikes to sharp images, under one name each.

What deblurs, compares and measures (codes/inference.py, scripts/tables.py, scripts/robustness.py ...) takes
its methods from here; a new one is one function in :func:`methods`; students come from the registry.

Methods that are given spikes alone return grey images (:attr:`Method.grey`): the light at the size of the spikes, as
bright as the firing rate is, enlarged with square pixels as in the official row TFP_Resize, the same in B, G and R.
They are compared with the grey sharp image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from codes.baselines.adapters import spkdeblurnet_input, stir_images
from codes.baselines.stir_model import FRAMES
from codes.engine.device import place
from codes.engine.weights import Weights, record_of
from codes.errors import InputError
from codes.flow import shift, warp
from codes.image import grey
from codes.inference.tiles import Tiled, decode_tiles
from codes.model.registry import ALONG, joinable, students
from codes.motion import Joined
from codes.sdm import Enlarge, Teacher
from codes.spike import EXPOSURE, Intervals, middle_tfi, mirrored, refuse_outside, tfp
from codes.student import Sight, exposure_gain

Images = Callable[[Sequence[int]], torch.Tensor]
"""From M instants to ``(B, M, 3, H, W)`` in [0, 1], B,G,R."""


@dataclass(frozen=True)
class Method:
    """A way to sharp images.

    Args:
        name: the key in :func:`methods`.
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


def from_student(name: str, student: nn.Module, weights=(), tile: int = 0) -> Method:
    """A method whose images are a student's; ``tile``: side of tiles in image pixels, 0 is the whole image."""
    network, sight = record_of(student), Sight.of(student)

    def start(blur, spike, exposure=EXPOSURE) -> Images:
        image = {} if tile else student.encode(blur)
        gain = exposure_gain(blur, spike, exposure) if sight.gain else None
        first, last = exposure.start, exposure.stop - 1
        near = Intervals(spike, first, last) if sight.kind == "intervals" else None

        def images(instants):
            frames = []
            inside = near if first <= min(instants) and max(instants) <= last else None
            for one in sight.anywhere(blur, spike, instants, exposure, gain, inside).unbind(1):
                if tile:
                    frame = decode_tiles(student, blur, one, tile, network.reach, image)
                else:
                    frame = student.decode(blur, image, one)
                frames.append(frame.float().clamp(0, 1))
            return torch.stack(frames, dim=1)

        return images

    networks, whole = {network.title: student}, network.reach is None
    return Method(name, f"Student {network.title}", start, networks, tuple(weights), whole=whole)


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


def sdm_intervals(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """The SDM on the mean TFI of 21 frames: light in fractions of a spike, which high thresholds need."""
    enlarge = Enlarge("bilinear")

    def start(blur, spike, exposure=EXPOSURE) -> Images:
        near = Intervals(spike, exposure.start, exposure.stop - 1)
        long = enlarge(near.means([(exposure.start, exposure.stop)]))

        def images(instants):
            refuse_outside(instants, spike.shape[1])
            windows = [(instant - 10, instant + 11) for instant in instants]
            close = near.keeps(min(windows)[0], max(windows)[1])
            light = near if close else Intervals(spike, min(instants), max(instants))
            short = [enlarge(one[:, None]) for one in light.means(windows).unbind(1)]
            return Teacher.labels(blur, torch.cat([long, *short], dim=1))

        return images

    return Method("sdm_tfi", "SDM, mean TFI (21, bilinear)", start)


def sdm_bsn(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """The SDM on BSN's denoised TFP, nearest enlarging."""
    bsn = place(weights.load("bsn"), device).eval()
    denoise = Tiled.bsn(bsn, tile // 4) if tile else bsn
    teacher = Teacher.plain(9, "nearest", denoise=denoise)
    return from_teacher("sdm_bsn", "SDM + BSN (9, nearest)", teacher, {"BSN": bsn}, weights.files("bsn"))


def sdm_stir(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """The SDM on STIR's image, nearest enlarging: STIR in the place of BSN and its short TFP."""
    network = place(weights.load("stir"), device).eval()
    teacher, files = Teacher.plain(FRAMES, "nearest", denoise=network, raw=True), weights.files("stir")
    return replace(from_teacher("sdm_stir", "SDM + STIR (61, nearest)", teacher, {"STIR": network}, files), whole=True)


def cascade(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """The official teacher."""
    bsn, sr = (place(weights.load(key), device).eval() for key in ("bsn", "edsr"))
    parts = (Tiled.bsn(bsn, tile // 4), Tiled.edsr(sr, tile // 4)) if tile else (bsn, sr)
    networks, files = {"BSN": bsn, "EDSR": sr}, weights.files("bsn", "edsr")
    return from_teacher("teacher", "Teacher BSN + EDSR + SDM", Teacher.cascade(*parts), networks, files)


def student(key: str) -> Callable[..., Method]:
    """The method of a student of the registry."""

    def method(weights: Weights, device: torch.device, tile: int = 0) -> Method:
        network = place(weights.load(key), device).eval()
        return from_student(key, network, weights.files(key), tile)

    return method


def along_motion(name: str) -> Callable[..., Method]:
    """A method whose frames one motion joins (:mod:`codes.motion`)."""

    def method(weights: Weights, device: torch.device, tile: int = 0) -> Method:
        alone = methods()[name](weights, device, tile)
        keys = min((record_of(network).keys for network in alone.networks.values()), default=7)

        def joined(image, stream, exposure):
            images = alone.start(image, stream, exposure)
            return Joined(image[0], lambda instants: images(instants)[0], exposure, stream[0], keys)

        def registered(image, stream, exposure):
            """The same where the two lie off one another: on the spikes' grid, and moved back."""
            if (away := shift(image, stream, exposure)) is None:
                return joined(image, stream, exposure)
            away = away.expand(-1, -1, *image.shape[2:])
            moved = warp(image.to(away.device), away, "bicubic").clamp(0, 1)
            frames = joined(moved.to(image.device), stream, exposure)

            def back(instants):
                return torch.cat([warp(frame[None], -away, "bicubic") for frame in frames(instants)]).clamp_(0, 1)

            return back

        def start(blur, spike, exposure=EXPOSURE) -> Images:
            frames: list[Callable] = []

            def images(instants):
                if not frames:
                    pairs = zip(blur.split(1), spike.split(1), strict=True)
                    frames[:] = [registered(*pair, exposure) for pair in pairs]
                found = [one(instants)[None] for one in frames]
                return (torch.cat(found) if len(found) > 1 else found[0]).to(blur.device)

            return images

        return replace(alone, name=name + ALONG, title=f"{alone.title}, joined along the motion", start=start)

    return method


def spkdeblurnet(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """SpkDeblurNet, which learned from sharp images; each instant is an image and a window of its own."""
    network: Any = place(weights.load("spkdeblurnet"), device).eval()

    def start(blur, spike, exposure=EXPOSURE) -> Images:
        def images(instants):
            inputs = (spkdeblurnet_input(network, blur, spike, instant) for instant in instants)
            frames = [network(*one)[0].flip(1).float().clamp(0, 1) for one in inputs]
            return torch.stack(frames, dim=1)

        return images

    networks, files = {"SpkDeblurNet": network}, weights.files("spkdeblurnet")
    return Method("spkdeblurnet", "SpkDeblurNet (supervised)", start, networks, files, whole=True)


def spikes_tfp(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """TFP of 9 frames, mirrored at the stream's ends: the short window of the cascade as it is."""
    return from_spikes("tfp", "TFP (9), spikes alone", lambda spike, instant: tfp(mirrored(spike, 4), instant + 4, 9))


def spikes_tfi(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """TFI as Spike-Zoo has it, looked for within 20 frames on either side."""
    return from_spikes("tfi", "TFI, spikes alone", lambda spike, instant: middle_tfi(spike, instant, 20, both=True))


def spikes_stir(weights: Weights, device: torch.device, tile: int = 0) -> Method:
    """STIR's image."""
    network = place(weights.load("stir"), device).eval()

    def light(spike, instant):
        return stir_images(network, spike, [instant])

    return from_spikes("stir", "STIR, spikes alone", light, {"STIR": network}, weights.files("stir"))


def methods() -> dict[str, Callable[..., Method]]:
    """Name -> (weights, device, tile) -> :class:`Method`, every student of the registry among them.

    ``tile``: side of tiles in image pixels, 0 is the whole image.
    """
    return {
        "blur": blurry,
        "tfp": spikes_tfp,
        "tfi": spikes_tfi,
        "stir": spikes_stir,
        "sdm": sdm_plain,
        "sdm21": sdm_wide,
        "sdm_tfi": sdm_intervals,
        "sdm_bsn": sdm_bsn,
        "sdm_stir": sdm_stir,
        "teacher": cascade,
        **{key: student(key) for key in students()},
        **{name + ALONG: along_motion(name) for name in joinable()},
        "spkdeblurnet": spkdeblurnet,
    }


def load_method(name: str, weights: Weights | None = None, device=torch.device("cpu"), tile: int = 0) -> Method:  # noqa: B008
    """The method of a name, its networks on ``device`` in eval mode.

    Raises:
        InputError: no such method, or weights that do not fit.
        MissingFileError: weights that are not there.
    """
    known = methods()
    if name not in known:
        raise InputError(f"method '{name}'; expected one of {', '.join(known)}")
    method = known[name](weights or Weights(), device, tile)
    if tile and method.whole:
        raise InputError(f"{method.title} computes whole images only: leave out --tile, or give 0")
    return method
