"""Compiled programs kept between commands: XLA's persistent cache, in a directory of this processor's own.

It is switched on by environment variables before JAX is imported, so that worker processes inherit it and a program
that uses Segue as a library keeps its own settings. `SEGUE_CACHE` names another directory; empty, it says to keep none.
"""

from __future__ import annotations

import os
import platform
import zlib
from pathlib import Path

#: Bytes; the programs that were not used for longest go first.
LARGEST = 2**30


def keep_programs() -> None:
    """Have JAX keep what it compiles, unless the user has set that up already or the directory cannot be written."""
    named = os.environ.get("SEGUE_CACHE")
    if named == "" or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = (Path(named) if named else home / "segue") / f"programs-{_processor():08x}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(directory, os.W_OK):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(directory)
        os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(LARGEST)
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # a fresh network is dozens of small programs


def _processor() -> int:
    """A number that differs between processors: home directories are shared by machines, machine code is not."""
    try:
        with open("/proc/cpuinfo") as file:
            lines = {line for line in file if line.startswith(("model name", "flags", "Features"))}
    except OSError:
        lines = {platform.processor()}
    return zlib.crc32("".join([platform.machine(), *sorted(lines)]).encode())
