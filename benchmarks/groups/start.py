"""What a user waits for before anything happens: help, import, and the first update of every algorithm."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from benchmarks.rows import Row
from benchmarks.settings import Settings
from benchmarks.turns import ROOT, Contestant

ALGORITHMS = ("bc", "bcq", "td3-bc", "rebrac", "iql", "awac", "cql", "cal-ql", "sac-n", "edac", "sac", "td3", "redq")


def rows(settings: Settings) -> Iterator[Row]:
    """Seconds, from the start of a process."""
    commands = {
        "segue --help": (["-m", "segue.cli.main", "--help"], 0.5),
        "import segue": (["-c", "import segue"], 1.0),
        "import segue; segue.run": (["-c", "import segue; segue.run"], None),
        "segue run --help": (["-m", "segue.cli.main", "run", "--help"], None),
    }
    for name, (arguments, target) in commands.items():
        yield Row(name=name, unit="s", ours=median(arguments, settings.turns), target=target, bound="at most")
    names = ALGORITHMS[:2] if settings.quick else (*ALGORITHMS, "rlpd")
    for name in names:
        start = time.perf_counter()
        contestant = Contestant("updates", name, 1, "--rows", 1000)
        try:
            contestant.prepare()
            seconds = time.perf_counter() - start
            yield Row(name=f"first update, {name}", unit="s", ours=seconds, target=8, bound="at most")
        finally:
            contestant.close()


def median(arguments: Sequence[str], turns: int) -> float:
    """Seconds that this takes, once its files are in memory."""

    def once() -> float:
        start = time.perf_counter()
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=ROOT, env=environment)
        return time.perf_counter() - start

    once()
    return statistics.median(once() for _ in range(turns))
