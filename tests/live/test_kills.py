"""The service killed and stopped under load; `python -m studies.reliability live-kill` does it hundreds of times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from made import Made

ROOT = Path(__file__).parents[2]


def study(results: Path, *arguments: str) -> dict[str, Any]:
    """What the study found; in another process, since JAX would not outlive its forks."""
    command = [sys.executable, "-m", "studies.reliability", "live-kill"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    done = subprocess.run(
        [*command, "--results", str(results), *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(results.read_text())


def test_what_was_acknowledged_before_a_kill_is_in_the_log_once(switch: Made, tmp_path: Path) -> None:
    policy = ["--policy", str(switch.directory)]
    found = study(tmp_path / "found.json", *policy, "--only", "kill -9, process", "--kills", "5", "--seed", "3")
    assert found["kill -9, process"]["well"]
    assert found["kill -9, process"]["kills"] == 5
    assert found["kill -9, process"]["decisions_acknowledged"] > 20


def test_sigterm_loses_nothing_even_of_what_is_written_after_the_answer(switch: Made, tmp_path: Path) -> None:
    policy = ["--policy", str(switch.directory)]
    found = study(tmp_path / "found.json", *policy, "--only", "SIGTERM, after", "--stops", "1")
    assert found["SIGTERM, after"]["well"]
    assert found["SIGTERM, after"]["decisions_acknowledged"] > 20


@pytest.mark.slow
def test_nothing_is_lost_at_any_instant_with_any_durability(tmp_path: Path) -> None:
    """The study makes its policy, since the learner goes on from the run that is beside it."""
    times = ["--kills", "20", "--shared", "5", "--learner", "3", "--faults", "20", "--stops", "2"]
    found = study(tmp_path / "found.json", *times, "--seed", "1")
    assert len(found) == 10
    assert {name for name, one in found.items() if not one["well"]} == set()
