"""Training losses of the student (S-SDM, section 3.4); images are ``(B, 3, H, W)``, B,G,R in [0, 1].

The total is  lambda_tea * sum_t L(teacher_t, student_t) / M  +  lambda_reblur * MSE(B, mean_t student_t).
"""

import torch
from torch import nn
from torch.nn import functional as F

from codes.metrics import lpips_network

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5


def gaussian_ssim(im1: torch.Tensor, im2: torch.Tensor) -> torch.Tensor:
    """SSIM with a Gaussian 11x11 window (sigma 1.5, data range 1, only where the window fits): the mean over all.

    This is the loss's SSIM (that of pytorch_msssim); the metric's is ``codes.metrics.ssim``.

    Args:
        im1, im2: ``(B, C, H, W)`` in [0, 1], at least 11 pixels each way.

    Returns:
        A scalar.
    """
    if min(im1.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"the SSIM loss needs crops of at least 11x11 pixels, not {im1.shape[-2]}x{im1.shape[-1]}")
    im1, im2 = im1.float(), im2.float()
    offsets = torch.arange(SSIM_WINDOW, device=im1.device, dtype=torch.float32) - SSIM_WINDOW // 2
    kernel = torch.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    kernel = kernel / kernel.sum()
    batch, channels = im1.shape[:2]
    # One pass over all five images of the formula, as one-channel images.
    stack = torch.stack([im1, im2, im1 * im1, im2 * im2, im1 * im2]).flatten(0, 2).unsqueeze(1)
    stack = F.conv2d(F.conv2d(stack, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    mean1, mean2, square1, square2, product = stack.unflatten(0, (5, batch * channels))
    c1, c2 = 0.01**2, 0.03**2
    structure = (2 * (product - mean1 * mean2) + c2) / (square1 - mean1**2 + square2 - mean2**2 + c2)
    luminance = (2 * mean1 * mean2 + c1) / (mean1**2 + mean2**2 + c1)
    return (structure * luminance).mean()


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
"""Images that go through VGG at once; their activations are most of the memory that a training step takes."""


class TeacherLoss(nn.Module):
    """Distance between student and teacher, a sum of named terms.

    Args:
        terms: names joined by '+': 'lpips' (VGG, the official loss), 'ssim' (1 - SSIM), 'l1'.
        lpips_input: 'official' gives LPIPS the images as they are, B,G,R in [0, 1]; 'rgb' gives it what it was trained
            for, R,G,B in [-1, 1].
        pretrained: random LPIPS weights if not, for tests and timing.
    """

    def __init__(self, terms: str = "lpips", lpips_input: str = "official", pretrained: bool = True):
        super().__init__()
        self.terms = terms.split("+")
        unknown = set(self.terms) - {"lpips", "ssim", "l1"}
        if unknown:
            raise ValueError(f"teacher loss '{unknown.pop()}'; expected lpips, ssim, l1 or a sum such as ssim+l1")
        self.lpips_input = lpips_input
        self.lpips = lpips_network("vgg", pretrained) if "lpips" in self.terms else None

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """A scalar for ``(B, M, 3, H, W)`` twice: the mean over batch and instants."""
        student, teacher = student.flatten(0, 1), teacher.flatten(0, 1)
        loss = torch.zeros((), device=student.device)
        if self.lpips is not None:
            pair = (student, teacher)
            if self.lpips_input == "rgb":
                pair = (image.flip(1) * 2 - 1 for image in pair)
            loss = loss + _MeanOverImages.apply(*pair, self.lpips, LPIPS_IMAGES)
        if "ssim" in self.terms:
            loss = loss + 1 - gaussian_ssim(teacher, student)
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
