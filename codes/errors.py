"""Mistakes of the user, as against bugs.

Whatever a user can do wrong (a file, a flag, a size) is raised as an :class:`InputError`, or as the OSError with which
the system reports it, and ends a command in one line with exit code 2. Every other exception is a bug and shows its
traceback.
"""

import os


class InputError(ValueError):
    """What came, what was expected, and what to do, in one line."""


class MissingFileError(InputError, FileNotFoundError):
    """A file or folder that the user named, or forgot to fetch, is not there."""


def one_line(error) -> str:
    """The message of an error in one line, fit to be shown; of an error from a loader process, the cause."""
    if isinstance(error, OSError) and error.strerror:
        return readable(": ".join(str(name) for name in (error.filename, error.strerror) if name))
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if len(lines) > 1 and "DataLoader worker" in lines[0]:
        return readable(lines[-1].split(": ", 1)[-1])
    return readable(" ".join(lines)) or type(error).__name__


def readable(name) -> str:
    r"""A file's name to be shown: bytes that are no UTF-8, as another system may have left them, as ``\xNN``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
