import numpy as np
import pytest
import torch

from codes.fast import pieces
from codes.model.sdmnet_model import SDMNet
from tests.conftest import filled
from tests.fast.agree import agree, agree_in_bf16, fast_form, image

PIECES = pytest.mark.parametrize("piece", [pieces.PIECE, 3000])


def inputs():
    return image(2, 3, 32, 48), image(2, 4, 21, 8, 12)


@PIECES
def test_same_as_plain(piece, monkeypatch):
    """Several instants, whole and in strips."""
    monkeypatch.setattr(pieces, "PIECE", piece)
    agree(filled(SDMNet()), *inputs())


@PIECES
@torch.inference_mode()
def test_frame_by_frame(piece, monkeypatch):
    """With what belongs to the whole image given, where this is a tile of it."""
    monkeypatch.setattr(pieces, "PIECE", piece)
    network, (blur, spike) = filled(SDMNet()).double(), inputs()
    brightest, weights = 1.5 + image(2, 21), image(2, 64, 1, 1)
    for more in ((), (brightest, weights)):
        expected, found = (
            net.decode(blur, net.encode(blur), spike[:, 1], *more) for net in (network, fast_form(network))
        )
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_in_bf16():
    blur, spike = inputs()
    agree_in_bf16(filled(SDMNet()), blur.float(), spike.float())
