"""Scenes and draws against brute force: the sensor's loop, positions by hand, spans by counting."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from codes.errors import InputError, MissingFileError
from codes.exposure import EXPOSURE
from codes.image import grey
from codes.making.draws import (
    Draw,
    Draws,
    fire,
    noise_spikes,
    photographed,
    random_draw,
    record,
    spans,
    spike_grid,
    watch,
)
from codes.making.scenes import (
    FRAME,
    WINDOW,
    SceneDraw,
    draw_scene,
    read_scenes,
    render_window,
    write_record,
    write_scene,
)
from codes.making.sensor import GAIN, integrate_and_fire
from codes.making.synthesis import Sample, Scene
from codes.tone import Tone


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for index in range(3):
        small = rng.integers(0, 256, (30, 50, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(small, (400, 240), interpolation=cv2.INTER_CUBIC))
    return sorted(map(str, folder.glob("*.png")))


@pytest.fixture(scope="module")
def scenes(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_record(folder, photos, 3, 0)
    for index, draw in enumerate(read_scenes(folder)[:2]):  # the last is rendered when it is needed
        write_scene(draw, folder / f"{index:05}")
    return folder


@pytest.mark.parametrize("vth", [0.5, 1, 1.7, 8])
def test_the_fast_sensor_fires_as_the_loop_over_frames_does(vth):
    rng = np.random.default_rng(1)
    light, warmup = rng.random((137, 8, 8), dtype=np.float32), rng.random((8, 8), dtype=np.float32)
    expected = integrate_and_fire(light, warmup, vth).reshape(137, -1).T
    charge = light.reshape(137, -1).T * np.float32(GAIN)
    found = fire(charge, warmup.ravel() * np.float32(GAIN), vth)
    assert expected.any() and (found != expected).mean() < 1e-3  # sums are rounded in another order


def test_no_more_than_one_spike_a_frame_whatever_the_light():
    charge = np.full((1, 5), 5.25, np.float32)  # 2.6 thresholds a frame
    assert fire(charge, np.zeros(1, np.float32), 1).all()


def test_a_spike_pixel_of_a_quarter_sees_the_middle_of_its_block():
    rng = np.random.default_rng(2)
    film = rng.random((3, 24, 24), dtype=np.float32)
    boxes = np.stack([cv2.boxFilter(frame, -1, (2, 2), anchor=(0, 0))[:-1, :-1] for frame in film])
    light = (boxes * 255).reshape(3, -1).T
    centres, weights = spike_grid(16, 4.0, 0.0, False)
    assert np.array_equal(centres, 4 * np.arange(4) + 2) and np.array_equal(weights, np.eye(4))
    y, x = np.repeat(centres, 4) + 4, np.tile(centres, 4) + 8
    expected = [cv2.resize(frame[4:20, 8:24], (4, 4), interpolation=cv2.INTER_LINEAR) for frame in film]
    assert np.allclose(watch(light, y, x).T.reshape(3, 4, 4) / 255, expected, atol=1e-6)


def test_light_between_places_is_interpolated():
    ramp = np.add.outer(np.arange(10.0), 2 * np.arange(10.0)).reshape(-1, 1)  # at (y, x): y + 2 x
    # The place (y, x) has its centre at (y + 1, x + 1).
    assert np.allclose(watch(ramp, np.array([3.25]), np.array([5.5])), 2.25 + 2 * 4.5)


@pytest.mark.parametrize("ratio", [2.0, 2.7, 3.9, 5.0, 6.0, 8.0])
@pytest.mark.parametrize("smooth", [False, True])
def test_grids_are_brought_to_the_networks(ratio, smooth):
    phase = 0.3 * ratio
    centres, weights = spike_grid(128, ratio, phase, smooth)
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-5) and (weights >= 0).all()
    assert np.allclose((centres + phase) / ratio % 1, 0.5)
    error = weights @ centres - (4 * np.arange(32) + 2)
    assert np.abs(error).max() <= ratio / 2 + 1e-6
    if ratio > 4 and not smooth:  # robustness.py's rule, with a grid that begins at the edge
        centres, weights = spike_grid(128, ratio, 0.0, False)
        cell = (4 * np.arange(32) + 2) // ratio
        assert np.allclose(centres[weights.argmax(axis=1)], (cell + 0.5) * ratio)


@pytest.mark.parametrize("frames", [46, 137, 274, 300])
def test_spans_are_means(frames):
    spikes = np.random.default_rng(3).random((2, frames)) < 0.4
    found = spans(spikes, 137)
    fine = np.repeat(spikes, 137, axis=1).reshape(2, 137, frames).mean(axis=2)  # both lengths divide this one
    assert np.allclose(found, fine, atol=1e-4)


def test_noise_fires_as_often_as_it_should():
    for rate in (0, 1, 2.5):
        found = noise_spikes((2000, 137), rate, np.random.default_rng(4)).mean()
        assert found == pytest.approx(rate / 140, rel=0.03, abs=1e-9)


def test_a_window_is_that_part_of_the_scene(photos):
    draw = draw_scene(0, photos, 0)
    draw = SceneDraw(draw.sample, (30, 50), 1.0, (1.0, 1.0, 1.0))
    images, light = render_window(draw)
    frames = np.stack([frame[30 : 30 + WINDOW, 50 : 50 + WINDOW] for frame in Scene(draw.sample)])
    assert frames.shape[1:3] == (WINDOW, WINDOW) and Scene(draw.sample).background.size == FRAME
    exposed = frames[EXPOSURE.start : EXPOSURE.stop].mean(axis=0)
    # OpenCV places what it warps on a grid of 1/32 pixel: another corner, another rounding
    assert np.abs(images[0] / 255 - exposed).mean() < 0.004
    assert np.abs(images[4] / 255 - frames[EXPOSURE.centre]).mean() < 0.01
    g = grey(frames, axis=-1)[..., 0]
    boxes = (g[:, :-1, :-1] + g[:, 1:, :-1] + g[:, :-1, 1:] + g[:, 1:, 1:]) / 4
    assert np.abs(light.T.reshape(boxes.shape) / 255 - boxes).mean() < 0.01


def test_bright_scenes_saturate_and_casts_tint(photos):
    draw = draw_scene(1, photos, 0)
    plain, light = render_window(SceneDraw(draw.sample, draw.corner, 1.0, (1.0, 1.0, 1.0)))
    bright, same = render_window(SceneDraw(draw.sample, draw.corner, 2.0, (1.0, 1.0, 1.0)))
    assert np.array_equal(light, same)
    assert np.abs(bright[4].astype(int) - np.minimum(2 * plain[4].astype(int), 255)).max() <= 1
    tinted, less = render_window(SceneDraw(draw.sample, draw.corner, 1.0, (1.0, 0.5, 1.0)))
    assert np.array_equal(tinted[..., 0], plain[..., 0]) and less.mean() < light.mean()
    assert np.abs(tinted[4, ..., 1].astype(int) - plain[4, ..., 1] / 2).max() <= 1


def test_an_ideal_record_is_the_simulators(scenes):
    light = np.load(scenes / "00000" / "light.npy")
    rng = np.random.default_rng(5)
    found = record(light, 1.0, Draw(noise=0), (8, 8), 128, rng)
    film = light.T.reshape(137, WINDOW - 1, WINDOW - 1)[:, 9 : 9 + 128 : 4, 9 : 9 + 128 : 4] / np.float32(255)
    warmup = np.random.default_rng(5).random((32 * 32), dtype=np.float32).reshape(32, 32)
    assert (found != integrate_and_fire(film, warmup, 1)).mean() < 1e-3


def test_the_spike_camera_of_a_shifted_draw_looks_elsewhere(scenes):
    light = np.load(scenes / "00000" / "light.npy")
    away = Draw(noise=0, corners=((1.0, 0.0),) * 4)
    found = record(light, 1.0, away, (8, 8), 128, np.random.default_rng(6))
    assert np.array_equal(found, record(light, 1.0, Draw(noise=0), (9, 8), 128, np.random.default_rng(6)))


def test_samples_are_the_same_by_seed_index_and_epoch(scenes):
    one, two, other = Draws(scenes), Draws(scenes), Draws(scenes, seed=1)
    assert len(one) == 3 and one.names == ["00000", "00001", "00002"]
    for key, value in one[1, 5].items():
        again = two[1, 5][key]
        assert torch.equal(value, again) if isinstance(value, torch.Tensor) else value == again
    assert not torch.equal(one[1, 5]["spike"], one[1, 6]["spike"])
    assert not torch.equal(one[1, 5]["spike"], other[1, 5]["spike"])


def test_a_scene_that_is_missing_is_rendered(scenes):
    data = Draws(scenes)
    assert data[2]["name"] == "00002" and (scenes / "00002" / "light.npy").is_file()


def test_samples_have_the_students_shapes(scenes):
    data = Draws(scenes, side=64, instants=3)
    for epoch in range(12):
        sample = data[0, epoch]
        shapes = {key: tuple(value.shape) for key, value in sample.items() if key != "name"}
        assert shapes == {"blur": (3, 64, 64), "spike": (3, 21, 16, 16), "sharps": (3, 3, 64, 64)}
        assert all(value.dtype == torch.float32 for key, value in sample.items() if key != "name")
        assert torch.isfinite(sample["spike"]).all() and 0 <= sample["sharps"].min() <= sample["sharps"].max() <= 1
        # what the spikes say is as bright as the image: the 21 frames around the middle of the exposure, about
        assert sample["spike"].mean() > 0


def test_draws_cover_the_world():
    rng = np.random.default_rng(7)
    draws = [random_draw(rng) for _ in range(2000)]
    vth = np.array([draw.vth for draw in draws])
    assert 0.4 <= vth.min() < 0.42 and 11.5 < vth.max() <= 12 and 1.9 < np.median(vth) < 2.2
    assert 0.65 < np.mean((vth >= 1) & (vth <= 4)) < 0.8  # half by choice, half of the others by chance
    assert 0.12 < np.mean([draw.grey for draw in draws]) < 0.21
    assert max(abs(np.array(draw.corners)).max() for draw in draws) <= 1
    ranges = {"noise": (1, 0, 4), "light": (1, 0.1, 1), "ratio": (4, 2, 8), "stretch": (1, 1 / 3, 4)}
    for name, (plain, low, high) in ranges.items():
        values = np.array([getattr(draw, name) for draw in draws])
        assert low <= values.min() and values.max() <= high and 0.7 < (values == plain).mean() < 0.97
    assert isinstance(draw_scene(0, ["a.png"], 0).sample, Sample)


def test_what_is_not_drawn_is_the_papers(scenes, monkeypatch):
    seen = []
    monkeypatch.setattr("codes.making.draws.record", lambda *given: seen.append(given[2]) or record(*given))
    whole, part = Draws(scenes), Draws(scenes, without=["vth", "grey", "corners"])
    for epoch in range(8):
        for data in (whole, part):
            data[0, epoch]
    for drawn, left in zip(seen[::2], seen[1::2], strict=True):
        assert left == replace(drawn, vth=1.0, grey=False, corners=Draw().corners)
    assert len({draw.vth for draw in seen[::2]}) == 8


def test_thresholds_may_differ_from_pixel_to_pixel(scenes):
    light = np.full(((WINDOW - 1) ** 2, 137), 100, np.uint8)
    rates = record(light, 1.0, Draw(noise=0, pattern=0.1), (8, 8), 128, np.random.default_rng(8)).mean(axis=0)
    even = record(light, 1.0, Draw(noise=0), (8, 8), 128, np.random.default_rng(8)).mean(axis=0)
    assert np.log(rates).std() == pytest.approx(0.1, rel=0.1) and np.log(even).std() < 0.02
    assert rates.mean() == pytest.approx(even.mean(), rel=0.02)


def test_a_photograph_has_its_own_bits_and_pixels():
    image = np.random.default_rng(9).random((32, 32, 3), dtype=np.float32)
    coded = Tone("srgb").coded(photographed(image, Draw(tone="srgb"))) * 255
    assert np.allclose(coded, np.rint(Tone("srgb").coded(image) * 255), atol=1e-2)
    board = np.float32(np.indices((32, 32)).sum(axis=0) % 2)[..., None].repeat(3, axis=-1)
    assert np.allclose(photographed(board, Draw(enlarged=2.0)), 0.5, atol=0.01)  # finer than its pixels


def test_another_way_to_draw_is_used(scenes):
    sample = Draws(scenes, draw=lambda rng: Draw(grey=True))[0, 0]
    assert torch.equal(sample["blur"][0], sample["blur"][2])
    assert not torch.equal(Draws(scenes, draw=lambda rng: Draw())[0, 0]["blur"][0], sample["blur"][0])


def test_grey_draws_are_exactly_grey(scenes, monkeypatch):
    monkeypatch.setattr("codes.making.draws.random_draw", lambda rng: Draw(grey=True, dim=0.7))
    sample = Draws(scenes)[0, 0]
    assert torch.equal(sample["blur"][0], sample["blur"][1]) and torch.equal(sample["blur"][0], sample["blur"][2])
    assert torch.equal(sample["sharps"][:, 0], sample["sharps"][:, 2])


def test_what_is_missing_is_said(tmp_path, scenes):
    with pytest.raises(MissingFileError, match="make_scenes"):
        Draws(tmp_path)
    with pytest.raises(InputError, match="a crop of 140"):
        Draws(scenes, side=140)
