"""The benchmark's side of taking turns: contestants in processes of their own, pinned, one running at a time."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
Turn = dict[str, Any]


class Failed(Exception):
    """A contestant ended before its time; the message is the last thing it said."""


class Contestant:
    """A process that works when told to.

    Args:
        module: below `benchmarks.contestants`, with its arguments.
        python: the interpreter, which decides the libraries.
        cores: where it may run; None leaves it all that are visible.
        checkout: the repository whose contestant and package it is.
    """

    def __init__(
        self,
        *module: object,
        python: Path | None = None,
        cores: Sequence[int] | None = None,
        checkout: Path = ROOT,
        **environment: str,
    ) -> None:
        name, *arguments = map(str, module)
        pinned = cores if cores is not None else sorted(os.sched_getaffinity(0))
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(len(pinned)))
        self.name = " ".join([name, *arguments])
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, it lives as long as the process
        self.process = subprocess.Popen(
            [str(python or sys.executable), "-m", f"benchmarks.contestants.{name}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=checkout,
            env={
                **os.environ,
                **threads,
                "PYTHONPATH": str(checkout / "src"),  # and not what is installed
                "CUDA_VISIBLE_DEVICES": "",
                "BENCHMARK_CORES": json.dumps(pinned),
                **environment,
            },
        )
        self.setup: float | None = None

    def turn(self) -> Turn:
        """Let it work until it reports."""
        self.start()
        return self.finish()

    def prepare(self) -> None:
        """Wait until it is ready for its first turn."""
        if self.setup is None:
            self.setup = self.finish()["setup"]

    def start(self) -> None:
        """Let it work, without waiting."""
        assert self.process.stdin is not None
        self.prepare()
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def finish(self) -> Turn:
        """Wait for its report."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            said = [text for text in self.errors.read().splitlines() if text.strip()]
            raise Failed(f"{self.name}: {said[-1] if said else 'ended without a word'}")
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self.errors.close()


def interleaved(contestants: Sequence[Contestant], turns: int) -> list[list[Turn]]:
    """`turns` turns of each, taking turns, so that whatever slows the machine slows all of them; then all are ended."""
    try:
        for contestant in contestants:
            contestant.prepare()  # none compiles while another is timed
        rounds = [[contestant.turn() for contestant in contestants] for _ in range(turns)]
        return [list(column) for column in zip(*rounds, strict=True)]
    finally:
        for contestant in contestants:
            contestant.close()


def race(contestants: Sequence[Contestant]) -> list[list[Turn]]:
    """Every turn of each until all are done, taking turns."""
    turns: list[list[Turn]] = [[] for _ in contestants]
    try:
        for contestant in contestants:
            contestant.prepare()
        while not all(taken and taken[-1].get("done") for taken in turns):
            for contestant, taken in zip(contestants, turns, strict=True):
                if not (taken and taken[-1].get("done")):
                    taken.append(contestant.turn())
        return turns
    finally:
        for contestant in contestants:
            contestant.close()


def rate(turns: Sequence[Turn], clock: str = "seconds") -> float:
    """Units per second: the median over the turns."""
    return statistics.median(turn["units"] / turn[clock] for turn in turns)
