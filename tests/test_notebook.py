"""The notebook of the first steps runs from its first cell to its last, and holds what it printed."""

from __future__ import annotations

from pathlib import Path

import pytest

nbclient = pytest.importorskip(
    "nbclient", reason="the notebook is executed by nbclient: pip install nbclient ipykernel"
)
pytest.importorskip("ipykernel", reason="the notebook needs a kernel: pip install nbclient ipykernel")
nbformat = pytest.importorskip("nbformat")

NOTEBOOK = Path(__file__).parents[1] / "examples/notebook/first-steps.ipynb"


def test_the_first_steps_execute_and_are_stored_with_what_they_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    stored = nbformat.read(NOTEBOOK, as_version=4)
    executed = nbclient.NotebookClient(nbformat.from_dict(stored), timeout=300, kernel_name="python3").execute()
    for before, after in zip(stored.cells, executed.cells, strict=True):
        if before.cell_type == "code":
            kinds = [[output.output_type for output in cell.outputs][-1:] for cell in (before, after)]
            assert kinds[0] == kinds[1], before.source
    shown = [output.data for cell in executed.cells for output in cell.get("outputs", ()) if "data" in output]
    assert any("image/png" in data for data in shown), "plot() shows a picture"
    assert "2 of 2 seeds complete" in shown[-2]["text/plain"]
