"""A GPU without one: PyTorch's fake tensors know shape, type and device, but have no values.

Under them a tensor made on the wrong device, and everything that would wait for the GPU (``.item()``,
``bool(tensor)``, a size that depends on values), is an error, as it cannot be on a CPU. So what is run here, forward,
runs on a GPU too, and without waiting. Gradients cannot be tried so: their engine starts CUDA.
"""

import contextlib

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from codes import metrics
from codes.baselines import adapters
from codes.dataset import SpikeData
from codes.engine.transfer import Transfer
from codes.fast import quicken
from codes.flow import Path, correction, quartered, told, trust, warp, with_slopes
from codes.image import grey
from codes.inference.methods import from_student
from codes.inference.tiles import Tiled, decode_tiles
from codes.labels import Distilled, Kept, KnownSharp, fixed_instants
from codes.losses import TeacherLoss, reblur_loss
from codes.model.registry import NETWORKS, students
from codes.sdm import Teacher, sdm
from codes.spike import EXPOSURE, Intervals, middle_tfi, tfi
from codes.student import Sight

GPU = torch.device("cuda")
BATCH, HEIGHT, WIDTH = 2, 96, 128


def without_a_driver() -> bool:
    """Whether fake tensors of a GPU work here; torch 2.6 asks the driver of CUDA for each slice."""
    try:
        with FakeTensorMode():
            return torch.empty(4, device=GPU)[1:].to(GPU).device.type == "cuda"
    except RuntimeError:
        return False


WHY = (
    "fake tensors of a GPU need its driver in this PyTorch: 2.6, the oldest that we support, starts CUDA to index one; "
    "a newer PyTorch runs these tests"
)
pytestmark = pytest.mark.skipif(not without_a_driver(), reason=WHY)


@pytest.fixture(autouse=True)
def mode():
    """Every tensor that a test makes is a fake one; a real one among them is an error."""
    with FakeTensorMode() as mode, torch.no_grad():
        yield mode


@contextlib.contextmanager
def real(mode):
    """Out of it, to make networks, whose first weights are drawn."""
    mode.__exit__(None, None, None)
    try:
        yield
    finally:
        mode.__enter__()


def on_gpu(mode, build):
    """A network, made on the CPU, then with fake parameters and buffers on the GPU, as ``.to(device)`` moves them."""
    with real(mode):
        network = build()
    for module in network.modules():
        for name, value in module._parameters.items():
            if value is not None:
                fake = torch.empty(value.shape, dtype=value.dtype, device=GPU)
                module._parameters[name] = nn.Parameter(fake, requires_grad=value.requires_grad)
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = torch.empty(value.shape, dtype=value.dtype, device=GPU)
    return quicken(network.eval(), GPU)


class NoCopies(TorchDispatchMode):
    """Refuses copies between the memories, each of which waits; making a GPU tensor of numbers is one too."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func._schema.name in ("aten::_to_copy", "aten::copy_") and isinstance(out, torch.Tensor):
            source = args[1] if func._schema.name == "aten::copy_" else args[0]
            assert source.device == out.device, f"a copy from {source.device} to {out.device}"
        return out


def images(*shape):
    return torch.rand(*shape, device=GPU)


def batch():
    spike = torch.zeros(BATCH, EXPOSURE.total, HEIGHT // 4, WIDTH // 4, dtype=torch.uint8, device=GPU)
    return {"blur": images(BATCH, 3, HEIGHT, WIDTH), "spike": spike}


def is_on_gpu(tensor, *shape):
    assert tensor.device.type == "cuda" and tensor.shape == shape


def student(mode, key, **settings):
    return on_gpu(mode, lambda: NETWORKS[key].load_class()(**settings))


def teacher(mode, **more):
    return Teacher.cascade(*(on_gpu(mode, NETWORKS[key].load_class()) for key in ("bsn", "edsr")), **more)


def test_what_waits_or_lies_elsewhere_is_found(mode):
    """The tool itself."""
    one = images(3)
    with pytest.raises(DataDependentOutputException):
        one.sum().item()
    with pytest.raises(DataDependentOutputException):
        bool(one.sum() > 0)
    with pytest.raises(Exception, match="device"):
        one + torch.zeros(3)
    with pytest.raises(AssertionError, match="a copy from cpu to cuda"), NoCopies():
        torch.arange(3).to(GPU)


SETTINGS = [
    ("ldn", {}),
    ("ldn", {"gain": True}),
    ("ldn", {"spike_input": "pyramid"}),
    ("ldn", {"spike_input": "pyramid", "gain": True}),
    ("sdmnet", {}),
    ("sdmnet_light", {}),
    ("san", {}),
    ("san", {"gain": True}),
]


def test_every_student_is_tried():
    assert {key for key, _ in SETTINGS} == set(students())


@pytest.mark.parametrize("key, settings", SETTINGS)
def test_students_see_and_deblur(key, settings, mode):
    network, given, instants = student(mode, key, **settings), batch(), (20, 68, 116)
    sight = Sight.of(network)
    with NoCopies():
        seen = sight(given["blur"], given["spike"], instants)
        is_on_gpu(seen, BATCH, 3, sight.frames, HEIGHT // 4, WIDTH // 4)
        is_on_gpu(network(given["blur"], seen), BATCH, 3, 3, HEIGHT, WIDTH)
    shown = from_student(key, network).start(given["blur"], given["spike"])((0, 136))
    is_on_gpu(shown, BATCH, 2, 3, HEIGHT, WIDTH)
    assert shown.dtype == torch.float32


@pytest.mark.parametrize("key", ["bsn", "edsr", "stir", "spkdeblurnet"])
def test_the_other_networks(key, mode):
    network, given = on_gpu(mode, NETWORKS[key].load_class()), batch()
    blur, spike = given["blur"], given["spike"]
    if key == "spkdeblurnet":
        shapes = [(BATCH, 3, HEIGHT, WIDTH), (BATCH, 1, HEIGHT, WIDTH), (BATCH, 3, HEIGHT, WIDTH)]
        for output, shape in zip(network(*adapters.spkdeblurnet_input(network, blur, spike, 68)), shapes, strict=True):
            is_on_gpu(output, *shape)
    elif key == "stir":
        is_on_gpu(adapters.stir_images(network, spike, [0, 68]), BATCH, 2, HEIGHT // 4, WIDTH // 4)
    else:
        scale = {"bsn": 1, "edsr": 4}[key]
        is_on_gpu(network(images(BATCH, 1, 18, 24)), BATCH, 1, 18 * scale, 24 * scale)


def test_every_network_is_tried():
    assert set(NETWORKS) == {"bsn", "edsr", "stir", "spkdeblurnet", *students()}


def test_the_parts_of_motion_that_never_wait():
    frame, there = images(1, 3, HEIGHT, WIDTH), torch.zeros(1, 2, HEIGHT // 4, WIDTH // 4, device=GPU)
    stream, small = images(1, 137, HEIGHT // 4, WIDTH // 4), quartered(frame)
    planes, light = with_slopes(grey(frame)), Intervals(stream > 0.5).means([(60, 77)])
    is_on_gpu(correction(planes, there, light, 1.0), 1, 2, HEIGHT // 4, WIDTH // 4)
    known = told(planes, 1.0, there)
    is_on_gpu(known, 1, 1, HEIGHT // 4, WIDTH // 4)
    is_on_gpu(trust(small, small, there, there, known), 1, 1, HEIGHT // 4, WIDTH // 4)
    is_on_gpu(warp(frame, there, "bicubic"), 1, 3, HEIGHT, WIDTH)
    is_on_gpu(Path(torch.cat([there, there]), torch.ones(3, 2) / 2, 4)(frame), 1, 3, HEIGHT, WIDTH)


@pytest.mark.parametrize("kind", ["cascade", "plain", "stir"])
def test_teachers_and_labels(kind, mode):
    if kind == "cascade":
        teach = teacher(mode)
    elif kind == "plain":
        teach = Teacher.plain()
    else:
        teach = Teacher.plain(61, "nearest", denoise=on_gpu(mode, NETWORKS["stir"].load_class()), raw=True)
    given, source = batch(), Distilled(teach, fixed_instants())
    instants = source.instants(0) if kind != "stir" else (44, 68)
    with NoCopies():
        is_on_gpu(source.labels(given, instants), BATCH, len(instants), 3, HEIGHT, WIDTH)


def test_labels_that_are_not_computed():
    given = batch()
    given["textures"] = images(BATCH, 6, HEIGHT, WIDTH).half()
    given["sharps"] = images(BATCH, 7, 3, HEIGHT, WIDTH)
    is_on_gpu(Kept(fixed_instants()).labels(given, fixed_instants()(0)), BATCH, 5, 3, HEIGHT, WIDTH)
    sharp = KnownSharp(3, seed=0)
    is_on_gpu(sharp.labels(given, sharp.instants(5)), BATCH, 3, 3, HEIGHT, WIDTH)


def test_the_way_of_a_batch_to_it(mode, tiny):
    """Bytes and bits are opened there; only the copies to it are copies."""
    with real(mode):
        data = SpikeData(tiny, "GOPRO", "train", use_roi=True, roi_size=32)
    transfer = Transfer(data, GPU)
    batch = {
        "name": ["s/1", "s/2"],
        "blur": torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
        "spike": torch.zeros(2, EXPOSURE.total, 8, 1, dtype=torch.uint8),
    }
    there = transfer(batch)
    is_on_gpu(there["blur"], 2, 3, 32, 32)
    is_on_gpu(there["spike"], 2, EXPOSURE.total, 8, 8)
    assert (there["blur"].dtype, there["spike"].dtype) == (torch.float32, torch.uint8)


def test_textures_of_spikes():
    spike, small = batch()["spike"], (BATCH, 1, HEIGHT // 4, WIDTH // 4)
    for texture in (tfi(spike, 68), tfi(spike, 136), middle_tfi(spike, 68, both=True)):
        is_on_gpu(texture, *small)
    is_on_gpu(sdm(images(2, 3, 8, 8), images(2, 1, 8, 8), images(2, 1, 8, 8)), 2, 3, 8, 8)


@pytest.mark.parametrize("terms", ["ssim", "l1", "ssim+l1", "lpips", "lpips_rgb+ssim"])
def test_losses(terms, mode):
    if "lpips" in terms:
        pytest.importorskip("lpips")
    loss = on_gpu(mode, lambda: TeacherLoss(terms, pretrained=False))
    students, labels = images(BATCH, 5, 3, 64, 64), images(BATCH, 5, 3, 64, 64)
    with NoCopies():
        is_on_gpu(loss(students, labels) + 100 * reblur_loss(students, labels[:, 0]))


def test_losses_of_the_baselines(mode):
    pytest.importorskip("torchvision")
    vgg = on_gpu(mode, lambda: adapters.VGGDistance(pretrained=False))
    pyramid = [images(2, 1, 64 >> level, 64 >> level) for level in range(5)]
    is_on_gpu(adapters.stir_loss(pyramid, images(2, 1, 64, 64), vgg))
    one, grey = images(2, 3, 64, 64), images(2, 1, 64, 64)
    is_on_gpu(adapters.spkdeblurnet_loss((one, grey, one), one, grey))


@pytest.mark.parametrize("core", [16, 64])
def test_tiles(core, mode):
    small = images(1, 1, 100, 180)
    bsn, edsr = (on_gpu(mode, NETWORKS[key].load_class()) for key in ("bsn", "edsr"))
    is_on_gpu(Tiled.bsn(bsn, core)(small), 1, 1, 100, 180)
    is_on_gpu(Tiled.edsr(edsr, core)(small), 1, 1, 400, 720)
    ldn, blur = student(mode, "ldn"), images(1, 3, 400, 720)
    spike = images(1, 21, 100, 180)
    is_on_gpu(decode_tiles(ldn, blur, spike, 4 * core, NETWORKS["ldn"].reach), 1, 3, 400, 720)


@pytest.mark.parametrize("metric", ["mse", "psnr", "ssim"])
def test_metrics_up_to_their_last_number(metric):
    """One number is read at the end, no other before it."""
    one, two = images(2, 3, 64, 80), images(2, 3, 64, 80)
    is_on_gpu(getattr(metrics, metric)(one, two), 2)
    with pytest.raises(DataDependentOutputException) as error:
        metrics.compute_img_metric(one, two, metric, margin=0.1)
    frames = [frame for frame in error.traceback if frame.path.name == "metrics.py"]
    assert "values.mean().item()" in str(frames[-1].statement)


def test_the_metric_of_a_network(mode):
    pytest.importorskip("lpips")
    network = on_gpu(mode, lambda: metrics.lpips_network("alex", pretrained=False))
    one = images(2, 3, 64, 64)
    with pytest.raises(DataDependentOutputException) as error:
        metrics.compute_img_metric(one, one, "lpips", lpips=network)
    frames = [frame for frame in error.traceback if frame.path.name == "metrics.py"]
    assert "values.mean().item()" in str(frames[-1].statement)
