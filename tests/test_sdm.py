import numpy as np
import pytest
import torch

from codes.sdm import Enlarge, Teacher, sdm
from codes.spike import tfp


def test_sdm_golden(golden):
    data = golden("sdm")
    spike, blur = torch.from_numpy(data["spike"]), torch.from_numpy(data["blur"])
    for instant in (20, 68, 116):
        textures = tfp(spike, 68, 97), tfp(spike, instant, 9)
        np.testing.assert_allclose(
            sdm(blur, *textures, clip=False), data[f"general_idx{instant}"], rtol=1e-6, atol=1e-6
        )
        for name in ("general_clip", "bsn_variant"):
            expected = np.clip(data[f"{name}_idx{instant}"], 0, 1)
            np.testing.assert_allclose(sdm(blur, *textures), expected, atol=1e-6)


def test_sdm_recovers_the_sharp_frame_from_true_light():
    """The model is exact where blur and light agree: grey scenes, noise-free textures."""
    frames = torch.rand(97, 1, 6, 8) * 0.9 + 0.05
    blur = frames.mean(0).expand(3, 6, 8)
    np.testing.assert_allclose(sdm(blur, frames.mean(0), frames[30]), frames[30].expand(3, 6, 8), rtol=1e-5)


def test_enlarge_against_plain_arithmetic():
    image = torch.tensor([[[[0.0, 1.0]]]])
    np.testing.assert_array_equal(Enlarge("nearest")(image)[0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1])
    bilinear = Enlarge("bilinear")(image)[0, 0, 0]
    np.testing.assert_allclose(bilinear, [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1], atol=1e-7)
    with pytest.raises(ValueError, match="nearest"):
        Enlarge("cubic")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_sdm_of_dark_pixels_in_half_precision(kind):
    result = sdm(
        torch.zeros(1, 3, 1, 2), torch.full((1, 1, 1, 2), 1e-7, dtype=kind), torch.full((1, 1, 1, 2), 0.5, dtype=kind)
    )
    assert result.dtype == torch.float32 and not result.any()


class Count(torch.nn.Module):
    """Nearest x4 that counts the images it enlarged."""

    images = 0

    def forward(self, x):
        self.images += len(x)
        return x.repeat_interleave(4, -2).repeat_interleave(4, -1)


def test_teacher_is_the_formula_and_enlarges_the_long_window_once():
    spike = (torch.rand(2, 137, 8, 8) < 0.4).to(torch.uint8)
    blur = torch.rand(2, 3, 32, 32)
    sr = Count()
    labels = Teacher.cascade(torch.nn.Identity(), sr, 9)(blur, spike, (20, 68, 116))
    assert sr.images == 2 * (1 + 3)
    assert labels.shape == (2, 3, 3, 32, 32)
    for label, instant in zip(labels.unbind(1), (20, 68, 116), strict=True):
        short = spike[:, instant - 4 : instant + 5].float().mean(1, keepdim=True)
        long = spike[:, 20:117].float().mean(1, keepdim=True)
        ratio = torch.where(long > 0, short / long, torch.zeros_like(long))
        expected = (blur * torch.from_numpy(np.kron(ratio, np.ones((4, 4), np.float32)))).clamp(0, 1)
        np.testing.assert_allclose(label, expected, atol=1e-6)


def test_teacher_is_frozen():
    teacher = Teacher.cascade(torch.nn.Conv2d(1, 1, 3, padding=1), Count())
    assert not any(p.requires_grad for p in teacher.parameters())
    teacher.train()
    assert not teacher.training and not teacher.denoise.training
    assert not teacher(torch.rand(1, 3, 16, 16), torch.ones(1, 137, 4, 4), [68]).requires_grad
