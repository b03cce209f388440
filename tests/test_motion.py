"""Frames joined along the motion: flows, warps and the deconvolution against scenes whose motion is known."""

import cv2
import numpy as np
import pytest
import torch

from codes.flow import (
    Path,
    Watched,
    between,
    correction,
    filled,
    flow,
    gap,
    quartered,
    sampled,
    seen_by_spikes,
    shift,
    told,
    trust,
    warp,
    with_slopes,
)
from codes.image import grey
from codes.motion import Joined, noise_of, solved
from codes.random import rng

HEIGHT, WIDTH = 120, 160


def picture(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """float32 ``(H, W, 3)`` with details of all sizes, in [0.1, 0.9]; as in photographs, colours differ by less."""
    random = rng("tests", seed)
    sizes = [(height >> k, width >> k) for k in range(5)]
    details = [random.random((*size, 1)) + 0.2 * random.random((*size, 3)) for size in sizes]
    layers = [cv2.resize(detail, (width, height)) for detail in details]
    layers = [cv2.GaussianBlur(layer, (0, 0), 1.0) for layer in layers]
    mixed = sum(layers) / len(layers)
    low, high = mixed.min(), mixed.max()
    return (0.1 + 0.8 * (mixed - low) / (high - low)).astype(np.float32)


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float()


def psnr(image: torch.Tensor, truth: torch.Tensor, border: int = 16) -> float:
    inner = (..., slice(border, -border), slice(border, -border))
    return -10 * torch.log10((image[inner] - truth[inner]).square().mean()).item()


class Pan:
    """A camera that pans over a picture with growing speed: the truth at each of 97 frames, and their mean."""

    start, stop = 20, 117

    def __init__(self, pixels: float, seed: int = 0, soft: float = 2.0, swing: bool = False):
        self.world, self.pixels, self.soft = picture(seed, 2 * HEIGHT, 3 * WIDTH), pixels, soft
        self.swing = swing
        self.blur = torch.stack([self.truth(t) for t in range(self.start, self.stop)]).mean(dim=0)

    def truth(self, instant: int) -> torch.Tensor:
        s = (instant - 68) / 96
        right, down = (self.pixels * (s + 0.3 * s * s), 0.3 * self.pixels * s) if not self.swing else (self.back(s), 0)
        view = np.float32([[1, 0, WIDTH + right], [0, 1, HEIGHT / 2 + down]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        return tensor(cv2.warpAffine(self.world, view, (WIDTH, HEIGHT), flags=flags))

    def back(self, s: float) -> float:
        """Where a camera is that goes there and back: at the end where it was in the beginning."""
        return self.pixels / 2 * np.sin(2 * np.pi * s)

    def frames(self, instants) -> torch.Tensor:
        """What a student sees: the truth without its finest details."""
        soft = [cv2.GaussianBlur(self.truth(t).numpy().transpose(1, 2, 0), (0, 0), self.soft) for t in instants]
        return torch.stack([tensor(image) for image in soft])


@pytest.mark.parametrize(("pixels", "gain"), [(0, 10), (3, 4), (12, 2), (24, 1)])
def test_details_come_back(pixels, gain):
    pan = Pan(pixels)
    joined = Joined(pan.blur, pan.frames, pan)
    assert joined.centre == 68
    for instant in (68, 52, 20, 60):  # 60 is no key
        truth = pan.truth(instant)
        before, after = psnr(pan.frames([instant])[0], truth), psnr(joined([instant])[0], truth)
        assert after > before + gain, (instant, before, after)


def test_a_camera_that_swings_back():
    """First and last frame are where they were: how far it went is told by those between."""
    pan = Pan(24, swing=True)
    truth = pan.truth(68)
    assert psnr(Joined(pan.blur, pan.frames, pan)([68])[0], truth) > psnr(pan.frames([68])[0], truth) + 1


@pytest.mark.parametrize("height, width", [(60, 96), (16, 128), (4, 4)])
def test_images_too_small_for_a_flow_stay_the_student_s(height, width):
    pan = Pan(12)
    cut = (..., slice(height), slice(width))
    joined = Joined(pan.blur[cut], lambda instants: pan.frames(instants)[cut], pan)
    torch.testing.assert_close(joined([20, 60, 68]), pan.frames([20, 60, 68])[cut], rtol=0, atol=1e-5)


def test_what_is_no_number_stays_where_it_is():
    pan = Pan(12)

    def frames(instants):
        images = pan.frames(instants)
        images[:, :, 10, 10] = torch.nan
        return images

    blur = pan.blur.clone()
    blur[:, 80, 100] = torch.nan
    found = Joined(blur, frames, pan)([68])[0]
    assert found.isfinite().all()
    assert psnr(found[:, 30:70], pan.truth(68)[:, 30:70], 4) > psnr(
        pan.frames([68])[0, :, 30:70], pan.truth(68)[:, 30:70], 4
    )


def test_who_is_asked():
    """The student computes 7 frames of the exposure, and those beyond it; the motion tells what lies between."""
    pan, asked = Pan(12), []

    def frames(instants):
        asked.extend(instants)
        return pan.frames(instants)

    joined = Joined(pan.blur, frames, pan)
    assert sorted(asked) == [20, 36, 52, 68, 84, 100, 116]
    between_keys = joined(range(20, 117, 3))
    assert len(asked) == 7 and between_keys.shape == (33, 3, HEIGHT, WIDTH)
    assert joined([]).shape == (0, 3, HEIGHT, WIDTH)
    assert psnr(joined([12])[0], pan.truth(12)) > psnr(pan.frames([12])[0], pan.truth(12)) and asked[7:] == [12]


def test_five_keys():
    """Of the same seven instants; the motion tells the others."""
    pan, asked = Pan(12), []

    def frames(instants):
        asked.extend(instants)
        return pan.frames(instants)

    joined = Joined(pan.blur, frames, pan, keys=5)
    assert sorted(asked) == [20, 36, 68, 100, 116] and joined.centre == 68
    for instant in (20, 52, 68, 60):
        truth = pan.truth(instant)
        assert psnr(joined([instant])[0], truth) > psnr(pan.frames([instant])[0], truth) + 2
    assert Joined(pan.blur, pan.frames, slice(60, 66), keys=5).keys == (60, 61, 62, 63, 64, 65)  # all there are


def test_spikes_tell_the_motion_between_keys():
    """A camera that swings back has been elsewhere than a polynomial through five keys says."""
    pan = Pan(24, swing=True)
    without, found = (Joined(pan.blur, pan.frames, pan, spike, 5) for spike in (None, stream_of(pan)))
    for instant in (44, 92):
        truth = pan.truth(instant)
        assert psnr(found([instant])[0], truth) > psnr(without([instant])[0], truth) + 0.3


def test_what_lies_between_two_keys():
    """The two frames, each moved on by its share of the way."""
    pan = Pan(12)
    own, there, trusted = Joined(pan.blur, pan.frames, pan)._between(60)
    assert psnr(own[0], pan.frames([60])[0]) > 52  # not moved: 51.3
    assert own.shape == (1, 3, HEIGHT, WIDTH) and there.shape == (1, 2, HEIGHT // 4, WIDTH // 4)
    assert trusted.shape == (1, 1, HEIGHT // 4, WIDTH // 4)


@pytest.mark.parametrize("watched", [False, True])
def test_a_key_that_is_wrong_spoils_no_frame_between_others(watched):
    """Something white passes in the frames of one key; elsewhere in time the student's frames stand."""
    pan, middle = Pan(12), (slice(None), slice(32, 96), slice(40, 136))

    def frames(instants):
        images = pan.frames(instants)
        for image, instant in zip(images, instants, strict=True):
            if 44 < instant < 60:
                image[middle] = 1
        return images

    joined = Joined(pan.blur, frames, pan, stream_of(pan) if watched else None)
    inside = (slice(None), slice(36, 92), slice(44, 132))
    for instant in (24, 28, 76, 92, 108):
        truth = pan.truth(instant)[inside]
        assert psnr(joined([instant])[0][inside], truth, 2) > psnr(pan.frames([instant])[0][inside], truth, 2) - 1


def test_the_photograph_is_explained_better():
    pan = Pan(24)
    joined = Joined(pan.blur, pan.frames, pan)
    again = torch.stack([joined([t])[0] for t in range(20, 117, 4)]).mean(dim=0)
    student = pan.frames(range(20, 117, 4)).mean(dim=0)
    assert psnr(again, pan.blur) > psnr(student, pan.blur) + 3


def test_noise_of_the_photograph_is_not_sharpened():
    pan = Pan(12)
    noisy = pan.blur + torch.from_numpy(rng("tests", 1).normal(0, 8 / 255, pan.blur.shape)).float()
    truth, student = pan.truth(68), pan.frames([68])[0]
    assert psnr(Joined(noisy, pan.frames, pan)([68])[0], truth) > psnr(student, truth)


def test_cut_off_light_is_not_believed():
    pan = Pan(12)
    bright = (2.5 * pan.blur).clamp(max=1)  # highlights are cut off, as a sensor does
    assert (bright == 1).float().mean() > 0.5

    def frames(instants):
        return (2.5 * pan.frames(instants)).clamp(max=1)

    truth = (2.5 * pan.truth(68)).clamp(max=1)
    after, before = Joined(bright, frames, pan)([68])[0], frames([68])[0]
    assert psnr(after, truth) > psnr(before, truth) + 0.5  # believed: below it


def test_what_comes_from_behind_stays_the_student_s():
    pan, middle = Pan(12), (slice(None), slice(32, 64), slice(40, 88))

    def frames(instants):
        """In the first frame something white stands in the middle of the image."""
        images = pan.frames(instants)
        for image, instant in zip(images, instants, strict=True):
            if instant == 20:
                image[middle] = 1
        return images

    joined = Joined(pan.blur, frames, pan)
    assert joined([20])[0][:, 40:56, 52:76].min() > 0.95
    assert psnr(joined([68])[0], pan.truth(68)) > psnr(pan.frames([68])[0], pan.truth(68))


def test_flow_of_a_known_shift():
    world = picture(3, 2 * HEIGHT, 2 * WIDTH)
    first, second = tensor(world[20 : 20 + HEIGHT, 30 : 30 + WIDTH]), tensor(world[14 : 14 + HEIGHT, 40 : 40 + WIDTH])
    first, second = quartered(first[None]), quartered(second[None])
    found = flow(first, second)  # what is at x in the first is at x - 10 in the second
    assert found.shape == (1, 2, HEIGHT // 4, WIDTH // 4) and found.dtype == torch.float32
    inner = found[0, :, 4:-4, 6:-6]
    torch.testing.assert_close(
        inner.median(dim=2).values.median(dim=1).values, torch.tensor([-10.0, 6.0]), rtol=0, atol=0.3
    )
    dark = flow(first / 50, second / 50)  # 8 bits of a dark scene hold 5 levels
    assert (dark - found)[0, :, 4:-4, 6:-6].abs().mean() < 0.1


@pytest.mark.parametrize("height, width", [(64, 64), (100, 64), (64, 2048), (128, 128), (128, 600)])
def test_flow_of_small_and_of_narrow_images(height, width):
    world = tensor(picture(3, height, width + 8))[None]
    found = flow(quartered(world[..., :-8]), quartered(world[..., 8:]))
    assert found[:, 0, 4:-4, 4:-4].median().item() == pytest.approx(-8, abs=0.5)


def test_warp_by_whole_pixels():
    image = tensor(picture(4))[None]
    right, down = 5, -3
    moved = torch.tensor([right, down]).float().view(1, 2, 1, 1).expand(1, 2, HEIGHT // 2, WIDTH // 2)
    expected = image[..., max(down, 0) : HEIGHT + min(down, 0), right:]
    for mode in ("bilinear", "bicubic"):
        result = warp(image, moved, mode)[..., -min(down, 0) :, : WIDTH - right]
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)


@pytest.fixture
def strip_by_strip(monkeypatch):
    """Paths that are computed in strips, and anew for each image."""
    monkeypatch.setattr("codes.flow.AT_ONCE", 2000)
    monkeypatch.setattr("codes.flow.KEPT", 0)


@pytest.mark.parametrize("way", ["kept", "strip_by_strip"])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_mean_along_a_path(scale, way, request):
    """By whole pixels, that each pixel of the coarser grid has of its own, the border repeated."""
    if way == "strip_by_strip":
        request.getfixturevalue(way)
    image, random = picture(4), rng("tests", 5)
    moved = random.integers(-99, 100, (3, HEIGHT // scale, WIDTH // scale, 2)) // 4 * 2
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    expected = np.zeros_like(image)
    for right, down in (one.repeat(scale, 0).repeat(scale, 1).transpose(2, 0, 1) for one in moved):
        expected += image[(y + down).clip(0, HEIGHT - 1), (x + right).clip(0, WIDTH - 1)] / 3
    path = Path(torch.from_numpy(moved).float().permute(0, 3, 1, 2), torch.eye(3), scale)
    assert len(path.kept) == (way == "kept")
    for planes in (slice(3), slice(1)):
        found = path(tensor(image)[None, planes])
        torch.testing.assert_close(found[0], tensor(expected)[planes], rtol=0, atol=1e-4)


def test_mean_along_a_path_between_pixels():
    """At positions between the keys, against PyTorch's own sampling; also where half precision is asked for."""
    image, random = tensor(picture(4))[None], rng("tests", 6)
    flows = torch.from_numpy(random.normal(0, 9, (3, 2, HEIGHT // 4, WIDTH // 4))).float()
    weights = between((0, 4, 8), [1.0, 3.5, 6.0, 8.0])
    sizes, expected = torch.tensor([WIDTH, HEIGHT]), torch.zeros_like(image)
    grid = torch.stack(torch.meshgrid(torch.arange(WIDTH), torch.arange(HEIGHT), indexing="xy"), dim=-1)
    for one in weights:
        moved = sum(w * flow for w, flow in zip(one, flows, strict=True)).permute(1, 2, 0)
        places = grid + moved.repeat_interleave(4, 0).repeat_interleave(4, 1)
        places = (2 * places + 1) / sizes - 1
        expected += torch.nn.functional.grid_sample(image, places[None], "bilinear", "border", align_corners=False) / 4
    with torch.autocast("cpu", torch.bfloat16):
        for found in (Path(flows, weights, 4)(image), Path(flows, weights, 4).warped(image)):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_conjugate_gradients():
    """As many steps as there are eigenvalues find what the normal equations say, weights and prior included."""
    random = rng("tests", 6)
    matrix, seen = random.normal(size=(6, 6)), torch.from_numpy(random.normal(size=6))
    weight, prior = random.random(6), 0.1
    expected = np.linalg.solve(
        matrix.T @ (weight[:, None] * matrix) + prior * np.eye(6), matrix.T @ (weight * seen.numpy())
    )
    smear, weight = torch.from_numpy(matrix), torch.from_numpy(weight)
    found = solved(seen, weight, lambda x: smear @ x, lambda x: smear.T @ x, prior, 6)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not solved(0 * seen, weight, lambda x: smear @ x, lambda x: smear.T @ x, prior, 6).any()


def test_warp_between_pixels_is_opencv_s():
    image, moved = picture(5), rng("tests", 2).normal(0, 4, (HEIGHT, WIDTH, 2)).astype(np.float32)
    at = moved + np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), -1).astype(np.float32)
    expected = cv2.remap(image, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    result = warp(tensor(image)[None], torch.from_numpy(moved).permute(2, 0, 1)[None])[0]
    np.testing.assert_allclose(result.numpy().transpose(1, 2, 0), expected, atol=0.02)  # OpenCV: 1/32 pixel


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_warp_on_a_gpu_is_the_same(mode):
    image, random = tensor(picture(5))[None], rng("tests", 2)
    moved = torch.from_numpy(random.normal(0, 4, (1, 2, HEIGHT // 4, WIDTH // 4))).float()
    torch.testing.assert_close(sampled(image, moved, mode), warp(image, moved, mode), rtol=0, atol=0.02)
    whole = (8 * moved).round() / 8
    if mode == "bilinear":  # cubic weights are another formula
        torch.testing.assert_close(sampled(image, whole), warp(image, whole), rtol=0, atol=1e-4)


def stream_of(pan: Pan, vth: float = 1.0, right: float = 0.0) -> torch.Tensor:
    """What a spike camera with voltages that start anywhere sees of a pan: uint8 ``(137, H/4, W/4)``.

    It looks ``right`` image pixels too far.
    """
    voltage, stream = rng("tests", 9).random((HEIGHT // 4, WIDTH // 4)) * vth, []
    for instant in range(137):
        seen = cv2.warpAffine(
            pan.truth(instant).numpy().transpose(1, 2, 0),
            np.float32([[1, 0, right], [0, 1, 0]]),
            (WIDTH, HEIGHT),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        light = (
            (seen @ np.float32([0.11, 0.59, 0.3]))
            .reshape(HEIGHT // 4, 4, WIDTH // 4, 4)[:, 1:3, :, 1:3]
            .mean(axis=(1, 3))
        )
        voltage = voltage + light
        stream.append(voltage >= vth)
        voltage = voltage - vth * stream[-1]
    return torch.from_numpy(np.stack(stream).astype(np.uint8))


def test_the_spike_camera_s_light_is_the_photograph_s():
    """Also where each spike is worth 4 of the paper's, and noise fires in the dark."""
    pan = Pan(10)
    for vth, noise in ((1.0, 0.0), (4.0, 0.0), (4.0, 0.02)):
        stream = stream_of(pan, vth)
        stream |= torch.from_numpy(rng("tests", 3).random(stream.shape) < noise)
        watched = Watched.of(pan.blur[None], stream[None], pan)
        for instant in (20, 68, 116):
            light = (pan.truth(instant) * torch.tensor([0.11, 0.59, 0.3])[:, None, None]).sum(dim=0)
            truth = light.view(HEIGHT // 4, 4, WIDTH // 4, 4)[:, 1:3, :, 1:3].mean(dim=(1, 3))
            seen = watched.at(instant)[0, 0]
            assert (seen - truth).mean().abs() < 0.015 and (noise or (seen - truth).std() < 0.02)
            assert abs(torch.cov(torch.stack([seen.flatten(), truth.flatten()]))[0, 1] / truth.var() - 1) < 0.15
        assert abs(watched.brightest / (vth * (1 - noise)) - 1) < 0.15


def test_spikes_that_know_nothing_of_the_photograph_are_not_asked():
    blur, stream = (
        tensor(picture())[None],
        torch.from_numpy(rng("tests", 4).random((1, 137, HEIGHT // 4, WIDTH // 4)) < 0.3),
    )
    assert Watched.of(blur, torch.zeros_like(stream), slice(20, 117)) is None
    assert Watched.of(blur, torch.ones_like(stream), slice(20, 117)) is None
    assert Watched.of(torch.full_like(blur, 0.5), stream, slice(20, 117)) is None


@pytest.mark.parametrize("vth", [1.0, 4.0])
def test_a_flow_that_is_too_short_is_corrected(vth):
    pan = Pan(12)
    watched, planes = Watched.of(pan.blur[None], stream_of(pan, vth)[None], pan), with_slopes(grey(pan.truth(68)[None]))
    for instant in (20, 116):
        s = (instant - 68) / 96
        true = torch.tensor([pan.pixels * (s + 0.3 * s * s), 0.3 * pan.pixels * s]).view(1, 2, 1, 1)
        short = 0.7 * true.expand(1, 2, HEIGHT // 4, WIDTH // 4)
        found = short + correction(planes, short, watched.at(instant), watched.brightest)
        inner = (..., slice(6, -6), slice(6, -6))
        before, after = ((flow - true)[inner].square().mean().sqrt() for flow in (short, found))
        assert after < 0.5 * before
    still = torch.zeros(1, 2, HEIGHT // 4, WIDTH // 4)
    assert correction(planes, still, watched.at(20), 0.0).abs().max() == 0  # all of it is brighter than spikes can tell


def test_where_spikes_can_tell_the_light():
    planes = torch.zeros(1, 3, 32, 48)
    planes[:, 0, :, 24:] = 0.5  # the right half saturates spikes of at most 0.5
    known = told(planes, 0.5)
    assert known.shape == (1, 1, 8, 12)
    assert (known[..., :5] == 1).all() and (known[..., 7:] == 0).all()
    torch.testing.assert_close(known[..., 5:7], torch.tensor([2 / 3, 1 / 3]).expand(1, 1, 8, 2))
    moved = torch.zeros(1, 2, 8, 12)
    moved[:, 0] = 8.0  # what is asked about lies 8 pixels further left
    torch.testing.assert_close(told(planes, 0.5, moved)[..., 1:8], known[..., 3:10])


def test_a_flow_goes_on_where_nothing_is_known():
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    true = torch.stack([6 + 0.04 * x, 0.06 * y - 2])[None]
    known, right = torch.ones(2, 1, 1, 24, 32)
    known[..., 8:16, 10:20] = 0
    right[..., 10:14, 12:18] = 0
    broken = true * torch.nn.functional.avg_pool2d(right, 3, stride=1, padding=1, count_include_pad=False)
    found = filled(broken, known)
    assert (found - true).abs().max() < 0.25 < 6 < (broken - true).abs().max()
    assert torch.equal(filled(broken, torch.ones_like(known)), broken)
    known, right = torch.ones(2, 1, 1, 90, 160)
    known[..., :45, :] = 0  # a bright sky over all of the upper half
    right[..., :43, :] = 0
    assert (filled(6 * right.expand(1, 2, -1, -1), known) - 6).abs().max() < 1e-4
    torch.testing.assert_close(filled(true, torch.zeros_like(known)), true)  # nothing is known anywhere: as it was
    for height, width in ((2, 40), (34, 6), (6, 10)):
        level = torch.full((1, 2, height, width), 3.0)
        mask = torch.ones(1, 1, height, width)
        mask[..., -1] = 0
        torch.testing.assert_close(filled(level, mask), level)


def test_spikes_see_the_middle_of_4x4_pixels():
    image = torch.from_numpy(rng("tests", 8).random((1, 2, 24, 32), dtype=np.float32))
    plain = image.view(1, 2, 6, 4, 8, 4)[..., 1:3, :, 1:3].mean(dim=(-3, -1))
    torch.testing.assert_close(seen_by_spikes(image), plain)
    moved = torch.zeros(1, 2, 6, 8)
    torch.testing.assert_close(seen_by_spikes(image, moved), plain)
    moved[:, 0] += 4.0
    torch.testing.assert_close(seen_by_spikes(image, moved)[..., :-1], plain[..., 1:])
    moved[:, 1] += 8.0
    torch.testing.assert_close(seen_by_spikes(image, moved)[..., :-2, :-1], plain[..., 2:, 1:])


@pytest.mark.parametrize("right", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("vth", [1.0, 4.0])
def test_a_photograph_that_lies_off_the_spikes(right, vth):
    pan = Pan(10)
    found = shift(pan.blur[None], stream_of(pan, vth, right)[None], pan)
    if not right:
        assert found is None
    else:
        assert found.flatten().tolist() == pytest.approx([right, 0], abs=0.15)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(shift(pan.blur[None], stream_of(pan, vth, right)[None], pan), found)
    assert shift(pan.blur[None] * torch.nan, stream_of(pan, vth, right)[None], pan) is None
    assert shift(pan.blur[None], torch.zeros(1, 137, HEIGHT // 4, WIDTH // 4), pan) is None


def test_what_stands_still_in_the_frames_does_not_hold_the_motion_back():
    """Frames that keep a third of the photograph's blur: spikes bring back most of what it costs."""
    pan = Pan(20)

    def held(instants):
        return 0.65 * pan.frames(instants) + 0.35 * pan.blur

    alone, watched = Joined(pan.blur, held, pan), Joined(pan.blur, held, pan, stream_of(pan))
    without, found = (np.mean([psnr(one([t])[0], pan.truth(t)) for t in (20, 44, 68, 116)]) for one in (alone, watched))
    assert found > without + 0.5


def test_what_saturates_the_spikes_moves_with_what_is_around_it(monkeypatch):
    pan = Pan(12)
    pan.world = np.clip(pan.world / 2, 0, 0.44)
    pan.world[HEIGHT - 32 : HEIGHT + 32, 3 * WIDTH // 2 - 32 : 3 * WIDTH // 2 + 32] += 0.5  # spikes tell up to 0.5
    pan.blur = torch.stack([pan.truth(t) for t in range(pan.start, pan.stop)]).mean(dim=0)

    def held(instants):  # there, a student sees the photograph at all instants
        frames = pan.frames(instants)
        return torch.where(grey(frames) < 0.5, frames, pan.blur)

    def found():
        joined = Joined(pan.blur, held, pan, stream_of(pan, 0.5))
        return np.mean([psnr(joined([t])[0], pan.truth(t)) for t in (20, 44, 68, 116)])

    with_neighbours = found()
    monkeypatch.setattr("codes.motion.filled", lambda there, known: there)
    assert with_neighbours > found() + 0.15


def test_gap():
    there = torch.tensor([6.0, -4.0]).view(1, 2, 1, 1).expand(1, 2, 24, 32)
    assert gap(there, -there).abs().max() < 1e-4
    astray = gap(there, -there + torch.tensor([3.0, 4.0]).view(1, 2, 1, 1))
    torch.testing.assert_close(astray, torch.full((1, 1, 24, 32), 5.0))


def test_trust():
    image, still = quartered(tensor(picture(7))[None]), torch.zeros(1, 2, HEIGHT // 4, WIDTH // 4)
    torch.testing.assert_close(trust(image, image, still, still), torch.ones(1, 1, HEIGHT // 4, WIDTH // 4))
    assert trust(image, image, still, still + 9).max() < 1e-6  # 13 pixels astray
    half = trust(image, image, still, still + 3 / 2**0.5)  # 3 pixels: e^-1
    torch.testing.assert_close(half, torch.full_like(half, np.exp(-1)))
    other = trust(image, image + 0.2, still, still)
    torch.testing.assert_close(other, torch.full_like(other, np.exp(-1)))
    noisy = image + quartered(torch.from_numpy(rng("tests", 4).normal(0, 0.1, (1, 3, HEIGHT, WIDTH))).float())
    assert trust(image, noisy, still, still).min() > 0.9  # noise is no other thing
    left = (torch.arange(WIDTH // 4) < 16).expand(1, 1, HEIGHT // 4, -1).float()  # the rest is not to be believed
    believed = trust(image, image + 0.2, still, still, left)
    torch.testing.assert_close(believed[..., :16], other[..., :16])
    torch.testing.assert_close(believed[..., 16:], torch.ones_like(believed[..., 16:]))


def test_between_keys():
    keys, times = (20, 36, 52, 68, 84, 100, 116), np.linspace(20, 116, 25)
    at = between(keys, times)
    torch.testing.assert_close(between(keys, keys), torch.eye(7), rtol=0, atol=1e-6)
    for power in range(7):
        values, expected = (((np.asarray(t) - 68) / 48) ** power for t in (keys, times))
        np.testing.assert_allclose(at.numpy() @ values, expected, atol=1e-5)
    assert between((5,), [5.0]).tolist() == [[1.0]]


def test_noise_of_an_image():
    slope = torch.linspace(0, 1, 256).expand(1, 3, 256, 256)
    assert noise_of(slope) < 1e-6
    noise = torch.from_numpy(rng("tests", 3).normal(0, 0.02, (1, 3, 256, 256))).float()
    assert noise_of(slope + noise) == pytest.approx(0.02, rel=0.03)
    enlarged = torch.nn.functional.interpolate(noise, scale_factor=2, mode="bicubic")  # as of finer spikes
    assert 0.005 < noise_of(slope.repeat(1, 1, 2, 2) + enlarged) < 0.02


@pytest.mark.parametrize("length", [1, 2, 5])
def test_short_exposures(length):
    image = tensor(picture(6))
    joined = Joined(image, lambda instants: image.expand(len(instants), -1, -1, -1), slice(3, 3 + length))
    torch.testing.assert_close(joined([3])[0], image, rtol=0, atol=1e-3)
