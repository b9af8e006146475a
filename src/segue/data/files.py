"""Files that a dataset is read from: what to ask before a format reader opens one."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from segue.errors import DataError


def existing(source: str, name: str) -> Path:
    """The path `name` (with ~ expanded), once it is known to be a file with something in it.

    Raises:
        DataError: there is no such file (naming the nearest), it is a folder, or it has 0 bytes.
    """
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            kind = source.partition(":")[0]
            several = f", or a pattern such as {path}/*.{kind}" if kind in ("csv", "parquet", "ndjson") else ""
            raise DataError(f"{source}: this is a folder; expected a file in it{several}")
        if not path.is_file():
            siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
            near = difflib.get_close_matches(path.name, siblings, n=1)
            folder = path.parent.absolute()
            hint = f"did you mean {path.with_name(near[0])}?" if near else f"looked in {folder}"
            raise DataError(f"{source}: there is no such file; {hint}")
        if path.stat().st_size == 0:
            raise DataError(f"{source}: the file is empty (0 bytes); copy, download or record it again")
    except (OSError, ValueError) as error:
        raise DataError(f"{source}: cannot be opened ({reason(error)})") from error
    return path


def require_free(source: str, name: str | os.PathLike[str]) -> None:
    """Make sure that a new file can be written here.

    Raises:
        DataError: if a file is there already, or the folder is not.
    """
    path = Path(name)
    if path.exists():
        raise DataError(f"{source}: already exists; choose another name, or delete it first")
    if not path.parent.is_dir():
        raise DataError(f"{source}: the folder {path.parent} does not exist; create it first")


def require_room(source: str, size: int) -> None:
    """Refuse what unpacks to more than this machine has memory; a few kB of zeros can claim any size.

    Raises:
        DataError: naming both sizes.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 2**63
    if size > memory:
        raise DataError(
            f"{source}: claims {size / 2**30:,.1f} GiB unpacked, this machine has {memory / 2**30:,.1f} GiB of memory; "
            "if that is its real size, use a machine with more"
        )


def reason(error: BaseException) -> str:
    """The first line of an exception's message, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
