"""The notebooks run from their first cell to their last, and hold what they printed."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

nbclient = pytest.importorskip(
    "nbclient", reason="the notebooks are executed by nbclient: pip install nbclient ipykernel"
)
pytest.importorskip("ipykernel", reason="the notebooks need a kernel: pip install nbclient ipykernel")
nbformat = pytest.importorskip("nbformat")

NOTEBOOKS = Path(__file__).parents[1] / "examples/notebook"
#: The exercise in a minute instead of ten.
SHORT = {"OFFLINE_STEPS": 100, "ONLINE_STEPS": 1_100, "SEEDS": 1, "EVAL_EVERY": 550}


@pytest.fixture(autouse=True)
def commands_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def executed(name: str, **changed: int) -> list[tuple[Any, Any]]:
    """The code cells as they are stored and as they are now, with other values of the first cell's constants."""
    stored = nbformat.read(NOTEBOOKS / name, as_version=4)
    run = nbformat.from_dict(stored)
    for constant, value in changed.items():
        first = next(cell for cell in run.cells if cell.cell_type == "code")
        first.source, found = re.subn(rf"(?m)^{constant} = [\d_]+", f"{constant} = {value}", first.source)
        assert found == 1
    run = nbclient.NotebookClient(run, timeout=900, kernel_name="python3").execute()
    return [(a, b) for a, b in zip(stored.cells, run.cells, strict=True) if a.cell_type == "code"]


@pytest.mark.slow
def test_the_first_steps_execute_and_are_stored_with_what_they_printed() -> None:
    cells = executed("first-steps.ipynb")
    for before, after in cells:
        kinds = [[output.output_type for output in cell.outputs][-1:] for cell in (before, after)]
        assert kinds[0] == kinds[1], before.source
    shown = [output.data for _, cell in cells for output in cell.outputs if "data" in output]
    assert any("image/png" in data for data in shown), "plot() shows a picture"
    assert "2 of 2 seeds complete" in shown[-2]["text/plain"]


@pytest.mark.slow
def test_the_exercise_executes_with_short_settings_and_is_stored_with_what_the_real_ones_printed() -> None:
    cells = executed("exercise.ipynb", **SHORT)
    assert [before.source for before, after in cells if bool(before.outputs) != bool(after.outputs)] == []
    said = "".join(output.get("text", "") for _, cell in cells for output in cell.outputs)
    assert "Video: hop.gif" in said
    assert "Traceback" not in said
