"""Captures as cameras give them: what is found is compared with how they were simulated."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from codes.dat import read_dat, write_dat
from codes.dataset import SpikeData
from codes.errors import InputError
from codes.image import read_image, write_image
from codes.inference import Capture, Deblurrer, Layout, Reading, open_capture
from codes.inference.colour import Palette
from codes.inference.deblurrer import View
from codes.inference.photos import deep_photo, read_photo
from codes.inference.pixels import fill, find_bad_pixels
from codes.inference.rates import Clock, fired, on_grid
from codes.inference.registering import common, register
from codes.inference.streams import layouts_that_fit, load_array, read_stream, unpacked
from codes.inference.timing import find_exposure, find_instants, time_fault
from codes.making.sensor import spikes_from_frames
from codes.registration import Camera, Registration
from codes.tone import Tone, estimate
from tests.conftest import call, refused

GREY = np.array([0.11, 0.59, 0.3], np.float32)


def world(seed=0, side=700):
    """A large coloured picture with structure of all sizes and a full range of brightness."""
    rng = np.random.default_rng(seed)
    layers = [cv2.GaussianBlur(rng.random((side, side, 3), np.float32), (0, 0), size) for size in (2, 5, 15, 50)]
    picture = sum((layer - layer.mean()) / layer.std() for layer in layers)
    return np.clip(0.4 + 0.16 * picture, 0.01, 1).astype(np.float32)


def simulated(
    seed=0, size=(192, 256), motion=40.0, length=97, before=20, after=20, vth=1.0, way=None, spikes=4, tone="linear"
):
    """A photograph and its stream while a picture moves past; ``way`` leads from photo pixels to the spikes'."""
    (height, width), total, picture = size, before + length + after, world(seed)
    light, blur, first = np.empty((total, height // spikes, width // spikes), np.float32), 0.0, None
    for frame in range(total):
        along = motion * ((frame - before) / (length - 1) - 0.5)
        move = np.array([[1, 0, 200 + 0.9 * along], [0, 1, 200 + 0.4 * along], [0, 0, 1]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        sharp = cv2.warpPerspective(picture, move, (width, height), flags=flags)
        there = move if way is None else move @ np.linalg.inv(way)
        view = sharp if way is None else cv2.warpPerspective(picture, there, (width, height), flags=flags)
        light[frame] = cv2.resize(view @ GREY, light.shape[:0:-1], interpolation=cv2.INTER_AREA)
        if before <= frame < before + length:
            blur = blur + sharp / length
    photo = np.uint8(np.rint(255 * Tone(tone).coded(np.float32(blur).clip(0, 1))))
    return SimpleNamespace(
        photo=photo,
        spike=spikes_from_frames(light, seed, vth),
        light=light,
        exposure=slice(before, before + length),
        grey=cv2.resize(blur.astype(np.float32), light.shape[:0:-1], interpolation=cv2.INTER_AREA) @ GREY,
        first=first,
    )


# Exposure -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before, length, vth", [(35, 70, 1), (20, 97, 2), (60, 150, 1)])
def test_the_exposure_is_found(before, length, vth):
    one = simulated(1, motion=60, length=length, before=before, after=40, vth=vth)
    found = find_exposure(one.grey, one.spike)
    assert found.sure and abs(found.start - before) <= 2 and abs(found.stop - before - length) <= 2
    known = find_exposure(one.grey, one.spike, length)
    assert known.sure and abs(known.start - before) <= 2 and known.stop - known.start == length


def test_the_exposure_of_a_dim_slow_scene_is_not_taken_for_a_shorter_one():
    """Soft ends in time, or half the pixels compared with the others, once made such windows look shorter."""
    one = simulated(6, size=(384, 512), motion=24, length=150, before=30, after=40, vth=2)
    found = find_exposure(one.grey, one.spike)
    assert found.sure and abs(found.start - 30) <= 1 and abs(found.stop - 180) <= 1


def test_a_still_scene_and_another_scene_tell_no_exposure():
    still = simulated(2, motion=0)
    assert not find_exposure(still.grey, still.spike).sure
    assert not find_exposure(simulated(3).grey, simulated(4).spike).sure


def test_a_long_stream_is_searched_in_two_steps():
    one = simulated(1, size=(96, 128), motion=80, length=600, before=150, after=250)
    found = find_exposure(one.grey, one.spike)
    assert abs(found.start - 150) <= 6 and abs(found.stop - 750) <= 6


def test_an_exposure_that_is_wrong_in_time_is_no_shift_in_space():
    one = simulated(1, motion=60)
    capture = open_capture(one.photo, one.spike, Reading(exposure=slice(0, 17), tone="linear"))
    assert len(capture.doubts) == 1 and "other frames of the stream than 0:17" in capture.doubts[0]
    start, stop = (int(number) for number in capture.doubts[0].split("--exposure ")[1].split()[0].split(":"))
    assert abs(start - 20) <= 2 and abs(stop - 117) <= 2 and "crop" not in capture.doubts[0]


def test_streams_that_begin_late_or_run_backwards_are_named():
    one = simulated(1, motion=60)
    instants = [20, 36, 52, 68, 84, 100, 116]
    sharps = [one.light[instant] for instant in instants]
    assert time_fault(instants, find_instants(sharps, one.spike)) == ""
    late = np.concatenate([one.spike[15:], one.spike[:15]])
    assert "begins 15 frames late" in time_fault(instants, find_instants(sharps, late))
    assert "backwards" in time_fault(instants, find_instants(sharps, one.spike[::-1]))
    assert time_fault(instants, find_instants([one.light[0]] * 7, simulated(1, motion=0).spike)) == ""
    dark = simulated(2, motion=30, vth=6)  # a spike in 16 frames: a window of 13 would show noise
    sharps = [dark.light[instant] for instant in instants]
    assert time_fault(instants, find_instants(sharps, dark.spike)) == ""
    late = np.concatenate([dark.spike[20:], dark.spike[:20]])
    assert "begins 20 frames late" in time_fault(instants, find_instants(sharps, late))


# Tone ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear", "srgb", "gamma:1.8", "gamma:2.6"])
def test_tone_curves_go_there_and_back(name):
    numbers = np.linspace(0, 1, 101, dtype=np.float32)
    np.testing.assert_allclose(Tone(name).coded(Tone(name).linear(numbers)), numbers, atol=2e-6)
    assert torch.allclose(Tone(name).linear(torch.from_numpy(numbers)), torch.from_numpy(Tone(name).linear(numbers)))


def test_srgb_is_the_standards():
    """IEC 61966-2-1: 0.5 is 21.404 % of the light; below 0.04045 the curve is straight."""
    assert (
        abs(Tone("srgb").linear(np.float64(0.5)) - 0.21404) < 1e-5
        and Tone("srgb").linear(np.float64(0.04)) == 0.04 / 12.92
    )
    for wrong in ("gama", "gamma:", "gamma:9", "gamma:x"):
        with pytest.raises(InputError, match="expected linear, srgb, or gamma:G"):
            Tone(wrong)


@pytest.mark.parametrize("name, gamma", [("linear", 1.0), ("gamma:1.8", 1.8), ("gamma:2.2", 2.2), ("srgb", 2.2)])
@pytest.mark.parametrize("vth", [1, 2])
def test_the_tone_is_found_even_misaligned(name, gamma, vth):
    one = simulated(5, vth=vth, tone=name, way=np.array([[1, 0, 9], [0, 1, -7], [0, 0, 1.0]]))
    found = estimate(one.photo, one.spike[one.exposure].mean(axis=0))
    assert found.sure and abs(found.gamma - gamma) <= 0.15


def test_a_dark_even_scene_tells_no_tone():
    photo = np.full((192, 256, 3), 12, np.uint8)
    spike = spikes_from_frames(np.full((137, 48, 64), 0.02, np.float32), 0)
    found = estimate(photo, spike.mean(axis=0))
    assert not found.sure and found.tone == Tone() and "contrast" in found.why
    capture = open_capture(photo, spike)
    assert capture.tone == Tone() and any("cannot tell" in note for note in capture.notes)


def test_a_faint_picture_tells_its_tone_if_the_noise_is_fainter():
    light = np.float32(0.5 + 0.25 * (world(3, 300)[20:260, 20:276] - 0.4))
    seen = cv2.resize(light, (64, 60), interpolation=cv2.INTER_AREA) @ GREY
    rate = spikes_from_frames(np.repeat(seen[None], 97, 0), 3).mean(axis=0)
    found = estimate(np.uint8(np.rint(255 * Tone("gamma:2.2").coded(light))), rate)
    assert found.sure and abs(found.tone.gamma - 2.2) <= 0.1
    noisy = rate + np.random.default_rng(0).normal(0, 0.1, rate.shape).astype(np.float32)
    assert not estimate(np.uint8(np.rint(255 * Tone("gamma:2.2").coded(light))), noisy.clip(0, 1)).sure


def test_a_coded_photo_is_deblurred_in_linear_light():
    linear, coded = simulated(5), simulated(5, tone="gamma:2.2")
    blind, known = (Reading(tone=tone, align="off", bad_pixels=False) for tone in ("linear", "gamma:2.2"))
    deblurrer = Deblurrer("sdm21", device="cpu", hold_colour=False)
    expected = deblurrer(linear.photo, linear.spike, 1, blind)[0]
    got = deblurrer(coded.photo, coded.spike, 1, known)[0]
    back = 255 * Tone("gamma:2.2").linear(got / 255)
    assert np.abs(back - expected).mean() < 1.5  # within rounding of the darkest numbers


# Length and size ----------------------------------------------------------------------------------------


def test_a_longer_exposure_becomes_97_equal_spans():
    spike = np.random.default_rng(0).integers(0, 2, (420, 2, 3)).astype(np.uint8)
    clock = Clock(slice(60, 351), 420)  # 291 frames: spans of three
    assert (clock.span, clock.frames, clock.exposure) == (3, 20 + 97 + 23, slice(20, 117))
    np.testing.assert_allclose(clock.streams(spike), spike.reshape(140, 3, 2, 3).mean(axis=1), rtol=1e-6)
    assert [clock.instant(frame) for frame in (60, 61, 62, 63, 350, 0, 419)] == [20, 20, 20, 21, 116, 0, 139]


def test_spans_that_end_within_a_frame_keep_the_sum():
    spike = np.random.default_rng(1).integers(0, 2, (170, 2, 3)).astype(np.uint8)
    clock = Clock(slice(10, 160), 170)  # 150 frames
    rates = clock.streams(spike)[clock.exposure]
    assert len(rates) == 97
    np.testing.assert_allclose(rates.sum(axis=0) * 150 / 97, spike[10:160].sum(axis=0), rtol=1e-5)


def test_the_official_exposure_and_shorter_ones_stay_as_they_are():
    spike = np.zeros((137, 2, 3), np.uint8)
    assert Clock(slice(20, 117), 137).streams(spike) is spike and Clock(slice(5, 30), 137).streams(spike) is spike
    assert Clock(slice(20, 117), 137).instant(68) == 68


def test_rates_fire_as_often():
    rates = np.random.default_rng(0).random((50, 4, 5)).astype(np.float32)
    spikes = fired(rates)
    assert set(np.unique(spikes)) <= {0, 1} and np.abs(spikes.sum(axis=0) - rates.sum(axis=0)).max() <= 1


def test_finer_spikes_are_averaged_and_others_resampled():
    spike = np.random.default_rng(0).integers(0, 2, (3, 8, 12)).astype(np.uint8)
    assert on_grid(spike, (8, 12)) is spike
    blocks = spike.reshape(3, 4, 2, 6, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(on_grid(spike, (4, 6)), blocks, atol=1e-6)
    ramp = np.tile(np.arange(6, dtype=np.float32), (1, 4, 1))
    larger = on_grid(ramp, (8, 12))[0, 4]
    np.testing.assert_allclose(larger[1:-1], (np.arange(12) / 2 - 0.25)[1:-1], atol=0.02)  # half-pixel centres


@pytest.mark.parametrize("spikes", [1, 2, 3, 4, 6])
def test_spikes_of_any_size_sharpen(spikes):
    one = simulated(6, motion=50, spikes=spikes)
    frame = Deblurrer("sdm21", device="cpu")(one.photo, one.spike, 1, Reading(tone="linear"))[0]
    sharp = one.light[68] if spikes == 1 else simulated(6, motion=50, spikes=1).light[68]

    def error(image):
        return np.square(cv2.GaussianBlur(image.astype(np.float32) @ GREY / 255 - sharp, (0, 0), 2))[
            16:-16, 16:-16
        ].mean()

    assert frame.shape == one.photo.shape and error(frame) < 0.5 * error(one.photo)


# Registration -------------------------------------------------------------------------------------------


def turned(shift, degrees, scale, size):
    angle, centre = np.radians(degrees), np.array([size[1] / 2, size[0] / 2])
    matrix = np.eye(3)
    matrix[:2, :2] = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix[:2, 2] = centre + shift - matrix[:2, :2] @ centre
    return matrix


@pytest.mark.parametrize(
    "vth, spikes, bent, most",
    [(1, 4, 0, 0.4), (2, 4, 0, 0.4), (4, 4, 0, 0.5), (1, 2, 0, 0.4), (1, 4, 4e-5, 0.4), (2, 4, -4e-5, 0.5)],
)
def test_shift_turn_scale_and_slant_are_found(vth, spikes, bent, most):
    size = (240, 320)
    way = turned((7, -5), 0.6, 1.015, size)
    way[2] = bent, bent / 2, 1 - bent * 220  # corners by up to 3 pixels
    one = simulated(7, size, vth=vth, way=way, spikes=spikes)
    capture = Capture(one.photo, one.spike, one.exposure)
    found = register(capture.grey_frame(), capture.tfp_long())
    assert found.sure and found.registration.distance(size, Registration.from_pixels(way, size, size)) < most
    assert (found.registration.matrix[6] != 0) == (bent != 0)  # no more freedom than the cameras ask for


@pytest.mark.parametrize("vth", [1, 4])
def test_aligned_captures_are_left_bit_for_bit(vth):
    one = simulated(8, vth=vth)
    capture = open_capture(one.photo, one.spike)
    assert capture.registration == Registration() and np.array_equal(capture.spike, one.spike)
    assert View(capture, capture.light()).matrix is None  # the networks are given the photo itself
    assert capture.exposure == slice(20, 117) and capture.doubts == ()


def test_cameras_in_a_file(tmp_path):
    size = (240, 320)
    way = Registration.from_pixels(turned((3, 2), 0.5, 1.0, size), size, size)
    Camera(way, Tone("srgb")).write(tmp_path / "camera.json")
    assert Camera.of(tmp_path) == Camera(way, Tone("srgb")) and Camera.of(tmp_path / "nothing") == Camera()
    assert common([way, way, Registration()]).distance(size, way) < 1e-3  # one that failed does not count
    for text in ("", "[]", '{"photo_to_spikes": [[0, 0, 0], [0, 0, 0], [0, 0, 0]]}', '{"tone": "gama"}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InputError, match="does not describe cameras"):
            Camera.read(tmp_path / "bad.json")


def test_a_data_set_knows_its_cameras(tmp_path):
    """Tone and registration of camera.json: training then sees linear light on the spikes' grid."""
    size = (128, 192)
    way = turned((8, -4), 0.0, 1.0, size)  # whole pixels
    moved, aligned = simulated(17, size, way=way, tone="srgb"), simulated(17, size)
    write_image(tmp_path / "blur_data" / "a" / "1.png", moved.photo)
    write_dat(tmp_path / "spike_data" / "a" / "1.dat", moved.spike)
    Camera(Registration.from_pixels(way, size, size), Tone("srgb")).write(tmp_path / "camera.json")
    blur = SpikeData(tmp_path, "real", "test")[0]["blur"].numpy()
    expected = np.roll(aligned.photo, (-4, 8), (0, 1)).transpose(2, 0, 1) / 255
    assert np.abs(blur - expected)[:, :-4, 8:].max() < 0.012
    (tmp_path / "camera.json").unlink()
    raw = SpikeData(tmp_path, "real", "test")[0]["blur"].numpy()
    np.testing.assert_array_equal(raw, moved.photo.transpose(2, 0, 1) / np.float32(255))


def test_the_way_to_the_spikes_view_and_back():
    """What deblurring changes comes back to where it belongs; where the spikes see nothing the photo stays."""
    size = (96, 128)
    photo = np.uint8(255 * cv2.resize(world(3, 300), size[::-1]))
    way = Registration.from_pixels(turned((9, -6), 0.7, 1.02, size), size, size)
    capture = Capture(photo, np.zeros((137, 24, 32), np.uint8), slice(20, 117), registration=way)
    view = View(capture, capture.light())
    np.testing.assert_allclose(view.back(view.image), capture.light(), atol=1e-6)
    brighter = view.back(view.image + 0.1) - capture.light()
    assert np.abs(brighter[30:-30, 30:-30] - 0.1).max() < 1e-4
    corner = brighter[-1, 0] if np.abs(brighter[-1, 0]).max() < np.abs(brighter[0, -1]).max() else brighter[0, -1]
    assert np.abs(corner).max() < 1e-4  # moved by (9, -6): one of these corners is not seen
    plain = View(Capture(photo, capture.spike, slice(20, 117)), capture.light())
    assert plain.matrix is None and plain.image.tobytes() == capture.light().tobytes()


# The sensor's own marks ---------------------------------------------------------------------------------


def test_dead_and_hot_pixels_are_found_and_filled():
    one = simulated(9, size=(256, 320))
    spoilt = one.spike.copy()
    spoilt[:, 20, 30] = spoilt[:, 40, 50] = spoilt[:, 41, 50] = 0
    spoilt[:, 10, 60] = 1
    bad = find_bad_pixels(spoilt)
    true = np.zeros_like(bad)
    true[[20, 40, 41, 10], [30, 50, 50, 60]] = True
    dark_enough = one.spike[:, 10, 60].mean() < 0.45
    true[10, 60] = dark_enough
    assert (bad == true).all()
    filled = fill(spoilt, true)
    assert (filled[:, ~true] == spoilt[:, ~true]).all() and set(np.unique(filled)) <= {0, 1}
    rates = np.abs(filled[:, true].mean(axis=0) - one.spike[:, true].mean(axis=0))
    assert rates.max() < 0.12


def test_what_goes_on_in_a_neighbour_is_no_mark():
    frame = np.arange(400)[:, None, None]
    spike = np.uint8(np.broadcast_to(frame % 5 < 2, (400, 32, 40))).copy()
    spike[:, 10, 20] = spike[:, 20, 30] = np.arange(400) % 7 == 0
    assert find_bad_pixels(spike)[[10, 20], [20, 30]].all()
    spike[:300, 10, 21] = np.arange(300) % 20 == 0  # as dark, but in another part of the stream as bright as all
    assert np.argwhere(find_bad_pixels(spike)).tolist() == [[20, 30]]


def test_a_stream_without_marks_is_left_as_it_is():
    one = simulated(9)
    assert not find_bad_pixels(one.spike).any() and fill(one.spike, np.zeros((48, 64), bool)) is one.spike


# Formats ------------------------------------------------------------------------------------------------


def random_spikes(shape=(20, 24, 40)):
    return np.random.default_rng(0).integers(0, 2, shape).astype(np.uint8)


def test_arrays_of_every_kind(tmp_path):
    spike = random_spikes()
    told = Layout((24, 40))
    np.save(tmp_path / "thw.npy", spike.astype(bool))
    np.save(tmp_path / "hwt.npy", spike.transpose(1, 2, 0))
    np.savez(tmp_path / "one.npz", spk=spike)
    np.savez(tmp_path / "labelled.npz", spk=spike, label=np.zeros(3))
    np.savez(tmp_path / "two.npz", spk=spike, other=spike)
    np.save(tmp_path / "packed.npy", np.packbits(spike, axis=-1))
    np.save(tmp_path / "frames.npy", np.packbits(spike.reshape(20, -1), axis=-1))
    for name in ("thw.npy", "hwt.npy", "one.npz", "labelled.npz"):
        np.testing.assert_array_equal(read_stream(tmp_path / name, told), spike)
    np.testing.assert_array_equal(read_stream(tmp_path / "two.npz", Layout(key="spk")), spike)
    for name in ("packed.npy", "frames.npy"):
        np.testing.assert_array_equal(read_stream(tmp_path / name, Layout((24, 40), bit_order="big")), spike)
    with pytest.raises(InputError, match="holds the arrays spk, other"):
        load_array(tmp_path / "two.npz")
    with pytest.raises(InputError, match="expected zeros and ones"):
        unpacked(spike.astype(np.float32) / 2, Layout())
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="no array that NumPy can read"):
        load_array(tmp_path / "bad.npz")
    (guess,) = layouts_that_fit(tmp_path / "hwt.npy", (96, 160), Layout())
    assert guess == Layout(axes="hwt")


@pytest.mark.parametrize("layout", [Layout(), Layout((24, 40))])
def test_counts_are_no_bytes_of_eight_pixels(layout, tmp_path):
    """Numbers of a pixel each that are not 0 and 1, whether the size is told or seen."""
    counts = 3 * random_spikes((20, 24, 40))
    np.save(tmp_path / "counts.npy", counts)
    with pytest.raises(InputError, match="expected zeros and ones|no bytes of frames"):
        open_capture(np.full((96, 160, 3), 90, np.uint8), tmp_path / "counts.npy", Reading(layout=layout))


@pytest.mark.parametrize("said", [slice(16, 73), (16, 73), [16, 73], range(16, 73), "16:73", np.array([16, 73])])
def test_an_exposure_is_understood_however_it_is_said(said):
    assert Reading(exposure=said).exposure == slice(16, 73)


@pytest.mark.parametrize(
    "said", [16, "16", (16,), (16, 73, 2), range(16, 73, 2), (16.5, 73), "73:16", "auto:0", slice(5)]
)
def test_an_exposure_that_is_none_is_refused(said):
    with pytest.raises(InputError, match=r"exposure is .*; expected \(START, END\)"):
        Reading(exposure=said)


def test_colours_that_are_held_back_below_black_are_black(monkeypatch):
    photo, spike = np.full((64, 96, 3), 90, np.uint8), random_spikes((137, 16, 24))
    monkeypatch.setattr(Palette, "hold", lambda palette, frame: frame - 2)
    with np.errstate(invalid="raise"):
        frames = Deblurrer("sdm21", device="cpu")(photo, spike, frames=1, tone="gamma:2.2", align="off", check=False)
    assert (frames == 0).all()


def test_what_is_no_photo_no_stream_and_no_instant_is_refused():
    photo, spike = np.full((64, 96, 3), 90, np.uint8), random_spikes((137, 16, 24))
    with pytest.raises(InputError, match="the image is NoneType; expected a path or an array"):
        open_capture(None, spike)
    with pytest.raises(InputError, match="the stream is list; expected a path or an array"):
        open_capture(photo, [spike])
    for frames in (2.5, "x", [20.5]):
        with pytest.raises(InputError, match="expected how many, or which as a list"):
            Deblurrer("sdm21")(photo, spike, frames=frames)
    assert len(Deblurrer("sdm21", device="cpu")(photo, spike, frames=np.int64(2), align="off", check=False)) == 2


def test_padded_rows_and_conversion_there_and_back(tmp_path):
    spike = random_spikes()
    padded = np.pad(spike, ((0, 0), (0, 0), (0, 8)))
    write_dat(tmp_path / "raw.DAT", padded)
    argv = ["scripts/convert_spikes.py", tmp_path / "raw.DAT"]
    call(*argv, tmp_path / "s.npz", "--spike_size", "24x40", "--row_bits", 48)
    np.testing.assert_array_equal(np.load(tmp_path / "s.npz")["spk"], spike)
    call("scripts/convert_spikes.py", tmp_path / "s.npz", tmp_path / "s.dat", "--frames", "5:15", "--flip", "vertical")
    np.testing.assert_array_equal(read_dat(tmp_path / "s.dat", 24, 40), spike[5:15, ::-1])
    assert "does not tell its size" in refused(*argv, tmp_path / "x.npy")
    assert "expected a name that ends in" in refused(*argv, tmp_path / "x.mat", "--spike_size", "24x40")


def test_padded_rows_are_told(tmp_path):
    spike = random_spikes((137, 16, 400))
    write_dat(tmp_path / "raw.dat", np.pad(spike, ((0, 0), (0, 0), (0, 16))))
    known = {"tone": "linear", "align": "off", "bad_pixels": False, "check": False}
    found = open_capture(np.zeros((64, 1600, 3), np.uint8), tmp_path / "raw.dat", exposure=slice(20, 117), **known)
    np.testing.assert_array_equal(found.spike, spike)
    assert found.notes == ("size: spikes of 16x400 in rows of 416 bits",)


def test_what_was_told_is_not_asked_for_again():
    """Of a still scene: neither a length that was given, nor a tone in silence."""
    still = np.full((64, 96, 3), 90, np.uint8), random_spikes((200, 16, 24))
    with pytest.raises(InputError, match=r"too little moves, or the tone is not srgb .*give --exposure START:END$"):
        open_capture(*still, exposure="auto:97", tone="srgb", align="off", check=False)
    with pytest.raises(InputError, match=r"too little moves \(.*or its length"):
        open_capture(*still, exposure="auto", align="off", check=False)


def test_the_size_is_found_by_what_the_stream_shows(tmp_path):
    one = simulated(10, size=(192, 320), spikes=2)
    write_dat(tmp_path / "half.dat", one.spike)
    capture = open_capture(one.photo, tmp_path / "half.dat", Reading(tone="linear"))
    assert capture.spike.shape == (137, 96, 160) and "spikes of 96x160, 137 frames" in " ".join(capture.notes)
    (tmp_path / "odd.dat").write_bytes(b"x" * 4801)
    with pytest.raises(InputError, match="not a whole number of 48x80 spike frames"):
        open_capture(one.photo, tmp_path / "odd.dat")


def test_the_other_bit_order_is_noticed_and_mended(tmp_path):
    one = simulated(11, size=(192, 256))
    bits = np.packbits(one.spike[:, ::-1].reshape(137, -1), axis=1, bitorder="big")
    bits.tofile(tmp_path / "s.dat")
    capture = open_capture(one.photo, tmp_path / "s.dat", Reading(tone="linear", bad_pixels=False))
    np.testing.assert_array_equal(capture.spike, one.spike)
    assert "--bit_order big" in capture.notes[0]
    told = Reading(Layout(bit_order="big"), tone="linear", bad_pixels=False)
    np.testing.assert_array_equal(open_capture(one.photo, tmp_path / "s.dat", told).spike, one.spike)


# Photographs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_bits_in_16_bit_files(bits, tmp_path):
    numbers = np.random.default_rng(0).integers(0, 1 << bits, (40, 60, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), numbers)
    photo = read_photo(tmp_path / "deep.png")
    assert photo.pixels.dtype == np.uint16 and f"{bits} bits" in photo.note
    np.testing.assert_allclose(photo.pixels / 65535, numbers / ((1 << bits) - 1), atol=1e-5)
    assert (deep_photo(numbers, 16).pixels == numbers).all()
    with pytest.raises(InputError, match=f"--bits {bits - 2} ends at"):
        deep_photo(numbers, bits - 2)


def test_an_exif_orientation_is_named(tmp_path):
    one = simulated(12, size=(192, 256))
    done, jpeg = cv2.imencode(".jpg", np.rot90(one.photo))  # upright after a turn to the right
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (tmp_path / "p.jpg").write_bytes(jpeg[:2].tobytes() + segment + jpeg[2:].tobytes())
    assert done and read_photo(tmp_path / "p.jpg").pixels.shape == one.photo.shape
    assert read_photo(tmp_path / "p.jpg").orientation == 6
    assert read_photo(tmp_path / "p.jpg", turn=False).pixels.shape == (256, 192, 3)


# Colour -------------------------------------------------------------------------------------------------


def test_grey_photos_give_grey_frames():
    one = simulated(13)
    photo = np.repeat(one.photo[..., 1:2], 3, axis=2)
    frames = Deblurrer(device="cpu")(photo, one.spike, 3, Reading(tone="linear"))
    assert (frames[..., 0] == frames[..., 1]).all() and (frames[..., 1] == frames[..., 2]).all()


def test_colours_that_the_photo_has_pass_and_others_do_not():
    blur = np.zeros((64, 96, 3), np.float32)
    blur[:, :48] = (0.2, 0.4, 0.8)
    blur[:, 48:] = (0.5, 0.5, 0.5)
    palette = Palette(blur)
    np.testing.assert_allclose(palette.hold(blur), blur, atol=1e-5)
    green = np.zeros_like(blur)
    green[..., 1] = 1
    held = palette.hold(green)
    assert held[..., 1].max() - held[..., 2].min() < 0.5  # a pure green was nowhere


# The script ---------------------------------------------------------------------------------------------


def test_spikes_alone(tmp_path):
    one = simulated(14, size=(96, 128))
    write_dat(tmp_path / "s.dat", one.spike)
    argv = ["scripts/deblur.py", "--spike", tmp_path / "s.dat", "--spike_size", "24x32", "--device", "cpu"]
    out, _ = call(*argv, "--method", "tfp", "--window", 11, "--brightness", 2, "--frames", 3, "--out", tmp_path / "o")
    assert {"000.png", "068.png", "136.png", "sequence.mp4", "sequence.gif"} == {
        p.name for p in (tmp_path / "o").iterdir()
    }
    expected = np.rint(255 * np.clip(2 * one.spike[63:74].mean(axis=0), 0, 1))
    assert np.abs(read_image(tmp_path / "o" / "068.png")[..., 0] - expected).max() <= 1
    assert "a grey level is" in out
    call(*argv, "--method", "tfi", "--frames", "68", "--out", tmp_path / "i")
    assert read_image(
        tmp_path / "i" / "000.png" if (tmp_path / "i" / "000.png").exists() else next((tmp_path / "i").glob("*.png"))
    ).shape == (24, 32, 3)


@pytest.mark.slow
def test_folders_calibration_and_arrays(tmp_path):
    size = (192, 256)
    way = turned((6, 4), 0.4, 1.01, size)
    for seed in (15, 16):
        one = simulated(seed, size, way=way)
        write_image(tmp_path / "photos" / f"{seed}.png", one.photo)
        np.savez_compressed(tmp_path / f"{seed}.npz", spk=one.spike)
    argv = ["scripts/deblur.py", "--blur", tmp_path / "photos", "--spike", tmp_path, "--frames", 1, "--method", "sdm21"]
    out, err = call(*argv, "--tone", "linear", "--out", tmp_path / "o", "--device", "cpu")
    assert out.count("registration:") == 2 and not err and (tmp_path / "o" / "16" / "068.png").is_file()
    out, _ = call(*argv, "--tone", "linear", "--calibrate", tmp_path / "pair.json")
    assert "tone linear and registration of 2 captures" in out
    true = Registration.from_pixels(way, size, size)
    assert Camera.read(tmp_path / "pair.json").registration.distance(size, true) < 1
    out, _ = call(*argv, "--tone", "linear", "--align", tmp_path / "pair.json", "--out", tmp_path / "p", "--limit", 1)
    assert "registration: given" in out


def test_options_mean_the_same_in_python_and_for_a_folder(tmp_path):
    """Each option that says something of a capture, by name, and of a folder of captures; the pictures are the same."""
    one = simulated(19, (96, 128), before=30, tone="gamma:2.2")
    write_image(tmp_path / "photos" / "a.png", one.photo)
    (tmp_path / "streams").mkdir()
    arrays = {"spk": np.ascontiguousarray(one.spike[:, ::-1].transpose(1, 2, 0)), "other": np.zeros(3)}
    np.savez_compressed(tmp_path / "streams" / "a.npz", **arrays)
    Camera(Registration.from_pixels(turned((2, 1), 0, 1, (96, 128)), (96, 128), (96, 128))).write(
        tmp_path / "pair.json"
    )
    known = {"key": "spk", "axes": "hwt", "flip": "vertical", "tone": "gamma:2.2", "spike_size": (24, 32)}
    frames = Deblurrer("sdm21", device="cpu", tile=64, spike_gain="auto", hold_colour=False)(
        tmp_path / "photos" / "a.png",
        tmp_path / "streams" / "a.npz",
        frames=[50, 90],
        exposure=slice(30, 127),
        align=Camera.read(tmp_path / "pair.json").registration,
        bad_pixels=False,
        exif=False,
        bits=8,
        crop=(0, 0, 96, 128),
        check=False,
        **known,
    )
    argv = ["scripts/deblur.py", "--method", "sdm21", "--device", "cpu", "--tile", 64, "--spike_gain", "auto"]
    argv += ["--blur", tmp_path / "photos", "--spike", tmp_path / "streams", "--key", "spk", "--axes", "hwt"]
    argv += ["--flip", "vertical", "--tone", "gamma:2.2", "--exposure", "30:127", "--align", tmp_path / "pair.json"]
    argv += ["--bad_pixels", "off", "--no-exif", "--bits", 8, "--crop", "0,0,96,128", "--no-check"]
    call(*argv, "--spike_size", "24x32", "--no-hold_colour", "--frames", "50,90", "--out", tmp_path / "o")
    for frame, instant in zip(frames, (50, 90), strict=True):
        np.testing.assert_array_equal(read_image(tmp_path / "o" / "a" / f"{instant:03}.png"), frame)


@pytest.mark.slow
def test_captures_are_resimulated_in_linear_light(tmp_path):
    """By --tone, or by camera.json; what is made of a linear photo of the same light agrees with both."""
    for name, tone in (("coded", "srgb"), ("linear", "linear")):
        one = simulated(20, (96, 128), tone=tone)
        write_image(tmp_path / name / "blur_data" / "a" / "1.png", one.photo)
        write_dat(tmp_path / name / "spike_data" / "a" / "1.dat", one.spike)

    def made(name, *more):
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        argv = ["--base_folder", tmp_path / name, "--data_type", "real", "--out", out, "--count", 1, "--size", "96x128"]
        argv += ["--motion", 2, 5]
        call("scripts/resimulate.py", *argv, "--split", "test", "--shrink", 1, "--device", "cpu", *more)
        return read_image(next((out / "pictures").glob("*.png"))).astype(float)

    linear, told, plain = made("linear"), made("coded", "--tone", "srgb"), made("coded")
    Camera(tone=Tone("srgb")).write(tmp_path / "coded" / "camera.json")
    np.testing.assert_array_equal(made("coded"), told)
    assert abs(told - linear).mean() < 1 < 10 < abs(plain - linear).mean()


def test_a_data_set_is_read_officially(tiny, tmp_path):
    argv = ["--base_folder", tiny, "--frames", 1, "--limit", 1, "--method", "sdm", "--out", tmp_path / "o"]
    out, _ = call("scripts/deblur.py", *argv)
    assert "tone" not in out and "registration" not in out and "bad pixels" not in out
    capture = Capture(np.zeros((8, 8, 3), np.uint8), np.zeros((137, 2, 2), np.uint8), slice(20, 117))
    assert capture.frame == (8, 8) and capture.tone == Tone()


def test_spikes_of_0_and_255_are_spikes():
    spikes = np.random.default_rng(0).random((137, 16, 24)) < 0.3
    found = unpacked(np.uint8(255 * spikes), Layout((16, 24)))
    np.testing.assert_array_equal(found, spikes)


def test_a_stream_is_late_only_where_enough_instants_say_so():
    expected = [20, 36, 52, 68, 84, 100, 116]
    assert time_fault(expected, [8, 8, None, None, None, None, None]) == ""
    assert "12 frames late" in time_fault(expected, [8, 24, 40, 56, None, None, None])


def test_too_few_spikes_for_a_bright_photo_are_said():
    spikes = np.zeros((137, 16, 24), np.uint8)
    spikes[60, 3, 4] = spikes[70, 9, 9] = 1  # 2 of 97 * 384: 1 in 18,624
    capture = open_capture(np.full((64, 96, 3), 200, np.uint8), spikes, bad_pixels=False)
    assert any("brightness: pixels fire in 0.005% of the frames" in note for note in capture.notes)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((0, 16, 24), np.uint8), "it holds no frames"),
        (np.zeros((137, 16, 24), np.complex64), "expected real numbers"),
    ],
)
def test_arrays_that_are_no_stream(array, says):
    with pytest.raises(ValueError, match=says):
        unpacked(array, Layout((16, 24)))
