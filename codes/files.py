"""Writing files so that nobody ever sees half of one."""

import contextlib
import glob
import json
import math
import os
import platform
import re
import unicodedata
from pathlib import Path

from codes.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: what a killed process left stays
    fcntl = None


MACHINE = re.sub(r"[^A-Za-z0-9-]+", "-", platform.node())[:40]


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary path beside ``path``; on success it takes the place of ``path``, else it is removed.

    The temporary name carries the names of machine and process, so that two writers never share one, and keeps the
    suffix, because some libraries choose the format by it. What a killed process of this machine left of ``path`` is
    removed: of another machine's, whose locks may not be seen here, nobody knows whether it lives.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent, f".{glob.escape(path.stem)}.{MACHINE}.*.tmp{glob.escape(path.suffix)}")
    temporary = path.with_name(f".{path.stem}.{MACHINE}.{os.getpid()}.tmp{path.suffix}")
    with contextlib.ExitStack() as stack:
        stack.callback(temporary.unlink, missing_ok=True)
        if fcntl is not None:  # locked for as long as this process lives: so others see that it is not abandoned
            stack.enter_context(_locked(temporary))
        yield temporary
        os.replace(temporary, path)


def write_bytes(path, array) -> None:
    """Write the bytes of a contiguous array; unlike ``ndarray.tofile``, which ignores what closing a file may find.

    Raises:
        OSError: not all of it could be written; a full disk may show only at the end.
    """
    with open(path, "wb") as file:
        file.write(array)


def by_stem(folder, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """The files of a folder by their names without suffix; hidden ones are left out.

    Args:
        folder: need not exist.
        suffixes: of the files that count, in any case; of several files of one name, the suffix that comes first wins.
    """
    paths = Path(folder).iterdir() if Path(folder).is_dir() else ()
    found = [path for path in paths if path.name[0] != "." and path.suffix.lower() in suffixes]
    found.sort(key=lambda path: (-suffixes.index(path.suffix.lower()), path.name))
    return {path.stem: path for path in found}


DISGUISES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: 'git lfs pull' fetches it"),
    (b"<!doctype html", "a web page: the download did not give the file"),
    (b"<html", "a web page: the download did not give the file"),
    (b"\x1f\x8b", "packed with gzip: unpack it"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd: unpack it"),
    (b"\xfd7zxz", "packed with xz: unpack it"),
    (b"pk\3\4", "a zip archive: unpack it"),
)
"""First bytes, in small letters, of what files often are instead of what their name says."""

TEXT = bytes(range(32, 127)) + b"\t\n\r"
"""The bytes of plain text."""


def disguise(path, otherwise: str = "") -> str:
    """What a file that cannot be used is instead, by its first bytes, as '; it is ...'; ``otherwise`` if unknown."""
    path = Path(path)
    if not path.is_file():
        return f"; it is {'a pipe' if path.is_fifo() else 'no file'}: give a file" if path.exists() else otherwise
    with open(path, "rb") as file:
        content = file.read(2**20)
    found = next((what for start, what in DISGUISES if content[:32].lower().startswith(start)), "")
    if not found and not content.translate(None, TEXT):
        found = "text" if content else "empty"
    if not found and (lines := content.count(b"\n")) >= 8 and content.count(b"\r\n") == lines:
        found = "sent as text, for each byte 10 follows a 13: send it as binary"
    return f"; it is {found}" if found else otherwise


def namesake(path) -> str:
    """A hint where a file is missing and one lies there whose name looks the same, but has other Unicode characters."""
    path = Path(path)
    for part in (path, path.parent):
        for other in part.parent.iterdir() if part.parent.is_dir() else ():
            if other.name != part.name and unicodedata.normalize("NFC", other.name) == unicodedata.normalize(
                "NFC", part.name
            ):
                return f"; {other} looks the same, but its accents are coded otherwise (NFC, NFD): rename one of them"
    return ""


def as_json(value, indent: int | None = 1) -> str:
    """A value as JSON that every parser reads: ``null`` for a number that is none or infinite."""

    def finite(part):
        if isinstance(part, dict):
            return {key: finite(item) for key, item in part.items()}
        if isinstance(part, list | tuple):
            return [finite(item) for item in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(finite(value), indent=indent, allow_nan=False)


def recorded(path: Path, about: dict, advice: str) -> dict:
    """What ``path`` says, a JSON file that an earlier call of the same command wrote; {} where there is none.

    Args:
        path: the file.
        about: what it must say, among other things.
        advice: what to do where it is another one's, as 'choose another --out'.

    Raises:
        InputError: it is damaged, or says something else.
    """
    if not path.is_file():
        return {}
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError):
        raise InputError(f"{path} is damaged; delete it, or {advice}") from None
    if changed := [key for key in about if before.get(key) != about[key]]:
        raise InputError(f"{path.parent} was made otherwise ({', '.join(changed)}); {advice}")
    return before


def write_json(path, value) -> None:
    """Write a JSON file (:func:`as_json`), whole or not at all."""
    write_text(path, as_json(value) + "\n")


def write_text(path, text: str) -> None:
    """Write text as UTF-8, line ends as they are; whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def _locked(path: Path):
    """A new file, open and locked."""
    while True:
        file = open(path, "ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
            file.close()
        except FileNotFoundError:  # somebody took it for abandoned before it was locked
            file.close()
        except OSError:  # a file system without locks
            return file


def remove_abandoned(folder, pattern: str = ".*.tmp*") -> None:
    """Remove the temporary files of :func:`replacing` in ``folder`` whose processes are dead."""
    for path in Path(folder).glob(pattern) if fcntl is not None else ():
        with contextlib.suppress(OSError), open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while the writer lives
            path.unlink(missing_ok=True)
