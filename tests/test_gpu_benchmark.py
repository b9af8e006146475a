"""The GPU benchmark writes every row as soon as it is measured, so that an early end loses none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.gpu import __main__ as benchmark

ROOT = Path(__file__).resolve().parent.parent


def test_a_row_that_fails_or_comes_too_late_is_listed_and_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: float(next(clock)))

    def broken() -> dict[str, Any]:
        raise MemoryError("out of memory\nand a trace")

    def absent() -> dict[str, Any]:
        raise ImportError("No module named 'torch'")

    tasks = [("one", dict), ("two", broken), ("three", absent), ("four", dict), ("five", dict)]
    monkeypatch.setattr(benchmark, "rows", lambda quick: (({"algorithm": name}, task) for name, task in tasks))
    written: list[Any] = []
    benchmark.measured(False, 85.0, lambda found, missing: written.append(json.dumps([found, missing])))
    found, missing = json.loads(written[-1])
    assert [row["algorithm"] for row in found] == ["one", "four"]
    assert {row["algorithm"]: row["why"] for row in missing} == {
        "two": "MemoryError: out of memory",
        "three": "No module named 'torch'",
        "five": "the time was over",
    }


def test_the_ratios_are_those_that_have_targets() -> None:
    rows = [
        {"library": "segue", "algorithm": "sac", "seeds": 1, "updates_per_second": 100.0},
        {"library": "torch", "algorithm": "sac", "seeds": 1, "updates_per_second": 20.0},
        {"library": "segue", "algorithm": "sac", "seeds": 32, "updates_per_second": 50.0},
        {"library": "segue", "algorithm": "td3-bc", "seeds": 32, "what": "an offline phase"},
    ]
    assert benchmark.compared(rows) == [
        {"algorithm": "sac", "what": "one seed/PyTorch", "ratio": 5.0, "target": 5.0},
        {"algorithm": "sac", "what": "32 seeds/one", "ratio": 16.0, "target": 16.0},
    ]


@pytest.mark.slow
def test_it_runs_on_a_processor(tmp_path: Path) -> None:
    out = tmp_path / "cpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--quick", "--budget", "3000", "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    written = json.loads(out.read_text())
    assert written["device"] == "cpu"
    assert all(row["finite"] for row in written["rows"])
    assert {row["why"] for row in written["missing"]} <= {"No module named 'torch'"}
    assert len(written["rows"]) + len(written["missing"]) == 12
