"""What every command line shares: mistakes of the user end in one line and exit code 2, bugs in a traceback."""

import argparse
import codecs
import difflib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from codes.errors import InputError, one_line


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and which names the nearest flag for an unknown one."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def parse_args(self, args=None, namespace=None):
        """As in argparse, but unknown flags are explained, and flags may stand between positional words."""
        namespace, unknown = self.parse_known_intermixed_args(args, namespace)
        for word in unknown:
            if word.startswith("-"):
                self.error(
                    f"unknown flag {word.split('=')[0]}{nearest(word.split('=')[0], self._option_string_actions)}"
                )
        if unknown:
            self.error(f"unexpected word '{unknown[0]}'; every value belongs to a flag (see --help)")
        return namespace

    def error(self, message):
        """Print one line and exit with code 2."""
        if isinstance(message, str) and message.endswith("expected one argument"):
            message += "; one that begins with - is given as --FLAG=VALUE"
        fail(message, self.prog)


def nearest(word: str, known) -> str:
    """' (did you mean X?)' for the known word most like ``word``, or a pointer to the help."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {match[0]}?)" if match else " (see --help)"


def fail(message, program: str | None = None) -> None:
    """Print 'program: error: message' in one line on stderr and exit with code 2; of several processes, one prints."""
    if _is_heard():
        print(f"{program or Path(sys.argv[0]).name}: error: {one_line(message)}", file=sys.stderr)
    raise SystemExit(2)


def command(main: Callable[[], None]) -> None:
    r"""Run a script's ``main``: a user's mistake becomes one line, Ctrl-C exit code 130, a bug its traceback.

    Of several processes (:mod:`codes.engine.distributed`) the first that fails is heard. What a terminal cannot show
    is shown as ``\xNN`` or ``\uNNNN``. An output that is closed from the start (``>&-``) is none.
    """
    codecs.register_error("shown", _as_shown)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        if hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors="shown")
    try:
        _let_go(main)
    except BrokenPipeError as error:
        if error.filename is not None:
            fail(error)
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # at its end Python would write what is left
        fail("stopped, for nobody reads its output any more (a pipe was closed)")
    except (InputError, OSError) as error:
        fail(error)
    except MemoryError:
        fail("out of memory")
    except KeyboardInterrupt:
        if _is_heard():
            print(f"\n{Path(sys.argv[0]).name}: stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if isinstance(error, RuntimeError):
            if _has_lost_contact(error):
                fail(f"another process of this run ended or cannot be reached ({one_line(error)[:120]})")
            if advice := advice_on_memory(error):
                fail(advice)
        if _is_heard():
            raise
        raise SystemExit(2) from None


def _as_shown(error) -> tuple[str, int]:
    """What stands for characters that a stream cannot show; a byte of a name that is no UTF-8 by its number."""
    text = error.object[error.start : error.end]
    shown = (f"\\x{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else ascii(c)[1:-1] for c in text)
    return "".join(shown), error.end


def advice_on_memory(error: RuntimeError) -> str:
    """What to do about an error of PyTorch that comes from too little memory, in one line; '' for any other."""
    text, what = str(error), one_line(error)[:120]
    if "DefaultCPUAllocator" in text:
        return f"out of memory ({what}); try a smaller --bs or --roi_size"
    if type(error).__name__ == "OutOfMemoryError" or "out of memory" in text or "ALLOC_FAILED" in text:
        return f"out of memory on the device ({what}); try a smaller --bs, --roi_size or --precision bf16"
    # An error that a loader process reports itself has another beginning.
    if text.startswith("DataLoader worker (pid") or "shared memory object" in text or "(shm)" in text:
        return (
            f"a loader process ended ({what}); if memory ran short, try fewer --workers or a smaller --bs, in Docker a "
            "larger --shm-size; the same command goes on"
        )
    return ""


def _is_heard() -> bool:
    """Whether this process says what went wrong: alone, or the first of several."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # torch is imported only where torchrun has started several
        return True
    from codes.engine import distributed

    return distributed.first_to_fail()


def _has_lost_contact(error: RuntimeError) -> bool:
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return False
    from codes.engine import distributed

    return distributed.is_loss_of_contact(error)


def _let_go(main: Callable[[], None]) -> None:
    """Run ``main``; an error that leaves it holds none of its variables any more.

    An error from a loader process refers to the loader and to itself, and the loader's processes heed no SIGTERM: kept
    alive so, they would be waited for at the end of the program, for ever.
    """
    try:
        main()
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        raise
