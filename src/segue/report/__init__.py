"""Reports: what a run's `summary.json` says, as pictures, a page and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segue.files import write_atomically
from segue.report.aggregate import aggregate
from segue.report.curves import plot_learning_curves
from segue.report.export import markdown_report, write_comparisons, write_measures
from segue.report.history import attach_metrics
from segue.report.html import write_html
from segue.report.merging import merge
from segue.report.runs import Summary, read_summary
from segue.report.statistics_picture import statistics_picture
from segue.report.table import render_tables

__all__ = [
    "markdown_report",
    "merge",
    "plot_learning_curves",
    "read_run",
    "read_summary",
    "render",
    "render_tables",
    "write_html",
    "write_report",
]


def write_report(directory: Path) -> Path:
    """Write the report of one run into its directory, from its summary and metrics; returns the page."""
    return render(read_run(directory), Path(directory))


def read_run(directory: Path) -> dict[str, Any]:
    """The directory's summary, with the metrics in every seed that the section on the seam looks at."""
    from segue.report.seam import METRICS  # brings JAX in, for the bridges' own thresholds

    return attach_metrics(read_summary(directory), directory, METRICS)


def render(summary: Summary, directory: Path, reach: float | None = None) -> Path:
    """Write the report of a summary in hand, such as a merged one, into an existing directory; returns the page.

    `report.html`, `report.md` and `measures.csv`, `learning_curves.png`, and with two methods to compare
    `statistics.png` and `comparisons.csv`. For `reach` see `measures_tables`.
    """
    directory = Path(directory)
    plot_learning_curves(summary, directory / "learning_curves.png")
    found = aggregate(summary)
    if found is not None:
        write_atomically(directory / "statistics.png", statistics_picture(found))
    write_measures(summary, directory / "measures.csv", reach)
    write_comparisons(summary, directory / "comparisons.csv")
    write_atomically(directory / "report.md", markdown_report(summary, reach))
    return write_html(summary, directory, reach)
