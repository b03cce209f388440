"""Every network of the program: one record each.

From a record follow how its weight files are found and recognised, the flag that names one, the methods that use the
network and their rows in the tables, and how large images are tiled. A new student is a file with its class and a
record here. Nothing is imported before a network is built.

What a student's class must offer is told in :mod:`codes.student`.
"""

import importlib
from dataclasses import dataclass
from typing import Literal

from codes.errors import InputError


@dataclass(frozen=True)
class Network:
    """A network.

    Args:
        key: its name in the registry; of a student, also that of its method and of ``--student``.
        title: its name in texts and tables.
        build: where its class is, 'module:class'. The class may have a static method ``settings(state)``: the arguments
            of its constructor that a state dict tells, by its shapes or by buffers of its own.
        role: 'denoiser' (short TFP to itself), 'enlarger' (TFP to 4 times its size), 'light' (spike frames to the light
            at an instant), 'student' (blurry image and spikes to a sharp image), 'supervised' (likewise, with inputs
            of its own).
        files: names in model/: ours, then the authors'.
        flag: ``--{flag}_path`` names a weight file.
        reach: how far the network sees, in spike pixels and rounded up; None: all of the image, which is then not
            computed in tiles.
        colour: order of the colours of its images; 'grey' has one channel.
        keys: of a student, at how many instants it is asked where its frames are joined (:class:`codes.motion.Joined`).
        robust: of a student, whether scripts/train_robust.py trains it; spikes are always made as bright as its image.
    """

    key: str
    title: str
    build: str
    role: Literal["denoiser", "enlarger", "light", "student", "supervised"]
    files: tuple[str, ...]
    flag: str
    reach: int | None = None
    colour: Literal["grey", "BGR", "RGB"] = "grey"
    keys: int = 7
    robust: bool = False

    @property
    def class_name(self) -> str:
        """The name of its class."""
        return self.build.partition(":")[2]

    @property
    def prefix(self) -> str:
        """What the weight files of a training begin with: 'DeblurNet' of DeblurNet_last.pth."""
        return self.files[0].removesuffix(".pth").partition("_")[0]

    def load_class(self) -> type:
        """Its class."""
        module, _, name = self.build.partition(":")
        return getattr(importlib.import_module(module), name)

    def settings(self, state: dict) -> dict:
        """The arguments of its constructor that a state dict tells."""
        told = getattr(self.load_class(), "settings", None)
        return told(state) if told else {}


NETWORKS: dict[str, Network] = {
    network.key: network
    for network in (
        Network(
            key="bsn",
            title="BSN",
            build="codes.model.bsn_model:BSN",
            role="denoiser",
            files=("BSN_photo.pth", "BSN_1000.pth"),
            flag="bsn",
            reach=76,
        ),
        Network(
            key="edsr",
            title="EDSR",
            build="codes.model.edsr_model:EDSR",
            role="enlarger",
            files=("SR_photo.pth", "SR_70.pth"),
            flag="sr",
            reach=40,
        ),
        Network(
            key="ldn",
            title="LDN",
            build="codes.model.ldn_model:Deblur_Net",
            role="student",
            files=("DeblurNet_photo.pth", "DeblurNet_100.pth"),
            flag="deblur",
            reach=16,
            colour="BGR",
        ),
        Network(
            key="sdmnet",
            title="SDMNet",
            build="codes.model.sdmnet_model:SDMNet",
            role="student",
            files=("SDMNet_photo.pth",),
            flag="sdmnet",
            reach=20,
            colour="BGR",
            robust=True,
        ),
        Network(
            key="sdmnet_light",
            title="SDMNet light",
            build="codes.model.sdmnet_model:SDMNetLight",
            role="student",
            files=("SDMNetLight_photo.pth",),
            flag="sdmnet_light",
            reach=20,
            colour="BGR",
            keys=5,
            robust=True,
        ),
        Network(
            key="san",
            title="SAN",
            build="codes.baselines.san_student:SANStudent",
            role="student",
            files=("SAN.pth",),
            flag="san",
            colour="BGR",
        ),
        Network(
            key="stir",
            title="STIR",
            build="codes.baselines.stir_model:STIR",
            role="light",
            files=("STIR.pth", "STIR_pretrain.pth"),
            flag="stir",
        ),
        Network(
            key="spkdeblurnet",
            title="SpkDeblurNet",
            build="codes.baselines.spkdeblurnet_model:SpkDeblurNet",
            role="supervised",
            files=("SpkDeblurNet.pth", "gopro_56_100000_SpikeDeblur.pth"),
            flag="spkdeblurnet",
            colour="RGB",
        ),
    )
}
"""Key -> record, in the order of the tables."""


STUDENT = "sdmnet"
"""The student that deblurs where neither a method nor weights are named."""


ALONG = "_motion"
"""What the name of a method ends with where its frames are joined along the motion (:mod:`codes.motion`)."""


def students() -> list[str]:
    """The keys of the students."""
    return [key for key, network in NETWORKS.items() if network.role == "student"]


def robust() -> list[str]:
    """The keys of the students that scripts/train_robust.py trains."""
    return [key for key in students() if NETWORKS[key].robust]


def joinable() -> list[str]:
    """The methods whose frames can be joined along the motion."""
    return ["sdm21", "sdm_tfi", "teacher", *students()]


def student_of(flags) -> str:
    """The student whose weights are named, by the flags of all weight files that are; else :data:`STUDENT`.

    Raises:
        InputError: weights of several students.
    """
    named = [key for key in students() if NETWORKS[key].flag in flags]
    if len(named) > 1:
        raise InputError(f"weights of {' and '.join(NETWORKS[key].title for key in named)}; say by which --method")
    return named[0] if named else STUDENT


def method_of(flags) -> str:
    """The method that deblurs where none is named: :func:`student_of`, its frames joined along the motion."""
    return student_of(flags) + ALONG


def network_of(key: str, role: str = "") -> Network:
    """The record of a key.

    Raises:
        InputError: there is none, or none of this role; names those that there are.
    """
    known = [name for name, network in NETWORKS.items() if not role or network.role == role]
    if key not in known:
        raise InputError(f"{role or 'network'} '{key}'; expected one of {', '.join(known)}")
    return NETWORKS[key]


def method_names() -> list[str]:
    """The methods of :mod:`codes.inference.methods`, in the order of the tables."""
    spikes, sdms = ["tfp", "tfi", "stir"], ["sdm", "sdm21", "sdm_tfi", "sdm_bsn", "sdm_stir"]
    return ["blur", *spikes, *sdms, "teacher", *students(), *(name + ALONG for name in joinable()), "spkdeblurnet"]


def weight_options() -> dict[str, str]:
    """Flag -> help of the options that name weight files: ``bsn_path``, ``sr_path`` and so on."""
    return {
        f"{network.flag}_path": f"weights of {network.title} "
        f"(default: {' or '.join(f'model/{name}' for name in network.files)})"
        for network in NETWORKS.values()
    }
