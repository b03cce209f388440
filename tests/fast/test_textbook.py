"""Every fast path against its textbook form (scripts/dev/textbook.py): outputs and gradients, in float64 where rounding
could otherwise flip a ReLU or a maximum and hide a fault."""

import numpy as np
import pytest
import torch

from codes.baselines.san_model import SAN
from codes.baselines.spkdeblurnet_model import SpkDeblurNet
from codes.baselines.stir_model import STIR
from codes.losses import TeacherLoss, gaussian_ssim
from codes.model import pieces, spkdeblurnet_model
from codes.model.bsn_model import BSN
from codes.model.edsr_model import EDSR, Tail
from codes.model.ldn_model import Deblur_Net
from codes.sdm import Teacher
from codes.spike import EXPOSURE, spike_windows
from scripts.dev import textbook


def agree(network, call, twin_call, rtol=1e-9, unused=()):
    """Outputs, and gradients of a weighted sum of them by every parameter and input."""
    twin = textbook.twin(network)
    found = []
    for net, run in ((network, call), (twin, twin_call)):
        net.zero_grad()
        output, inputs = run(net)
        weights = torch.linspace(0.1, 1, output.numel(), dtype=output.dtype).view(output.shape)
        (output * weights).sum().backward()
        parameters = [x for name, x in net.named_parameters() if x.requires_grad and not name.startswith(unused)]
        found.append([output.detach(), *(x.grad for x in (*inputs, *parameters))])
    assert len(found[0]) == len(found[1]) > 5
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=rtol * theirs.abs().max().item())
        assert theirs.abs().max() > 0


def image(*shape):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def leaf(x):
    return x.clone().requires_grad_()


@pytest.mark.parametrize("shape", [(2, 16, 16), (1, 20, 97), (1, 131, 24), (2, 21, 34), (1, 4, 9)])
def test_bsn(shape):
    """Square and mirrored frames; sides that are no multiples of 4; frames so long that the mirror is cut."""
    torch.manual_seed(0)
    x = image(shape[0], 1, *shape[1:])

    def run(net):
        inputs = leaf(x)
        return net(inputs), [inputs]

    agree(BSN().double(), run, run)


def test_bsn_in_small_pieces(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 3000)
    test_bsn((2, 16, 16))
    test_bsn((2, 21, 34))


@pytest.mark.parametrize("size", [(Tail.SMALLEST - 1, 30), (Tail.SMALLEST, 31)])
def test_edsr(size):
    """The step-by-step tail, and the joined one with its borders."""
    torch.manual_seed(0)
    x = image(2, 1, *size)

    def run(net):
        inputs = leaf(x)
        return net(inputs), [inputs]

    agree(EDSR().double(), run, run)


@pytest.mark.parametrize("piece", [pieces.PIECE, 3000])
def test_ldn(piece, monkeypatch):
    """Several instants at once, whole or in pieces, against one by one."""
    monkeypatch.setattr(pieces, "PIECE", piece)
    torch.manual_seed(0)
    blur, spike = image(2, 3, 32, 48), (image(2, 4, 21, 8, 12) < 0.4).to(torch.uint8)

    def run(net):
        inputs = leaf(blur)
        return net(inputs, spike), [inputs]

    def one_by_one(net):
        inputs = leaf(blur)
        return torch.stack([net(inputs, spike[:, index]) for index in range(4)], dim=1), [inputs]

    agree(Deblur_Net().double(), run, one_by_one)


def together(outputs):
    return torch.cat([output.flatten() for output in outputs])


@pytest.mark.parametrize(("batch", "size"), [(1, (66, 130)), (2, (66, 68))])
def test_spkdeblurnet(batch, size, monkeypatch):
    """Mirrored grids; in groups of two blocks, one of which is shifted, to save time."""
    monkeypatch.setattr(spkdeblurnet_model, "BLOCKS", 2)
    torch.manual_seed(0)
    blur, half = image(batch, 3, *size), [side // 2 for side in size]
    spike, tfi = (image(batch, 56, *half) < 0.3).double(), 2 * image(batch, 1, *half)

    def run(net):
        inputs = [leaf(x) for x in (blur, spike, tfi)]
        return together(net(*inputs)), inputs

    agree(SpkDeblurNet().double(), run, run, unused=("D_conv_reduce.", "S_conv_reduce.", "S_layers.0.", "S_layers.1."))


@pytest.mark.parametrize(("shape", "training"), [((1, 27, 40), False), ((2, 32, 48), False), ((2, 32, 48), True)])
def test_stir(shape, training):
    """The result, from sizes that are padded as well, and the images of all sizes that training is given."""
    torch.manual_seed(0)
    spike = (image(shape[0], 61, *shape[1:]) < 0.3).double()
    network = STIR().double().train(training)
    with torch.no_grad():  # outputs in the range of images, where clamping ends no gradients
        for name, parameter in network.named_parameters():
            if name.endswith(("predict_img.bias", "predict_img_flow.bias")):
                parameter[-1] = 0.5

    def run(net):
        inputs = leaf(spike)
        outputs = net(inputs)
        return together(outputs) if training else outputs, [inputs]

    # In training the normalisation takes away what these add.
    agree(network, run, run, unused=("resnet.conv1.bias", "resnet.conv2.bias") if training else ())


@pytest.mark.parametrize(("batch", "size", "cells"), [(1, (48, 32), (21, 37)), (2, (32, 32), (16, 16))])
def test_san(batch, size, cells):
    """Events of several ratios to the image; places are rounded to float32, the textbook's are not."""
    torch.manual_seed(0)
    blur, events = image(batch, 3, *size), image(batch, 96, *cells)
    network = SAN().double()
    for name, parameter in network.named_parameters():
        if name.endswith("conv_offset_mask.weight"):  # of fresh weights it is 0
            torch.nn.init.normal_(parameter, std=0.02)

    def run(net):
        inputs = [leaf(x) for x in (events, blur)]
        return together(net(*inputs)), inputs

    agree(network, run, run, rtol=1e-6)


def test_teacher():
    torch.manual_seed(0)
    bsn, sr = BSN(), EDSR()
    blur, spike = torch.rand(2, 3, 64, 48), (torch.rand(2, 137, 16, 12) < 0.4).to(torch.uint8)
    expected = textbook.teacher(textbook.twin(bsn), textbook.twin(sr), blur, spike, EXPOSURE.instants())
    labels = Teacher.cascade(bsn, sr)(blur, spike, EXPOSURE.instants())
    np.testing.assert_allclose(labels, torch.stack(expected, dim=1), atol=1e-5)


def test_ssim_loss():
    """Value and gradient, against grouped convolutions in float64."""
    first, second = image(3, 3, 20, 33), image(2, 3, 20, 33)[[0, 1, 0]]
    x, y = leaf(first), leaf(first.float())
    expected = textbook.ssim_loss(x, second)
    expected.backward()
    value = 1 - gaussian_ssim(y, second.float()).mean()
    value.backward()
    assert value.item() == pytest.approx(expected.item(), abs=1e-6)
    np.testing.assert_allclose(y.grad, x.grad, atol=1e-4 * x.grad.abs().max().item())
    z = leaf(first.float()[:, None])
    TeacherLoss("ssim")(z, second.float()[:, None]).backward()
    np.testing.assert_allclose(z.grad[:, 0], x.grad, atol=1e-4 * x.grad.abs().max().item())


def test_training_step():
    """Loss and gradient of a whole LDN step: chunked loss, instants together, shared long window."""
    torch.manual_seed(0)
    ldn, bsn, sr = Deblur_Net(), BSN(), EDSR()
    blur, spike, instants = torch.rand(2, 3, 64, 64), (torch.rand(2, 137, 16, 16) < 0.4).to(torch.uint8), (20, 68, 116)
    with torch.no_grad():  # outputs in the range of images
        ldn.pred.bias.fill_(0.5)
    twin = textbook.twin(ldn)
    students = ldn(blur, spike_windows(spike, instants, 21))
    loss = TeacherLoss("ssim")(students, Teacher.cascade(bsn, sr)(blur, spike, instants))
    loss = loss + 100 * torch.nn.functional.mse_loss(students.mean(1), blur)
    labels = textbook.teacher(textbook.twin(bsn), textbook.twin(sr), blur, spike, instants)
    singles = [twin(blur, spike[:, t - 10 : t + 11]) for t in instants]
    expected = textbook.student_loss(singles, labels, blur, textbook.ssim_loss)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    for mine, theirs in zip(ldn.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(mine.grad, theirs.grad, atol=1e-3 * theirs.grad.abs().max().item())


def test_ldn_frame_by_frame():
    torch.manual_seed(0)
    ldn = Deblur_Net().double()
    twin = textbook.twin(ldn)
    blur, spike = image(1, 3, 32, 48), (image(1, 3, 21, 8, 12) < 0.4).to(torch.uint8)
    with torch.inference_mode():
        encoded = ldn.encode(blur)
        for index in range(3):
            np.testing.assert_allclose(
                ldn.decode(blur, encoded, spike[:, index]), twin(blur, spike[:, index]), rtol=0, atol=1e-12
            )
