"""Compiled programs kept between commands: XLA's persistent cache, in a directory for this processor and so many cores.

It is switched on by environment variables before JAX is imported, so that worker processes inherit it and a program
that uses Segue as a library keeps its own settings. `SEGUE_CACHE` names another directory; empty, it says to keep none.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import zlib
from pathlib import Path

#: Bytes; the programs that were not used for longest go first.
LARGEST = 2**30


#: Where a process that was begun by the command line finds what that has set up.
BASE = "SEGUE_PROGRAMS"


def keep_programs() -> None:
    """Have JAX keep what it compiles, unless the user has set that up already or the directory cannot be written."""
    named = os.environ.get("SEGUE_CACHE")
    if named == "" or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ[BASE] = str((Path(named) if named else home / "segue") / f"programs-{_processor():08x}")
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(LARGEST)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # a fresh network is dozens of small programs
    use_programs_of_these_cores()


def use_programs_of_these_cores() -> None:
    """Programs are compiled for a number of cores, which XLA's keys leave out, and results depend on it; for a worker,
    after it has been given its cores.
    """
    if BASE not in os.environ:
        return
    directory = Path(os.environ[BASE]) / f"{len(visible_cores())}-cores"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(directory, os.W_OK):
        _remove_half_written(directory)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(directory)
        if "jax" in sys.modules:  # which has read its environment already
            sys.modules["jax"].config.update("jax_compilation_cache_dir", str(directory))


def _remove_half_written(directory: Path) -> None:
    """Remove programs that a killed process left without their time of use: with one of them JAX can save no other."""
    half = [file for file in directory.glob("*-cache") if not _time_of(file).exists()]
    if not half:
        return
    from filelock import FileLock, Timeout

    with contextlib.suppress(OSError, Timeout), FileLock(directory / ".lockfile", timeout=10):  # JAX's own lock
        for file in half:
            if not _time_of(file).exists():
                file.unlink(missing_ok=True)


def _time_of(program: Path) -> Path:
    return program.with_name(program.name.removesuffix("-cache") + "-atime")


def visible_cores() -> list[int]:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _processor() -> int:
    """A number that differs between processors: home directories are shared by machines, machine code is not."""
    try:
        with open("/proc/cpuinfo") as file:
            lines = {line for line in file if line.startswith(("model name", "flags", "Features"))}
    except OSError:
        lines = {platform.processor()}
    return zlib.crc32("".join([platform.machine(), *sorted(lines)]).encode())
