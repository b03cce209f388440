"""The networks of the paper, in their plain form and in the one for a CPU, against the golden files and by hand."""

import json

import numpy as np
import pytest
import torch

from codes.model.bsn_model import BSN, mirror_index
from codes.model.edsr_model import EDSR
from codes.model.ldn_model import Deblur_Net
from tests.conftest import filled, rnd

BUILD = {"BSN": BSN, "EDSR": EDSR, "LDN": Deblur_Net}


@pytest.mark.parametrize("name", BUILD)
def test_official_keys(name, golden_folder):
    expected = json.loads((golden_folder / "s-sdm" / "keys.json").read_text())[name]
    state = BUILD[name]().state_dict()
    assert [[key, list(value.shape)] for key, value in state.items()] == [list(item) for item in expected]


def test_parameter_counts():
    counts = {name: sum(p.numel() for p in build().parameters()) for name, build in BUILD.items()}
    assert counts == {"BSN": 1_118_832, "EDSR": 1_515_269, "LDN": 234_158}


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("size", ["128x128", "96x160"])
def test_bsn_golden(size, form, golden):
    height, width = map(int, size.split("x"))
    out = form(filled(BSN()))(rnd(1, 1, height, width))
    np.testing.assert_allclose(out, golden(f"bsn_{size}")["out"], atol=1e-5)


@torch.inference_mode()
def test_edsr_golden(form, golden):
    out = form(filled(EDSR()))(rnd(1, 1, 45, 80))
    np.testing.assert_allclose(out, golden("edsr_45x80")["out"], atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("weights", ["filled", "official"])
def test_ldn_golden(weights, form, golden, request):
    network = Deblur_Net()
    if weights == "filled":
        filled(network)
    else:
        state = torch.load(request.getfixturevalue("golden_full") / "official" / "DeblurNet_100.pth", weights_only=True)
        network.load_state_dict(state, strict=True)
        network.eval()
    spike = torch.from_numpy(np.random.default_rng(0).random((1, 21, 64, 80)) < 0.3)
    out = form(network)(rnd(1, 3, 256, 320), spike)
    name = "ldn_256x320" if weights == "filled" else "ldn_official_256x320"
    np.testing.assert_allclose(out, golden(name)["out"], atol=1e-5)


@pytest.mark.parametrize("side", [16, 21, 30])
def test_the_blind_spot_is_blind(side, form):
    """d out[y,x] / d in[y,x] is exactly 0 for square inputs, and not 0 for each of the eight neighbours."""
    torch.manual_seed(0)
    network = form(BSN().eval())
    for y, x in [(side // 2, side // 2), (0, 0), (side - 1, 3), (5, side - 2), (side // 3, side // 2 + 1)]:
        image = torch.rand(1, 1, side, side, requires_grad=True)
        network(image)[0, 0, y, x].backward()
        gradient = image.grad[0, 0]
        assert gradient[y, x] == 0
        for ny in range(max(y - 1, 0), min(y + 2, side)):
            for nx in range(max(x - 1, 0), min(x + 2, side)):
                assert (ny, nx) == (y, x) or gradient[ny, nx] != 0


@pytest.mark.parametrize("shape", [(16, 24), (24, 16), (17, 30), (8, 40)])
def test_bsn_other_shapes(shape):
    """Any shape passes; with the mirrored square cut by numpy the result is the same."""
    network = filled(BSN())
    image = rnd(1, 1, *shape)
    side = max(shape)
    before = [(side - n) // 2 for n in shape]
    widths = [(b, side - n - b) for b, n in zip(before, shape, strict=True)]
    square = torch.from_numpy(np.pad(image[0, 0].numpy(), widths, mode="reflect"))[None, None]
    with torch.inference_mode():
        expected = network(square)[..., before[0] : before[0] + shape[0], before[1] : before[1] + shape[1]]
        np.testing.assert_allclose(network(image), expected, atol=1e-6)


@pytest.mark.parametrize(("size", "target"), [(4, 9), (5, 5), (7, 12), (3, 20), (1, 4)])
def test_mirror_index_is_numpys_reflection(size, target):
    before = (target - size) // 2
    expected = np.pad(np.arange(size), (before, target - size - before), mode="reflect")
    np.testing.assert_array_equal(mirror_index(size, target, "cpu"), expected)


def test_ldn_refuses_sizes_that_do_not_fit():
    network = Deblur_Net()
    with pytest.raises(ValueError, match="4 times"):
        network(torch.zeros(1, 3, 32, 32), torch.zeros(1, 21, 8, 9))
    with pytest.raises(ValueError, match="4 times"):
        network(torch.zeros(1, 3, 34, 32), torch.zeros(1, 21, 8, 8))


def test_mean_shifts_are_fixed():
    """The published count of EDSR includes the four numbers of the two mean shifts, which are not trained."""
    network = EDSR()
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 1_515_265
    image = rnd(1, 1, 4, 4)
    np.testing.assert_allclose(network.sub_mean(image), image - 0.446, atol=1e-6)
    np.testing.assert_allclose(network.add_mean(image), image + 0.446, atol=1e-6)


def test_ldn_at_several_instants_is_ldn_at_each():
    network = filled(Deblur_Net())
    blur, spike = rnd(2, 3, 32, 48), torch.rand(2, 5, 21, 8, 12) < 0.3
    with torch.inference_mode():
        together = network(blur, spike)
        assert together.shape == (2, 5, 3, 32, 48)
        for index in range(5):
            np.testing.assert_allclose(together[:, index], network(blur, spike[:, index]), atol=1e-6)
