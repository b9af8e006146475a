"""`segue report`: write the report of one or more runs again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro
from rich.console import Console

from segue.cli.parse import parse
from segue.errors import SegueError


@dataclasses.dataclass(frozen=True)
class Flags:
    """The runs, and where the report goes."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories; the arms of several come into one report."""
    out: Path | None = None
    """Where to write it; by default the run directory, or runs/report for several."""
    markdown: bool = False
    """Print the table as Markdown."""


def main(arguments: list[str]) -> int:
    """Write learning_curves.png and report.html, and print the table."""
    from segue.report import markdown_table, merge, read_run, render, render_table

    flags = parse(Flags, arguments, "report", "Learning curves, table and page of one or more runs.")
    if not flags.runs:
        raise SegueError("no run was given: segue report RUN…")
    summaries = [read_run(run) for run in flags.runs]
    summary = summaries[0] if len(summaries) == 1 else merge(summaries)
    out = flags.out or (flags.runs[0] if len(summaries) == 1 else Path("runs/report"))
    out.mkdir(parents=True, exist_ok=True)
    page = render(summary, out)
    if flags.markdown:
        print(markdown_table(summary))
    else:
        console = Console(highlight=False)
        console.print(render_table(summary))
        console.print(f"Report: {page}", soft_wrap=True)
    return 0
