import re
import shutil
from dataclasses import replace
from unittest.mock import patch

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from codes.engine.checkpoint import save
from codes.engine.device import place
from codes.engine.options import parse_config
from codes.engine.weights import Weights
from codes.image import read_image, to_float, write_image
from codes.inference import Capture, Deblurrer, Layout, Reading, check, fit, open_capture
from codes.inference.methods import load_method, methods
from codes.inference.tiles import Tiled, cut, decode_tiles
from codes.model.bsn_model import BSN
from codes.model.edsr_model import EDSR
from codes.model.ldn_model import ChannelAttention, Deblur_Net
from codes.model.registry import NETWORKS
from codes.model.sdmnet_model import SDMNet, SDMNetLight
from codes.motion import Joined
from codes.spike import EXPOSURE, evenly, mirrored, tfi, tfp_long, write_dat
from scripts.deblur import DeblurConfig
from tests.conftest import by_intervals, call, filled, refused, rnd

CPU = torch.device("cpu")


FILES = {"bsn": "BSN_1000", "sr": "SR_70", "deblur": "DeblurNet_100"}


def scene(height=64, width=96, seed=0):
    """A textured uint8 picture."""
    noise = np.random.default_rng(seed).random((height, width, 3), np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), height / 40)
    return np.uint8(255 * np.clip((texture - texture.min()) / np.ptp(texture), 0, 1))


def spikes_of(image, frames=137):
    """A stream that sees the image, still, at a quarter of its size: a pixel fires as often as it is bright."""
    grey = image @ np.array([0.11, 0.59, 0.3]) / 255
    light = cv2.resize(grey, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    light = light + np.random.default_rng(0).uniform(0, 0.01, light.shape)
    counts = np.floor(light[None] * np.arange(1, frames + 2)[:, None, None])
    return np.diff(counts, axis=0).clip(0, 1).astype(np.uint8)


# Tiles --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extent, core, reach", [(222, 24, 76), (97, 40, 8), (30, 64, 16), (8, 4, 100), (33, 8, 3)])
def test_tiles_cover_every_pixel_once_and_see_around_it(extent, core, reach):
    covered = np.zeros(extent, int)
    for source, kept, to in cut(extent, core, reach):
        assert 0 <= source.start < source.stop <= extent
        np.testing.assert_array_equal(np.arange(extent)[source][kept], np.arange(extent)[to])
        covered[to] += 1
        assert source.start <= max(to.start - reach, 0) and source.stop >= min(to.stop + reach, extent)
        assert source.start % 4 == 0 and (extent - source.stop) % 4 == 0  # BSN's grid, from both ends
    assert (covered == 1).all()


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize(
    ("build", "tiled", "size", "reach"), [(BSN, Tiled.bsn, (206, 10), 76), (EDSR, Tiled.edsr, (40, 170), 40)]
)
def test_a_network_in_tiles_is_the_same(build, tiled, size, reach):
    x, network = rnd(1, 1, *size), place(filled(build()), CPU)
    assert len(list(cut(max(size), 48, reach))) == 4
    torch.testing.assert_close(tiled(network, 48)(x), network(x), rtol=0, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize(("key", "build"), [("ldn", Deblur_Net), ("sdmnet", SDMNet), ("sdmnet_light", SDMNetLight)])
def test_a_student_in_tiles_is_the_same_although_it_looks_at_the_whole(key, build):
    student = filled(build())
    for module in student.modules():
        if isinstance(module, ChannelAttention):  # no hidden channel of its few is asleep
            module.fc[0].weight.abs_()
    blur, spike = rnd(2, 3, 200, 340), (rnd(2, 21, 50, 85) > 0.5).float()
    blur[0, 1:] = blur[0, :1]  # grey but for a corner
    blur[0, 0, :40, :40] = 0
    spike[1, :, :, 30:] *= 0.5  # not as bright everywhere
    spike[1, 0, :, 5:] = 0
    whole, tiles = student(blur, spike), decode_tiles(student, blur, spike, 64, NETWORKS[key].reach)
    assert (tiles - whole).abs().max() < 1e-5  # a grey level is 4e-3
    alone = student(blur[..., :64, :64], spike[..., :16, :16])  # a tile by itself is another image
    assert (alone - whole[..., :64, :64])[..., :16, :16].abs().max() > 1e-4


# Streams and windows ------------------------------------------------------------------------------------


def test_instants_spread_evenly():
    assert evenly(EXPOSURE, 7) == (20, 36, 52, 68, 84, 100, 116)
    assert evenly(EXPOSURE, 97) == tuple(range(20, 117))
    assert evenly(EXPOSURE, 1) == (68,) and evenly(slice(4, 6), 2) == (4, 5)
    with pytest.raises(ValueError, match="98 instants of an exposure of 97"):
        evenly(EXPOSURE, 98)


@pytest.mark.parametrize("frames", [0, 3, 6])
def test_a_mirrored_stream_is_numpys(frames):
    stream = np.random.default_rng(0).random((2, 7, 3, 4)) > 0.5
    padded = np.pad(stream, ((0, 0), (frames, frames), (0, 0), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(mirrored(torch.from_numpy(stream), frames).numpy(), padded)


def test_the_long_window_of_any_exposure():
    stream = np.random.default_rng(0).integers(0, 2, (9, 3, 4))
    np.testing.assert_allclose(tfp_long(torch.from_numpy(stream), slice(2, 6))[0], stream[2:6].mean(axis=0), rtol=1e-6)
    with pytest.raises(ValueError, match="leaves the 9-frame stream"):
        tfp_long(torch.from_numpy(stream), slice(2, 10))


# Methods ------------------------------------------------------------------------------------------------


def weights_in(folder):
    return Weights(**{flag: str(folder / f"{name}.pth") for flag, name in FILES.items()})


def textbook_sdm(blur, spike, instant, length, enlarge):
    """The SDM of the raw TFP, written out."""
    half = length // 2
    long = enlarge(spike[0, 20:117].float().mean(dim=0)[None, None])
    short = enlarge(spike[0, instant - half : instant + half + 1].float().mean(dim=0)[None, None])
    return torch.where(long > 0, blur * short / long, torch.zeros(())).clamp(0, 1)


@torch.inference_mode()
def test_methods_are_what_their_names_say(checkpoints):
    blur, spike = rnd(1, 3, 32, 48), (rnd(1, 137, 8, 12) > 0.6).to(torch.uint8)
    names = [name for name in methods() if "stir" not in name and not name.startswith(("san", "spkdeblurnet"))]
    images = {name: load_method(name, weights_in(checkpoints)).start(blur, spike)([20, 68]) for name in names}
    assert all(image.shape == (1, 2, 3, 32, 48) for image in images.values())
    torch.testing.assert_close(images["blur"][0, 1], blur[0])

    def nearest(x):
        return x.repeat_interleave(4, -1).repeat_interleave(4, -2)

    torch.testing.assert_close(images["sdm"][:, 1], textbook_sdm(blur, spike, 68, 9, nearest), rtol=0, atol=1e-6)
    light = torch.stack([tfi(spike, instant - 1)[:, 0] for instant in range(30, 107)], dim=1)  # none of the ends'
    short, long = (
        light[:, 58 - 30 : 79 - 30].mean(dim=1),
        torch.from_numpy(by_intervals(spike.numpy()))[:, 20:117].float().mean(dim=1),
    )
    ratio = (F.interpolate(x[:, None], scale_factor=4, mode="bilinear", align_corners=False) for x in (short, long))
    expected = blur * next(ratio) / next(ratio).clamp(min=1e-9)
    torch.testing.assert_close(images["sdm_tfi"][:, 1], expected.clamp(0, 1), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="instant 140"):
        load_method("sdm_tfi").start(blur, spike)([140])
    ldn = Deblur_Net()
    ldn.load_state_dict(torch.load(checkpoints / "DeblurNet_100.pth", weights_only=True))
    student = ldn(blur, spike[:, 58:79].float()).clamp(0, 1)
    torch.testing.assert_close(images["ldn"][:, 1], student, rtol=0, atol=1e-6)


@torch.inference_mode()
def test_joined_frames_are_those_of_the_student_joined(checkpoints):
    blur, spike = rnd(2, 3, 64, 96), (rnd(2, 137, 16, 24) > 0.6).to(torch.uint8)
    alone, joined = (load_method(name, weights_in(checkpoints)) for name in ("ldn", "ldn_motion"))
    images, frames = joined.start(blur, spike, slice(30, 100)), alone.start(blur, spike, slice(30, 100))
    expected = [Joined(blur[i], lambda t, i=i: frames(t)[i], slice(30, 100), spike[i])([65, 40]) for i in range(2)]
    torch.testing.assert_close(images([65, 40]), torch.stack(expected), rtol=0, atol=1e-5)
    assert torch.equal(images([40])[:, 0], images([65, 40])[:, 1])  # one by one, as in a long sequence
    assert joined.title == "Student LDN, joined along the motion" and joined.parameters == alone.parameters
    assert (images([65]) - frames([65])).abs().max() > 0.01


@torch.inference_mode()
@pytest.mark.parametrize(("build", "asked"), [(SDMNet, 7), (SDMNetLight, 5)])
def test_how_often_a_student_is_asked_is_told_by_its_weights(build, asked, tmp_path):
    """Whichever flag names the file."""
    save(build().state_dict(), tmp_path / "s.pth")
    method = load_method("sdmnet_light_motion", Weights(sdmnet_light=str(tmp_path / "s.pth")))
    with patch.object(build, "decode", autospec=True, side_effect=build.decode) as decode:
        method.start(rnd(1, 3, 64, 64), (rnd(1, 137, 16, 16) > 0.6).to(torch.uint8))([40])
    assert decode.call_count == asked


def test_a_photograph_that_lies_off_the_spikes_is_moved_there_and_back():
    """A still scene whose photograph lies a pixel to the right of it comes out a pixel to the right of it."""
    picture = scene(96, 128)
    blur, spike = (
        torch.from_numpy(x)[None] for x in (picture.transpose(2, 0, 1) / np.float32(255), spikes_of(picture))
    )
    method = load_method("sdm21_motion")
    with torch.inference_mode():
        straight, moved = (method.start(photo, spike)([68, 20])[0] for photo in (blur, blur.roll(1, -1)))
    inner = (..., slice(8, -8), slice(8, -8))
    apart = (moved.roll(-1, -1) - straight)[inner].abs().mean()
    assert apart < 0.5 * (moved - straight)[inner].abs().mean() and apart < 0.01


def test_parameters_are_the_papers(checkpoints):
    count = {
        name: load_method(name, weights_in(checkpoints)).parameters for name in ("sdm", "sdm_bsn", "teacher", "ldn")
    }
    assert count == {"sdm": 0, "sdm_bsn": 1_118_832, "teacher": 1_118_832 + 1_515_269, "ldn": 234_158}


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method 'ltn'; expected one of blur, tfp"):
        load_method("ltn")


# Captures -----------------------------------------------------------------------------------------------


def test_a_crop_may_reach_beyond_the_image():
    """Each pixel holds its own coordinates, so what was cut can be read off."""
    rows, columns = np.mgrid[:80, :120].astype(np.uint8)
    blur = np.stack([rows, columns, rows], axis=-1)
    spike = np.mgrid[:137, :20, :30][2].astype(np.uint8)  # each spike pixel holds its column
    cut_blur, cut_spike = fit(blur, spike, (8, -12, 80, 120))
    assert cut_blur.shape == (72, 108, 3) and cut_spike.shape == (137, 18, 27)
    assert tuple(cut_blur[0, 0]) == (8, 0, 8) and cut_spike[0, 0, 0] == 3  # 3 spike pixels lie left of the image
    larger, same = fit(blur, spike, (0, 0, 40, 60))  # the spikes see a quarter of the image, which is enlarged
    assert larger.shape == (80, 120, 3) and same.shape == spike.shape
    assert abs(int(larger[-1, -1, 0]) - 39) <= 1 and abs(int(larger[-1, -1, 1]) - 59) <= 1
    with pytest.raises(ValueError, match="in common"):
        fit(blur, spike, (79, 0, 80, 120))


@pytest.mark.parametrize(
    "spoil, words, mend",
    [
        (lambda x: x[:, ::-1], "flipped vertically", "--flip vertical"),
        (lambda x: x[:, :, ::-1], "flipped horizontally", "--flip horizontal"),
        (lambda x: x[:, ::-1, ::-1], "turned by 180 degrees", "--flip both"),
        (lambda x: x.reshape(137, 48, -1, 8)[..., ::-1].reshape(x.shape), "other bit order", "--bit_order big"),
    ],
)
def test_a_stream_that_lies_otherwise_is_named_with_its_mend(spoil, words, mend):
    image = scene(192, 256)
    spike = spikes_of(image)
    window = slice(20, 117)
    assert check(Capture(image, spike, window)) == ""
    fault = check(Capture(image, np.ascontiguousarray(spoil(spike)), window))
    assert words in fault and mend in fault


@pytest.mark.parametrize("top, left, scale", [(24, -16, 1.0), (0, 0, 1.2), (40, 60, 0.8)])
def test_the_crop_that_is_proposed_mends_it(top, left, scale):
    """The spike camera sees another part of the scene, larger or smaller; the proposal must bring both together."""
    world = scene(600, 800)
    image = world[150:450, 200:600]
    height, width = round(300 * scale), round(400 * scale)
    seen = world[150 + top : 150 + top + height, 200 + left : 200 + left + width]
    spike = spikes_of(cv2.resize(seen, (400, 300), interpolation=cv2.INTER_AREA))
    fault = check(Capture(image, spike, slice(20, 117)))
    assert "shifted" in fault or "times as large" in fault
    crop = parse_config(DeblurConfig, [re.search(r"--crop=\S+", fault).group()]).crop  # as it is typed back
    assert np.abs(np.subtract(crop, (top, left, height, width))).max() <= 16
    blur, fitted = fit(image, spike, crop)
    assert check(Capture(blur, fitted, slice(20, 117))) == ""


def test_another_scene_is_named():
    fault = check(Capture(scene(192, 256), spikes_of(scene(192, 256, 5)), slice(20, 117)))
    assert "do not show the image's scene" in fault and "is it the right stream" in fault and "try" not in fault


def test_a_still_scene_tells_no_exposure(tmp_path):
    spike = spikes_of(scene(), 60)
    write_dat(tmp_path / "s.dat", spike)
    told = Reading(Layout((16, 24)))
    with pytest.raises(ValueError, match=r"holds 60 frames of 16x24; 137 are expected.*--exposure START:END"):
        open_capture(scene(), tmp_path / "s.dat", told)
    with pytest.raises(ValueError, match="--exposure 10:61 leaves"):
        open_capture(scene(), tmp_path / "s.dat", replace(told, exposure=slice(10, 61)))
    turned = open_capture(scene()[::-1, ::-1], tmp_path / "s.dat", Reading(exposure=slice(0, 60), flip="both"))
    np.testing.assert_array_equal(turned.spike, spike[:, ::-1, ::-1])
    whole = Reading(exposure=slice(0, 60))
    assert Deblurrer()(scene(), tmp_path / "s.dat", 3, whole).shape == (3, 64, 96, 3)  # no frames before, none after
    assert Deblurrer("sdm")(scene(), spike, [0, 59], whole).shape == (2, 64, 96, 3)
    with pytest.raises(ValueError, match="instant 60 is outside the 60-frame stream"):
        Deblurrer("sdm")(scene(), spike, [60], whole)


def test_an_image_that_is_no_multiple_of_four(checkpoints):
    image = scene(64, 96)
    deblurrer = Deblurrer("ldn", deblur_path=str(checkpoints / "DeblurNet_100.pth"), hold_colour=False)
    frame = deblurrer(image[:62, :95], spikes_of(image), 1, Reading(tone="linear"))[0]
    assert frame.shape == (62, 95, 3)
    edge = cv2.copyMakeBorder(image[:62, :95], 0, 2, 0, 1, cv2.BORDER_REPLICATE)
    ldn = Deblur_Net()
    ldn.load_state_dict(torch.load(checkpoints / "DeblurNet_100.pth", weights_only=True))
    with torch.inference_mode():
        spike = torch.from_numpy(spikes_of(image))[None]
        expected = ldn(torch.from_numpy(to_float(edge))[None], spike[:, 58:79].float())[0].clamp(0, 1).numpy()
    assert np.abs(frame - 255 * expected.transpose(1, 2, 0)[:62, :95]).max() < 0.51


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="the image is 64x96 and the spikes are 16x25: not.*64x100.*--crop"):
        open_capture(scene(), np.zeros((137, 16, 25), np.uint8))
    with pytest.raises(ValueError, match="expected uint8"):
        open_capture(np.zeros((64, 96)), np.zeros((137, 16, 24), np.uint8))
    with pytest.raises(ValueError, match="--tile is 30"):
        Deblurrer(tile=30)


# The script ---------------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path):
    write_image(tmp_path / "in" / "a b.png", scene())
    write_dat(tmp_path / "in" / "a b.dat", spikes_of(scene()))
    return tmp_path / "in" / "a b.png", tmp_path / "in" / "a b.dat"


def test_one_pair_becomes_frames_and_videos(pair, tmp_path):
    blur, spike = pair
    out, err = call(
        "scripts/deblur.py", "--blur", blur, "--spike", spike, "--out", tmp_path / "o", "--frames", "20,68,116"
    )
    names = {path.name for path in (tmp_path / "o").iterdir()}
    pictures = {"020.png", "068.png", "116.png", "tfp.png", "blur.png", "comparison.png", "spikes"}
    assert names == pictures | {"sequence.mp4", "sequence.gif", "beside.mp4", "index.html"}
    assert "SDMNet_photo.pth" in out and "warning" not in err
    assert read_image(tmp_path / "o" / "068.png").shape == (64, 96, 3)
    video = cv2.VideoCapture(str(tmp_path / "o" / "beside.mp4"))
    assert [video.read()[0] for _ in range(4)] == [True, True, True, False]
    assert (video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (192, 64)


def test_the_input_is_never_overwritten(pair):
    blur, spike = pair
    before = blur.read_bytes()
    error = refused("scripts/deblur.py", "--blur", blur, "--spike", spike, "--out", blur.parent, "--frames", 1)
    assert "is where the capture lies" in error and blur.read_bytes() == before


def test_a_folder_of_pairs(pair, tmp_path):
    folder = pair[0].parent
    write_image(folder / "c.jpg", scene())
    argv = ["scripts/deblur.py", "--blur", folder, "--spike", folder, "--frames", 1, "--method", "sdm"]
    assert "1 of 2 images have no stream" in refused(*argv, "--out", tmp_path / "o")
    assert not (tmp_path / "o").exists()
    shutil.copy(pair[1], folder / "c.dat")
    call(*argv, "--out", tmp_path / "o")
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"a b", "c", "index.html"}


def test_a_flipped_stream_is_mended_or_said(pair, tmp_path):
    blur, spike = pair
    argv = ["scripts/deblur.py", "--blur", blur, "--spike", spike, "--out", tmp_path / "o", "--frames", 1]
    out, err = call(*argv, "--flip", "vertical")
    assert "flipped vertically, mended (--flip vertical" in out and not err
    assert "try --flip vertical" in call(*argv, "--flip", "vertical", "--align", "off")[1]
    assert "--flip vertical" not in call(*argv, "--flip", "vertical", "--align", "off", "--no-check")[1]


def test_mistakes_in_one_line(pair, tmp_path):
    blur, spike = pair
    argv = ["scripts/deblur.py", "--blur", blur, "--spike", spike, "--out", tmp_path / "o", "--frames", 1]
    assert "not a whole number of 20x24 spike frames" in refused(*argv, "--spike_size", "20x24")
    assert "--frames is 'x'" in refused(*argv, "--frames", "x")
    assert "0 instants" in refused(*argv[:-1], 0)
    assert f"--out {blur} is a file; expected a folder" in refused(*argv, "--out", blur)
    assert "frame 68 is asked for more than once" in refused(*argv, "--frames", "68,20,68")
    assert "98 instants" in refused(*argv, "--exposure", "20:117", "--frames", 98)
    assert "--exposure is '30'; expected START:END" in refused(*argv, "--exposure", 30)
    assert "--crop is '1,2,3'" in refused(*argv, "--crop", "1,2,3")
    assert "tone 'gama'" in refused(*argv, "--tone", "gama")
    assert "no.json" in refused(*argv, "--align", tmp_path / "no.json")
    assert "spikes alone: --method tfp" in refused("scripts/deblur.py", "--spike", spike)
    assert "give --blur and --spike" in refused("scripts/deblur.py")


def test_captures_in_rsb_layout(tmp_path):
    """JPEG images of 100x160, spikes of 25x40, no sharp images, no splits."""
    root = tmp_path / "RSB"
    for number in (1, 2):
        image = scene(100, 160, number)
        write_image(root / "blur_data" / "Board-L" / f"{number}.jpg", image)
        write_dat(root / "spike_data" / "Board-L" / f"{number}.dat", spikes_of(image))
    argv = ["--base_folder", root, "--data_type", "real", "--out", tmp_path / "o", "--frames", 1]
    call("scripts/deblur.py", *argv)
    assert read_image(tmp_path / "o" / "Board-L" / "1" / "068.png").shape == (100, 160, 3)
    assert (tmp_path / "o" / "Board-L" / "2" / "comparison.png").is_file()


def test_a_stream_whose_sides_are_no_multiples_of_4(tmp_path):
    """As RSB's, 250x400."""
    picture = scene(72, 104)
    write_image(tmp_path / "photo.jpg", picture)
    write_dat(tmp_path / "stream.dat", spikes_of(picture))
    argv = ["scripts/deblur.py", "--blur", tmp_path / "photo.jpg", "--spike", tmp_path / "stream.dat", "--frames", 1]
    call(*argv, "--spike_size", "18x26", "--out", tmp_path / "o")
    assert read_image(tmp_path / "o" / "068.png").shape == (72, 104, 3)
    assert "expected HxW" in refused(*argv, "--spike_size", "18x0", "--out", tmp_path / "p")
