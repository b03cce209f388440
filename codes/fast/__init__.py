"""Forms of the networks for a CPU, each tested against the plain one in value and gradient.

A network's own file holds the form that its paper's reader recognises. A class here is a subclass of its plain namesake
with the same parameters and another way to the same result. :func:`quicken` gives it to the modules of a network, which
the program does in one place (:func:`codes.engine.device.place`); nothing else knows of it.

To add one: write the subclass, under the same name, in a file of this room; put it into :data:`FORMS`; add a case to
tests/fast, which compares it with the plain class.
"""

import torch
from torch import nn

from codes.fast import bsn, edsr, ldn, san

FORMS = (bsn.ShiftConv, bsn.BSN, edsr.EDSR, ldn.Deblur_Net, san.ImplicitFusion, san.DeformableConvolution)
"""All fast classes; each has its plain one as its only base."""

FAST: dict[type, type] = {form.__base__: form for form in FORMS}
PLAIN: dict[type, type] = {form: form.__base__ for form in FORMS}


def quicken(network: nn.Module, device: torch.device) -> nn.Module:
    """Give the modules of ``network`` the forms for ``device``: on a CPU the fast ones, elsewhere the plain ones.

    Only classes change, in place: parameters, hooks, keys and names stay.

    Returns:
        ``network``.
    """
    return _exchange(network, FAST if device.type == "cpu" else PLAIN)


def plain(network: nn.Module) -> nn.Module:
    """Take :func:`quicken` back, in place; returns ``network``."""
    return _exchange(network, PLAIN)


def _exchange(network: nn.Module, forms: dict[type, type]) -> nn.Module:
    for module in network.modules():
        module.__class__ = forms.get(type(module), type(module))
    return network
