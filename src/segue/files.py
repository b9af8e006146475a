"""Writing files whole or not at all, also if the process or the machine stops in between."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from segue.errors import SegueError

#: What making sense of a damaged file raises.
UNREADABLE = (
    SegueError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file that is, at every instant, either the old one or the new one, whole.

    Raises:
        SegueError: if it cannot be written.
    """
    # Not `tempfile`: its files are private to the user, and results are there to be shared.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _write_through(temporary, content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise SegueError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_directory(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a directory that is there with all of these files, or not at all; an older one is replaced.

    Raises:
        SegueError: if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, content in files.items():
            _write_through(temporary / name, content)
        sync(temporary)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise SegueError(f"{path}: cannot be written: {error.strerror}") from None


def set_aside(path: Path) -> Path:
    """Rename something damaged to `damaged-N-…` and return the new path."""
    number = 1
    while (aside := path.with_name(f"damaged-{number}-{path.name}")).exists():
        number += 1
    os.replace(path, aside)
    return aside


def make_directory(path: Path) -> None:
    """Create a directory, with those above it, if it is not there.

    Raises:
        SegueError: if it cannot be created.
    """
    with in_words(path):
        path.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def in_words(path: Path) -> Iterator[None]:
    """What the file system refuses while this lasts, as a sentence about `path`.

    Raises:
        SegueError: for an OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.args[0][0][-1] if isinstance(error, shutil.Error) else error.strerror or error
        elsewhere = "" if error.filename in (None, str(path)) else f" ({error.filename})"
        raise SegueError(f"{path}: cannot be written: {reason}{elsewhere}") from error


def sync(path: Path) -> None:
    """Have the disk hold what was written to this file or directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some file systems refuse it for directories
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _write_through(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
