"""Reports: what a run recorded, as pictures, a page and tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segue.files import write_atomically
from segue.report.aggregate import aggregate
from segue.report.figures_curves import learning_curves
from segue.report.summary import Summary, decode, merge, read_metrics, read_plain

__all__ = [
    "Summary",
    "decode",
    "learning_curves",
    "markdown_report",
    "merge",
    "read_run",
    "render",
    "terminal_report",
    "write_report",
]


def write_report(directory: Path) -> Path:
    """Write the report of one run into its directory, from its summary and metrics; returns the page."""
    return render(read_run(directory), Path(directory))


def read_run(directory: Path, plain: Mapping[str, Any] | None = None) -> Summary:
    """What a run recorded: its summary (`plain`, if that is read already), with the metrics that the report shows.

    Raises:
        SegueError: if there is no summary, or it cannot be read.
    """
    from segue.report.handover import COMMON, panels_of  # brings JAX in, for the parts' own panels

    plain = read_plain(directory) if plain is None else plain
    panels = (panel for arm in plain["arms"].values() for panel in panels_of(arm.get("recipe") or {}))
    drawn = {metric for panel in panels for metric, _ in panel.lines}
    history = read_metrics(Path(directory) / "metrics.csv", {*COMMON, "q_data", *drawn})
    return decode(plain, Path(directory).resolve().name, history)


def render(summary: Summary, directory: Path, reach: float | None = None) -> Path:
    """Write the report of a summary, such as a merged one, into an existing directory; returns the page.

    `report.html`, `report.md`, `measures.csv`, `curves.csv` and `learning_curves.png`, and with two methods to compare
    `statistics.png` and `comparisons.csv`. `reach` is the return to count the online steps to.
    """
    from segue.report import export
    from segue.report.figures_statistics import statistics_picture
    from segue.report.page import html_page

    directory = Path(directory)
    found = aggregate(summary)
    write_atomically(directory / "learning_curves.png", learning_curves(summary))
    if found is not None:
        write_atomically(directory / "statistics.png", statistics_picture(found))
        export.write_comparisons(found, directory / "comparisons.csv")
    export.write_measures(summary, directory / "measures.csv", reach)
    export.write_curves(summary, directory / "curves.csv")
    write_atomically(directory / "report.md", export.markdown_report(summary, found, reach))
    path = directory / "report.html"
    write_atomically(path, html_page(summary, found, reach))
    return path


def markdown_report(summary: Summary, reach: float | None = None) -> str:
    """The conclusion and the tables as Markdown."""
    from segue.report import export

    return export.markdown_report(summary, aggregate(summary), reach)


def terminal_report(summary: Summary, reach: float | None = None) -> object:
    """The conclusion and the measures for a terminal; print it with rich."""
    from segue.report import export

    return export.TerminalReport(summary, aggregate(summary), reach)
