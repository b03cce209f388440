import pytest
import torch

from codes.fast import pieces
from codes.fast.edsr import SMALLEST
from codes.model.edsr_model import EDSR
from tests.fast.agree import agree, agree_in_bf16, fast_form, image, multiplications

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("size", [(SMALLEST - 1, 30), (SMALLEST, 31)])
@pytest.mark.parametrize("piece", [pieces.PIECE, 3000])
def test_same_as_plain(size, piece, monkeypatch):
    """The tail as it is, and in one convolution with its borders; all images at once, and one by one."""
    monkeypatch.setattr(pieces, "PIECE", piece)
    torch.manual_seed(0)
    agree(EDSR(blocks=2), image(2, 1, *size))


def test_in_bf16():
    torch.manual_seed(0)
    agree_in_bf16(EDSR(blocks=2), image(2, 1, SMALLEST, 31).float())


def test_its_tail_costs_less():
    x = torch.rand(1, 1, 64, 64)
    network = EDSR(blocks=2)
    assert multiplications(fast_form(network), x) < 0.6 * multiplications(network, x)
