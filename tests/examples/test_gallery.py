"""Every script of examples/ runs from beginning to end, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SHORT = {"study.py": ["--steps", "100", "--seeds", "2"]}
SCRIPTS = [*sorted((EXAMPLES / "gallery").glob("*.py")), EXAMPLES / "research/study.py"]
#: What compiles little.
QUICK = {"off_policy_evaluation.py"}


@pytest.mark.parametrize(
    "script", [pytest.param(s, id=s.stem, marks=() if s.name in QUICK else pytest.mark.slow) for s in SCRIPTS]
)
def test_the_script_runs_and_prints_what_it_found(script: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(script), *SHORT.get(script.name, [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(script.parent), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert done.stdout.strip()


def test_the_gallery_lists_every_script() -> None:
    page = (EXAMPLES / "README.md").read_text()
    assert [s.name for s in SCRIPTS[:-1] if f"gallery/{s.name})" not in page] == []
    assert all(20 <= len(s.read_text().splitlines()) <= 60 for s in SCRIPTS[:-1])
