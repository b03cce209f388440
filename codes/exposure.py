"""The numbers of a data set in the official layout: where the exposure lies in a stream, and the spike camera's scale.

Source: S-SDM (arXiv 2403.09486), section 4.1, with the constants of the official program.
"""

import operator
from dataclasses import dataclass

from codes.errors import InputError

SCALE = 4
"""Image pixels per spike pixel, each way."""


@dataclass(frozen=True)
class ExposureWindow:
    """Where the exposure lies in a spike stream, derived from how the data set is made.

    Args:
        raw_frames: frames of the high-speed video under one exposure (``--blur_num``).
        inserted: frames that interpolation adds between two raw frames (``--num_inter``).
        margin: spike frames kept before and after the exposure (``--spike_add``).
    """

    raw_frames: int = 13
    inserted: int = 7
    margin: int = 20

    @property
    def length(self) -> int:
        """Spike frames under the exposure: 97."""
        return (self.raw_frames - 1) * (self.inserted + 1) + 1

    @property
    def total(self) -> int:
        """Spike frames in one file: 137."""
        return self.length + 2 * self.margin

    @property
    def start(self) -> int:
        """First frame of the exposure: 20."""
        return self.margin

    @property
    def stop(self) -> int:
        """One past the last frame of the exposure: 117."""
        return self.margin + self.length

    @property
    def centre(self) -> int:
        """The frame in the middle of the exposure: 68."""
        return self.margin + self.length // 2

    def instants(self, step: int = 24) -> tuple[int, ...]:
        """Instants of a training step, ``step`` frames apart: 20, 44, 68, 92, 116 (``--blur_step 24``)."""
        if step < 1:
            raise InputError(f"the step between instants is {step}; it must be at least 1")
        return tuple(range(self.start, self.stop, step))

    @property
    def sequence_instants(self) -> tuple[int, ...]:
        """Instants of the sequence protocol, every second raw frame: 20, 36, 52, 68, 84, 100, 116."""
        return self.instants(2 * (self.inserted + 1))

    @property
    def sequence_offsets(self) -> tuple[int, ...]:
        """The same instants in raw frames from the centre: -6, -4, -2, 0, 2, 4, 6."""
        return tuple((t - self.centre) // (self.inserted + 1) for t in self.sequence_instants)


EXPOSURE = ExposureWindow()
"""The window of every data set in the official layout."""


def exposure_of(known) -> slice | str:
    """An exposure however it is said: (20, 117), range(20, 117), a slice or '20:117'; 'auto' and 'auto:LENGTH' stay.

    Raises:
        InputError: it is none of these.
    """
    try:
        if isinstance(known, str):
            return read_exposure(known)
        if isinstance(known, slice | range):
            if known.step not in (None, 1):
                raise ValueError
            known = known.start, known.stop
        start, stop = known
        return slice(operator.index(start), operator.index(stop))
    except (TypeError, ValueError):
        words = "expected (START, END), 'START:END', 'auto' or 'auto:LENGTH'"
        raise InputError(f"exposure is {known!r}; {words}") from None


def read_exposure(text: str) -> slice | str:
    """'20:117' as a slice; 'auto' and 'auto:LENGTH' as they are; an InputError for anything else."""
    start, colon, stop = text.partition(":")
    if start == "auto" and (not colon or (stop.isdecimal() and int(stop) > 0)):
        return text
    if not (colon and start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise InputError(text)
    return slice(int(start), int(stop))
