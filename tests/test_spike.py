import gzip

import numpy as np
import pytest
import torch

from codes.spike import EXPOSURE, ExposureWindow, Intervals, read_dat, spike_window, tfi, tfp, window, write_dat
from tests.conftest import by_intervals


def brute_read(path, height, width):
    """The .dat format, one bit at a time."""
    data = path.read_bytes()
    size = (height * width + 7) // 8
    frames = np.zeros((len(data) // size, height, width), np.uint8)
    for t in range(len(frames)):
        for i in range(height * width):
            bit = data[t * size + i // 8] >> (i % 8) & 1
            frames[t, height - 1 - i // width, i % width] = bit
    return frames


def test_exposure_window_derives_the_papers_numbers():
    assert (EXPOSURE.length, EXPOSURE.total, EXPOSURE.start, EXPOSURE.stop, EXPOSURE.centre) == (97, 137, 20, 117, 68)
    assert EXPOSURE.instants(24) == (20, 44, 68, 92, 116)
    assert EXPOSURE.sequence_instants == (20, 36, 52, 68, 84, 100, 116)
    assert EXPOSURE.sequence_offsets == (-6, -4, -2, 0, 2, 4, 6)
    assert EXPOSURE.instants(50) == (20, 70)  # a step that does not divide 96
    assert ExposureWindow(raw_frames=3, inserted=1, margin=4).total == 13


def test_read_golden(golden, golden_folder):
    expected = golden("vidar")
    spikes = read_dat(golden_folder / "s-sdm" / "vidar_16x24x5.dat", 16, 24)
    assert spikes.dtype == np.uint8
    np.testing.assert_array_equal(spikes, expected["full"])
    np.testing.assert_array_equal(spikes[:, 2:10, 4:16], expected["window_lu2_4_8x12"])
    np.testing.assert_array_equal(spikes[:3], expected["frame_cnt3"])
    np.testing.assert_array_equal(np.concatenate([spikes, spikes]), expected["twice"])


def test_write_golden(golden, golden_folder, tmp_path):
    expected = golden("spike_to_raw")
    write_dat(tmp_path / "a.dat", expected["spike"])
    np.testing.assert_array_equal(np.fromfile(tmp_path / "a.dat", np.uint8), expected["bytes"])
    assert (tmp_path / "a.dat").read_bytes() == (golden_folder / "s-sdm" / "raw_16x24x7.dat").read_bytes()
    write_dat(tmp_path / "b.dat", expected["spike"][:, ::-1])
    np.testing.assert_array_equal(np.fromfile(tmp_path / "b.dat", np.uint8), expected["bytes_noflip"])


@pytest.mark.parametrize("shape", [(5, 8, 16), (3, 5, 7), (1, 1, 1), (4, 3, 3), (2, 9, 8)])
@pytest.mark.parametrize("kind", [bool, np.uint8, np.float32])
def test_dat_round_trip(shape, kind, tmp_path):
    spikes = np.random.default_rng(1).random(shape) < 0.4
    write_dat(tmp_path / "a.dat", spikes.astype(kind))
    np.testing.assert_array_equal(brute_read(tmp_path / "a.dat", *shape[1:]), spikes)
    np.testing.assert_array_equal(read_dat(tmp_path / "a.dat", *shape[1:]), spikes)
    assert [p.name for p in tmp_path.iterdir()] == ["a.dat"]


@pytest.mark.parametrize("width", [24, 25, 7])  # whole bytes a row, rows that share bytes, less than a byte
def test_cut_outs_are_those_of_the_whole_stream(width, tmp_path):
    spikes = np.random.default_rng(2).random((3, 9, width)) < 0.5
    write_dat(tmp_path / "a.dat", spikes)
    for top, bottom in ((0, 9), (0, 1), (8, 9), (3, 7), (-2, None)):
        for left in range(width):
            for right in range(left + 1, width + 1):
                cut = slice(top, bottom), slice(left, right)
                found = read_dat(tmp_path / "a.dat", 9, width, *cut)
                assert found.dtype == np.uint8 and found.flags.c_contiguous
                assert np.array_equal(found, spikes[:, cut[0], cut[1]])


def test_dat_errors(tmp_path):
    path = tmp_path / "a.dat"
    write_dat(path, np.ones((3, 4, 4)))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="a.dat holds 5 bytes, not a whole number of 4x4 spike frames"):
        read_dat(path, 4, 4)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="0 bytes"):
        read_dat(path, 4, 4)
    with pytest.raises(FileNotFoundError):
        read_dat(tmp_path / "none.dat", 4, 4)
    with pytest.raises(ValueError, match="0 or 1"):
        write_dat(path, np.full((1, 2, 2), 2))
    with pytest.raises(ValueError, match="expected"):
        write_dat(path, np.zeros((2, 2)))
    assert path.read_bytes() == b""  # a refused write leaves the file alone


def test_tfp_golden(golden):
    expected = golden("cal_tfp")
    spike = np.random.default_rng(3).random((2, 137, 12, 16)) < 0.35
    spike[:, :, :2, :3] = 0
    spike[0, :, 5, 5] = 0
    for key in expected:
        _, centre, length = key.split("_")
        result = tfp(torch.from_numpy(spike), int(centre), int(length))
        assert result.dtype == torch.float32
        np.testing.assert_allclose(result, expected[key], atol=1e-6)
        assert torch.equal(tfp(spike, int(centre), int(length)), result)  # an array serves as well


def test_window_leaving_the_stream():
    assert window(68, 9, 137) == slice(64, 73)
    assert window(4, 9, 137) == slice(0, 9)
    assert window(132, 9, 137) == slice(128, 137)
    for centre in (3, 133):
        with pytest.raises(ValueError, match=r"leaves the 137-frame stream; the centre must lie in \[4, 132\]"):
            window(centre, 9, 137)
    with pytest.raises(ValueError, match="leaves the 5-frame stream"):
        window(2, 7, 5)
    with pytest.raises(ValueError):
        window(2, 0, 5)
    with pytest.raises(ValueError, match="leaves"):
        tfp(torch.zeros(2, 137, 4, 4), 3, 9)


def test_spike_window_is_a_cut():
    spike = torch.arange(137)[None, :, None, None].expand(2, 137, 3, 4)
    cut = spike_window(spike, 68, 21)
    assert cut.shape == (2, 21, 3, 4) and cut[0, :, 0, 0].tolist() == list(range(58, 79))


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.97])
@pytest.mark.parametrize("kind", ["bool", "uint8", "float32"])
@pytest.mark.parametrize("total", [1, 2, 41, 253, 254, 256, 300])  # frames whose numbers are bytes, and more
def test_light_by_intervals(rate, kind, total):
    random = np.random.default_rng(1)
    spikes = (random.random((2, total, 5, 6)) < rate).astype(kind)
    if kind == "float32":  # means of some spikes
        spikes *= random.choice([0.25, 0.5, 1], spikes.shape).astype(np.float32)
    light, expected = Intervals(torch.from_numpy(spikes)), by_intervals(spikes)
    found = light.means([(frame, frame + 1) for frame in range(total)])
    assert found.shape == spikes.shape and found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-7)
    windows = [
        (0, total),
        (total // 3, total - total // 4),
        (total - 1, total + 5),
        (-7, 2),
        (-3, 0),
        (total, total + 1),
    ]
    means = [expected[:, max(a, 0) : b].mean(axis=1) if b > 0 and a < total else 0 * expected[:, 0] for a, b in windows]
    np.testing.assert_allclose(light.means(windows), np.stack(means, axis=1), rtol=1e-6, atol=1e-7)


def test_light_by_intervals_knows_fractions_of_a_spike():
    """A pixel that fires each 8th frame has the same light in each window, of which a count knows nothing."""
    spikes = torch.zeros(1, 80, 1, 1, dtype=torch.uint8)
    spikes[:, 3::8] = 1
    windows = Intervals(spikes).means([(frame, frame + 5) for frame in range(75)])
    torch.testing.assert_close(windows, torch.full((1, 75, 1, 1), 1 / 8))
    assert tfp(spikes, 40, 5).item() == 0 and tfi(spikes, 40).item() == 1 / 8


def test_tfi_by_hand():
    spike = torch.zeros(10, 1, 4, dtype=torch.uint8)
    spike[[2, 6], 0, 0] = 1  # interval 4 around 3
    spike[:, 0, 1] = 1  # fires always
    spike[2, 0, 2] = 1  # nothing after
    values = tfi(spike, 3)
    assert values.shape == (1, 1, 4)
    assert values.flatten().tolist() == [0.25, 1.0, 0.0, 0.0]
    assert tfi(spike, 2).flatten()[0] == 0.25 and tfi(spike, 6).flatten()[0] == 0
    assert tfi(spike, 9).flatten().tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match="outside the 10-frame stream"):
        tfi(spike, 10)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 6576\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (gzip.compress(bytes(6576), mtime=0), "packed with gzip: unpack it"),
        (np.random.default_rng(0).bytes(6576).replace(b"\n", b"\r\n"), "sent as text"),
        (b"", "it is empty"),
        (b"time,x,y\n0,1,2\n", "it is text"),
        (bytes(6575), "the file is truncated or its frames have another size"),
    ],
)
def test_what_is_no_stream_says_what_it_is(content, says, tmp_path):
    (tmp_path / "a.dat").write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read_dat(tmp_path / "a.dat", 16, 24)
