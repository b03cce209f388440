"""Training losses of the student (S-SDM, section 3.4); images are ``(B, 3, H, W)``, B,G,R in [0, 1].

The total is  lambda_tea * sum_t L(teacher_t, student_t) / M  +  lambda_reblur * MSE(B, mean_t student_t).
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from codes.errors import InputError
from codes.metrics import lpips_network

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5


def gaussian_ssim(im1: torch.Tensor, im2: torch.Tensor) -> torch.Tensor:
    """SSIM with a Gaussian 11x11 window (sigma 1.5, data range 1, only where the window fits) of each image.

    This is the loss's SSIM (that of pytorch_msssim); the metric's is ``codes.metrics.ssim``.

    Args:
        im1, im2: ``(B, C, H, W)`` in [0, 1], at least 11 pixels each way.

    Returns:
        ``(B,)``, the mean over pixels and channels.
    """
    if min(im1.shape[-2:]) < SSIM_WINDOW:
        raise InputError(f"the SSIM loss needs crops of at least 11x11 pixels, not {im1.shape[-2]}x{im1.shape[-1]}")
    im1, im2 = im1.float(), im2.float()
    stack = torch.stack([im1, im2, im1 * im1 + im2 * im2, im1 * im2])
    mean1, mean2, squares, product = _GaussianBlur.apply(stack)
    c1, c2 = 0.01**2, 0.03**2
    means, mean_squares = mean1 * mean2, mean1 * mean1 + mean2 * mean2
    structure = (2 * (product - means) + c2) / (squares - mean_squares + c2)
    luminance = (2 * means + c1) / (mean_squares + c1)
    return (structure * luminance).flatten(1).mean(1)


class _GaussianBlur(torch.autograd.Function):
    """The separable Gaussian window, ``(..., H, W)`` to ``(..., H - 10, W - 10)``.

    Sums of shifted views, several times faster on a CPU than a convolution of one-channel images; the window is
    symmetric, so the gradient is the same sum of the padded one.
    """

    @staticmethod
    def forward(ctx, image):
        return _weighted_sums(_weighted_sums(image, -2), -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        pad = SSIM_WINDOW - 1
        gradient = _weighted_sums(F.pad(gradient, (pad, pad, 0, 0)), -1)
        return _weighted_sums(F.pad(gradient, (0, 0, pad, pad)), -2)


def _weighted_sums(image: torch.Tensor, dim: int) -> torch.Tensor:
    half = SSIM_WINDOW // 2
    weights = [math.exp(-((offset - half) ** 2) / (2 * SSIM_SIGMA**2)) for offset in range(SSIM_WINDOW)]
    weights = [weight / sum(weights) for weight in weights]
    length = image.shape[dim] - SSIM_WINDOW + 1
    total = image.narrow(dim, half, length) * weights[half]
    for offset in range(half):
        pair = image.narrow(dim, offset, length) + image.narrow(dim, SSIM_WINDOW - 1 - offset, length)
        total.add_(pair, alpha=weights[offset])
    return total


class _MeanOverImages(torch.autograd.Function):
    """Mean of ``distance`` over images, a few at a time.

    The gradient of each part is taken as soon as its value is known, so the activations of one part only are ever
    held. Same value and gradient as in one go, no extra work.
    """

    @staticmethod
    def forward(ctx, student, teacher, distance, part):
        needed, total, gradients = ctx.needs_input_grad[0], 0.0, []
        for s, t in zip(student.split(part), teacher.split(part), strict=True):
            with torch.set_grad_enabled(needed):
                s = s.detach().requires_grad_(needed)
                value = distance(s, t).sum() / len(student)
            if needed:
                gradients += torch.autograd.grad(value, s)
            total = total + value.detach()
        ctx.gradient = torch.cat(gradients) if needed else None
        return total

    @staticmethod
    def backward(ctx, weight):
        return weight * ctx.gradient, None, None, None


LPIPS_IMAGES = 4
"""Images that go through VGG at once on a GPU; their activations are most of the memory that a training step takes."""


class TeacherLoss(nn.Module):
    """Distance between student and teacher, a sum of named terms.

    Args:
        terms: names joined by '+': 'lpips' (VGG, the official loss, which is given the images as they are, B,G,R in
            [0, 1]), 'lpips_rgb' (given what it was trained for, R,G,B in [-1, 1]), 'ssim' (1 - SSIM), 'l1'.
        pretrained: random LPIPS weights if not, for tests and timing.
    """

    def __init__(self, terms: str = "lpips", pretrained: bool = True):
        super().__init__()
        self.terms = terms.split("+")
        unknown = set(self.terms) - {"lpips", "lpips_rgb", "ssim", "l1"}
        if unknown:
            raise InputError(
                f"teacher loss '{unknown.pop()}'; expected lpips, lpips_rgb, ssim, l1 or a sum such as ssim+l1"
            )
        self.lpips = lpips_network("vgg", pretrained) if {"lpips", "lpips_rgb"} & set(self.terms) else None

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """A scalar for ``(B, M, 3, H, W)`` twice: the mean over batch and instants."""
        student, teacher = student.flatten(0, 1), teacher.flatten(0, 1)
        loss = torch.zeros((), device=student.device)
        on_cpu = student.device.type == "cpu"  # where small tensors stay in the caches
        if self.lpips is not None:
            pair = (student, teacher)
            if "lpips_rgb" in self.terms:
                pair = (image.flip(1) * 2 - 1 for image in pair)
            loss = loss + _MeanOverImages.apply(*pair, self.lpips, 1 if on_cpu else LPIPS_IMAGES)
        if "ssim" in self.terms:
            loss = loss + 1 - _MeanOverImages.apply(student, teacher, gaussian_ssim, 1 if on_cpu else len(student))
        if "l1" in self.terms:
            loss = loss + F.l1_loss(student, teacher)
        return loss


def reblur_loss(students: torch.Tensor, blur: torch.Tensor) -> torch.Tensor:
    """MSE between the blurry image and the mean of the student's frames (S-SDM, section 3.4).

    Args:
        students: ``(B, M, 3, H, W)``, the frames at M instants.
        blur: ``(B, 3, H, W)``.
    """
    return F.mse_loss(students.mean(dim=1), blur)
