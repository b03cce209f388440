"""Estimates of a sensor against the sensor that was simulated."""

import json

import cv2
import numpy as np
import pytest

from codes.errors import InputError
from codes.making.draws import Draw
from codes.making.estimate import SensorEstimate, pattern, response
from codes.making.sensor import inherent_noise, integrate_and_fire

FRAMES = 97


def film(seed, size=(72, 96)):
    """Light of a texture that moves by half a pixel a frame, float32 ``(97, h, w)``, and the mean over the frames."""
    height, width = size
    texture = np.random.default_rng(seed).random((6, 14), dtype=np.float32)
    texture = cv2.resize(texture, (width + FRAMES, height), interpolation=cv2.INTER_CUBIC)
    texture = np.clip(1.3 * texture - 0.25, 0.01, 0.9)
    frames = [texture[:, t // 2 : t // 2 + width] for t in range(FRAMES)]
    return np.stack(frames), np.mean(frames, axis=0)


def rate(light, vth, noise, seed, thresholds=1.0):
    """Of a camera that has been running for a while."""
    rng, light = np.random.default_rng(seed), light / np.float32(thresholds)
    spikes = integrate_and_fire(np.concatenate([light[::-1], light]), rng.random(light.shape[1:], np.float32), vth)
    spikes = spikes[FRAMES:]
    for _ in range(noise):
        spikes |= inherent_noise(spikes.shape, rng)
    return spikes.mean(axis=0, dtype=np.float32)


@pytest.mark.parametrize(("vth", "noise"), [(0.6, 1), (1, 0), (1, 4), (2.5, 1), (6, 2)])
def test_threshold_and_noise_are_the_simulated_ones(vth, noise):
    light, mean = film(1)
    found = response(mean, rate(light, vth, noise, 2))
    assert found.vth == pytest.approx(vth, rel=0.05)
    assert found.noise == pytest.approx(noise, abs=0.4)


def test_less_light_on_the_spikes_is_a_higher_threshold():
    light, mean = film(3)
    assert response(mean, rate(light * np.float32(0.4), 1, 1, 4)).vth == pytest.approx(2.5, rel=0.05)


def test_without_dark_places_the_noise_is_the_papers():
    light, mean = film(5)
    light, mean = (np.float32(0.5) + np.float32(0.4) * x for x in (light, mean))
    found = response(mean, rate(light, 2, 3, 6))
    assert found.noise == pytest.approx(1) and found.vth == pytest.approx(2, rel=0.1)


def test_what_cannot_be_is_refused():
    mean = film(7)[1]
    with pytest.raises(InputError, match="saturated"):
        response(mean, np.ones_like(mean))
    with pytest.raises(InputError, match="not fire more often"):
        response(mean, np.float32(0.7) * (1 - mean))


def test_thresholds_that_differ_show_in_what_captures_share():
    spread = np.exp(0.12 * np.random.default_rng(8).standard_normal((72, 96)))

    def maps(of):
        films = [film(10 + index) for index in range(4)]
        return [response(mean, rate(light, 1, 1, i, of(i))).excess for i, (light, mean) in enumerate(films)]

    assert pattern(maps(lambda index: spread)) == pytest.approx(0.12, abs=0.015)
    assert pattern(maps(lambda index: np.roll(spread, 7 * index, axis=1))) < 0.04
    assert pattern(maps(lambda index: spread)[:1]) == 0


def test_draws_are_around_the_estimate():
    capture = {"misalignment": 0.3, "ratio": 4.0, "enlarged": 4 / 3, "stretch": 2.0, "tone": "srgb", "grey": False}
    captures = []
    for index in range(3):
        light, mean = film(20 + index)
        captures.append(capture | {"light": mean, "rate": rate(light, 3, 2, index)})
    found = SensorEstimate.of(captures)
    assert SensorEstimate.read(json.loads(json.dumps(found.values()))) == found
    assert found.vth == pytest.approx((3, 3), rel=0.03) and found.pattern < 0.04 and "tone srgb" in str(found)
    saturated = capture | {"light": mean, "rate": np.ones_like(mean)}
    assert SensorEstimate.of([*captures, saturated]).vth == found.vth
    with pytest.raises(InputError, match="saturated"):
        SensorEstimate.of([saturated])
    rng = np.random.default_rng(0)
    draws = [found.draw(rng) for _ in range(300)]
    vth = [draw.vth for draw in draws]
    assert 2.5 < min(vth) < 2.9 and 3.1 < max(vth) < 3.5
    assert all(1.1 < draw.noise < 2.9 and draw.tone == "srgb" and draw.stretch == 2 for draw in draws)
    assert 0.4 < np.abs([draw.corners for draw in draws]).max() <= 0.6
    assert all((draw.ratio, draw.phase, draw.enlarged) == (4, (0, 0), 4 / 3) for draw in draws)
    coarse = SensorEstimate(ratio=6.0, grey=True).draw(rng)
    assert isinstance(coarse, Draw) and coarse.ratio == 6 and coarse.smooth and coarse.grey
    assert 0 < min(coarse.phase) and max(coarse.phase) < 6
