import numpy as np
import pytest
import torch
from torch.nn import functional as F

from codes.engine.checkpoint import load_weights
from codes.losses import TeacherLoss, gaussian_ssim, reblur_loss
from codes.metrics import lpips_network
from codes.model.bsn_model import BSN
from codes.model.edsr_model import EDSR
from codes.model.ldn_model import Deblur_Net
from codes.sdm import Teacher
from codes.spike import EXPOSURE, spike_windows
from tests.conftest import filled


def the_loss(data, spike, blur, networks):
    """The official loss with SSIM in place of LPIPS, as in the golden file."""
    bsn, sr, ldn = networks
    instants = EXPOSURE.instants()
    labels = Teacher.cascade(bsn, sr)(blur, spike, instants)
    students = ldn(blur, spike_windows(spike, instants, 21)).clamp(0, 1)
    distance = TeacherLoss("ssim")
    parts = [distance(students[:, i : i + 1], labels[:, i : i + 1]).item() / 5 for i in range(5)]
    np.testing.assert_allclose(parts, data["parts"], rtol=1e-4)
    tea = distance(students, labels)
    assert tea.item() == pytest.approx(sum(parts), rel=1e-5)
    reblur = 100 * reblur_loss(students, blur)
    assert reblur.item() == pytest.approx(float(data["reblur"]), rel=1e-4)
    loss = tea + reblur
    assert loss.item() == pytest.approx(float(data["loss"]), rel=1e-4)
    return loss, labels, students


def test_golden_filled(golden):
    data = golden("ldn_loss")
    spike, blur = torch.from_numpy(data["spike"]), torch.from_numpy(data["blur"])
    networks = filled(BSN()), filled(EDSR()), filled(Deblur_Net())
    loss, labels, students = the_loss(data, spike, blur, networks)
    np.testing.assert_allclose(labels[:, 2], data["teacher_68"], atol=1e-4)
    np.testing.assert_allclose(students[:, 2].detach(), data["pred_68"], atol=1e-5)
    loss.backward()
    gradients = {name: p.grad.norm().item() for name, p in networks[2].named_parameters()}
    assert gradients["pred.weight"] == pytest.approx(float(data["grad_norm_pred_weight"]), rel=1e-3)
    assert gradients["blur_enc.0.weight"] == pytest.approx(float(data["grad_norm_blur_enc"]), rel=1e-3)
    total = sum(value**2 for value in gradients.values()) ** 0.5
    assert total == pytest.approx(float(data["grad_norm_all"]), rel=1e-3)


def test_golden_trained(golden, golden_full):
    """Teacher, student and loss with the networks of a short run of the original program."""
    data, crop = golden("ldn_loss_trained"), golden("ldn_loss")
    spike, blur = torch.from_numpy(crop["spike"]), torch.from_numpy(crop["blur"])
    networks = [
        load_weights(network, golden_full / "reference_run" / f"{name}.pth").eval()
        for name, network in (("BSN", BSN()), ("SR", EDSR()), ("LDN", Deblur_Net()))
    ]
    _, labels, students = the_loss(data, spike, blur, networks)
    teacher = Teacher.cascade(*networks[:2])
    for index, instant in enumerate(EXPOSURE.instants()):
        np.testing.assert_allclose(teacher.denoised(spike, instant)[0], data["tfp_bsn"][index], atol=1e-5)
        np.testing.assert_allclose(labels[0, index], data["teacher"][index], atol=1e-4)
        np.testing.assert_allclose(students[0, index].detach(), data["pred"][index], atol=1e-5)


def test_gaussian_ssim_against_scikit_image():
    """scikit-image's Gaussian SSIM with sigma 1.5 and truncation 3.5 has the same 11x11 window."""
    import skimage.metrics

    rng = np.random.default_rng(0)
    first = rng.random((40, 50))
    second = np.clip(first + 0.1 * rng.standard_normal(first.shape), 0, 1)
    _, full = skimage.metrics.structural_similarity(
        first, second, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, full=True
    )
    pair = (torch.from_numpy(image)[None, None] for image in (first, second))
    assert gaussian_ssim(*pair).item() == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-5)


def test_gaussian_ssim_against_grouped_convolutions():
    """Value and gradient, as pytorch_msssim computes them, in float64; also a few images at a time."""
    first, second = torch.rand(2, 3, 3, 20, 33, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    window = torch.exp(-((torch.arange(11.0).double() - 5) ** 2) / (2 * 1.5**2))
    kernel = (window / window.sum()).expand(3, 1, 1, 11)

    def blurred(x):
        return F.conv2d(F.conv2d(x, kernel, groups=3), kernel.transpose(2, 3), groups=3)

    x = first.clone().requires_grad_()
    mean1, mean2 = blurred(x), blurred(second)
    var1, var2 = blurred(x * x) - mean1**2, blurred(second * second) - mean2**2
    structure = (2 * (blurred(x * second) - mean1 * mean2) + 0.03**2) / (var1 + var2 + 0.03**2)
    expected = 1 - (structure * (2 * mean1 * mean2 + 0.01**2) / (mean1**2 + mean2**2 + 0.01**2)).mean()
    expected.backward()
    y, z = first.float().requires_grad_(), first.float()[:, None].requires_grad_()
    together = 1 - gaussian_ssim(y, second.float()).mean()
    in_parts = TeacherLoss("ssim")(z, second.float()[:, None])
    for loss, leaf in ((together, y), (in_parts, z)):
        loss.backward()
        assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
        np.testing.assert_allclose(leaf.grad.view_as(x), x.grad, atol=1e-4 * x.grad.abs().max().item())


def test_terms_add_up():
    student, teacher = torch.rand(2, 2, 3, 3, 32, 32)
    l1, ssim, both = (TeacherLoss(terms)(student, teacher).item() for terms in ("l1", "ssim", "ssim+l1"))
    assert l1 == pytest.approx((student - teacher).abs().mean().item(), rel=1e-5)
    assert both == pytest.approx(l1 + ssim, rel=1e-6)
    with pytest.raises(ValueError, match="expected lpips, lpips_rgb, ssim, l1"):
        TeacherLoss("vgg")
    with pytest.raises(ValueError, match="11x11"):
        TeacherLoss("ssim")(student[..., :8], teacher[..., :8])


@pytest.mark.slow
def test_lpips_gets_what_the_official_program_gives_it():
    """With a random backbone: the package's own value on [0, 1] B,G,R, or on [-1, 1] R,G,B."""
    torch.manual_seed(0)
    loss = TeacherLoss("lpips", pretrained=False)
    student, teacher = torch.rand(2, 2, 1, 3, 64, 64)
    expected = loss.lpips(student[:, 0], teacher[:, 0]).mean().item()
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-6)
    loss.terms = ["lpips_rgb"]
    expected = loss.lpips(student[:, 0, [2, 1, 0]] * 2 - 1, teacher[:, 0, [2, 1, 0]] * 2 - 1).mean().item()
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-6)
    assert all(p.grad is None and not p.requires_grad for p in loss.parameters())


@pytest.mark.slow
def test_lpips_in_parts_has_the_gradient_of_the_whole():
    torch.manual_seed(0)
    loss = TeacherLoss("lpips", pretrained=False).double()  # in float32 a rounded-off ReLU may flip
    student, teacher = torch.rand(2, 2, 3, 3, 32, 32, dtype=torch.float64)
    gradients = []
    for distance in (
        lambda x: 3 * loss(x, teacher),
        lambda x: 3 * loss.lpips(x.flatten(0, 1), teacher.flatten(0, 1)).mean(),
    ):
        x = student.clone().requires_grad_()
        distance(x.clamp(0.1, 0.9)).backward()
        gradients.append(x.grad)
    assert gradients[1].abs().max() > 0
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize(("net", "file"), [("vgg", "vgg16-397923af.pth"), ("alex", "alexnet-owt-7be5be79.pth")])
def test_missing_lpips_weights_are_explained(net, file, monkeypatch, tmp_path):
    import urllib.error

    def no_network(*_args, **_options):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    with pytest.raises(ValueError, match=f"(?s){file}.*{tmp_path}.*or "):
        lpips_network(net)


def test_reblur_is_the_mse_of_the_mean():
    frames, blur = torch.rand(2, 5, 3, 8, 8), torch.rand(2, 3, 8, 8)
    expected = ((frames.numpy().mean(1) - blur.numpy()) ** 2).mean()
    assert reblur_loss(frames, blur).item() == pytest.approx(expected, rel=1e-5)
