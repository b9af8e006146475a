"""Many arms in small panels: curves that are to be held against each other share one, and a colour means one thing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from segue.report import decode
from segue.report.figures import LIGHT, frame, legend_columns, picture, seeds_and_mean
from segue.report.statistics import estimate

Panel = tuple[str, Mapping[str, str]]
"""Its title, and the arm (as results.json calls it) behind every name of the legend."""

WIDTH, HEIGHT, HEAD, FOOT, LINE = 3.4, 2.3, 0.55, 0.4, 0.2
"""Inches of a panel, over the panels and under them, and of a line of the legend there."""


def panels(summary: Mapping[str, Any], rows: Sequence[Sequence[Panel]]) -> bytes:
    """PNG bytes: return against live steps, a row of panels on one scale; the dot is the policy handed over."""
    names = list(dict.fromkeys(name for row in rows for _, lines in row for name in lines))
    wide = WIDTH * max(map(len, rows)) + 0.3
    columns = legend_columns(names, wide, points=10)
    foot = FOOT + LINE * math.ceil(len(names) / columns)
    size = (wide, HEIGHT * len(rows) + HEAD + foot)
    return picture(size, LIGHT, lambda figure: _draw(figure, summary, rows, names, columns, foot))


def _draw(
    figure: Any,
    summary: Mapping[str, Any],
    rows: Sequence[Sequence[Panel]],
    names: Sequence[str],
    columns: int,
    foot: float,
) -> None:
    from matplotlib.lines import Line2D

    wide, tall = figure.get_size_inches()
    looks = {name: LIGHT.arm(place) for place, name in enumerate(names)}
    arms = decode(summary).arms
    edges = {"left": 0.65 / wide, "right": 1 - 0.15 / wide, "bottom": (foot + 0.5) / tall, "top": 1 - HEAD / tall}
    grid = figure.add_gridspec(len(rows), max(map(len, rows)), wspace=0.12, hspace=0.55, **edges)
    for i, row in enumerate(rows):
        first = None
        for j, (title, lines) in enumerate(row):
            axes = figure.add_subplot(grid[i, j], sharey=first)
            frame(axes, LIGHT, "live steps" if i == len(rows) - 1 else "")
            axes.set_title(title, loc="left", fontsize=10, color=LIGHT.ink, weight="bold")
            axes.tick_params(axis="y", labelleft=first is None)
            first = first or axes
            for name, label in lines.items():
                if label not in arms:  # not run yet
                    continue
                arm = arms[label]
                colour, dash = looks[name]
                seeds_and_mean(axes, arm.curves(), colour, dash, width=2.0)
                start = estimate([seed.offline_score for seed in arm.seeds.values()]).mean
                axes.plot(0, start, "o", color=LIGHT.quiet, markersize=6, mec=LIGHT.paper, clip_on=False, zorder=5)
            axes.set_xlim(left=0)
            axes.locator_params(axis="both", nbins=5)
        assert first is not None
        first.set_ylim(bottom=0)  # last, since it ends the scaling to what is drawn
    figure.text(0.15 / wide, 1 - 0.2 / tall, "mean return per episode", color=LIGHT.quiet, va="center")
    handles = [Line2D([], [], color=c, linestyle=d, linewidth=2.4, label=name) for name, (c, d) in looks.items()]
    figure.legend(handles=handles, loc="lower center", ncols=columns, frameon=False)
