"""What `make new-algorithm`, `new-bridge` and `new-format` write works as it is: in a copy of the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "tests"),
    [
        ("algorithm", ["tests/algorithms/test_updates.py", "-k", "my-own"]),
        ("bridge", ["tests/bridges/test_my_own.py"]),
        ("format", ["tests/data/test_my_own.py"]),
    ],
)
def test_a_new_part_passes_lint_types_conformance_and_its_own_test(kind: str, tests: list[str], tmp_path: Path) -> None:
    for name in ("src", "tests", "docs", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'src'}{os.pathsep}{tmp_path / 'tests'}"}

    def python(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    assert "It works already" in python("docs/new.py", kind, "my-own")
    assert "is there already" in python("docs/new.py", kind, "my-own")
    python("-m", "ruff", "check", "src", "tests")
    python("-m", "ruff", "format", "--check", "src", "tests")
    python("-m", "mypy", f"src/segue/{'data' if kind == 'format' else kind + 's'}/my_own.py")
    python("-m", "segue.conformance", "--part", "my-own")
    python("-m", "pytest", *tests)
