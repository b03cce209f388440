"""Being stopped: Ctrl-C and SIGTERM end a training after the batch at hand, with everything saved."""

import signal
import sys


class Stop:
    """Notes a signal while it is entered; a second one ends the program at once.

    Args:
        silent: print nothing: of several ranks all get the signal, and torchrun sends it also when one has failed.

    Attributes:
        asked: whether a signal came.
    """

    def __init__(self, silent: bool = False):
        self.silent, self.asked = silent, False

    def __enter__(self) -> "Stop":
        self._before = {kind: signal.signal(kind, self._note) for kind in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_error) -> None:
        for kind, handler in self._before.items():
            signal.signal(kind, handler)

    def _note(self, _signal, _frame) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if not self.silent:
            print("\nstopping after this batch (once more: at once)", file=sys.stderr, flush=True)
