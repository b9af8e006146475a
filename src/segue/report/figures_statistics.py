"""The picture of the statistics: interquartile means, probabilities of improvement, and performance profiles."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from segue.report.aggregate import Aggregate, Method
from segue.report.figures import LIGHT, Theme, frame, picture
from segue.report.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW, HEAD, FOOT, PROFILE = 0.3, 0.55, 0.65, 2.9
"""Inches per method, over and under the upper panels, and of the profiles."""
NAMES = 2.4
"""Inches for the methods' names on the left."""
WIDTH = 10.0


def statistics_picture(found: Aggregate, theme: Theme = LIGHT) -> bytes:
    """PNG bytes; panels whose numbers were refused or cannot be computed are not there."""
    return picture((WIDTH, _height(found)), theme, lambda figure: draw(figure, found, theme))


def draw(figure: Figure, found: Aggregate, theme: Theme) -> None:
    """Fill an empty figure of the right size."""
    tall = figure.get_size_inches()[1]
    rows = ROW * len(found.methods)
    bottom = (tall - HEAD - rows) / tall
    panels: list[tuple[str, str, list[Interval | None]]] = []
    if found.methods[0].final is not None:
        panels.append(("Interquartile mean", f"final {found.unit}", [m.final for m in found.methods]))
    panels.append(
        ("Probability of improvement", f"over {short_name(found.baseline)}", [m.improvement for m in found.methods])
    )
    gap = 0.35
    each = (WIDTH - NAMES - 0.3 - gap * (len(panels) - 1)) / len(panels)
    for i, (title, unit, intervals) in enumerate(panels):
        axes = figure.add_axes(((NAMES + i * (each + gap)) / WIDTH, bottom, each / WIDTH, rows / tall))
        frame(axes, theme, unit)
        _head(axes, title, theme)
        _dots(axes, found.methods, intervals, theme)
        if i == 0:
            _names(axes, found.methods, theme)
    improved = figure.axes[-1]
    improved.set_xlim(-0.03, 1.03)
    improved.axvline(0.5, color=theme.quiet, linewidth=1, linestyle=(0, (5, 4)), zorder=1.5)
    if found.methods[0].profile is not None:
        place = (0.75 / WIDTH, FOOT / tall, (WIDTH - 1.05) / WIDTH, (PROFILE - FOOT) / tall)
        _profiles(figure.add_axes(place), found, theme)


def short_name(name: str) -> str:
    """What of a method's name fits beside a panel."""
    return textwrap.shorten(" ".join(name.split()), 28, placeholder=" …")


def _height(found: Aggregate) -> float:
    extra = PROFILE + HEAD if found.methods[0].profile is not None else 0.0
    return HEAD + ROW * len(found.methods) + FOOT + extra


def _head(axes: Axes, title: str, theme: Theme) -> None:
    axes.annotate(
        title, (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points", color=theme.ink, weight="bold"
    )


def _dots(axes: Axes, methods: Sequence[Method], intervals: Sequence[Interval | None], theme: Theme) -> None:
    for row, (method, interval) in enumerate(zip(methods, intervals, strict=True)):
        colour = theme.arm(method.place)[0]
        if interval is None:
            box = {"facecolor": theme.paper, "edgecolor": "none", "pad": 1.5}
            axes.text(0.5, row, "baseline", color=theme.quiet, ha="center", va="center", fontsize=9, bbox=box)
            continue
        axes.plot(
            (interval.low, interval.high), (row, row), color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt"
        )
        axes.plot(interval.value, row, "o", color=colour, markersize=7, mec=theme.paper, mew=1)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_yticks([])
    axes.grid(axis="x", color=theme.rule, linewidth=0.8)
    axes.locator_params(axis="x", nbins=6)


def _names(axes: Axes, methods: Sequence[Method], theme: Theme) -> None:
    for row, method in enumerate(methods):
        axes.annotate(
            short_name(method.name),
            (0, row),
            (-8, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
            va="center",
            color=theme.arm(method.place)[0],
            annotation_clip=False,
        )


def _profiles(axes: Axes, found: Aggregate, theme: Theme) -> None:
    frame(axes, theme, f"final {found.unit} τ")
    _head(axes, "Performance profile: share of runs above τ", theme)
    for method in found.methods:
        profile = method.profile
        assert profile is not None
        colour, dash = theme.arm(method.place)
        axes.fill_between(profile.thresholds, profile.low, profile.high, color=colour, alpha=0.12, linewidth=0)
        axes.plot(profile.thresholds, profile.share, color=colour, linestyle=dash, linewidth=2.2)
    axes.set_ylim(0, 1.02)
    axes.set_yticks(np.linspace(0, 1, 5))
    low, high = found.methods[0].profile.thresholds[[0, -1]] if found.methods[0].profile else (0, 1)
    axes.set_xlim(low, high if high > low else low + 1)
