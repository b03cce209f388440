"""Each factor against streams made here in another way."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage

from codes.making.degradation import Setting, record, sample_of, spikes
from codes.making.sensor import spikes_from_frames
from codes.making.synthesis import Scene

SIZE = HEIGHT, WIDTH = 64, 96
NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
PHOTOS = [str(Path(skimage.__file__).parent / "data" / name) for name in NAMES]


@pytest.fixture(scope="module")
def sample():
    return sample_of(0, 24.0, PHOTOS, SIZE, 0)


@pytest.fixture(scope="module")
def film(sample):
    return np.stack(list(Scene(sample)))


def light_of(film, ratio=4):
    """The mean grey of the 2x2 pixels in the middle of each block, by slices; what is left over at the end is cut."""
    rows, columns = (side // ratio * ratio for side in film.shape[1:3])
    film, low = film[:, :rows, :columns], ratio // 2 - 1
    middle = sum(film[:, low + y :: ratio, low + x :: ratio] for y in (0, 1) for x in (0, 1)) / 4
    return middle @ np.array([0.11, 0.59, 0.3], np.float32)


def stream_of(sample, **factors):
    setting = replace(Setting(), **factors)
    light = record(Scene(sample), SIZE, {setting.view})[2][setting.view]
    return spikes(light, setting, SIZE, sample.rng(2))


def share_unequal(a, b):
    assert a.shape == b.shape == (137, HEIGHT // 4, WIDTH // 4)
    return (a != b).mean()


def test_images_and_default_spikes(sample, film):
    """The image is the upper left part of what is rendered; rounding may turn a spike here and there."""
    assert film.shape[1] >= HEIGHT and film.shape[2] >= WIDTH + 24
    blur, sharp, _ = record(Scene(sample), SIZE, ())
    image = film[:, :HEIGHT, :WIDTH]
    assert np.abs(blur - 255 * image[20:117].mean(axis=0)).max() < 0.51
    assert np.abs(sharp - 255 * image[68]).max() < 0.51
    expected = spikes_from_frames(light_of(film), sample.rng(2))[:, : HEIGHT // 4, : WIDTH // 4]
    assert share_unequal(stream_of(sample), expected) < 2e-3


def test_shift_by_half_a_pixel(sample, film):
    """Between two pixels lies their mean."""
    moved = (film[:, :, 1:] + film[:, :, :-1]) / 2
    found = record(Scene(sample), SIZE, {(4, 0.5)})[2][4, 0.5]
    np.testing.assert_allclose(found, light_of(moved), atol=1e-5)
    assert Setting(shift=4.5).view == (4, 0.5)


@pytest.mark.parametrize("shift", [4, 8, 24])
def test_shift_by_whole_spike_pixels(sample, film, shift):
    """A camera that looks too far to the right sees the whole scene's spikes moved to the left."""
    wide = spikes_from_frames(light_of(film), sample.rng(2))
    moved = np.roll(wide, -shift // 4, axis=2)[:, : HEIGHT // 4, : WIDTH // 4]
    found = stream_of(sample, shift=shift)
    assert share_unequal(found, moved) < 2e-3
    assert share_unequal(found, wide[:, : HEIGHT // 4, : WIDTH // 4]) > 0.05


@pytest.mark.parametrize("shift", [1, 2, 7])
def test_shift_by_image_pixels(sample, film, shift):
    offset, whole = shift % 4, shift // 4
    wide = spikes_from_frames(light_of(film[:, :, offset:]), sample.rng(2))
    assert share_unequal(stream_of(sample, shift=shift), wide[:, : HEIGHT // 4, whole : whole + WIDTH // 4]) < 2e-3


@pytest.mark.parametrize("ratio", [6, 8, 12])
def test_ratio(sample, film, ratio):
    """Of each spike pixel of the networks' grid, the coarse pixel under its centre, one by one."""
    coarse = spikes_from_frames(light_of(film, ratio), sample.rng(2))
    expected = np.empty((137, HEIGHT // 4, WIDTH // 4), np.uint8)
    for row in range(HEIGHT // 4):
        for column in range(WIDTH // 4):
            expected[:, row, column] = coarse[:, int((row + 0.5) * 4 / ratio), int((column + 0.5) * 4 / ratio)]
    assert share_unequal(stream_of(sample, ratio=ratio), expected) < 2e-3


def test_noise(sample):
    """Independent sources: a slot stays dark if the light and all of them leave it so."""
    rate = stream_of(sample, noise=0).mean()
    for count in (1, 2, 8):
        expected = 1 - (1 - rate) * (1 - 1 / 140) ** count
        assert stream_of(sample, noise=count).mean() - rate == pytest.approx(expected - rate, rel=0.1)


def test_threshold(sample, film):
    """Spikes are the voltage gathered, over the threshold's; half a threshold is left in the end, and half the gain was
    there in the beginning."""
    light = light_of(film)[:, : HEIGHT // 4, : WIDTH // 4]
    gain = 250 * 2e-7 * 1.09e-13 / (1.83e-4 * 15e-15)
    for vth in (1, 4, 8):
        expected = light.mean() * gain / (2 * vth) + (gain / 2 / (2 * vth) - 0.5) / 137
        assert stream_of(sample, vth=vth, noise=0).mean() == pytest.approx(expected, rel=0.01)


def test_motion_changes_only_how_far_things_move(sample):
    """Everything passes its place at the centre of the exposure."""
    far = sample_of(0, 48.0, PHOTOS, SIZE, 0)
    still, moved = (Scene(one).frame(68) for one in (sample, far))
    assert np.abs(still - moved).mean() < 0.02
    assert np.abs(Scene(sample).frame(20) - Scene(far).frame(20)).mean() > 0.02
