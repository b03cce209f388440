"""SDMNet: sizes, the pyramid in the form of the SDM by brute force, grey stays grey, one encoding for all instants."""

import cv2
import numpy as np
import pytest
import torch

from codes.engine.checkpoint import save
from codes.engine.weights import load_student, record_of
from codes.errors import InputError
from codes.model.ldn_model import Deblur_Net
from codes.model.sdmnet_model import BRIGHT, DARK, WINDOWS, SDMNet, SDMNetLight
from codes.student import spike_pyramid
from tests.conftest import filled, rnd


@pytest.fixture(scope="module")
def network():
    return filled(SDMNet())


def seen_of(grey, pyramid):
    return SDMNet().seen(grey, pyramid, pyramid.amax(dim=(-2, -1)))


def test_it_is_small(network):
    assert sum(p.numel() for p in network.parameters()) == 235_926
    assert sum(WINDOWS) == 2 * 96 + 1


def test_untrained_it_gives_the_blurry_image():
    blur = rnd(1, 3, 32, 48)
    assert torch.equal(SDMNet()(blur, rnd(1, 21, 8, 12)), blur)


def test_several_instants_are_single_ones_with_one_encoding(network):
    blur, spike = rnd(2, 3, 64, 96), rnd(2, 3, 21, 16, 24)
    with torch.inference_mode():
        frames, image = network(blur, spike), network.encode(blur)
        assert frames.shape == (2, 3, 3, 64, 96)
        for index in range(3):
            assert torch.allclose(frames[:, index], network.decode(blur, image, spike[:, index]), atol=1e-5)
            assert torch.allclose(frames[:, index], network(blur, spike[:, index]), atol=1e-5)


def test_grey_stays_grey_exactly(network):
    grey = rnd(1, 1, 64, 96).expand(-1, 3, -1, -1)
    with torch.inference_mode():
        frame = network(grey, rnd(1, 21, 16, 24))
        colour = network(rnd(1, 3, 64, 96), rnd(1, 21, 16, 24))
        # a compressed grey photo, a level off here and there
        nearly = (grey * 255).round() / 255 + (rnd(1, 3, 64, 96) < 0.2) * (2 / 255)
        result = network(nearly, rnd(1, 21, 16, 24))
    assert torch.equal(frame[:, 0], frame[:, 1]) and torch.equal(frame[:, 0], frame[:, 2])
    assert not torch.allclose(frame[:, 0], grey[:, 0], atol=1e-3)
    assert (colour[:, 0] - colour[:, 2]).abs().max() > 0.1
    # what is left of it is the image's own chroma times 1 + ratio
    assert ((result[:, 0] - result[:, 2]).abs() < 2.1 / 255 * (result.amax() / nearly.clamp(min=0.05)).amax()).all()


def test_colour_comes_from_nearby(network):
    blur = rnd(1, 1, 64, 320).expand(-1, 3, -1, -1).clone()
    blur[:, 0, :, :8] = 0  # colour at the left edge
    with torch.inference_mode():
        frame = network(blur, rnd(1, 21, 16, 80))
    difference = (frame.amax(dim=1) - frame.amin(dim=1))[0].amax(dim=0)
    assert difference[:8].max() > 0.05 and difference[8 + 64 :].max() < 1e-6


def test_what_it_sees_by_brute_force():
    torch.manual_seed(0)
    stream, grey = (torch.rand(2, 137, 5, 6) < 0.4).float(), torch.rand(2, 1, 5, 6)
    for instant in (20, 68, 116):
        seen = seen_of(grey, spike_pyramid(stream, [instant])[:, 0])
        assert seen.shape == (2, 33, 5, 6)
        assert torch.equal(seen[:, :21], spike_pyramid(stream, [instant])[:, 0])
        least, short = (stream[:, instant - r : instant + r + 1].mean(dim=1) for r in (3, 10))
        assert torch.allclose(seen[:, 21], least, atol=1e-5) and torch.allclose(seen[:, 22], short, atol=1e-5)
        long = seen[:, 23]
        assert torch.allclose(seen[:, 25], (short - long) / (long + DARK), atol=1e-5)
        assert torch.allclose(seen[:, 27], ((short - grey[:, 0]) / (grey[:, 0] + DARK)).clamp(max=BRIGHT), atol=1e-5)
        if instant == 68:  # the others lack some of the frames
            middling = stream[:, 68 - 25 : 68 + 26].mean(dim=1)
            assert torch.allclose(seen[:, 26], (middling - long) / (long + DARK), atol=1e-5)
    # the outermost windows: 46 to 96 frames away, 26 to 45 frames away
    for instant, flags in ((20, [0, 0, 1, 1]), (30, [0, 1, 1, 1]), (68, [1, 1, 1, 1]), (100, [1, 1, 1, 0])):
        seen = seen_of(grey, spike_pyramid(stream, [instant])[:, 0])
        assert seen[:, 28:32, 0, 0].tolist() == [flags] * 2


def test_the_exposures_light_from_its_centre():
    torch.manual_seed(0)
    stream = torch.rand(1, 97, 4, 4)  # frames within 48 of the centre, no others
    seen = seen_of(torch.rand(1, 1, 4, 4), spike_pyramid(stream, [48])[:, 0])
    assert torch.allclose(seen[:, 23], stream.mean(dim=1), atol=1e-5)


def test_how_bright_one_spike_is_by_its_gain():
    stream = (torch.rand(2, 137, 5, 6, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    pyramid = spike_pyramid(stream, [68])[:, 0] * torch.tensor([1.0, 8.0])[:, None, None, None]
    told = seen_of(torch.rand(2, 1, 5, 6), pyramid)[:, 32]
    assert torch.allclose(told.exp(), torch.tensor([1.0, 8.0])[:, None, None].expand(-1, 5, 6))


def test_a_black_stream_is_finite(network):
    with torch.inference_mode():
        assert torch.isfinite(network(rnd(1, 3, 32, 32), torch.zeros(1, 21, 8, 8))).all()


def test_it_can_begin_as_an_ldn():
    ldn = filled(Deblur_Net(spike_input="pyramid", gain=True))
    network, blur, spike = SDMNet().begin_as(ldn), rnd(2, 3, 64, 64), rnd(2, 21, 16, 16)
    with torch.inference_mode():
        assert torch.allclose(network(blur, spike), ldn(blur, spike), atol=1e-4)


@pytest.mark.parametrize("kind", ["intervals", "pyramid"])
def test_its_file_says_what_it_sees(kind, tmp_path):
    network = filled(SDMNet(kind))
    save(network.state_dict(), tmp_path / "s.pth")
    again = load_student(tmp_path / "s.pth")
    assert isinstance(again, SDMNet) and (again.kind, again.gain) == (kind, True)
    assert ("spike_input" in network.state_dict()) == (kind == "intervals")  # files from before say nothing


def test_narrower_it_keeps_what_counts(tmp_path):
    wide = filled(SDMNet())
    for block in (wide.ldn.resBlock1.conv_block, wide.ldn.resBlock2.conv_block):
        block[3].weight.data[:, 7:23] *= 1e-6  # 16 channels that nothing comes from
    narrow, blur, spike = wide.narrowed(48), rnd(1, 3, 64, 64), rnd(1, 21, 16, 16)
    with torch.inference_mode():
        assert torch.allclose(narrow(blur, spike), wide(blur, spike), atol=1e-4)
    assert sum(p.numel() for p in narrow.parameters()) == 235_926 - 2 * 16 * (9 * 64 * 2 + 1)
    save(narrow.state_dict(), tmp_path / "s.pth")
    again = load_student(tmp_path / "s.pth")
    with torch.inference_mode():
        assert torch.equal(again(blur, spike), narrow(blur, spike))
    with pytest.raises(InputError, match="49 channels of the 48 inside"):
        narrow.narrowed(49)


@torch.inference_mode()
def test_the_light_one_is_the_sdm_at_half_the_size():
    """sharp = blur * (1 + ratio) + light + gate * colour with outputs of 2x2 pixels each, brought between them."""
    network, blur, spike = filled(SDMNetLight()), rnd(1, 3, 32, 48), rnd(1, 21, 8, 12)
    assert sum(parameter.numel() for parameter in network.parameters()) == 50_374
    grey, _, features = network.encode(blur)
    seen = network.seen(grey, spike, spike.amax(dim=(-2, -1)))
    ratio, light, *colour = network.ldn.trunk(features, seen)[0].numpy()
    _, gate, _ = SDMNet.encode(network, blur)
    gate = cv2.resize(gate[0, 0].numpy(), None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    sharp = network(blur, spike)[0].numpy()
    for index in range(3):
        more = cv2.resize(light + gate * colour[index], None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
        part = blur[0, index].numpy() * (1 + cv2.resize(ratio, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR))
        np.testing.assert_allclose(sharp[index], part + more, atol=1e-5)
    pale = blur[:, :1].expand(-1, 3, -1, -1)
    assert (network(pale, spike).diff(dim=1) == 0).all()  # grey stays grey
    assert torch.equal(SDMNetLight()(blur, spike), blur)  # a training begins with the blurry image
    with pytest.raises(InputError, match="narrow already"):
        network.narrowed(32)
    with pytest.raises(InputError, match="twice its channels"):
        network.begin_as(Deblur_Net(spike_input="pyramid", gain=True))


@pytest.mark.parametrize("build", [SDMNet, SDMNetLight])
def test_a_file_is_told_from_its_relative_s(build, tmp_path):
    save(filled(build()).state_dict(), tmp_path / "s.pth")
    assert type(load_student(tmp_path / "s.pth")) is build
    assert record_of(load_student(tmp_path / "s.pth")).class_name == build.__name__


def test_sizes_that_do_not_fit_are_refused(network):
    with pytest.raises(InputError, match="4 times as high"):
        network(rnd(1, 3, 64, 64), rnd(1, 21, 16, 17))
