"""Many arms in small panels: curves that are to be held against each other share one, and a name has one colour."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from segue.report import decode
from segue.report.figures import LIGHT, frame, legend_columns, picture, seeds_and_mean
from segue.report.statistics import estimate
from segue.report.summary import Arm

Panel = tuple[str, Mapping[str, str]]
"""Its title, and the arm (as results.json calls it) behind every name of the legend."""


def panel(task: str, title: str, *arms: str) -> Panel:
    """Of one task, whose arms results.json calls by the task and the arm."""
    return title, {arm: f"{task}: {arm}" for arm in arms}


WIDTH, HEIGHT, HEAD, GAP, LINE = 3.6, 2.3, 0.55, 1.05, 0.18
"""Inches of a panel, over the panels, between two rows without their legends, and of a line of a legend."""
POINTS = 8.5
"""Size of the legends' font."""


def panels(summary: Mapping[str, Any], rows: Sequence[Sequence[Panel]]) -> bytes:
    """PNG bytes: return against live steps, a row of panels on one scale; the dot is the policy handed over.

    A panel has its legend below it. What has not run is left out.
    """
    arms = decode(summary).arms
    rows = [
        [(title, shown) for title, lines in row if (shown := {n: arm for n, arm in lines.items() if arm in arms})]
        for row in rows
    ]
    rows = [row for row in rows if row]
    columns = {title: min(2, legend_columns(list(lines), WIDTH - 0.2, POINTS)) for row in rows for title, lines in row}
    lines = max(math.ceil(len(names) / columns[title]) for row in rows for title, names in row)
    gap = GAP + LINE * lines
    size = (WIDTH * max(map(len, rows)) + 0.3, (HEIGHT + gap) * len(rows) + HEAD - 0.3)
    drawn = Image.open(io.BytesIO(picture(size, LIGHT, lambda figure: _draw(figure, arms, rows, columns, gap))))
    small = io.BytesIO()
    # Every redrawing stays in the history: 256 colours take a third of the bytes.
    drawn.convert("RGB").quantize(256).save(small, "png", optimize=True)
    return small.getvalue()


def _draw(
    figure: Any, arms: Mapping[str, Arm], rows: Sequence[Sequence[Panel]], columns: Mapping[str, int], gap: float
) -> None:
    wide, tall = figure.get_size_inches()
    places = _places(rows)
    edges = {"left": 0.65 / wide, "right": 1 - 0.15 / wide, "bottom": (gap - 0.3) / tall, "top": 1 - HEAD / tall}
    grid = figure.add_gridspec(len(rows), max(map(len, rows)), wspace=0.12, hspace=gap / HEIGHT, **edges)
    for i, row in enumerate(rows):
        first = None
        for j, (title, lines) in enumerate(row):
            axes = figure.add_subplot(grid[i, j], sharey=first)
            frame(axes, LIGHT, "live steps")
            axes.set_title(title, loc="left", fontsize=9, color=LIGHT.ink, weight="bold")
            axes.tick_params(axis="y", labelleft=first is None)
            first = first or axes
            for name, label in lines.items():
                colour, dash = LIGHT.arm(places[name])
                axes.plot([], [], color=colour, linestyle=dash, linewidth=2.4, label=name)
                arm = arms[label]
                seeds_and_mean(axes, arm.curves(), colour, dash, width=2.0)
                start = estimate([seed.offline_score for seed in arm.seeds.values()]).mean
                axes.plot(0, start, "o", color=LIGHT.quiet, markersize=6, mec=LIGHT.paper, clip_on=False, zorder=5)
            axes.set_xlim(left=0)
            axes.locator_params(axis="both", nbins=5)
            below = (-0.02, -0.24)
            axes.legend(
                ncols=columns[title],
                frameon=False,
                fontsize=POINTS,
                borderaxespad=0.0,
                loc="upper left",
                bbox_to_anchor=below,
            )
        assert first is not None
        low, _ = first.get_ylim()
        # Last, since it ends the scaling to what is drawn.
        first.set_ylim(bottom=low if _lowest(arms, row) < 0 else 0)
    figure.text(0.15 / wide, 1 - 0.2 / tall, "mean return per episode", color=LIGHT.quiet, va="center")


def _lowest(arms: Mapping[str, Arm], row: Sequence[Panel]) -> float:
    """The lowest evaluation of a row; 0 where nothing has run."""
    shown = [arms[label] for _, lines in row for label in lines.values()]
    return min((e.mean for arm in shown for seed in arm.seeds.values() for e in seed.online), default=0.0)


def _places(rows: Sequence[Sequence[Panel]]) -> dict[str, int]:
    """Place of each name in the palette: the same in all panels, and the first that no other name beside it has."""
    panels = [lines for row in rows for _, lines in row]
    places: dict[str, int] = {}
    for name in itertools.chain.from_iterable(panels):
        if name not in places:
            taken = {places.get(other) for lines in panels if name in lines for other in lines}
            places[name] = next(place for place in itertools.count() if place not in taken)
    return places
