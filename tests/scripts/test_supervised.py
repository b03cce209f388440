"""The neighbours at work: what they are given, as methods, as students, in the teacher, and their training."""

import json

import cv2
import numpy as np
import pytest
import torch

from codes.baselines.adapters import spkdeblurnet_input, stir_images, stir_instants
from codes.baselines.san_model import SAN
from codes.baselines.san_student import SANStudent
from codes.baselines.spkdeblurnet_model import SpkDeblurNet
from codes.baselines.stir_model import STIR
from codes.engine.checkpoint import load_weights, save
from codes.engine.weights import load_network, load_student
from codes.inference.methods import Weights, load_method
from codes.model.edsr_model import EDSR
from codes.sdm import Teacher
from codes.spike import mirrored_windows
from codes.student import Sight
from tests.conftest import call, refused, rnd

pytestmark = pytest.mark.slow


def stream(*shape, seed=0):
    return torch.from_numpy((np.random.default_rng(seed).random(shape) < 0.4).astype(np.uint8))


def nearest(x, factor=4):
    return x.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files of random weights."""
    folder = tmp_path_factory.mktemp("neighbours")
    torch.manual_seed(0)
    for name, network in (("spk", SpkDeblurNet()), ("stir", STIR()), ("san", SAN())):
        save({f"module.{key}": value for key, value in network.state_dict().items()}, folder / f"{name}.pth")
    return Weights(
        stir=str(folder / "stir.pth"), san=str(folder / "san.pth"), spkdeblurnet=str(folder / "spk.pth"), sr="none"
    )


def flags_of(weights):
    kinds = ("stir", "san", "spkdeblurnet")
    return [word for kind in kinds for word in (f"--{kind}_path", weights.paths[kind])]


# What they are given ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("instant", "length"), [(68, 56), (20, 56), (116, 61), (0, 96), (136, 96), (68, 1)])
def test_windows_of_a_mirrored_stream_frame_by_frame(instant, length):
    spike = stream(2, 137, 3, 4)
    found = mirrored_windows(spike, [instant, 68], length)
    assert found.shape == (2, 2, length, 3, 4)
    for index in range(length):
        frame = instant - length // 2 + index
        frame = -frame if frame < 0 else 272 - frame if frame > 136 else frame
        assert torch.equal(found[:, 0, index], spike[:, frame])
    with pytest.raises(ValueError, match="instant 137"):
        mirrored_windows(spike, [137], 3)


@pytest.mark.parametrize(("factor", "gain"), [(1, 2.0), (2, 2.0), (2, 1.0)])
def test_spkdeblurnet_is_given_rgb_its_frames_and_their_tfi(factor, gain):
    torch.manual_seed(0)
    network, blur, spike = SpkDeblurNet(8, gain), rnd(1, 3, 8 * factor, 12 * factor), stream(1, 137, 4, 6)
    image, frames, tfi = spkdeblurnet_input(network, blur, spike, 40)
    assert torch.equal(image[:, 0], blur[:, 2]) and torch.equal(image[:, 2], blur[:, 0])
    assert torch.equal(frames, nearest(spike[:, 36:44].float(), factor))
    cut = spike[0, 36:44].bool()
    for y in range(4):
        for x in range(6):  # the instant is the window's frame 4; its frame 0 never counts, none found is 50 away
            before = [t for t in range(1, 5) if cut[t, y, x]]
            after = [t for t in range(5, 8) if cut[t, y, x]]
            expected = gain / ((min(after) if after else 54) - (max(before) if before else -46))
            part = tfi[0, 0, factor * y : factor * (y + 1), factor * x : factor * (x + 1)]
            torch.testing.assert_close(part, torch.full_like(part, expected))
    with pytest.raises(ValueError, match="with spikes of 4x6"):
        spkdeblurnet_input(network, rnd(1, 3, 4, 6), spike, 40)


def test_a_file_says_how_many_frames_and_which_gain(tmp_path):
    torch.manual_seed(0)
    for frames, gain in ((33, 2.0), (56, 1.5)):
        network = SpkDeblurNet(frames, gain)
        assert ("tfi_gain" in network.state_dict()) == (gain != 2)
        save(network.state_dict(), tmp_path / "spk.pth")
        loaded = load_network("spkdeblurnet", tmp_path / "spk.pth")
        assert (loaded.spike_frames, loaded.gain) == (frames, gain)
    with pytest.raises(FileNotFoundError, match="train it"):
        load_network("spkdeblurnet", tmp_path / "none.pth", "train it")
    save(STIR().state_dict(), tmp_path / "stir.pth")
    with pytest.raises(ValueError, match="looks like the weights of STIR"):
        load_network("spkdeblurnet", tmp_path / "stir.pth")


def test_stir_takes_the_instants_that_it_can_see_in_full():
    assert stir_instants(137, (20, 29, 30, 68, 106, 107, 116)) == [30, 68, 106]
    assert stir_instants(61, (29, 30, 31)) == [30]


@torch.inference_mode()
def test_stir_images_are_those_of_its_windows():
    torch.manual_seed(0)
    stir, spike = STIR().eval(), stream(1, 137, 16, 32)
    found = stir_images(stir, spike, [68, 30])
    assert found.shape == (1, 2, 16, 32)
    torch.testing.assert_close(found[:, :1], stir(spike[:, 38:99]))
    torch.testing.assert_close(found[:, 1:], stir(spike[:, :61]))


# As students and in the teacher -------------------------------------------------------------------------


@torch.inference_mode()
def test_san_as_a_student(tmp_path):
    """96 frames around the instant; padded to multiples of 16 with copies of the border."""
    torch.manual_seed(0)
    san, blur, spike = SAN().eval(), rnd(2, 3, 72, 80), stream(2, 137, 18, 20)
    save(san.state_dict(), tmp_path / "san.pth")
    student = load_student(tmp_path / "san.pth").eval()
    assert isinstance(student, SANStudent) and not student.gain
    assert student.state_dict().keys() == san.state_dict().keys()
    found = student(blur, Sight.of(student)(blur, spike, [68, 60]))
    assert found.shape == (2, 2, 3, 72, 80)
    events = np.pad(spike[:, 20:116].numpy(), ((0, 0), (0, 0), (0, 2), (0, 0)), mode="edge").astype(np.float32)
    image = np.pad(blur.numpy(), ((0, 0), (0, 0), (0, 8), (0, 0)), mode="edge")
    expected = san(torch.from_numpy(events), torch.from_numpy(image))[0][..., :72, :]
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-4, atol=1e-5)
    bright = load_student(tmp_path / "san.pth", gain=True)
    assert bright.gain
    rate, light = spike[0, 20:117].float().mean(), (blur[0] * torch.tensor([0.11, 0.59, 0.3])[:, None, None]).sum(0)
    given = Sight.of(bright)(blur, spike, [68])[0, 0]
    torch.testing.assert_close(given, spike[0, 20:116] * (light.mean() / rate))
    save(SANStudent(gain=True).state_dict(), tmp_path / "gain.pth")
    assert load_student(tmp_path / "gain.pth").gain


@torch.inference_mode()
def test_stir_in_the_place_of_bsn(weights):
    """SDM + STIR written out; in the cascade EDSR enlarges instead."""
    stir = load_weights(STIR(), weights.paths["stir"]).eval()
    blur, spike = rnd(1, 3, 64, 64), stream(1, 137, 16, 16)
    light, long = stir(spike[:, 38:99]), spike[:, 20:117].float().mean(dim=1, keepdim=True)
    expected = (blur * nearest(light) / nearest(long)).clamp(0, 1)
    found = load_method("sdm_stir", weights).start(blur, spike)([68])[:, 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    torch.manual_seed(1)
    edsr = EDSR().eval()
    teacher = Teacher.cascade(stir, edsr, 61, raw=True)
    short = teacher.textures(spike, [68])[:, 1:]
    torch.testing.assert_close(short, edsr(light).clamp(0, 1), rtol=0, atol=1e-5)
    torch.testing.assert_close(teacher.short(spike, [68]), short, rtol=0, atol=1e-5)


# As methods ---------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_methods_of_the_neighbours(weights):
    blur, spike = rnd(1, 3, 68, 80), stream(1, 137, 17, 20)
    names = ("tfp", "tfi", "stir", "san", "spkdeblurnet")
    methods = {name: load_method(name, weights) for name in names}
    images = {name: method.start(blur, spike)([68, 20]) for name, method in methods.items()}
    assert all(image.shape == (1, 2, 3, 68, 80) for image in images.values())
    torch.testing.assert_close(images["tfp"][:, 0, :1], nearest(spike[:, 64:73].float().mean(1, keepdim=True)))
    # TFI of Spike-Zoo: the interval around frame 68, 40 frames where a side within 20 frames has no spike.
    for y, x in ((0, 0), (5, 7), (16, 19)):
        before = [t for t in range(49, 69) if spike[0, t, y, x]]
        after = [t for t in range(69, 89) if spike[0, t, y, x]]
        expected = 1 / (min(after) - max(before)) if before and after else 1 / 40
        assert images["tfi"][0, 0, 1, 4 * y, 4 * x].item() == pytest.approx(expected)
    network = load_weights(SpkDeblurNet(), weights.paths["spkdeblurnet"]).eval()
    sharp = network(*spkdeblurnet_input(network, blur, spike, 68))[0]
    torch.testing.assert_close(images["spkdeblurnet"][:, 0], sharp.flip(1).clamp(0, 1), rtol=0, atol=1e-5)
    counts = {name: method.parameters for name, method in methods.items()}
    known = {"stir": 5_107_960, "san": 2_421_882, "spkdeblurnet": 13_464_684}
    assert counts == {"tfp": 0, "tfi": 0} | known
    sharp = rnd(2, 3, 4, 4)
    light = 0.11 * sharp[:, :1] + 0.59 * sharp[:, 1:2] + 0.3 * sharp[:, 2:]
    for name, method in methods.items():
        expected = light.expand(-1, 3, -1, -1) if name in ("tfp", "tfi", "stir") else sharp
        torch.testing.assert_close(method.reference(sharp), expected)
    for name in ("stir", "sdm_stir", "san", "spkdeblurnet"):
        with pytest.raises(ValueError, match="whole images only"):
            load_method(name, weights, tile=64)


def test_networks_of_random_weights_need_no_files():
    method = load_method("teacher", Weights(random=True))
    assert method.parameters == 1_118_832 + 1_515_269 and method.weights == ()


def test_the_sequence_table_has_a_row_for_each(larger, weights, tmp_path):
    methods = ["blur", "tfp", "tfi", "stir", "sdm", "sdm_stir", "san", "spkdeblurnet"]
    out, _ = call(
        *("scripts/tables.py", "--table", "sequence", "--base_folder", larger, "--out", tmp_path),
        *("--methods", *methods, "--metrics", "psnr", "--eval_samples", 1, "--workers", 0, "--device", "cpu"),
        *flags_of(weights),
    )
    table = json.loads((tmp_path / "sequence.json").read_text())
    rows = {row["Method"]: row for row in table["rows"]}
    spk = rows["SpkDeblurNet (supervised)"]
    assert (spk["published PSNR, Vth 1"], spk["published PSNR, Vth 4"]) == (28.31, 11.62)
    assert spk["Parameters"] == 13_464_684 and "against the grey sharp image" in out
    # The row TFP by hand: grey, square pixels, 7 images of the first exposure.
    path = sorted((larger / "test" / "spike_data_vth2").glob("*/*.dat"))[0]
    bits = np.unpackbits(np.fromfile(path, np.uint8), bitorder="little").reshape(137, 24, 32)[:, ::-1]
    values = []
    for offset in (-6, -4, -2, 0, 2, 4, 6):
        name = f"{int(path.stem) + offset:0{len(path.stem)}}.png"
        sharp = cv2.imread(str(larger / "test" / "sharp_data" / path.parent.name / name)) / 255
        instant = 68 + 8 * offset
        seen = np.kron(bits[instant - 4 : instant + 5].mean(axis=0), np.ones((4, 4)))
        values.append(-10 * np.log10(np.mean((sharp @ [0.11, 0.59, 0.3] - seen) ** 2)))
    assert rows["TFP (9), spikes alone"]["PSNR, Vth 2"] == pytest.approx(np.mean(values), abs=1e-4)
    assert {"STIR, spikes alone", "SDM + STIR (61, nearest)", "Student SAN", "TFI, spikes alone"} <= rows.keys()


@pytest.mark.parametrize("name", ["tfi", "stir", "spkdeblurnet", "san", "sdm_stir"])
def test_deblur_by_each(name, larger, weights, tmp_path):
    image, spikes = (next(iter(sorted(larger.glob(f"test/{kind}/*/*")))) for kind in ("blur_data", "spike_data"))
    argv = ["--blur", image, "--spike", spikes, "--out", tmp_path / "out", "--method", name, "--frames", 1]
    call("scripts/deblur.py", *argv, "--device", "cpu", *flags_of(weights))
    made = cv2.imread(str(tmp_path / "out" / "068.png"))
    assert made.shape == (96, 128, 3)
    assert np.ptp(made, axis=2).max() == 0 or name not in ("tfi", "stir")
    if name != "tfi":
        assert "whole images only" in refused("scripts/deblur.py", *argv, "--tile", 64, *flags_of(weights))
        argv[-3] = name
        missing = refused("scripts/deblur.py", *argv, f"--{'stir' if 'stir' in name else name}_path", "none.pth")
        assert "no checkpoint at none.pth" in missing


def test_robustness_of_grey_methods(tmp_path):
    """Of a scene that hardly moves, at 1/4 as everywhere: TFP against the grey frame, by hand."""
    flags = ["--methods", "tfp", "blur", "--samples", 1, "--size", "32x48", "--vth", 1, "--noise", "--shift", "--ratio"]
    call("scripts/robustness.py", *flags, "--motion", "--out", tmp_path, "--device", "cpu")
    values = json.loads((tmp_path / "robustness.json").read_text())["psnr"]
    (found,) = values.values()
    assert 10 < found["tfp"]["0"] < 40 and found["tfp"]["0"] != found["blur"]["0"]
