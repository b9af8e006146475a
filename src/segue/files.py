"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from segue.errors import SegueError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file that is, at every instant, either the old one or the new one, whole.

    Raises:
        SegueError: if it cannot be written.
    """
    # Not `tempfile`: its files are private to the user, and results are there to be shared.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except OSError as error:
        raise SegueError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
