"""The baselines' networks against the golden files, their specifications and slow independent programs."""

import ast
import json
import math
import zlib

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from codes.baselines.adapters import VGGDistance, spkdeblurnet_loss, stir_loss
from codes.baselines.channel_attention import channel_attention
from codes.baselines.san_model import SAN, DeformableConvolution, ImplicitFusion
from codes.baselines.spkdeblurnet_model import SpkDeblurNet, padded, shift_mask
from codes.baselines.stir_model import STIR, warp
from codes.engine.checkpoint import load_weights, save
from codes.fast import quicken
from codes.losses import gaussian_ssim
from codes.metrics import psnr
from codes.spike import middle_tfi, pack, tfp, tfp_long
from tests.conftest import ROOT, rnd

pytestmark = pytest.mark.slow

KEYS = {
    SpkDeblurNet: "spkdeblurnet/spkdeblurnet_keys.json",
    STIR: "stir/stir_keys.json",
    SAN: "san_keys.json",
}
NETWORKS = pytest.mark.parametrize("build", KEYS, ids=lambda build: build.__name__)
PARAMETERS = {SpkDeblurNet: 13_464_684, STIR: 5_107_960, SAN: 2_421_882}
UNUSED = ("D_conv_reduce.", "S_conv_reduce.", "S_layers.0.", "S_layers.1.")


def keys_of(build, golden_folder):
    return json.loads((golden_folder / KEYS[build]).read_text())["keys"]


def spikes(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random(shape) < 0.3)


def filled_by(network, keys):
    """Fill a network as the golden files' README says for the baselines; in eval mode."""
    state = network.state_dict()
    for key, rule in ((item["key"], item["fill"]) for item in keys):
        shape = tuple(state[key].shape)
        if rule == "keep":
            continue
        z = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
        if rule in ("zero", "one"):
            z = np.full(shape, float(rule == "one"))
        elif rule == "norm_weight":
            z = 1 + 0.01 * z
        else:
            z = z * (0.01 if rule == "small" else np.sqrt(1 / np.prod(shape[1:])))
        state[key] = torch.from_numpy(z.astype(np.float32))
    network.load_state_dict(state)
    return network.eval()


# Keys, sizes, files.


@NETWORKS
def test_official_keys(build, golden_folder):
    keys, state = keys_of(build, golden_folder), build().state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == {item["key"]: item["shape"] for item in keys}
    for item in keys:
        if item.get("dtype"):
            assert str(state[item["key"]].dtype) == f"torch.{item['dtype']}"


@NETWORKS
def test_parameter_counts(build):
    assert sum(p.numel() for p in build().parameters()) == PARAMETERS[build]


@pytest.mark.parametrize(("frames", "count"), [(33, 13_452_264), (65, 13_469_544)])
def test_parameter_counts_of_other_spike_windows(frames, count):
    assert sum(p.numel() for p in SpkDeblurNet(frames).parameters()) == count


@NETWORKS
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_with_the_official_keys_is_loaded(build, prefix, golden_folder, tmp_path):
    generator, file = torch.Generator().manual_seed(0), {}
    for item in keys_of(build, golden_folder):
        numbers = torch.rand(item["shape"], generator=generator)
        file[prefix + item["key"]] = numbers.to(getattr(torch, item.get("dtype", "float32")))
    save(file, tmp_path / "a.pth")
    loaded = load_weights(build(), tmp_path / "a.pth").state_dict()
    assert len(loaded) == len(file) and all(torch.equal(loaded[key.removeprefix(prefix)], file[key]) for key in file)


def test_torchvision_is_only_imported_where_it_is_needed():
    for path in (ROOT / "codes").rglob("*.py"):
        for line in ast.parse(path.read_text()).body:
            assert not (isinstance(line, ast.Import | ast.ImportFrom) and "torchvision" in ast.unparse(line)), path


def test_sizes_that_do_not_fit_are_refused():
    blur, spike, tfi = torch.zeros(1, 3, 80, 68), torch.zeros(1, 56, 40, 34), torch.zeros(1, 1, 40, 34)
    network = SpkDeblurNet()
    for images in (
        (blur, spike, tfi[..., 1:]),
        (blur, spike[:, 1:], tfi),
        (blur[..., 1:], spike, tfi),
        (blur[:, 1:], spike, tfi),
        (blur[0], spike[0], tfi[0]),
        (blur.expand(2, -1, -1, -1), spike, tfi),
    ):
        with pytest.raises(ValueError, match=r"^an image of shape .* expected \(B, 3, H, W\) with \(B, 56, .* crop "):
            network(*images)
    with pytest.raises(ValueError, match="^an image of 80x64 pixels is too small .* at least 66 pixels"):
        network(blur[..., :64], spike[..., :32], tfi[..., :32])

    for shape in ((1, 60, 32, 32), (61, 32, 32)):
        with pytest.raises(ValueError, match=r"^spikes of shape .* expected \(B, 61, H, W\): cut "):
            STIR()(torch.zeros(shape))
    with pytest.raises(ValueError, match="^spikes of 32x40 pixels in training; expected multiples of 16: crop"):
        STIR()(torch.zeros(1, 61, 32, 40))

    events, blur = torch.zeros(1, 96, 16, 16), torch.zeros(1, 3, 32, 32)
    for wrong in (blur[..., 2:], blur[:, 1:], blur[0]):
        with pytest.raises(ValueError, match=r"^an image of shape .* expected \(B, 3, H, W\) .* multiples of 16"):
            SAN()(events, wrong)
    for wrong in (events[..., 1:], events[:, 1:], events[0], events.expand(2, -1, -1, -1)):
        with pytest.raises(ValueError, match=r"^events of shape .* expected \(1, 96, h, w\), at least 16"):
            SAN()(wrong, blur)


# Golden files.


@torch.inference_mode()
@pytest.mark.parametrize(("case", "frames", "batch"), [("A", 56, 1), ("C", 65, 2)])
def test_spkdeblurnet_golden(case, frames, batch, golden, golden_folder):
    network = filled_by(SpkDeblurNet(frames), keys_of(SpkDeblurNet, golden_folder))
    expected = golden(f"spkdeblurnet/spkdeblurnet_{case}")
    random = np.random.default_rng(0)
    blur = torch.from_numpy(random.random((batch, 3, 128, 128)).astype(np.float32))
    spike = torch.from_numpy(random.random((batch, frames, 64, 64)) < 0.3)
    tfi = 2 * middle_tfi(spike, frames // 2)
    np.testing.assert_array_equal(tfi, expected["tfi"])
    outputs = network(blur, spike, tfi)
    for name, output, tolerance in zip(
        ("sharp", "spike_recon", "quick_sharp"), outputs, (1e-3, 1e-4, 3e-4), strict=True
    ):
        np.testing.assert_allclose(output, expected[name], rtol=0, atol=tolerance, err_msg=name)


@torch.inference_mode()
@pytest.mark.parametrize(("case", "out", "height", "width"), [("A", "out", 128, 128), ("C", "out_unpadded", 100, 90)])
def test_stir_golden(case, out, height, width, golden, golden_folder):
    network = filled_by(STIR(), keys_of(STIR, golden_folder))
    expected = golden(f"stir/stir_{case}")
    spike = spikes(1, 61, height, width)
    np.testing.assert_allclose(network(spike), expected[out], rtol=0, atol=2e-5)
    if case == "A":  # what training is given, with the normalisation of the golden files
        network.train().resnet.eval()
        for level, image in enumerate(network(spike)):
            np.testing.assert_allclose(image.clamp(0, 1), expected[f"img_pred_{level}"].clip(0, 1), rtol=0, atol=2e-5)


def test_warp_golden(golden):
    file = golden("stir/stir_warp")
    moved = warp(torch.from_numpy(file["x"]), torch.from_numpy(file["flow"]))
    np.testing.assert_allclose(moved, file["out"], rtol=0, atol=2e-5)


def test_spike_functions_golden(golden):
    file = golden("spkdeblurnet/spike_functions")
    for frames in (33, 56, 65):
        for name, reach in (("", 50), ("_w10", 10)):
            spike, middle = file[f"spike_{frames}"], frames // 2
            np.testing.assert_array_equal(middle_tfi(spike, middle, reach)[0], file[f"middleTFI{name}_{frames}"])
            expected = file[f"middleTFP{name}_{frames}"]
            around = slice(max(middle - reach + 1, 0), min(middle + 1 + reach, frames))
            np.testing.assert_allclose(tfp_long(spike, around)[0], expected, atol=1e-6)
    zoo = file["zoo_spike"]
    np.testing.assert_array_equal(middle_tfi(zoo, 20, 20, both=True), file["zoo_tfi41"])
    np.testing.assert_allclose(tfp(zoo, 20, 41), file["zoo_tfp41"], atol=1e-6)
    np.testing.assert_array_equal(pack(file["dat_spike"].astype(bool)).ravel(), file["dat_bytes"])


def test_metrics_golden(golden, golden_folder):
    expected = json.loads((golden_folder / "spkdeblurnet" / "metrics.json").read_text())
    arrays = golden("spkdeblurnet/metrics")
    pair = [torch.from_numpy(arrays[name]) for name in ("pred", "gt")]
    grey = [image[:, :1] for image in pair]
    stir = [torch.from_numpy(arrays[name])[None, None] for name in ("stir_pred", "stir_gt")]
    weights = torch.tensor([65.481, 128.553, 24.966])[:, None, None] / 255  # of BT.601's Y (16 to 235)
    luminance = [(image * weights).sum(dim=1, keepdim=True) + 16 / 255 for image in pair]
    assert gaussian_ssim(*luminance).mean().item() == pytest.approx(expected["spk_batch_SSIM_Y"], abs=1e-6)
    assert gaussian_ssim(*grey).mean().item() == pytest.approx(expected["spk_gray_batch_SSIM"], abs=1e-6)
    assert gaussian_ssim(*stir).item() == pytest.approx(expected["stir_ssim_gray"], abs=1e-6)
    assert psnr(*stir).item() == pytest.approx(expected["stir_psnr_gray"], abs=1e-6)


# Slow independent programs.


@pytest.mark.parametrize(("frames", "instant", "reach"), [(9, 4, 3), (5, 0, 2), (5, 4, 2), (1, 0, 4)])
def test_middle_tfi_by_hand(frames, instant, reach):
    spike = spikes(frames, 5, 6).numpy()
    for both in (False, True):
        image = middle_tfi(spike, instant, reach, both)[0]
        for y, x in np.ndindex(5, 6):
            before = [t for t in range(instant - reach + 1, instant + 1) if t >= 1 and spike[t, y, x]]
            after = [t for t in range(instant + 1, instant + reach + 1) if t < frames and spike[t, y, x]]
            last, next_one = max(before, default=instant - reach), min(after, default=instant + reach)
            if both and not (before and after):
                last, next_one = instant - reach, instant + reach
            assert image[y, x].item() == pytest.approx(1 / (next_one - last))
    with pytest.raises(ValueError, match=f"^TFI at instant {frames} .* an instant from 0 to {frames - 1}"):
        middle_tfi(spike, frames)


def test_shift_mask_keeps_apart_what_is_not_adjacent():
    """Pixels of a shifted window may look at one another where the image, not turned round, has them side by side."""
    height, width = 24, 16
    mask = shift_mask(height, width).numpy()
    assert mask.shape == (6, 64, 64) and set(np.unique(mask)) == {0, -100}
    for window, i, j in np.random.default_rng(0).integers((6, 64, 64), size=(2000, 3)):
        top, left = window // 2 * 8, window % 2 * 8
        places = [((top + k // 8 + 4) % height, (left + k % 8 + 4) % width) for k in (i, j)]
        near = all(abs(a - b) < 8 for a, b in zip(*places, strict=True))
        assert (mask[window, i, j] == 0) == near


@pytest.mark.parametrize("size", [(17, 33), (32, 40)])
def test_grids_are_mirrored_to_multiples_of_32(size):
    x = torch.rand(2, 3, *size)
    widths = [(0, 0), (0, 0), *((0, -side % 32) for side in size)]
    np.testing.assert_array_equal(padded(x), np.pad(x.numpy(), widths, mode="reflect"))


def test_channel_attention_is_restormers():
    """Channel by channel: how alike two channel images are decides how much of a third is taken."""
    q, k, v = (torch.randn(2, channels, 3, 5) for channels in (12, 8, 8))
    temperature = torch.rand(4, 1, 1)
    found = channel_attention(q, k, v, temperature)
    q, k, v = (x.double().flatten(2).numpy() for x in (q, k, v))
    for image, channel in np.ndindex(2, 12):
        head, asking = channel // 3, q[image, channel]
        keys, values = (x[image, 2 * head : 2 * head + 2] for x in (k, v))
        alike = [asking @ key / np.sqrt((asking @ asking) * (key @ key)) for key in keys]
        shares = np.exp(temperature[head].item() * np.array(alike))
        np.testing.assert_allclose(found[image, channel].flatten(), shares @ values / shares.sum(), atol=1e-6)


@torch.inference_mode()
def test_channel_attention_in_half_precision():
    """Sums over the pixels of a whole frame are beyond float16: 200 x 300 times the square of 1.5 is 135,000."""
    torch.manual_seed(0)
    q = 1.5 * torch.randn(1, 4, 200, 300)
    k, v, temperature = q + 0.1 * torch.randn_like(q), torch.randn_like(q), torch.ones(2, 1, 1)
    expected = channel_attention(q.double(), k.double(), v.double(), temperature.double())
    for kind, atol in ((torch.float16, 1e-2), (torch.bfloat16, 5e-2)):
        found = channel_attention(q.to(kind), k.to(kind), v.to(kind), temperature)
        assert found.dtype == kind
        np.testing.assert_allclose(found.float(), expected, atol=atol)


def implicit_by_pixel(image, events, layers):
    """SAN's implicit function at one pixel after the other: ``(C, H, W)``, ``(C, h, w)``, ``[(weight, bias)]``."""
    channels, *size = image.shape
    cells = events.shape[1:]
    nudge = 1e-6

    def middle(index, n):
        return -1 + (2 * index + 1) / n

    def nearest(place, n):
        return min(range(n), key=lambda index: abs(middle(index, n) - place))

    out = np.empty((layers[-1][0].shape[0], *size))
    for pixel in np.ndindex(*size):
        query = [middle(pixel[axis], size[axis]) for axis in (0, 1)]
        answers, areas = {}, {}
        for sides in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            place = [query[axis] + sides[axis] / cells[axis] + nudge for axis in (0, 1)]
            place = [min(max(p, -1 + nudge), 1 - nudge) for p in place]
            cell = tuple(nearest(place[axis], cells[axis]) for axis in (0, 1))
            near = tuple(nearest(place[axis], size[axis]) for axis in (0, 1))
            relative = [(query[axis] - middle(cell[axis], cells[axis])) * cells[axis] for axis in (0, 1)]
            scale = [2 / size[axis] * cells[axis] for axis in (0, 1)]
            x = np.concatenate([events[(slice(None), *cell)], relative, scale, image[(slice(None), *near)]])
            for index, (weight, bias) in enumerate(layers):
                x = weight @ x + bias
                if index < len(layers) - 1:
                    x = np.maximum(x, 0)
            answers[sides] = x
            areas[sides] = abs(relative[0] * relative[1]) + 1e-9
        total = sum(areas.values())
        out[(slice(None), *pixel)] = sum(answers[y, x] * areas[-y, -x] / total for y, x in answers)
    return out


@torch.inference_mode()
@pytest.mark.parametrize(
    ("size", "cells"),
    [((8, 6), (4, 3)), ((8, 12), (2, 3)), ((5, 6), (5, 6)), ((6, 9), (4, 2)), ((4, 5), (7, 11)), ((7, 3), (1, 2))],
)
def test_implicit_fusion_by_pixel(size, cells, form):
    torch.manual_seed(0)
    network = form(ImplicitFusion(6))
    image, events = torch.randn(2, 6, *size), torch.randn(2, 6, *cells)
    state = {key: value.double().numpy() for key, value in network.state_dict().items()}
    layers = [(state[f"imnet.layers.{index}.weight"], state[f"imnet.layers.{index}.bias"]) for index in (0, 2, 4, 6)]
    fused = network(image, events)
    for index in range(2):
        expected = implicit_by_pixel(image[index].double().numpy(), events[index].double().numpy(), layers)
        np.testing.assert_allclose(fused[index], expected, atol=2e-6)


def bilinear(image, y, x):
    """``(C, h, w)`` between its pixels; 0 outside."""
    total, top, left = 0, math.floor(y), math.floor(x)
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
            total = total + image[:, row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


@torch.inference_mode()
@pytest.mark.parametrize("kernel", [3, 5])
def test_deformable_convolution_by_pixel(kernel, form):
    torch.manual_seed(0)
    network, image = form(DeformableConvolution(4, kernel)), torch.randn(1, 4, 5, 6)
    torch.nn.init.normal_(network.conv_offset_mask.weight, std=0.3)
    torch.nn.init.normal_(network.bias)
    taps = kernel**2
    offsets = F.conv2d(image, network.conv_offset_mask.weight, network.conv_offset_mask.bias, padding=kernel // 2)[0]
    offsets, weight, x = offsets.double().numpy(), network.weight.double().numpy(), image[0].double().numpy()
    expected = np.empty((4, 5, 6))
    for row, column in np.ndindex(5, 6):
        total = network.bias.double().numpy()
        for tap in range(taps):
            y = row + tap // kernel - kernel // 2 + offsets[2 * tap, row, column]
            left = column + tap % kernel - kernel // 2 + offsets[2 * tap + 1, row, column]
            strength = 1 / (1 + np.exp(-offsets[2 * taps + tap, row, column]))
            total = total + weight[:, :, tap // kernel, tap % kernel] @ (strength * bilinear(x, y, left) + np.zeros(4))
        expected[:, row, column] = total
    np.testing.assert_allclose(network(image)[0], expected, atol=1e-5)


@torch.inference_mode()
def test_deformable_convolution_of_16_bits_reads_at_the_same_places():
    """At first a plain convolution at half its strength, also beyond 2048 pixels, which float16 cannot count."""
    torch.manual_seed(0)
    network, image = DeformableConvolution(3, 3).half(), torch.rand(1, 3, 4, 5000)
    torch.nn.init.zeros_(network.conv_offset_mask.weight)
    torch.nn.init.zeros_(network.conv_offset_mask.bias)
    expected = F.conv2d(image.half().float(), network.weight.float() / 2, padding=1)
    made = network(image.half())
    assert made.dtype == torch.float16
    torch.testing.assert_close(made.float(), expected, atol=5e-3, rtol=0)


@pytest.mark.parametrize(
    ("kernel", "size", "reach", "atol", "rtol"),
    [(5, (7, 11), 3, 1e-5, 1e-5), (3, (9, 1279), 0, 3e-4, 1e-4), (3, (12, 720), 1, 3e-4, 5e-3)],
)
def test_deformable_convolution_and_its_gradients(kernel, size, reach, atol, rtol, form):
    """Against torchvision's. A reach of 0 is how training starts, with every place exactly on a pixel.

    Far from 0 places are rounded, by up to 1e-4 pixels in both programs; now and then to the other side of a pixel,
    where the gradient is another.
    """
    from torchvision.ops import deform_conv2d

    torch.manual_seed(0)
    network = form(DeformableConvolution(3, kernel))
    torch.nn.init.normal_(network.conv_offset_mask.weight, std=0.2 * reach)
    torch.nn.init.normal_(network.bias)
    image, taps = torch.randn(2, 3, *size, requires_grad=True), kernel**2
    offset, mask = network.conv_offset_mask(image).split([2 * taps, taps], dim=1)
    expected = deform_conv2d(image, offset, network.weight, network.bias, padding=kernel // 2, mask=mask.sigmoid())
    found, variables = network(image), (image, *network.parameters())
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)
    direction = torch.randn_like(found)
    slopes = (torch.autograd.grad((result * direction).sum(), variables) for result in (found, expected))
    for mine, theirs in zip(*slopes, strict=True):
        assert (mine - theirs).norm() < rtol * theirs.norm()


@torch.inference_mode()
def test_san_step_by_step():
    """Encoders, decoder and result written out from the specification, around the fusions that are tested above."""
    torch.manual_seed(0)
    network = SAN().eval()
    events, blur = torch.rand(2, 96, 21, 18), torch.rand(2, 3, 32, 48)
    state = network.state_dict()

    def conv(x, name, relu=True):
        weight = state[f"{name}.weight"]
        x = F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)
        return x.relu() if relu else x

    features = []
    for x, name in ((2 * blur - 1, "im_enc"), (events, "ev_enc")):
        levels = [conv(conv(x, f"{name}.conv1"), f"{name}.conv2")]
        for level in range(1, 5):
            x = F.avg_pool2d(levels[-1], 2)
            levels.append(conv(conv(x, f"{name}.down{level}.conv1"), f"{name}.down{level}.conv2"))
        features.append(levels)
    fused = [getattr(network, f"msff{level + 1}")(features[0][level], features[1][level]) for level in range(5)]
    x = fused[4]
    for level in range(1, 5):
        x = F.interpolate(x, scale_factor=2, mode="bicubic")
        x = conv(conv(x, f"dec.up{level}.conv1") + fused[4 - level], f"dec.up{level}.conv2")
    expected = torch.log1p(conv(x, "dec.conv", relu=False).exp())
    sharp, ratio = network(events, blur)
    np.testing.assert_allclose(ratio, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(sharp, expected * blur, rtol=1e-5, atol=1e-5)


# What the specifications count.


def multiplications(network, *shapes):
    """Multiply-accumulates by kind, in units of 10^9: convolutions ('conv'), and all others ('mm')."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        network.eval()(*(torch.rand(1, *shape) for shape in shapes))
    counts = {"conv": 0, "mm": 0}
    for name, flops in counter.get_flop_counts()["Global"].items():
        counts["conv" if "conv" in str(name) else "mm"] += flops / 2e9
    return counts


def test_multiplications_of_spkdeblurnet_and_stir():
    counts = multiplications(SpkDeblurNet(), (3, 128, 128), (56, 64, 64), (1, 64, 64))
    assert sum(counts.values()) == pytest.approx(13.70, abs=0.005)
    network = STIR()
    for side, expected in ((96, 4.08), (128, 7.25)):
        assert sum(multiplications(network, (61, side, side)).values()) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize(("side", "ratio", "expected"), [(128, 2, 2.53), (256, 4, 8.82)])
def test_multiplications_of_san(side, ratio, expected):
    """As the specification counts; the fast form takes fewer for the implicit function."""
    network, shapes = SAN(), ((96, side // ratio, side // ratio), (3, side, side))
    counts = multiplications(network, *shapes)
    assert sum(counts.values()) == pytest.approx(expected, abs=0.005)
    implicit = 0
    for level, channels in enumerate((16, 32, 64, 128, 128)):
        implicit += 4 * (side >> level) ** 2 / 1e9 * ((2 * channels + 4) * channels + 3 * channels**2)
    fast = multiplications(quicken(network, torch.device("cpu")), *shapes)
    assert fast["conv"] == counts["conv"] and fast["mm"] < counts["mm"] - 0.45 * implicit


# Training.


def small_inputs(build):
    """The smallest inputs, and the gradient's source, of a network in training."""
    if build is SpkDeblurNet:
        spike = spikes(1, 56, 33, 34)
        inputs = (rnd(1, 3, 66, 68), spike, 2 * middle_tfi(spike, 28))
        return inputs, lambda out: spkdeblurnet_loss(out, rnd(1, 3, 66, 68), rnd(1, 1, 66, 68))
    if build is STIR:  # the first images of fresh weights lie around 0, where clamping ends many gradients
        return (spikes(2, 61, 32, 48),), lambda out: stir_loss(out, rnd(2, 1, 32, 48))
    inputs = (spikes(1, 96, 17, 20), rnd(1, 3, 32, 32))
    return inputs, lambda out: F.l1_loss(out[0], inputs[1]) + out[1].square().mean()


@NETWORKS
def test_gradients_reach_all_weights(build):
    torch.manual_seed(0)
    network = build().train()
    inputs, loss = small_inputs(build)
    loss(network(*inputs)).backward()
    for name, parameter in network.named_parameters():
        if build is SpkDeblurNet and name.startswith(UNUSED):
            assert parameter.grad is None
        else:
            assert parameter.grad.isfinite().all() and parameter.grad.any(), name


@pytest.mark.parametrize("build", [SpkDeblurNet, STIR, SAN])
@torch.inference_mode()
def test_bf16_is_close(build):
    torch.manual_seed(0)
    network = build().eval()
    inputs, _ = small_inputs(build)
    exact = network(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = network(*inputs)
    for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (exact, coarse)), strict=True):
        assert a.shape == b.shape and (a - b.float()).abs().mean() < 0.03 * (a.std() + 0.01)


def test_fresh_weights():
    torch.manual_seed(0)
    state = SpkDeblurNet().state_dict()
    for key, value in state.items():
        if key.endswith(("qkv.weight", "fc1.weight", "relative_position_bias_table")):
            assert value.std().item() == pytest.approx(0.02, rel=0.15), key
        if key.endswith(("qkv.bias", "fc1.bias")):
            assert not value.any()
    network = STIR()
    for layer, bound in (
        (network.encoder.conv4.net[0], 6),
        (network.encoder.resblocks4.net[0].conv_block[1].net[0], 2),
    ):
        fans = 9 * (layer.in_channels + layer.out_channels)
        expected = math.sqrt(bound / fans) / (math.sqrt(3) if bound == 6 else 1)
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.02) and not layer.bias.any()
    network = SAN()
    assert network.im_enc.down4.conv1.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 128)), rel=0.02)
    assert not network.msff1.dcn.conv_offset_mask.weight.any() and not network.im_enc.conv1.bias.any()


def test_spkdeblurnet_loss_by_hand():
    sharp, grey = rnd(2, 3, 4, 6), rnd(2, 1, 4, 6)
    loss = spkdeblurnet_loss((sharp + 0.5, grey - 0.25, sharp - 0.125), sharp, grey)
    assert loss.item() == pytest.approx(0.5 + 0.25 + 0.125)


def test_stir_loss_by_hand():
    sharp = rnd(2, 1, 32, 48)
    images, weights = [sharp + 0.5], (0.5, 0.25, 0.25, 0.25)
    for level in range(1, 5):
        step = 2**level
        mean = sharp.reshape(2, 1, 32 // step, step, 48 // step, step).mean(dim=(3, 5))
        images.append(mean - 0.1 * level)
    expected = 0.5 + sum(weight * 0.1 * level / 4 for level, weight in enumerate(weights, 1))
    assert stir_loss(images, sharp).item() == pytest.approx(expected, rel=1e-5)
    assert stir_loss(images, sharp, lambda a, b: (a - b).sum()).item() == pytest.approx(
        expected + 0.2 * 0.5 * sharp.numel(), rel=1e-5
    )


def test_vgg_distance_takes_relu5_1():
    pytest.importorskip("torchvision")
    torch.manual_seed(0)
    distance = VGGDistance(pretrained=False)
    convolutions = [layer for layer in distance.features if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64] * 2 + [128] * 2 + [256] * 4 + [512] * 5
    seen = []
    distance.features.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    image, sharp = rnd(1, 1, 32, 48).requires_grad_(), 1 - rnd(1, 1, 32, 48)
    loss = distance(image, sharp)
    loss.backward()
    assert image.grad.any() and all(p.grad is None for p in distance.parameters())
    for (given, features), picture in zip(seen, (sharp, image), strict=True):
        assert features.shape == (1, 512, 2, 3) and features.min() >= 0
        for channel, (mean, deviation) in enumerate(((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))):
            expected = ((picture[:, 0] + 1) / 2 - mean) / deviation
            np.testing.assert_allclose(given[:, channel].detach(), expected.detach(), atol=1e-5)
    assert loss.item() == pytest.approx((seen[0][1] - seen[1][1]).square().mean().item())
