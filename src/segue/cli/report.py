"""`segue report`: write the report of one or more runs again."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Annotated

import tyro

from segue.cli.parse import parse
from segue.cli.read import read
from segue.console import PlainConsole
from segue.errors import SegueError
from segue.files import make_directory


@dataclasses.dataclass(frozen=True)
class Flags:
    """The runs, and where the report goes."""

    runs: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN…", help_behavior_hint="")]]
    """Run directories, of one task or of several; all come into one report."""
    out: Path | None = None
    """Where to write it; by default the run directory, or runs/report for several."""
    reach: float | None = None
    """Return to count the online steps to; by default the final one of the arm from scratch."""
    markdown: bool = False
    """Print the tables as Markdown."""


def main(arguments: list[str]) -> int:
    """Write pictures, page and tables, and print the measures."""
    from segue.report import markdown_report, merge, render, terminal_report

    flags = parse(Flags, arguments, "report", "Learning curves, measures, statistics and page of one or more runs.")
    if not flags.runs:
        raise SegueError("no run was given: segue report RUN…")
    if flags.reach is not None and not math.isfinite(flags.reach):
        raise SegueError(f"--reach is {flags.reach}; expected a return")
    # The same run twice would count its seeds twice.
    summaries = [read(run) for run in {run.resolve(): run for run in flags.runs}.values()]
    summary = summaries[0] if len(summaries) == 1 else merge(summaries)
    tasks = summary.tasks()
    if flags.reach is not None and len(tasks) > 1:
        raise SegueError(
            f"--reach {flags.reach:g}: a return means something else on each of {len(tasks)} tasks "
            f"({', '.join(tasks)}); leave it out, or report one task at a time"
        )
    out = flags.out or (flags.runs[0] if len(summaries) == 1 else Path("runs/report"))
    make_directory(out)
    page = render(summary, out, flags.reach)
    if flags.markdown:
        print(markdown_report(summary, flags.reach))
    else:
        console = PlainConsole()
        console.print(terminal_report(summary, flags.reach))
        console.print(f"Report: {page}", soft_wrap=True)
    return 0
