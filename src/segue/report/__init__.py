"""Reports: what a run's `summary.json` says, as a picture, a page and tables."""

from __future__ import annotations

from pathlib import Path

from segue.report.curves import plot_learning_curves
from segue.report.html import write_html
from segue.report.runs import Summary, merge, read_summary
from segue.report.table import markdown_table, render_table

__all__ = [
    "markdown_table",
    "merge",
    "plot_learning_curves",
    "read_summary",
    "render",
    "render_table",
    "write_html",
    "write_report",
]


def write_report(directory: Path) -> Path:
    """Write `learning_curves.png` and `report.html` from the directory's `summary.json`; returns the page."""
    return render(read_summary(Path(directory)), Path(directory))


def render(summary: Summary, directory: Path) -> Path:
    """The same from a summary in hand, such as a merged one, into an existing directory."""
    plot_learning_curves(summary, Path(directory) / "learning_curves.png")
    return write_html(summary, Path(directory))
