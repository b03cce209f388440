import numpy as np
import pytest
import torch

from codes.baselines.san_model import SAN, DeformableConvolution, ImplicitFusion
from codes.baselines.san_student import SANStudent
from codes.fast import san
from tests.fast.agree import agree, agree_in_bf16, fast_form, image


def with_offsets(network):
    """Fresh weights read every tap where a plain convolution does."""
    for name, parameter in network.named_parameters():
        if name.endswith("conv_offset_mask.weight"):
            torch.nn.init.normal_(parameter, std=0.02)
    return network


def together(network, events, blur):
    return torch.cat([output.flatten() for output in network(events, blur)])


@pytest.mark.parametrize(("batch", "size", "cells"), [(1, (48, 32), (21, 37)), (2, (32, 32), (16, 16))])
def test_same_as_plain(batch, size, cells):
    """Events of several ratios to the image; where pixels lie among them is known in float32."""
    torch.manual_seed(0)
    agree(with_offsets(SAN()), image(batch, 96, *cells), image(batch, 3, *size), call=together, rtol=1e-6)


@pytest.mark.parametrize("build", [lambda: ImplicitFusion(6), lambda: DeformableConvolution(6, 5)])
def test_parts_same_as_plain(build):
    torch.manual_seed(0)
    network = with_offsets(build())
    inputs = [image(2, 6, 13, 22)] + [image(2, 6, 5, 9)] * isinstance(network, ImplicitFusion)
    agree(network, *inputs, rtol=1e-6)


@torch.inference_mode()
def test_in_strips(monkeypatch):
    """Without a gradient the deformable convolution takes a few rows at a time."""
    monkeypatch.setattr(san, "STRIP", 300)
    torch.manual_seed(0)
    network, x = with_offsets(DeformableConvolution(6, 3)).double(), image(2, 6, 13, 22)
    np.testing.assert_allclose(fast_form(network)(x), network(x), rtol=0, atol=1e-12)


def test_in_bf16():
    torch.manual_seed(0)
    events, blur = image(1, 2, 96, 16, 16).float(), image(1, 3, 32, 32).float()
    agree_in_bf16(SANStudent(), blur, events)
