import numpy as np
import pytest

from codes.making.sensor import GAIN, inherent_noise, integrate_and_fire, spikes_from_frames


def test_golden(golden):
    expected = golden("simulate")
    spikes = integrate_and_fire(expected["video"], expected["first"], vth=1.0)
    assert spikes.dtype == np.uint8
    np.testing.assert_array_equal(spikes, expected["spike_const2"])


@pytest.mark.parametrize("vth", [0.2, 1.0, 2.0, 4.0])
def test_against_one_pixel_at_a_time(vth):
    """The specification's loop in plain float32; 0.2 makes a frame add several thresholds."""
    rng = np.random.default_rng(5)
    frames, warmup = rng.random((60, 3, 4), np.float32), rng.random((3, 4), np.float32)
    expected = np.zeros(frames.shape, np.uint8)
    threshold = np.float32(2 * vth)
    for y, x in np.ndindex(3, 4):
        voltage = np.float32(0)
        for t, light in enumerate([warmup[y, x], *frames[:, y, x]]):
            voltage = np.float32(voltage + light * np.float32(GAIN))
            if voltage > threshold:
                voltage = np.fmod(voltage, threshold)
                if t:
                    expected[t - 1, y, x] = 1
    np.testing.assert_array_equal(integrate_and_fire(frames, warmup, vth), expected)


def test_gain_and_rate():
    assert abs(GAIN - 1.98543) < 1e-5
    rates = [integrate_and_fire(np.full((4000, 1, 1), 0.5), np.zeros((1, 1)), vth).mean() for vth in (1, 2, 4)]
    np.testing.assert_allclose(rates, [0.5 * GAIN / 2 / vth for vth in (1, 2, 4)], atol=1e-3)


def test_noise_statistics():
    shape = (137, 60, 80)
    noise = inherent_noise(shape, np.random.default_rng(0))
    assert noise.shape == shape and noise.dtype == bool
    gaps = np.diff(np.flatnonzero(noise.transpose(1, 2, 0)))
    assert abs(gaps.mean() - 140) < 1.5 and abs(gaps.std() - 50) < 1.5
    assert abs(noise.mean() - 1 / 140) < 1e-4
    assert noise.transpose(1, 2, 0).reshape(-1)[-1000:].any()  # reaches the end of the line


def test_spike_cube_from_seed():
    frames = np.random.default_rng(2).random((30, 6, 8), np.float32)
    first, again, other = (spikes_from_frames(frames, seed) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()
    clean = spikes_from_frames(frames, 1, noise=False)
    assert (first >= clean).all() and (first != clean).any()
    warmup = np.random.default_rng(1).random((6, 8), dtype=np.float32)
    np.testing.assert_array_equal(clean, integrate_and_fire(frames, warmup))
