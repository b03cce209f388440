import numpy as np
import pytest
import torch

from codes.fast import pieces
from codes.model.ldn_model import Deblur_Net
from tests.fast.agree import agree, agree_in_bf16, fast_form, image

PIECES = pytest.mark.parametrize("piece", [pieces.PIECE, 20_000, 3000])


def inputs(batch=2):
    return image(batch, 3, 32, 48), (image(batch, 4, 21, 8, 12) < 0.4).to(torch.uint8)


@PIECES
def test_same_as_plain(piece, monkeypatch):
    """Several instants, whole, in pieces and in strips."""
    monkeypatch.setattr(pieces, "PIECE", piece)
    torch.manual_seed(0)
    agree(Deblur_Net(), *inputs())


@PIECES
@torch.inference_mode()
def test_frame_by_frame(piece, monkeypatch):
    """In two steps, with the channels' weights of the image or given ones, as for long sequences and tiles."""
    monkeypatch.setattr(pieces, "PIECE", piece)
    torch.manual_seed(0)
    network, (blur, spike) = Deblur_Net().double(), inputs(1)
    fast = fast_form(network)
    for weights in (None, torch.rand(1, 64, 1, 1).double()):
        expected, found = (net.decode(blur, net.encode(blur), spike[:, 1], weights) for net in (network, fast))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    rows = image(1, 1, 32, 48)  # what is done with each row, in the strip that holds it
    expected, found = (
        net.decode(blur, net.encode(blur), spike[:, 1], finish=lambda out, at: (out * rows[:, :, at])[:, :1])
        for net in (network, fast)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    expected, found = (net.features(net.encode(blur), spike[:, 1]) for net in (network, fast))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_in_bf16():
    torch.manual_seed(0)
    blur, spike = inputs()
    agree_in_bf16(Deblur_Net(), blur.float(), spike)


def test_refuses_what_the_plain_form_refuses():
    with pytest.raises(ValueError, match="4 times"):
        fast_form(Deblur_Net())(torch.zeros(1, 3, 32, 32), torch.zeros(1, 21, 8, 9))
