"""What reports show as tables, as cells: measures, statistics across seeds, and where recipes differ."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segue.report.aggregate import Aggregate, Method
from segue.report.measures import HANDOVER, LEVELS, Kind, Measure, arm_measures, steps_to_reach
from segue.report.statistics import FEW_SEEDS, Estimate, Interval, estimate, mean_curve
from segue.report.summary import Summary
from segue.report.text import ABSENT, decimals, number, range_text, setting

PLACES: dict[Kind, int] = {"score": 1, "regret": 2, "cost": 2}
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
    """The tables of one task: how good its arms are, and what the handover did to them."""

    task: str
    levels: Table
    handover: Table

    @property
    def tables(self) -> tuple[Table, ...]:
        """Those with something in them."""
        return tuple(table for table in (self.levels, self.handover) if table.columns)


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
    grouped = summary.tasks()
    extents = dict(zip(EXTENT, (_reached(summary), _started(summary)), strict=True))
    extra = {what: cells for what, cells in extents.items() if len({cell.value for cell in cells.values()}) > 1}
    same = {what: next(iter(cells.values())).value for what, cells in extents.items() if cells and what not in extra}
    alike = [f"{what} {value}" for what, value in same.items() if value != ABSENT]
    built = [_task(summary, task, names, reach, extra) for task, names in grouped.items()]
    shown = {column for measures in built for table in measures.tables for column in table.columns}
    notes = [", ".join(alike).capitalize() + (" for all arms." if len(summary.arms) > 1 else ".")] if alike else []
    notes += [*_stopped_notes(summary), *summary.notes]
    notes += [*_spread_notes(summary), *(m.about for m in (*LEVELS, *HANDOVER) if m.name in shown)]
    notes += [*_reach_notes(summary, grouped, reach), *_reference_notes(grouped, summary), *_dataset_notes(summary)]
    return Measures(tuple(built), few_seeds(summary), tuple(notes))


def mean_rows(summary: Summary) -> list[dict[str, Any]]:
    """Per arm its measures as numbers: the mean over its seeds, of steps the median; without columns of no numbers."""
    rows: list[dict[str, Any]] = []
    for task, names in summary.tasks().items():
        for arm in (summary.arms[name] for name in names):
            seeds = list(arm_measures(arm).values())
            row = {"task": task, "arm": arm.name, "status": arm.status, "seeds": len(arm.seeds)}
            rows.append({**row, **{m.name: _middle(m, [of[m.name] for of in seeds]) for m in (*LEVELS, *HANDOVER)}})
    empty = {m.name for m in (*LEVELS, *HANDOVER) if all(math.isnan(row[m.name]) for row in rows)}
    return [{name: value for name, value in row.items() if name not in empty} for row in rows]


def _middle(measure: Measure, seeds: Sequence[float]) -> float:
    known = [value for value in seeds if not math.isnan(value)]
    if measure.kind == "steps":
        return float(np.median(known)) if known else math.nan
    return estimate(known).mean


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


def reach_level(summary: Summary, names: Sequence[str], reach: float | None) -> float:
    """The return that these arms of one task are to reach: the one asked for, or the final one from scratch; NaN."""
    if reach is not None:
        return reach
    baseline = summary.scratch(names)
    if baseline is None:
        return math.nan
    return estimate([of["final"] for of in arm_measures(summary.arms[baseline]).values()]).mean


def _task(
    summary: Summary, task: str, names: Sequence[str], reach: float | None, extra: Mapping[str, Mapping[str, Cell]]
) -> TaskMeasures:
    arms = [summary.arms[name] for name in names]
    values = [list(arm_measures(arm).values()) for arm in arms]
    places = decimals(of["offline score"] if math.isnan(of["final"]) else of["final"] for v in values for of in v)

    def columns(measures: Sequence[Measure]) -> dict[str, list[Cell]]:
        found = {m.name: [[of[m.name] for of in seeds] for seeds in values] for m in measures}
        return {
            m.name: [_cell(m, seeds, places) for seeds in found[m.name]]
            for m in measures
            if any(not math.isnan(v) for seeds in found[m.name] for v in seeds)
        }

    levels, handover = columns(LEVELS), columns(HANDOVER)
    level = reach_level(summary, names, reach)
    if math.isfinite(level):
        means = [mean_curve(arm.curves()) for arm in arms]
        levels[f"steps to {number(level, places)}"] = [
            Cell(_steps(steps_to_reach(m.steps, m.mean, level))) for m in means
        ]
    for what, cells in extra.items():
        levels[what] = [cells[name] for name in names]

    def table(columns: Mapping[str, Sequence[Cell]]) -> Table:
        cells = zip(*columns.values(), strict=True) if columns else [()] * len(arms)
        rows = (Row(arm.name, arm.method, arm.status, tuple(of)) for arm, of in zip(arms, cells, strict=True))
        return Table(tuple(columns), tuple(rows))

    return TaskMeasures(task, table(levels), table(handover))


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
    """Per arm the online steps that its seeds have done."""
    cells = {}
    for name, arm in summary.arms.items():
        last = [seed.online_steps for seed in arm.seeds.values() if not math.isnan(seed.online_steps)]
        cells[name] = Cell(range_text(min(last), max(last), 0) if last else ABSENT)
    return cells


def _stopped_notes(summary: Summary) -> Iterator[str]:
    """How far the seeds came that did not finish, by the phase in which they stopped."""
    for name, arm in summary.arms.items():
        who = f"“{one_line(name)}”: " if len(summary.arms) > 1 else ""
        stopped = [seed.steps for seed in arm.seeds.values() if not seed.finished]
        online = [done for steps in stopped if (done := steps.get("online"))]
        offline = [done for steps in stopped if not steps.get("online") and (done := steps.get("offline"))]
        for phase, counts in (("offline", offline), ("online", online)):
            if counts:
                seeds = f"{len(counts)} seed{'s' * (len(counts) > 1)}"
                reached = f"{range_text(min(counts), max(counts), 0)} of {number(arm.recipe.get(f'{phase}_steps'))}"
                yield f"{who}{seeds} stopped after {reached} {phase} steps."


def _counts(summary: Summary) -> dict[str, int]:
    return {name: sum(bool(steps.size) for steps, _ in arm.curves()) for name, arm in summary.arms.items()}


def _started(summary: Summary) -> dict[str, Cell]:
    """Per arm how many of its seeds have results."""
    totals = {name: len(arm.seeds) for name, arm in summary.arms.items()}
    counts = {
        name: sum(seed.finished or bool(seed.online_curve[0].size) for seed in arm.seeds.values())
        for name, arm in summary.arms.items()
    }
    return {n: Cell(f"{counts[n]} of {total}" if counts[n] < total else f"{total}") for n, total in totals.items()}


def _spread_notes(summary: Summary) -> list[str]:
    most = max(_counts(summary).values(), default=0)
    if most >= FEW_SEEDS:
        return [f"Mean over seeds, with its 95 % Student-t interval from {FEW_SEEDS} seeds on."]
    return ["Mean over seeds, with the smallest and the largest seed."] if most > 1 else []


def _reach_notes(summary: Summary, grouped: Mapping[str, Sequence[str]], reach: float | None) -> list[str]:
    if reach is not None:
        return ["Steps to …: first evaluation of the mean curve at or above that return."]
    fresh = {name for names in grouped.values() if (name := summary.scratch(names)) is not None}
    called = " or ".join(f"“{one_line(m)}”" for m in dict.fromkeys(summary.arms[n].method for n in sorted(fresh)))
    return (
        [f"Steps to …: first evaluation of the mean curve at or above the final return of {called}."] if fresh else []
    )


def _reference_notes(grouped: Mapping[str, Sequence[str]], summary: Summary) -> list[str]:
    found: dict[str, list[str]] = {}
    missing = []
    for task, names in grouped.items():
        convention = summary.arms[names[0]].reference
        if convention is None and any(steps.size for name in names for steps, _ in summary.arms[name].curves()):
            missing.append(task)
        elif convention is not None:
            limits = f"0 is {convention.low:,.6g}, 100 is {convention.high:,.6g}".replace("-", "−")
            found.setdefault(convention.source, []).append(f"{task}: {limits}" if len(grouped) > 1 else limits)
    notes = [f"Reference of normalised scores: {source} ({'; '.join(of)})." for source, of in found.items()]
    if missing:
        notes.append(f"No reference returns, so no normalised score or regret, for {', '.join(missing)}.")
    return notes


def _dataset_notes(summary: Summary) -> list[str]:
    arms = summary.arms.values()
    if not any(arm.recipe.get("dataset") and math.isnan(arm.dataset_return) for arm in arms):
        return []
    return [
        "No stability and plasticity where the run's summary does not hold the dataset's mean return: the dataset has "
        "no rewards, or the summary is an older one."
    ]


# Across seeds and tasks


def statistics_table(found: Aggregate) -> tuple[list[str], list[tuple[Method, list[str]]]]:
    """Head, and per method its cells after the name."""
    known = [name for name in ("final", "area") if any(getattr(method, name) for method in found.methods)]
    scaled = {"final": f"IQM of final {found.unit}", "area": f"IQM of area, {found.unit}"}
    head = ["method", "runs", *(scaled[name] for name in known), f"P(improvement over {found.baseline})"]
    places = decimals(m.final.value for m in found.methods if m.final is not None)
    rows = []
    for method in found.methods:
        cells = [_interval(getattr(method, name), places) for name in known]
        rows.append((method, [str(method.runs), *cells, _interval(method.improvement, 2)]))
    return head, rows


def _interval(interval: Interval | None, places: int) -> str:
    if interval is None:
        return ABSENT
    return f"{number(interval.value, places)} [{range_text(interval.low, interval.high, places)}]"


def statistics_notes(found: Aggregate) -> list[str]:
    """How to read them."""
    over = f"{len(found.tasks)} tasks" if len(found.tasks) > 1 else f"one task, {found.tasks[0]}"
    return [
        f"Over {over}. Brackets and bars: 95 % intervals of a bootstrap that draws the seeds of each task again; they "
        "speak of other seeds, not of other tasks. IQM: mean of the middle half of all runs. P(improvement): how often "
        "a run ends higher than one of the baseline's on the same task.",
        *found.notes,
    ]


# Recipes

Field = tuple[str, ...]


def flatten(recipe: Mapping[str, Any]) -> dict[Field, str]:
    """A nested recipe as `path → value`, in order.

    A part with a name, such as `offline: {"name": "x", "alpha": 5}`, becomes `(offline,) → x` and
    `(offline, x, alpha) → 5`, so that hyper-parameters of different algorithms are never compared.
    """
    return {path: setting(value) for key, part in recipe.items() for path, value in _walk((key,), part)}


def _walk(path: Field, part: Any) -> Iterator[tuple[Field, Any]]:
    if isinstance(part, list | tuple) and part and all(isinstance(p, Mapping) and "name" in p for p in part):
        yield path, [p["name"] for p in part]
        for p in part:
            yield from _parameters((*path, str(p["name"])), p)
    elif isinstance(part, Mapping) and "name" in part:
        yield path, part["name"]
        yield from _parameters((*path, str(part["name"])), part)
    elif isinstance(part, Mapping) and part:
        for key, value in part.items():
            yield from _walk((*path, key), value)
    else:
        yield path, part


def _parameters(path: Field, part: Mapping[str, Any]) -> Iterator[tuple[Field, Any]]:
    for key, value in part.items():
        if key != "name":
            yield from _walk((*path, key), value)


def compare(
    recipes: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[Field, dict[str, str | None]], dict[Field, str]]:
    """`(differing, shared)`: field → arm → value (None where the arm has no such field), and field → value.

    A field is compared between the arms that have the part it belongs to: that one arm lacks an algorithm is one
    difference, not one for each of its hyper-parameters.
    """
    flat = {name: flatten(recipe) for name, recipe in recipes.items()}
    differing: dict[Field, dict[str, str | None]] = {}
    shared: dict[Field, str] = {}
    for field in dict.fromkeys(field for fields in flat.values() for field in fields):
        part = field[:-1]
        concerned = [fields for fields in flat.values() if not part or any(f[: len(part)] == part for f in fields)]
        values = {fields.get(field) for fields in concerned}
        if len(values) > 1:
            differing[field] = {name: fields.get(field) for name, fields in flat.items()}
        else:
            shared[field] = concerned[0][field]
    return differing, shared


# Markdown


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose first column names the rows."""
    lines = ["| " + " | ".join(map(escaped, head)) + " |", "| :-- |" + " --: |" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(map(escaped, row)) + " |" for row in rows)])


def escaped(text: str) -> str:
    """Plain text for Markdown: on one line, no markup, and no end of a cell."""
    return html.escape(one_line(text), quote=False).replace("|", r"\|")


def one_line(text: str) -> str:
    """The text without line breaks and repeated spaces."""
    return " ".join(text.split())


def labelled(arm: str, status: str) -> str:
    """The arm's name, with its status where that is not `complete`; always on one line."""
    return one_line(arm) if status == "complete" else f"{one_line(arm)} ({status})"
