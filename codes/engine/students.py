"""Students from weight files, which say what they were trained to see."""

from codes.baselines.san_student import SANStudent
from codes.engine.checkpoint import load_weights, state_dict
from codes.errors import InputError
from codes.model.ldn_model import SPIKE_INPUTS, Deblur_Net


def load_student(path, gain: bool = False, hint: str = "") -> Deblur_Net | SANStudent:
    """The student of a weight file, the authors' or ours; network, number of frames and spike input are the file's.

    Args:
        path: the file.
        gain: make spikes as bright as the image (:func:`codes.spike.exposure_gain`) even where the weights were
            trained without, as the authors' were.
        hint: what to do when the file is missing.

    Raises:
        FileNotFoundError, ValueError: as in :func:`load_weights`.
    """
    state = state_dict(path, "Deblur_Net", hint)
    if any(key.startswith("msff1.") for key in state):
        san = load_weights(SANStudent("spike_input" in state), path, hint)
        san.gain = san.gain or gain
        return san
    settings = {}
    first, kind = state.get("spike_enc.0.weight"), state.get("spike_input")
    if first is not None and first.numel() and first.shape[2:] == (3, 3) and first.shape[1] % 2:
        settings["spike_dim"] = first.shape[1]  # odd, as windows are
    if kind is not None:
        if kind.shape != (2,) or not 0 <= kind[0] < len(SPIKE_INPUTS):
            raise InputError(f"{path} asks for a spike input that this version does not know; update the program")
        settings |= {"spike_input": SPIKE_INPUTS[int(kind[0])], "gain": bool(kind[1])}
    ldn = load_weights(Deblur_Net(**settings), path, hint)
    ldn.gain = ldn.gain or gain
    return ldn
