"""PSNR, SSIM, MSE and LPIPS of images ``(B, C, H, W)`` in [0, 1], in batches, on the device of the images.

PSNR, SSIM and MSE agree with scikit-image: SSIM with its defaults, that is a uniform 7x7 window, sample covariance, the
mean over the image without a border of 3 pixels, then over channels.

:func:`compute_img_metric` keeps the official convention, which maps images to [-1, 1] (data range 2): PSNR and SSIM
come out the same as on [0, 1], MSE 4 times as large.
"""

import math
import pickle
import warnings

import torch

from codes.cli import one_line

SSIM_WINDOW = 7


def mse(im1: torch.Tensor, im2: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each image: ``(B, C, H, W)`` twice to float64 ``(B,)``."""
    return _mean((im1.float() - im2.float()).square())


def _mean(values: torch.Tensor) -> torch.Tensor:
    """Mean of each image, in float64 where the device has it (MPS has not)."""
    return values.flatten(1).mean(1, dtype=torch.float32 if values.device.type == "mps" else torch.float64)


def psnr(im1: torch.Tensor, im2: torch.Tensor, data_range: float = 1.0) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB of each image: ``(B, C, H, W)`` twice to float64 ``(B,)``; inf where equal."""
    return 10 * torch.log10(data_range**2 / mse(im1, im2))


def box_mean(image: torch.Tensor, side: int) -> torch.Tensor:
    """Means over all ``side`` x ``side`` windows: ``(..., H, W)`` to ``(..., H - side + 1, W - side + 1)``.

    Sums of shifted views, rows first, then columns: on a CPU many times faster than ``avg_pool2d``.
    """
    for dim in (-2, -1):
        length = image.shape[dim] - side + 1
        total = image.narrow(dim, 0, length).clone()
        for offset in range(1, side):
            total += image.narrow(dim, offset, length)
        image = total
    return image / side**2


def ssim(im1: torch.Tensor, im2: torch.Tensor, data_range: float = 1.0) -> torch.Tensor:
    """Structural similarity of each image (Wang et al. 2004, as in scikit-image).

    Args:
        im1, im2: ``(B, C, H, W)``, at least 7 pixels each way.
        data_range: distance between the largest and the smallest possible value.

    Returns:
        float64 ``(B,)``, mean over pixels at least 3 from the border and over channels.
    """
    if min(im1.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM of an image of {im1.shape[-2]}x{im1.shape[-1]} pixels; it needs 7 each way")
    count = SSIM_WINDOW**2
    unbiased = count / (count - 1)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    # Differences of means of squares lose digits: taking the image's mean off first keeps float32 within 1e-5.
    shift = im1.float().mean(dim=(1, 2, 3), keepdim=True)
    x, y = im1.float() - shift, im2.float() - shift

    mean_x, mean_y = box_mean(x, SSIM_WINDOW), box_mean(y, SSIM_WINDOW)
    var_x = unbiased * (box_mean(x * x, SSIM_WINDOW) - mean_x * mean_x)
    var_y = unbiased * (box_mean(y * y, SSIM_WINDOW) - mean_y * mean_y)
    covariance = unbiased * (box_mean(x * y, SSIM_WINDOW) - mean_x * mean_y)
    mean_x, mean_y = mean_x + shift, mean_y + shift
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return _mean(structure * luminance)


def lpips_network(net: str, pretrained: bool = True):
    """The LPIPS network of the package ``lpips``, in eval mode and frozen; made for R,G,B in [-1, 1].

    Args:
        net: 'alex' (officially the metric) or 'vgg' (officially the training loss).
        pretrained: random backbone weights if not, for tests and timing.

    Raises:
        ValueError: the package or the backbone's weights cannot be had; says which file to fetch and where to put it.
    """
    try:
        import lpips
    except ImportError as error:
        raise ValueError(
            f"LPIPS needs the packages lpips and torchvision ({error}); pip install lpips torchvision"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # lpips calls torchvision in a way that this deprecates
            network = lpips.LPIPS(net=net, verbose=False, pnet_rand=not pretrained)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        name = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}[net]
        raise ValueError(
            f"LPIPS needs the weights of {net}, which could not be loaded ({one_line(error)[:100]}); fetch "
            f"https://download.pytorch.org/models/{name} and put it in {torch.hub.get_dir()}/checkpoints/, "
            + (
                "or choose another --tea_loss (ssim, l1, ssim+l1)"
                if net == "vgg"
                else "or leave lpips out of --metrics"
            )
        ) from None
    return network.requires_grad_(False).eval()


def compute_img_metric(im1: torch.Tensor, im2: torch.Tensor, metric: str, margin: float = 0, lpips=None) -> float:
    """A metric in the official convention.

    Images are mapped to [-1, 1] and clipped. PSNR's data range is 2, but 1 for a pair whose first image has no value
    below 0.5 (scikit-image's guess for such an image, 6.02 dB too low); pairs like this are rare.

    Args:
        im1, im2: ``(B, C, H, W)`` in [0, 1].
        metric: 'mse', 'psnr', 'ssim' or 'lpips'.
        margin: share of height and width cut from each border (0.1 cuts int(0.1 * H) + 1 rows from top and bottom).
        lpips: the network for 'lpips', from :func:`lpips_network`.

    Returns:
        The mean over the batch.
    """
    im1, im2 = ((im * 2 - 1).clamp(-1, 1) for im in (im1, im2))
    if margin > 0:
        rows, columns = int(im1.shape[-2] * margin) + 1, int(im1.shape[-1] * margin) + 1
        im1, im2 = (im[..., rows:-rows, columns:-columns] for im in (im1, im2))
    if metric == "mse":
        values = mse(im1, im2)
    elif metric == "psnr":
        slip = im1.flatten(1).amin(1) >= 0
        values = psnr(im1, im2, data_range=2.0) - torch.where(slip, 20 * math.log10(2), 0.0)
    elif metric == "ssim":
        values = ssim(im1, im2, data_range=2.0)
    elif metric == "lpips":
        values = lpips(*(im.expand(-1, 3, -1, -1) for im in (im1, im2)))
    else:
        raise ValueError(f"metric '{metric}'; expected mse, psnr, ssim or lpips")
    return values.mean().item()
