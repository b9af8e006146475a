"""The tables of measures, once: as cells, for a terminal and as Markdown."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segue.report.evaluations import online_curve
from segue.report.measures import LEVELS, SWITCH, Kind, Measure, arm_seeds, log_return, steps_to_reach
from segue.report.references import reference
from segue.report.runs import Summary, arm_status
from segue.report.seeds import FEW_SEEDS, Estimate, estimate, mean_curve
from segue.report.tasks import environment, method, scratch, tasks
from segue.report.text import ABSENT, decimals, number

if TYPE_CHECKING:
    from rich.console import Group

PLACES: dict[Kind, int] = {"score": 1, "regret": 2}
"""Decimals of what is on a scale of its own."""
EXTENT = ("online steps", "seeds")
"""Columns that say how much there is of an arm; they are there only where arms differ in it."""


@dataclass(frozen=True)
class Cell:
    """A value, the spread over seeds that goes with it, and the interval a page can show on hovering."""

    value: str
    spread: str = ""
    interval: str = ""

    @property
    def parts(self) -> tuple[str, ...]:
        """The value and, if there is one, the spread."""
        return (self.value, self.spread) if self.spread else (self.value,)


@dataclass(frozen=True)
class Row:
    """One arm of a table, and what it is called there."""

    arm: str
    label: str
    status: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """`columns` name the cells of every row; without columns there is nothing to show."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class TaskMeasures:
    """The tables of one task: how good its arms are, and what the switch did to them."""

    task: str
    levels: Table
    switch: Table

    @property
    def tables(self) -> tuple[Table, ...]:
        """Those with something in them."""
        return tuple(table for table in (self.levels, self.switch) if table.columns)


@dataclass(frozen=True)
class Measures:
    """Every task's tables; `warning` says if there are too few seeds, `notes` say how to read the numbers."""

    tasks: tuple[TaskMeasures, ...]
    warning: str
    notes: tuple[str, ...]


def measures_tables(summary: Summary, reach: float | None = None) -> Measures:
    """All arms' measures, formatted; the returns of a task share their number of decimals so that columns align.

    Args:
        summary: one run's, or a merged one.
        reach: the return to count the steps to; by default the final one of each task's arm from scratch.
    """
    grouped = tasks(summary)
    reached, started = _reached(summary), _started(summary)
    extra = {
        what: cells
        for what, cells in zip(EXTENT, (reached, started), strict=True)
        if len({cell.value for cell in cells.values()}) > 1
    }
    alike = [
        f"{what} {next(iter(cells.values())).value}"
        for what, cells in zip(EXTENT, (reached, started), strict=True)
        if cells and what not in extra
    ]
    built = [_task(summary, task, names, reach, extra) for task, names in grouped.items()]
    shown = {column for measures in built for table in measures.tables for column in table.columns}
    notes = [", ".join(alike).capitalize() + (" for all arms." if len(summary["arms"]) > 1 else ".")] if alike else []
    notes += [*_spread_notes(summary), *(m.about for m in (*LEVELS, *SWITCH) if m.name in shown)]
    notes += [*_reach_notes(summary, grouped, reach), *_reference_notes(grouped, summary), *_log_notes(summary)]
    return Measures(tuple(built), few_seeds(summary), tuple(notes))


def few_seeds(summary: Summary) -> str:
    """The warning that a table of few seeds needs; nothing where every arm has enough, or none has begun."""
    counts = [count for count in _counts(summary).values() if count]
    if not counts or min(counts) >= FEW_SEEDS:
        return ""
    what = "One seed" if max(counts) == 1 else f"Few seeds ({min(counts)})"
    return (
        f"{what}: differences may be chance, and ranges and intervals are too narrow. {FEW_SEEDS} or more seeds say "
        "more, 10 are the field's custom."
    )


def render_tables(summary: Summary, reach: float | None = None) -> Group:
    """The measures for a terminal; print it with `rich.print`."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as Rich
    from rich.text import Text

    measures = measures_tables(summary, reach)
    parts: list[Rich | Text] = []
    for task in measures.tasks:
        if len(measures.tasks) > 1:
            parts.append(Text(task.task, style="bold"))
        for table in task.tables:
            shown = Rich(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, min_width=64)
            shown.add_column("arm")
            # A narrow terminal has no room for how much there is of an arm but under its name.
            numbers = [i for i, column in enumerate(table.columns) if column not in EXTENT]
            for i in numbers:
                column = table.columns[i]
                # Numbers keep their width on a narrow terminal: the arms' names wrap instead.
                texts = [*column.split(), *(part for row in table.rows for part in row.cells[i].parts)]
                shown.add_column(column, justify="right", width=max(map(len, texts)))
            for row in table.rows:
                # Text, not str: a name such as "[red]" is a name, not markup.
                extent = [f"{c} {row.cells[i].value}" for i, c in enumerate(table.columns) if i not in numbers]
                name = "\n".join([labelled(row.label, row.status), *extent])
                shown.add_row(Text(name), *(Text("\n".join(row.cells[i].parts)) for i in numbers))
            parts.append(shown)
    if measures.warning:
        parts.append(Text(measures.warning, style="bold"))
    return Group(*parts, Text("\n".join(measures.notes), style="dim"))


def markdown_tables(summary: Summary, reach: float | None = None) -> str:
    """The measures as Markdown tables, warning and notes below them."""
    measures = measures_tables(summary, reach)
    blocks = []
    for task in measures.tasks:
        if len(measures.tasks) > 1:
            blocks.append(f"**{escaped(task.task)}**")
        for table in task.tables:
            rows = [
                [
                    labelled(row.label, row.status),
                    *(f"{c.value} ({c.spread})" if c.spread else c.value for c in row.cells),
                ]
                for row in table.rows
            ]
            blocks.append(markdown(("arm", *table.columns), rows))
    if measures.warning:
        blocks.append(f"**{measures.warning}**")
    return "\n\n".join([*blocks, "  \n".join(escaped(note) for note in measures.notes)]) + "\n"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose first column names the rows."""
    lines = ["| " + " | ".join(map(escaped, head)) + " |", "| :-- |" + " --: |" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(map(escaped, row)) + " |" for row in rows)])


def escaped(text: str) -> str:
    """Plain text for Markdown: on one line, no markup, and no end of a cell."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", r"\|")


def labelled(arm: str, status: str) -> str:
    """The arm's name, with its status where that is not `complete`; always on one line."""
    name = " ".join(arm.split())
    return name if status == "complete" else f"{name} ({status})"


def range_text(low: float, high: float, places: int) -> str:
    """`1,900–2,100`, or one number if both read alike."""
    first, last = number(low, places), number(high, places)
    if first == last:
        return first
    return f"{first} to {last}" if low < 0 else f"{first}–{last}"


def reach_level(summary: Summary, names: Sequence[str], reach: float | None) -> float:
    """The return that these arms of one task are to reach: the one asked for, or the final one from scratch; NaN."""
    if reach is not None:
        return reach
    baseline = scratch(summary, names)
    if baseline is None:
        return math.nan
    return estimate([of["final"] for of in arm_seeds(summary["arms"][baseline]).values()]).mean


def _task(
    summary: Summary, task: str, names: Sequence[str], reach: float | None, extra: Mapping[str, Mapping[str, Cell]]
) -> TaskMeasures:
    arms: dict[str, Summary] = {name: summary["arms"][name] for name in names}
    values = {name: arm_seeds(arm) for name, arm in arms.items()}
    places = decimals(
        of["offline score"] if math.isnan(of["final"]) else of["final"] for v in values.values() for of in v.values()
    )
    tables = []
    for measures in (LEVELS, SWITCH):
        columns: dict[str, list[Cell]] = {}
        for measure in measures:
            found = [[of[measure.name] for of in seeds.values()] for seeds in values.values()]
            if any(not math.isnan(v) for seeds in found for v in seeds):
                columns[measure.name] = [_cell(measure, seeds, places) for seeds in found]
        tables.append(columns)
    levels, switch = tables
    level = reach_level(summary, names, reach)
    if math.isfinite(level):
        means = [mean_curve([online_curve(seed) for seed in arm["seeds"].values()]) for arm in arms.values()]
        levels[f"steps to {number(level, places)}"] = [
            Cell(_steps(steps_to_reach(m.steps, m.mean, level))) for m in means
        ]
    for what, cells in extra.items():
        levels[what] = [cells[name] for name in names]
    return TaskMeasures(task, *(_table(summary, arms, columns) for columns in (levels, switch)))


def _table(summary: Summary, arms: Mapping[str, Summary], columns: Mapping[str, Sequence[Cell]]) -> Table:
    cells = zip(*columns.values(), strict=True) if columns else [()] * len(arms)
    rows = zip(arms.items(), cells, strict=True)
    return Table(
        tuple(columns),
        tuple(Row(name, method(summary, name), arm_status(arm), tuple(of)) for (name, arm), of in rows),
    )


def _cell(measure: Measure, seeds: Sequence[float], places: int) -> Cell:
    if measure.kind == "steps":
        return _times(seeds)
    e = estimate(seeds)
    if measure.kind == "share":
        return _mean(_percent(e), 0, " %" if e.seeds else "")
    return _mean(e, PLACES.get(measure.kind, places), "")


def _percent(e: Estimate) -> Estimate:
    """Of a share, whose interval cannot leave [0, 1]."""
    low, high = np.clip((e.low, e.high), 0, 1)
    return Estimate(100 * e.mean, 100 * low, 100 * high, 100 * e.smallest, 100 * e.largest, e.seeds)


def _mean(e: Estimate, places: int, unit: str) -> Cell:
    if e.seeds < 2:
        return Cell(number(e.mean, places) + unit)
    interval = f"95 % interval (Student's t, {e.seeds} seeds): {range_text(e.low, e.high, places)}{unit}"
    value, spread = number(e.mean, places), range_text(*e.spread, places)
    return Cell(value + unit, "" if spread == value else spread + unit, interval)


def _times(seeds: Sequence[float]) -> Cell:
    """The median, in which a seed that never got there counts as later than all others."""
    times = np.sort([t for t in seeds if not math.isnan(t)])
    if not times.size:
        return Cell(ABSENT)
    middle = times[[(times.size - 1) // 2, times.size // 2]]
    median = float(middle[1]) if np.isinf(middle[1]) else float(middle.mean())
    never = int(np.isinf(times).sum())
    if 0 < never < times.size:
        return Cell(_steps(median), f"{never} of {times.size} never")
    spread = range_text(float(times[0]), float(times[-1]), 0) if not never and times[0] < times[-1] else ""
    return Cell(_steps(median), spread)


def _steps(steps: float) -> str:
    return "never" if math.isinf(steps) else number(steps)


def _reached(summary: Summary) -> dict[str, Cell]:
    """Per arm the last evaluated online step of its seeds."""
    cells = {}
    for name, arm in summary["arms"].items():
        curves = [online_curve(seed)[0] for seed in arm["seeds"].values()]
        last = [float(steps[-1]) for steps in curves if steps.size]
        cells[name] = Cell(range_text(min(last), max(last), 0) if last else ABSENT)
    return cells


def _counts(summary: Summary) -> dict[str, int]:
    return {
        name: sum(bool(online_curve(seed)[0].size) for seed in arm["seeds"].values())
        for name, arm in summary["arms"].items()
    }


def _started(summary: Summary) -> dict[str, Cell]:
    """Per arm how many of its seeds have results."""
    cells = {}
    for name, count in _counts(summary).items():
        total = len(summary["arms"][name]["seeds"])
        cells[name] = Cell(f"{count} of {total}" if count < total else f"{total}")
    return cells


def _spread_notes(summary: Summary) -> list[str]:
    most = max(_counts(summary).values(), default=0)
    if most >= FEW_SEEDS:
        return [f"Mean over seeds, with its 95 % Student-t interval from {FEW_SEEDS} seeds on."]
    return ["Mean over seeds, with the smallest and the largest seed."] if most > 1 else []


def _reach_notes(summary: Summary, grouped: Mapping[str, Sequence[str]], reach: float | None) -> list[str]:
    if reach is not None:
        return ["Steps to …: first evaluation of the mean curve at or above that return."]
    names = {baseline for names in grouped.values() if (baseline := scratch(summary, names)) is not None}
    called = " or ".join(
        f"“{' '.join(name.split())}”" for name in dict.fromkeys(method(summary, n) for n in sorted(names))
    )
    return (
        [f"Steps to …: first evaluation of the mean curve at or above the final return of {called}."] if names else []
    )


def _reference_notes(grouped: Mapping[str, Sequence[str]], summary: Summary) -> list[str]:
    found: dict[str, list[str]] = {}
    missing = []
    for task, names in grouped.items():
        convention = reference(environment(summary["arms"][names[0]]))
        if convention is None:
            missing.append(task)
        else:
            limits = f"0 is {convention.low:,.6g}, 100 is {convention.high:,.6g}".replace("-", "−")
            found.setdefault(convention.source, []).append(f"{task}: {limits}" if len(grouped) > 1 else limits)
    notes = [f"Reference of normalised scores: {source} ({'; '.join(of)})." for source, of in found.items()]
    if missing:
        notes.append(f"No reference returns, so no normalised score or regret, for {', '.join(missing)}.")
    return notes


def _log_notes(summary: Summary) -> list[str]:
    lacking = [
        a for a in summary["arms"].values() if (a.get("recipe") or {}).get("dataset") and math.isnan(log_return(a))
    ]
    if not lacking:
        return []
    return [
        "No stability and plasticity where the run's summary does not hold the log's mean return, as older ones do not."
    ]
