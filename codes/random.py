"""Random streams with a purpose, so that no two things that are drawn in training hang together.

Which crop a sample gives, in which order samples come, which instants a step looks at: each is drawn from a stream of
its own, which seed and numbers (epoch, sample, step) decide alone. Neither the number of processes nor an interruption
changes a draw.
"""

import hashlib

import numpy as np


def rng(purpose: str, seed: int, *numbers: int) -> np.random.Generator:
    """The random stream of a purpose: the same arguments draw the same, any others something else.

    Args:
        purpose: what is drawn: 'order', 'crops', 'instants' and so on.
        seed: of the run.
        numbers: what the draw belongs to, such as (epoch, sample). Unlike a plain list of seeds, which NumPy pads with
            zeros, (1,) and (1, 0) are two streams.
    """
    words = repr((purpose, *map(int, (seed, *numbers))))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(words.encode()).digest(), "little"))
