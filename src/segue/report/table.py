"""The table of measures, once: as cells, as a terminal table and as Markdown."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segue.report.measures import (
    FEW_SEEDS,
    Curve,
    Estimate,
    arm_measures,
    mean_curve,
    online_curve,
    steps_to_reach,
)
from segue.report.runs import Summary, arm_status
from segue.report.text import ABSENT, decimals, number

if TYPE_CHECKING:
    from rich.table import Table


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
    """One arm of the table."""

    arm: str
    status: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Measures:
    """The table: `columns` name the cells of every row; `notes` say how to read them."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def measures_table(summary: Summary) -> Measures:
    """All arms' measures, formatted; returns share their number of decimals so that columns align."""
    arms: Mapping[str, Summary] = summary["arms"]
    estimates = {name: arm_measures(arm) for name, arm in arms.items()}
    curves = {name: [online_curve(seed) for seed in arm["seeds"].values()] for name, arm in arms.items()}
    places = decimals(e.mean for measures in estimates.values() for e in measures.values())
    columns = {
        measure: [_cell(measures[measure], places) for measures in estimates.values()]
        for measure in next(iter(estimates.values()), {})
    }
    baseline = _baseline(arms, estimates)
    if baseline is not None:
        level = estimates[baseline]["final"].mean
        means = [mean_curve(c) for c in curves.values()]
        reached = [Cell(number(steps_to_reach(m.steps, m.mean, level))) for m in means]
        columns[f"steps to {number(level, places)}"] = reached
    notes = _notes(estimates, baseline)
    alike = []
    for what, cells in (("online steps", _reached(curves)), ("seeds", _started(curves))):
        if len(set(cells)) == 1:
            alike.append(f"{what} {cells[0].value}")
        else:
            columns[what] = cells
    if alike:
        notes.insert(0, ", ".join(alike).capitalize() + (" for all arms." if len(arms) > 1 else "."))
    rows = zip(arms.items(), zip(*columns.values(), strict=True), strict=True)
    return Measures(
        columns=tuple(columns),
        rows=tuple(Row(name, arm_status(arm), cells) for (name, arm), cells in rows),
        notes=tuple(notes),
    )


def render_table(summary: Summary) -> Table:
    """The measures for a terminal; print it with `rich.print`."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    measures = measures_table(summary)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, min_width=64)
    table.caption, table.caption_justify = Text("\n".join(measures.notes)), "left"
    table.add_column("arm")
    for i, column in enumerate(measures.columns):
        # Numbers keep their width on a narrow terminal: the arms' names wrap instead.
        parts = [*column.split(), *(part for row in measures.rows for part in row.cells[i].parts)]
        table.add_column(column, justify="right", width=max(map(len, parts)))
    for row in measures.rows:
        # Text, not str: a name such as "[red]" is a name, not markup.
        cells = [Text("\n".join(cell.parts)) for cell in row.cells]
        table.add_row(Text(labelled(row.arm, row.status)), *cells)
    return table


def markdown_table(summary: Summary) -> str:
    """The measures as a Markdown table, the notes below it."""
    measures = measures_table(summary)
    lines = ["| arm | " + " | ".join(measures.columns) + " |", "| :-- |" + " --: |" * len(measures.columns)]
    for row in measures.rows:
        name = html.escape(labelled(row.arm, row.status), quote=False)
        cells = [f"{c.value} ({c.spread})" if c.spread else c.value for c in row.cells]
        lines.append(f"| {name.replace('|', chr(92) + '|')} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"{note}  " for note in measures.notes)]) + "\n"


def labelled(arm: str, status: str) -> str:
    """The arm's name, with its status where that is not `complete`; always on one line."""
    name = " ".join(arm.split())
    return name if status == "complete" else f"{name} ({status})"


def _baseline(arms: Mapping[str, Summary], estimates: Mapping[str, dict[str, Estimate]]) -> str | None:
    """The first arm without pretraining that has results, where there are others to hold against it."""
    fresh = (n for n, arm in arms.items() if not (arm.get("recipe") or {}).get("offline"))
    return next((n for n in fresh if len(arms) > 1 and estimates[n]["final"].seeds), None)


def _reached(curves: Mapping[str, list[Curve]]) -> list[Cell]:
    """Per arm the last evaluated online step of its seeds."""
    last = [[float(steps[-1]) for steps, _ in seeds if steps.size] for seeds in curves.values()]
    return [Cell(_range(min(steps), max(steps), 0) if steps else ABSENT) for steps in last]


def _started(curves: Mapping[str, list[Curve]]) -> list[Cell]:
    """Per arm how many of its seeds have results."""
    counts = [(sum(bool(steps.size) for steps, _ in seeds), len(seeds)) for seeds in curves.values()]
    return [Cell(f"{started} of {total}" if started < total else f"{total}") for started, total in counts]


def _cell(e: Estimate, places: int) -> Cell:
    if e.seeds < 2:
        return Cell(number(e.mean, places))
    interval = f"95 % interval (Student's t, {e.seeds} seeds): {_range(e.low, e.high, places)}"
    value, spread = number(e.mean, places), _range(*e.spread, places)
    return Cell(value, "" if spread == value else spread, interval)


def _range(low: float, high: float, places: int) -> str:
    first, last = number(low, places), number(high, places)
    if first == last:
        return first
    return f"{first} to {last}" if low < 0 else f"{first}–{last}"


def _notes(estimates: dict[str, dict[str, Estimate]], baseline: str | None) -> list[str]:
    seeds = [e.seeds for measures in estimates.values() for e in measures.values() if e.seeds]
    few, most = min(seeds, default=0), max(seeds, default=0)
    notes = []
    if most >= FEW_SEEDS:
        notes.append(f"Mean over seeds, with its 95 % Student-t interval from {FEW_SEEDS} seeds on.")
    elif most > 1:
        notes.append("Mean over seeds, with the smallest and the largest seed.")
    if 0 < few < FEW_SEEDS:
        count = "One seed" if most == 1 else "Few seeds"
        notes.append(f"{count}: differences may be chance. {FEW_SEEDS} or more say more.")
    notes.append(
        "Final: last evaluation. Best: highest. Area: mean return over the online steps. "
        "Dip: deepest fall below the offline score, not corrected for evaluation noise."
    )
    if baseline:
        name = " ".join(baseline.split())
        notes.append(
            f"Steps to …: first evaluation of the mean curve at or above the final return of “{name}”; {ABSENT}: never."
        )
    return notes
