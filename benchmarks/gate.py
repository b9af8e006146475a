"""The child's side of taking turns: a contestant runs only between a word from the benchmark and its own report.

It imports nothing of Segue, so that peers use it too.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any


class Gate:
    """Cuts a contestant's work into turns.

    The real standard output carries the reports; whatever a library prints goes to standard error.
    """

    def __init__(self) -> None:
        self.born = time.perf_counter()
        self.reports = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def ready(self) -> None:
        """The set-up is done: report how long it took, and wait for the first turn."""
        self._report({"setup": time.perf_counter() - self.born})

    def passed(self, units: float, **more: Any) -> None:
        """So many units are done: report the turn, and wait for the next."""
        self._report({"units": units, "peak": _peak(), **self._clocks(), **more})

    def done(self) -> None:
        """Nothing is left to do."""
        self._report({"units": 0, "done": True, "peak": _peak(), **self._clocks()})

    def forever(self, turn: Callable[[], float]) -> None:
        """Run one turn after the other; each returns its units. Ends when the benchmark does."""
        turn()  # compiles
        self.ready()
        while True:
            self.passed(turn())

    def _clocks(self) -> dict[str, float]:
        return {"seconds": time.perf_counter() - self.start, "cpu": time.process_time() - self.cpu}

    def _report(self, report: dict[str, Any]) -> None:
        self.reports.write(json.dumps(report) + "\n")
        if not sys.stdin.readline():
            os._exit(0)
        self.start, self.cpu = time.perf_counter(), time.process_time()


def _peak() -> int:
    """Largest resident memory of the process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Laps:
    """Cuts a loop that counts its own steps into turns of `length`, phase by phase."""

    def __init__(self, gate: Gate, length: int, settle: Callable[[], object] = lambda: None) -> None:
        self.gate, self.length, self.settle = gate, length, settle
        self.phase, self.last = "", 0

    def __call__(self, phase: str, step: int) -> None:
        """The loop is at this step; `settle` waits for what still runs on the side."""
        if phase != self.phase:
            self.phase, self.last = phase, 0
        if step - self.last >= self.length:
            self.settle()
            units, self.last = step - self.last, step
            self.gate.passed(units, phase=phase)
