import numpy as np
import pytest
import torch

from codes.losses import TeacherLoss, reblur_loss
from codes.model.bsn_model import BSN
from codes.model.edsr_model import EDSR
from codes.model.ldn_model import Deblur_Net
from codes.sdm import Teacher
from codes.spike import spike_windows
from tests.fast.agree import fast_form


def test_training_step():
    """Labels, loss and gradients of a whole LDN step, with all networks in one form and in the other."""
    torch.manual_seed(0)
    ldn, bsn, sr = Deblur_Net(), BSN(), EDSR()
    blur, spike, instants = torch.rand(2, 3, 64, 64), (torch.rand(2, 137, 16, 16) < 0.4).to(torch.uint8), (20, 68, 116)
    with torch.no_grad():  # outputs in the range of images
        ldn.pred.bias.fill_(0.5)
    found = []
    for networks in ([ldn, bsn, sr], [fast_form(network) for network in (ldn, bsn, sr)]):
        labels = Teacher.cascade(*networks[1:])(blur, spike, instants)
        students = networks[0](blur, spike_windows(spike, instants, 21))
        loss = TeacherLoss("ssim")(students, labels) + 100 * reblur_loss(students, blur)
        loss.backward()
        found.append((labels, loss.item(), [p.grad for p in networks[0].parameters()]))
    (labels, loss, slopes), (fast_labels, fast_loss, fast_slopes) = found
    np.testing.assert_allclose(fast_labels, labels, atol=1e-5)
    assert fast_loss == pytest.approx(loss, rel=1e-5)
    for mine, theirs in zip(fast_slopes, slopes, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-3 * theirs.abs().max().item())
