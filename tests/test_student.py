import numpy as np
import pytest
import torch

from codes.engine.checkpoint import load_weights, save
from codes.engine.weights import load_student
from codes.model.ldn_model import Deblur_Net
from codes.spike import Intervals
from codes.student import LARGEST_GAIN, Sight, exposure_gain, spike_pyramid
from tests.conftest import by_intervals, filled, rnd


def test_pyramid_sees_the_whole_stream():
    """Against its description, frame by frame; at the ends of the exposure, near the stream's ends, in its middle."""
    spikes = np.random.default_rng(5).random((2, 137, 3, 4)) < 0.4
    instants = (20, 3, 68, 116, 136)
    found = spike_pyramid(torch.from_numpy(spikes), instants)
    assert found.shape == (2, 5, 21, 3, 4) and found.dtype == torch.float32
    far = [(4, 5), (6, 7), (8, 9, 10), range(11, 16), range(16, 26), range(26, 46), range(46, 97)]
    offsets = [[-offset for offset in window] for window in reversed(far)]
    offsets += [[offset] for offset in (-3, -2, -1, 0, 1, 2, 3)] + [list(window) for window in far]
    for m, instant in enumerate(instants):
        for channel, near in enumerate(offsets):
            frames = [instant + offset for offset in near if 0 <= instant + offset < 137]
            expected = np.mean([spikes[:, t] for t in frames], axis=0) if frames else np.zeros((2, 3, 4))
            np.testing.assert_allclose(found[:, m, channel], expected, atol=1e-5)
    with pytest.raises(ValueError, match="instant 137"):
        spike_pyramid(torch.from_numpy(spikes), [137])


def test_intervals_are_the_pyramid_of_light_by_intervals():
    spikes = np.random.default_rng(6).random((2, 137, 3, 4)) < 0.1
    light, spikes = torch.from_numpy(by_intervals(spikes)).float(), torch.from_numpy(spikes)
    blur, sight = rnd(2, 3, 12, 16), Sight("intervals", gain=True)
    expected = spike_pyramid(light, (20, 68)) * exposure_gain(blur, spikes)[:, None, None, None, None]
    torch.testing.assert_close(sight(blur, spikes, (20, 68)), expected, rtol=0, atol=1e-5)
    found = sight.anywhere(blur, spikes, (20, 68), near=Intervals(spikes, 20, 116))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="instant 137"):
        sight(blur, spikes, [137])


def test_light_by_intervals_of_a_long_stream_is_that_of_a_part():
    spikes = np.random.default_rng(6).random((1, 2000, 3, 4)) < 0.3
    whole, spikes = torch.from_numpy(by_intervals(spikes)).float(), torch.from_numpy(spikes)
    sight, blur, near = Sight("intervals"), rnd(1, 3, 12, 16), Intervals(spikes, 900, 1000)
    assert near.frames < 500
    for instants in ([950], [3, 950, 1999]):
        expected = torch.stack([spike_pyramid(whole, [instant])[:, 0] for instant in instants], dim=1)
        torch.testing.assert_close(sight(blur, spikes, instants), expected, rtol=0, atol=1e-6)
    for instants in ([1500], [950, 2000]):  # far from what is kept, and outside
        with pytest.raises(ValueError, match="only 740 to 1160 are kept|instant 2000"):
            spike_pyramid(near, instants)
    expected = spike_pyramid(whole, [950])
    torch.testing.assert_close(sight.anywhere(blur, spikes, [950], near=near), expected, rtol=0, atol=1e-6)


def test_exposure_gain_is_the_ratio_of_the_means():
    spikes = torch.zeros(3, 137, 2, 2, dtype=torch.uint8)
    spikes[0, 20:117:4] = 1  # 25 of 97 frames
    spikes[1, :20] = 1  # before the exposure: does not count
    spikes[2, 30, 0, 0] = 1
    blur = torch.stack([torch.full((3, 8, 8), 0.5), torch.full((3, 8, 8), 0.5), torch.zeros(3, 8, 8)])
    blur[0, 0] = 1.0  # blue: weight 0.11
    expected = [(0.11 + 0.5 * 0.59 + 0.5 * 0.3) * 97 / 25, 1.0, 0.0]
    np.testing.assert_allclose(exposure_gain(blur, spikes), expected, rtol=1e-5)
    blur[2] = 0.9  # one spike of 97 * 4 against a bright image: 349 times
    assert exposure_gain(blur, spikes)[2] == LARGEST_GAIN == 64


@pytest.mark.parametrize(
    "settings", [(21, "frames", False), (11, "frames", False), (21, "pyramid", True), (21, "intervals", True)]
)
def test_a_students_file_says_what_it_sees(settings, tmp_path):
    ldn = filled(Deblur_Net(*settings))
    save(ldn.state_dict(), tmp_path / "a.pth")
    again = load_student(tmp_path / "a.pth")
    assert (again.spike_dim, again.kind, again.gain) == settings
    assert load_student(tmp_path / "a.pth", gain=True).gain
    for key, value in ldn.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    official = settings[1:] == ("frames", False)
    assert ("spike_input" in ldn.state_dict()) != official  # the official files stay as they are


def test_a_students_file_from_the_future(tmp_path):
    state = filled(Deblur_Net(21, "pyramid")).state_dict() | {"spike_input": torch.tensor([7, 0])}
    save(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="does not know"):
        load_student(tmp_path / "a.pth")
    with pytest.raises(ValueError, match="unknown key spike_input"):
        load_weights(Deblur_Net(), tmp_path / "a.pth")


def test_spike_inputs_of_the_student():
    blur, spike = rnd(2, 3, 32, 48), rnd(2, 137, 8, 12) < 0.3
    frames = Sight.of(Deblur_Net(21))(blur, spike, (20, 68))
    assert torch.equal(frames[:, 1], spike[:, 58:79]) and torch.equal(frames[:, 0], spike[:, 10:31])
    pyramid = Sight.of(Deblur_Net(21, "pyramid", gain=True))(blur, spike, (20, 68))
    light = (blur * torch.tensor([0.11, 0.59, 0.3]).view(3, 1, 1)).sum(1).mean((1, 2))
    gain = light / spike[:, 20:117].float().mean((1, 2, 3))
    # The single frame at the instant stands in the middle of the 21 windows.
    torch.testing.assert_close(pyramid[:, 1, 10], spike[:, 68] * gain.view(2, 1, 1))
    for wrong in ((21, "triangle"), (9, "pyramid")):
        with pytest.raises(ValueError, match="spike"):
            Deblur_Net(*wrong)
