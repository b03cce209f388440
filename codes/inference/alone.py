"""What spikes alone show: grey pictures of a stream without a photograph."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from codes.errors import InputError
from codes.inference.methods import from_spikes, load_method
from codes.spike import mirrored, refuse_outside, tfp

METHODS = ("tfp", "tfi", "stir")
WINDOW = 21
SEEN = 99.0
"""Percentile of the light that becomes white, where the brightness is found."""


def pictures(spike: np.ndarray, instants: Sequence[int], method: str, window: int = 0, **how) -> Iterator[np.ndarray]:
    """The light at several instants, in spikes a frame.

    Args:
        spike: uint8 ``(T, h, w)``.
        method: 'tfp', 'tfi' or 'stir'.
        window: frames of the TFP; 0: 21.
        **how: weights and device, as of :func:`codes.inference.methods.load_method`.

    Yields:
        float32 ``(h, w)`` in [0, 1].

    Raises:
        InputError: no such method or instant.
    """
    if method not in METHODS:
        raise InputError(f"spikes alone: --method {', '.join(METHODS)}, not {method}; the others need --blur")
    if window and method != "tfp":
        raise InputError("--window is of --method tfp")
    refuse_outside(instants, len(spike))
    window = min(window or WINDOW, len(spike) - 1 + len(spike) % 2)
    half, device = window // 2, how.get("device", torch.device("cpu"))
    if method == "tfp":
        way = from_spikes("tfp", "TFP", lambda stream, at: tfp(mirrored(stream, half), at + half, window))
    else:
        way = load_method(method, **how)
    blank = torch.zeros(1, 3, *spike.shape[1:], device=device)
    images = way.start(blank, torch.from_numpy(spike)[None].to(device))
    with torch.inference_mode():
        for instant in instants:
            yield images([instant]).flatten(0, -3)[0].float().cpu().numpy()


def brightness(light: np.ndarray, text: str) -> float:
    """What light is multiplied by to be seen: of 'auto' so that nearly all of it lies below white, or the number.

    Raises:
        InputError: neither.
    """
    if text != "auto":
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < 1e6:
            raise InputError(f"--brightness is '{text}'; expected auto, or a number above 0")
        return value
    return 1.0 / max(float(np.percentile(light, SEEN)), 1e-4)
