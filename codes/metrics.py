"""PSNR, SSIM, MSE and LPIPS of images ``(B, C, H, W)``, in batches, on the device of the images; clipped to [0, 1].

PSNR, SSIM and MSE agree with scikit-image: SSIM with its defaults, that is a uniform 7x7 window, sample covariance, the
mean over the image without a border of 3 pixels, then over channels.

:func:`compute_img_metric` keeps the official convention, which maps images to [-1, 1] (data range 2): PSNR
comes out the same as on [0, 1], SSIM nearly (its luminance term sees other means), MSE 4 times as large.
"""

import math
import pickle
import warnings

import torch

from codes.errors import InputError, one_line

SSIM_WINDOW = 7


def mse(im1: torch.Tensor, im2: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each image: ``(B, C, H, W)`` twice to float64 ``(B,)``."""
    sums = [(x - y).square_().flatten(1).sum(1) for x, y in _strips(im1, im2)]
    return _total(sums) / im1[0].numel()


def psnr(im1: torch.Tensor, im2: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB of each image: ``(B, C, H, W)`` twice to float64 ``(B,)``; inf where equal."""
    return -10 * torch.log10(mse(im1, im2))


def ssim(im1: torch.Tensor, im2: torch.Tensor, zero: float = 0.0) -> torch.Tensor:
    """Structural similarity of each image (Wang et al. 2004, as in scikit-image with data range 1).

    With the sum s and the difference d of the images, 2 E[xy] = (E[s^2] - E[d^2]) / 2 and E[x^2] + E[y^2] =
    (E[s^2] + E[d^2]) / 2, so four box sums do instead of five.

    Args:
        im1, im2: ``(B, C, H, W)``, at least 7 pixels each way.
        zero: the value from which brightness counts, for the term that compares means.

    Returns:
        float64 ``(B,)``, mean over pixels at least 3 from the border and over channels.
    """
    height, width = im1.shape[-2:]
    if min(height, width) < SSIM_WINDOW:
        raise InputError(f"SSIM of an image of {height}x{width} pixels; it needs 7 each way")
    count, border = SSIM_WINDOW**2, SSIM_WINDOW - 1
    sums = []
    for x, y in _strips(im1, im2, border):
        # Differences of means of squares lose digits: taking the mean off first keeps float32 within 1e-5.
        shift = 2 * x.mean(dim=(1, 2, 3), keepdim=True)
        planes = torch.empty((4, *x.shape), device=x.device)  # s, d, s^2, d^2
        torch.add(x, y, out=planes[0]).sub_(shift)
        torch.sub(x, y, out=planes[1])
        torch.mul(planes[:2], planes[:2], out=planes[2:])
        mean, variance = _box_sum(planes).split(2)
        variance.addcmul_(mean, mean, value=-1 / count).mul_(1 / (2 * (count - 1)))  # half the sample variance
        mean[0] += count * (shift - 2 * zero)
        mean.square_().mul_(1 / (2 * count**2))
        mean[0] += 0.01**2
        variance[0] += 0.03**2
        top = (mean[0] - mean[1]).mul_(variance[0] - variance[1])
        top /= (mean[0] + mean[1]).mul_(variance[0] + variance[1])
        sums.append(top.flatten(1).sum(1))
    return _total(sums) / (im1.shape[1] * (height - border) * (width - border))


STRIP_ROWS = 32
"""Rows of an image that a CPU works on at once: what they need stays in its caches."""


def _strips(im1: torch.Tensor, im2: torch.Tensor, border: int = 0):
    """Two images, clipped, in strips that overlap by ``border`` rows; on a GPU in one piece."""
    height = im1.shape[-2]
    step = STRIP_ROWS if im1.device.type == "cpu" else height
    for row in range(0, height - border, step):
        yield tuple(image[..., row : row + step + border, :].float().clamp(0, 1) for image in (im1, im2))


def _total(sums: list[torch.Tensor]) -> torch.Tensor:
    """The sum of the strips' float32 sums, in float64 where the device has it."""
    return torch.stack(sums).sum(0, dtype=wide_float(sums[0].device))


def _box_sum(image: torch.Tensor) -> torch.Tensor:
    """Sums over all 7x7 windows: ``(..., H, W)`` to ``(..., H - 6, W - 6)``; by pairs, 4 additions for 7 values."""
    for dim in (-2, -1):
        length = image.shape[dim] - SSIM_WINDOW + 1
        two = image.narrow(dim, 0, length + 5) + image.narrow(dim, 1, length + 5)
        total = two.narrow(dim, 0, length) + two.narrow(dim, 2, length)
        total += two.narrow(dim, 4, length)
        total += image.narrow(dim, 6, length)
        image = total
    return image


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
        raise InputError(
            f"LPIPS needs the packages lpips and torchvision ({error}); pip install lpips torchvision"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # lpips calls torchvision in a way that this deprecates
            network = lpips.LPIPS(net=net, verbose=False, pnet_rand=not pretrained)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        name = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}[net]
        raise InputError(
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
    if margin > 0:
        rows, columns = int(im1.shape[-2] * margin) + 1, int(im1.shape[-1] * margin) + 1
        im1, im2 = (im[..., rows:-rows, columns:-columns] for im in (im1, im2))
    # [-1, 1] with data range 2 is [0, 1] with data range 1 where 0.5 counts as zero.
    if metric == "mse":
        values = 4 * mse(im1, im2)
    elif metric == "psnr":
        slip = im1.flatten(1).amin(1) >= 0.5
        values = psnr(im1, im2) - torch.where(slip, 20 * math.log10(2), 0.0)
    elif metric == "ssim":
        values = ssim(im1, im2, zero=0.5)
    elif metric == "lpips":
        values = lpips(*(2 * im.clamp(0, 1).expand(-1, 3, -1, -1) - 1 for im in (im1, im2)))
    else:
        raise InputError(f"metric '{metric}'; expected mse, psnr, ssim or lpips")
    return values.mean().item()


def wide_float(device: torch.device) -> torch.dtype:
    """float64 for long sums, or float32 on an Apple GPU, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64
