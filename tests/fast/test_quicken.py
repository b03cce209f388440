"""That the fast forms are used on a CPU, there alone, and that nothing else of a network changes."""

import copy
import io

import pytest
import torch

from codes.baselines.san_student import SANStudent
from codes.engine.device import place
from codes.fast import FAST, FORMS, PLAIN, plain, quicken
from codes.model.bsn_model import BSN
from codes.model.edsr_model import EDSR
from codes.model.ldn_model import Deblur_Net
from codes.sdm import Teacher
from tests.fast.agree import CPU

META = torch.device("meta")
NETWORKS = pytest.mark.parametrize("build", [BSN, EDSR, Deblur_Net, SANStudent])


def forms(network):
    return [type(module) for module in network.modules()]


@NETWORKS
def test_placed_on_a_cpu_it_is_fast_elsewhere_plain(build):
    network = build()
    before, keys = forms(network), list(network.state_dict())
    assert set(before) & set(FAST) and not set(before) & set(PLAIN)
    place(network, CPU)
    after = forms(network)
    assert after == [FAST.get(kind, kind) for kind in before] and not set(after) & set(FAST)
    assert list(network.state_dict()) == keys and type(network).__name__ == build.__name__
    assert forms(quicken(network, CPU)) == after == forms(copy.deepcopy(network))
    assert forms(plain(copy.deepcopy(network))) == before
    assert forms(place(network, META)) == before


def test_within_other_modules():
    teacher = place(Teacher.cascade(BSN(), EDSR()), CPU)
    assert type(teacher.denoise) is FAST[BSN] and type(teacher.enlarge) is FAST[EDSR]


def test_each_form_is_its_plain_class_with_another_forward():
    for form in FORMS:
        assert form.__bases__ == (PLAIN[form],) and form.__name__ == PLAIN[form].__name__
        assert "__init__" not in vars(form) and "forward" in vars(form)


@NETWORKS
def test_saved_whole(build):
    file = io.BytesIO()
    network = place(build(), CPU)
    torch.save(network, file)
    file.seek(0)
    assert forms(torch.load(file, weights_only=False)) == forms(network)
