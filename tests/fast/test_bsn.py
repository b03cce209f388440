import pytest
import torch

from codes.fast import pieces
from codes.model.bsn_model import BSN
from tests.fast.agree import agree, agree_in_bf16, fast_form, image, multiplications

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("shape", [(2, 16, 16), (2, 21, 34), (1, 4, 9), (1, 92, 9)])
def test_same_as_plain(shape):
    """Square and mirrored frames; sides that are no multiples of 4; frames so long that the mirror is cut."""
    torch.manual_seed(0)
    agree(BSN(), image(shape[0], 1, *shape[1:]))


@pytest.mark.parametrize("size", [(16, 16), (21, 34)])
def test_in_small_pieces(size, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 3000)
    torch.manual_seed(0)
    agree(BSN(), image(2, 1, *size))


@torch.inference_mode()
def test_so_long_that_rows_above_are_cut():
    torch.manual_seed(0)
    network, x = BSN(), image(1, 1, 8, 176).float()
    torch.testing.assert_close(fast_form(network)(x), network(x), rtol=0, atol=1e-5)


def test_in_bf16():
    torch.manual_seed(0)
    agree_in_bf16(BSN(), image(2, 1, 20, 28).float())


def test_a_wide_frame_costs_less_than_its_square():
    x = torch.rand(1, 1, 16, 112)
    assert multiplications(fast_form(BSN()), x) < 0.75 * multiplications(BSN(), x)
