"""Files beside the page: every number as CSV, and the tables as Markdown for a paper."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from segue.files import write_atomically
from segue.report.aggregate import aggregate
from segue.report.evaluations import online_curve
from segue.report.measures import arm_seeds, log_return, steps_to_reach
from segue.report.references import reference
from segue.report.runs import Summary
from segue.report.statistics_page import statistics_markdown
from segue.report.table import markdown_tables, reach_level
from segue.report.tasks import environment, method, tasks


def write_measures(summary: Summary, path: Path, reach: float | None = None) -> None:
    """A CSV row per task, method and seed, in full precision: empty where there is no number, `inf` for never."""
    rows = []
    for task, names in tasks(summary).items():
        level = reach_level(summary, names, reach)
        for name in names:
            arm = summary["arms"][name]
            convention = reference(environment(arm))
            for key, measures in arm_seeds(arm).items():
                steps, returns = online_curve(arm["seeds"][key])
                rows.append(
                    {
                        "task": task,
                        "method": method(summary, name),
                        "arm": name,
                        "seed": key,
                        "status": arm["seeds"][key].get("status", "pending"),
                        "online steps": steps[-1] if steps.size else math.nan,
                        "reference": convention.source if convention else "",
                        "log return": log_return(arm),
                        **measures,
                        "level": level,
                        "steps to level": steps_to_reach(steps, returns, level),
                    }
                )
    _write(path, rows)


def write_comparisons(summary: Summary, path: Path) -> None:
    """A CSV row per pair of methods: how probably the first ends higher, with its interval. No file without pairs."""
    found = aggregate(summary)
    if found is not None:
        rows = [
            {"first": x, "second": y, "probability": p.value, "low": p.low, "high": p.high}
            for (x, y), p in found.pairs.items()
        ]
        _write(path, rows)


def markdown_report(summary: Summary, reach: float | None = None) -> str:
    """The tables of measures and that of the statistics, as Markdown."""
    return "\n".join(filter(None, [markdown_tables(summary, reach), statistics_markdown(summary)]))


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]) if rows else ["task"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if value != value else value for name, value in row.items()})
    write_atomically(path, file.getvalue())
