import numpy as np
import pytest
import skimage.metrics
import torch

from codes.metrics import compute_img_metric, mse, psnr, ssim


def pair(seed, shape=(2, 3, 24, 32), noise=0.1):
    rng = np.random.default_rng(seed)
    first = rng.random(shape).astype(np.float32)
    return first, np.clip(first + noise * rng.standard_normal(shape), 0, 1).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("noise", [0.001, 0.1, 0.5])
def test_against_scikit_image(seed, noise):
    first, second = pair(seed, noise=noise)
    tensors = torch.from_numpy(first), torch.from_numpy(second)
    for index in range(2):
        a, b = first[index], second[index]
        assert mse(*tensors)[index].item() == pytest.approx(skimage.metrics.mean_squared_error(a, b), rel=1e-5)
        expected = skimage.metrics.peak_signal_noise_ratio(a, b, data_range=1)
        assert psnr(*tensors)[index].item() == pytest.approx(expected, abs=1e-5)
        expected = skimage.metrics.structural_similarity(a, b, channel_axis=0, data_range=1)
        assert ssim(*tensors)[index].item() == pytest.approx(expected, abs=1e-5)


def test_ssim_of_flat_and_bright_images_against_scikit_image():
    """Where variances nearly cancel, float32 must still hold 1e-5."""
    rng = np.random.default_rng(0)
    for level in (0.0, 0.02, 0.5, 0.98):
        first = np.clip(level + 0.002 * rng.standard_normal((1, 40, 40)), 0, 1).astype(np.float32)
        second = np.clip(level + 0.002 * rng.standard_normal((1, 40, 40)), 0, 1).astype(np.float32)
        expected = skimage.metrics.structural_similarity(
            first.astype(float), second.astype(float), channel_axis=0, data_range=1
        )
        assert ssim(torch.from_numpy(first)[None], torch.from_numpy(second)[None]).item() == pytest.approx(
            expected, abs=1e-5
        )


@pytest.mark.parametrize("metric", ["psnr", "ssim", "mse"])
def test_official_convention_golden(metric, golden):
    data = golden("metrics")
    first, second = torch.from_numpy(data["im1"]), torch.from_numpy(data["im2"])
    cases = {
        "": (first, second, 0),
        "_gray": (first[:, :1], second[:, :1], 0),
        "_margin0.1": (first, second, 0.1),
        "_batch2": (torch.cat([first, first.flip(-1)]), torch.cat([second, second]), 0),  # the second pair is mirrored
    }
    for suffix, (a, b, margin) in cases.items():
        assert compute_img_metric(a, b, metric, margin) == pytest.approx(float(data[metric + suffix]), abs=1e-5)


@pytest.mark.parametrize("level", [0.02, 0.5, 0.98])
def test_official_ssim_of_nearly_flat_images_against_scikit_image(level):
    rng = np.random.default_rng(1)
    pair = [np.clip(level + 0.01 * rng.standard_normal((1, 3, 40, 40)), 0, 1).astype(np.float32) for _ in range(2)]
    expected = skimage.metrics.structural_similarity(
        *(image[0].astype(float) * 2 - 1 for image in pair), channel_axis=0, data_range=2
    )
    assert compute_img_metric(*map(torch.from_numpy, pair), "ssim") == pytest.approx(expected, abs=1e-5)


def test_official_range_rule_against_scikit_image():
    """scikit-image takes 1 for the range of an image on [-1, 1] without negative values."""
    first, second = (image[:1] for image in pair(7))
    bright = 0.5 + first / 2
    for a in (first, bright):
        with np.errstate(all="ignore"):
            expected = skimage.metrics.peak_signal_noise_ratio(a[0] * 2 - 1, second[0] * 2 - 1)
        assert compute_img_metric(torch.from_numpy(a), torch.from_numpy(second), "psnr") == pytest.approx(
            expected, abs=1e-4
        )


def test_equal_images():
    image = torch.rand(1, 3, 16, 16)
    assert psnr(image, image).item() == float("inf") and ssim(image, image).item() == pytest.approx(1)


def test_errors():
    image = torch.rand(1, 3, 6, 16)
    with pytest.raises(ValueError, match="needs 7"):
        ssim(image, image)
    with pytest.raises(ValueError, match="expected mse"):
        compute_img_metric(image, image, "vmaf")
