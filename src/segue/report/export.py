"""Reports as files beside the page and on a terminal: every number as CSV, the tables as Markdown and for a console."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segue.files import write_atomically
from segue.report.aggregate import Aggregate, why_there_are_none
from segue.report.conclusion import conclusion
from segue.report.measures import arm_measures, steps_to_reach
from segue.report.summary import Summary
from segue.report.tables import (
    EXTENT,
    Table,
    escaped,
    labelled,
    markdown,
    measures_tables,
    reach_level,
    statistics_notes,
    statistics_table,
)

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table as Rich


#: Of `curves.csv`, before those of costs.
CURVE_COLUMNS = ["arm", "seed", "step", "mean_return", "episode_returns"]


def write_measures(summary: Summary, path: Path, reach: float | None = None) -> None:
    """A CSV row per task, method and seed, in full precision: empty where there is no number, `inf` for never."""
    rows: list[dict[str, object]] = []
    for task, names in summary.tasks().items():
        level = reach_level(summary, names, reach)
        for arm in (summary.arms[name] for name in names):
            convention = arm.reference
            for key, measures in arm_measures(arm).items():
                steps, returns = arm.seeds[key].online_curve
                about: dict[str, object] = {"task": task, "method": arm.method, "arm": arm.name, "seed": key}
                about |= {"status": arm.seeds[key].status, "online steps": arm.seeds[key].online_steps}
                about |= {"reference": convention.source if convention else "", "log return": arm.dataset_return}
                reached = {"level": level, "steps to level": steps_to_reach(steps, returns, level)}
                rows.append({**about, **measures, **reached})
    _write(path, list(rows[0]) if rows else ["task"], rows)


def write_comparisons(found: Aggregate, path: Path) -> None:
    """A CSV row per pair of methods: how probably the first ends higher, with its interval."""
    rows: list[dict[str, object]] = [
        {"first": x, "second": y, "probability": p.value, "low": p.low, "high": p.high}
        for (x, y), p in found.pairs.items()
    ]
    _write(path, ["first", "second", "probability", "low", "high"], rows)


def write_curves(summary: Summary, path: Path) -> None:
    """A CSV row per evaluation: `arm, seed, step, mean_return, episode_returns`, and `mean_cost, episode_costs` where
    costs were recorded; docs/measures.md describes them.

    The online evaluations, from the handover at step 0; of an arm that ends with its offline phase that phase's.
    """
    rows: list[dict[str, object]] = [
        {
            name: " ".join(map(repr, value)) if isinstance(value, list) else value
            for name, value in {**row, "step": f"{row['step']:.0f}"}.items()
        }
        for row in curve_rows(summary)
    ]
    _write(path, list(rows[0]) if rows else CURVE_COLUMNS, rows)


def curve_rows(summary: Summary) -> list[dict[str, Any]]:
    """The rows of `write_curves`, as numbers."""
    found = [
        (arm.name, int(key), evaluation)
        for arm in summary.arms.values()
        for key, seed in arm.seeds.items()
        for evaluation in (seed.offline if arm.offline_only else seed.from_handover)
    ]
    rows: list[dict[str, Any]] = [
        dict(zip(CURVE_COLUMNS, (name, seed, int(e.step), e.mean, e.returns.tolist()), strict=True))
        for name, seed, e in found
    ]
    if any(e.costs.size for _, _, e in found):
        for row, (_, _, e) in zip(rows, found, strict=True):
            row |= {"mean_cost": e.mean_cost, "episode_costs": e.costs.tolist()}
    return rows


def _write(path: Path, columns: list[str], rows: list[dict[str, object]]) -> None:
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if value != value else value for name, value in row.items()})
    write_atomically(path, file.getvalue())


def markdown_report(summary: Summary, found: Aggregate | None, reach: float | None = None) -> str:
    """The conclusion, the tables of measures and that of the statistics, as Markdown."""
    measures = measures_tables(summary, reach)
    blocks = [" ".join(map(escaped, conclusion(summary, found)))]
    for task in measures.tasks:
        blocks += [f"**{escaped(task.task)}**"] * (len(measures.tasks) > 1)
        for table in task.tables:
            rows = [
                [
                    labelled(row.label, row.status),
                    *(f"{c.value} ({c.spread})" if c.spread else c.value for c in row.cells),
                ]
                for row in table.rows
            ]
            blocks.append(markdown(("arm", *table.columns), rows))
    blocks += [f"**{measures.warning}**"] * bool(measures.warning)
    blocks.append("  \n".join(map(escaped, measures.notes)))
    if found is None:
        blocks.append(escaped(why_there_are_none(summary)))
    else:
        head, methods = statistics_table(found)
        blocks.append(markdown(head, [[method.name, *cells] for method, cells in methods]))
        blocks.append("  \n".join(map(escaped, statistics_notes(found))))
    return "\n\n".join(filter(None, blocks)) + "\n"


@dataclass(frozen=True)
class TerminalReport:
    """The conclusion and the measures for a terminal; print it with rich. Tables are split where they do not fit."""

    summary: Summary
    found: Aggregate | None
    reach: float | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        measures = measures_tables(self.summary, self.reach)
        for said in conclusion(self.summary, self.found):
            yield Text(said)
        yield Text("")
        for task in measures.tasks:
            if len(measures.tasks) > 1:
                yield Text(task.task, style="bold")
            for table in task.tables:
                yield from _split(table, options.max_width)
        if measures.warning:
            yield Text(measures.warning, style="bold")
        yield Text("\n".join(measures.notes), style="dim")


def _split(table: Table, width: int) -> Iterator[Rich]:
    """As many tables as needed for every name and number to be whole, each with the arms' names on its left."""
    # A terminal has no room for how much there is of an arm but under its name.
    extent = [i for i, column in enumerate(table.columns) if column in EXTENT]
    names = [
        "\n".join([labelled(row.label, row.status), *(f"{table.columns[i]} {row.cells[i].value}" for i in extent)])
        for row in table.rows
    ]
    numbers = [i for i in range(len(table.columns)) if i not in extent]
    needed = sum(2 + _width(table, i) for i in numbers)
    # A name wraps between words before the numbers are split.
    whole = max((len(line) for name in names for line in name.split("\n")), default=3)
    longest = max((len(word) for name in names for word in name.split()), default=3)
    room = width - 2  # without the edges
    wide = whole if whole + needed <= room else min(max(longest, room - needed), whole, width // 2)
    room -= wide
    parts = -(-needed // room)
    columns: list[int] = []
    used = 0
    for i in numbers:
        if columns and (used + 2 + _width(table, i) > room or used >= needed / parts):
            yield _rich(table, names, wide, columns)
            columns, used = [], 0
        columns.append(i)
        used += 2 + _width(table, i)
    yield _rich(table, names, wide, columns)


def _width(table: Table, column: int) -> int:
    texts = [*table.columns[column].split(), *(part for row in table.rows for part in row.cells[column].parts)]
    return max(map(len, texts))


def _rich(table: Table, names: list[str], wide: int, columns: list[int]) -> Rich:
    from rich import box
    from rich.table import Table as Rich
    from rich.text import Text

    shown = Rich(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    shown.add_column("arm", width=wide, overflow="fold")
    for i in columns:
        shown.add_column(table.columns[i], justify="right", width=_width(table, i))
    for name, row in zip(names, table.rows, strict=True):
        # Text, not str: a name such as "[red]" is a name, not markup.
        shown.add_row(Text(name, overflow="fold"), *(Text("\n".join(row.cells[i].parts)) for i in columns))
    return shown
