"""Whole processes: killed, terminated, and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

FLAGS = [
    *("--env", "Pendulum-v1", "--online", "sac", "--online-steps", "1500", "--warmup-steps", "100"),
    *("--eval-every", "500", "--eval-episodes", "1", "--online.hidden-sizes", "8", "8", "--online.batch-size", "16"),
    *("--seeds", "2", "--checkpoint-every", "0.2"),
]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX signals")]


def begin(out: Path, workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "segue.cli.main", "run", *FLAGS, "--workers", str(workers), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def until_saved(process: subprocess.Popen[str], out: Path, beyond: int) -> None:
    """Wait until a state of more than so many online steps is on the disk."""
    while process.poll() is None:
        steps = [int(path.name.removeprefix("step-")) for path in out.glob("states/run/seed-*/step-*")]
        if max(steps, default=0) > beyond:
            return
        time.sleep(0.02)
    raise AssertionError(f"it ended before: {process.stdout and process.stdout.read()}")


def hashes(out: Path) -> dict[str, Any]:
    seeds = json.loads((out / "summary.json").read_text())["arms"]["run"]["seeds"]
    return {seed: (result["parameters_sha256"], result["online_evaluations"]) for seed, result in seeds.items()}


@pytest.fixture(scope="module", params=[1, 2], ids=["in-this-process", "in-workers"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any]]:
    out = tmp_path_factory.mktemp("whole") / "x"
    process = begin(out, request.param)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return request.param, hashes(out)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_the_same_command_goes_on_to_the_same_numbers(tmp_path: Path, whole: Any, number: int, code: int):
    """At once: workers of a process that was killed leave by themselves."""
    workers, expected = whole
    out, beyond = tmp_path / "x", 0
    for _ in range(2):
        process = begin(out, workers)
        until_saved(process, out, beyond)
        beyond += 400
        process.send_signal(number)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == code, said
        if number != signal.SIGKILL:
            assert "goes on" in said
    process = begin(out, workers)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert "goes on from step" in said
    assert hashes(out) == expected
