"""Reports: what a run's `summary.json` says, as a picture, a page and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segue.report.curves import plot_learning_curves
from segue.report.history import attach_metrics
from segue.report.html import write_html
from segue.report.runs import Summary, merge, read_summary
from segue.report.seam import METRICS
from segue.report.table import markdown_table, render_table

__all__ = [
    "markdown_table",
    "merge",
    "plot_learning_curves",
    "read_run",
    "read_summary",
    "render",
    "render_table",
    "write_html",
    "write_report",
]


def write_report(directory: Path) -> Path:
    """Write `learning_curves.png` and `report.html` from the directory's summary and metrics; returns the page."""
    return render(read_run(directory), Path(directory))


def read_run(directory: Path) -> dict[str, Any]:
    """The directory's summary, with the metrics in every seed that the section on the seam looks at."""
    return attach_metrics(read_summary(directory), directory, METRICS)


def render(summary: Summary, directory: Path) -> Path:
    """The same from a summary in hand, such as a merged one, into an existing directory."""
    plot_learning_curves(summary, Path(directory) / "learning_curves.png")
    return write_html(summary, Path(directory))
