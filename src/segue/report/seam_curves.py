"""The picture of the seam: a column per arm, a panel per question, one line through all of them at the switch."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from segue.report.drawing import picture, plain
from segue.report.fall import fall
from segue.report.seam import SeamArm
from segue.report.seam_axes import PanelAxes, Place, draw_panel
from segue.report.seam_panels import Panel, panels_of, questions
from segue.report.text import decimals, number
from segue.report.theme import LIGHT, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
"""Arms side by side; more of them go into further pictures."""
WIDTHS = {1: 8.4, 2: 4.9, 3: 3.5}
"""Of a column's panels, in inches, by how many columns there are."""
GUTTER, FOOT, TOP, RIGHT = 0.66, 0.62, 0.36, 0.2
"""Left of each column; under, over and right of the whole, in inches."""
TITLE, LEGEND = 0.34, 0.19
"""Over each panel, in inches."""
ALIKE = 20.0
"""Columns share the scale of a panel unless their ranges differ by more than this factor."""


def seam_pictures(arms: Sequence[SeamArm], theme: Theme = LIGHT) -> list[bytes]:
    """PNG bytes, COLUMNS arms a picture."""
    return [seam_picture(arms[i : i + COLUMNS], theme) for i in range(0, len(arms), COLUMNS)]


def seam_picture(arms: Sequence[SeamArm], theme: Theme = LIGHT) -> bytes:
    """One picture of up to COLUMNS arms, as PNG bytes."""
    return picture(size(arms), theme, lambda figure: draw(figure, arms, theme))


def size(arms: Sequence[SeamArm]) -> tuple[float, float]:
    """Of the figure, in inches."""
    tallest = max(_height(questions(arms)) + _height(panels_of(arm)) for arm in arms)
    return len(arms) * (GUTTER + WIDTHS[len(arms)]) + RIGHT, TOP + tallest + FOOT


def draw(figure: Figure, arms: Sequence[SeamArm], theme: Theme) -> None:
    """Fill an empty figure of the right size."""
    width, height = size(arms)
    rows: dict[str, list[Axes]] = {}
    for i, arm in enumerate(arms):
        left, top = GUTTER + i * (GUTTER + WIDTHS[len(arms)]), height - TOP
        drawn: list[PanelAxes] = []
        for panel in [*questions(arms), *panels_of(arm)]:
            top -= _height([panel])
            place = Place(left / width, top / height, WIDTHS[len(arms)] / width, panel.height / height)
            if not panel.shown(arm):
                words = f"{panel.title}: not recorded in this arm"
                figure.text(place.left, place.bottom + place.height / 2, words, color=theme.quiet, fontsize=9)
                continue
            drawn.append(draw_panel(figure, place, arm, panel, theme))
            rows.setdefault(panel.title, []).append(drawn[-1].online)
        _name(figure, arm, left / width, 1 - 0.3 / height, theme)
        _column(drawn, arm, theme)
    for axes in rows.values():
        _same_scale(axes)


def _name(figure: Figure, arm: SeamArm, left: float, bottom: float, theme: Theme) -> None:
    name = textwrap.shorten(" ".join(arm.name.split()), 34, placeholder=" …")
    colour = theme.arm(arm.place)[0]
    title = figure.text(left, bottom, name, color=colour, fontsize=13, weight="bold", va="bottom")
    words = ["" if arm.status == "complete" else arm.status, "" if arm.pretrained else "no offline phase"]
    beside = (1.0, 0.0)
    figure.axes[-1].annotate(
        ", ".join(filter(None, words)),
        beside,
        (8, 0),
        xycoords=title,
        textcoords="offset points",
        va="bottom",
        color=theme.quiet,
        annotation_clip=False,
    )


def _column(drawn: Sequence[PanelAxes], arm: SeamArm, theme: Theme) -> None:
    """What belongs to the whole column: the seam's name, the fall, the events, the steps under the last panel."""
    first = drawn[0].online
    _mark_fall(first, arm, theme)
    if arm.pretrained:
        first.annotate(
            "seam",
            (0, 0),
            (4, 4),
            xycoords="axes fraction",
            textcoords="offset points",
            color=theme.ink,
            weight="bold",
            fontsize=9,
            zorder=7,
        )
    for i, axes in enumerate(drawn):
        _mark_events(axes.online, arm, theme, arrows=i == 0)
    for one, label in zip(drawn[-1].both[::-1], ("online environment steps", "offline updates"), strict=False):
        one.tick_params(axis="x", labelbottom=True, length=3, labelsize=9)
        one.set_xlabel(label, color=theme.ink, labelpad=5, fontsize=9.5)


def _mark_fall(axes: Axes, arm: SeamArm, theme: Theme) -> None:
    """An arrow from the level at the switch to the lowest mean return, where the fall matters."""
    found = fall(arm)
    if found is None or not found.matters:
        return
    arrow = {"arrowstyle": "-|>,head_width=0.2,head_length=0.4", "color": theme.ink, "linewidth": 1.1, "shrinkA": 0}
    axes.annotate("", (found.step, found.after), (found.step, found.before), arrowprops=arrow, zorder=6)
    drop = number(found.after - found.before, decimals([found.before, found.after]))
    left = found.step > 0.6 * arm.window
    axes.annotate(
        f"{drop} at step {number(found.step)}",
        (found.step, (found.before + found.after) / 2),
        (-6 if left else 6, 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="center",
        color=theme.ink,
        fontsize=9,
        weight="bold",
        zorder=7,
        bbox={"facecolor": theme.paper, "edgecolor": "none", "alpha": 0.8, "pad": 1.2},
    )


def _mark_events(axes: Axes, arm: SeamArm, theme: Theme, arrows: bool) -> None:
    """A dotted line at each event of each seed, on request with an arrow-head at its top."""
    for event in arm.events:
        if event.step <= arm.window:
            axes.axvline(event.step, color=theme.ink, linewidth=0.9, linestyle=(0, (1, 1.5)), zorder=1.6)
            if arrows:
                place = axes.get_xaxis_transform()
                axes.plot(event.step, 0.96, transform=place, marker="v", markersize=6, color=theme.ink, zorder=6)


def _same_scale(axes: Sequence[Axes]) -> None:
    """One range for all columns of a panel, unless one of them would be flattened by it."""
    limits = np.array([a.get_ylim() for a in axes])
    logarithmic = axes[0].get_yscale() == "log"
    spans = limits[:, 1] - limits[:, 0]
    if logarithmic or spans.max() <= ALIKE * spans.min():
        for one in axes:
            one.set_ylim(limits[:, 0].min(), limits[:, 1].max())
    if logarithmic:
        _logarithmic_ticks(axes)


def _logarithmic_ticks(axes: Sequence[Axes]) -> None:
    """At most four: powers of ten, or round numbers where the range is too short for them."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    for one in axes:
        low, high = one.get_ylim()
        wide = LogLocator(numticks=4) if high > 100 * low else LogLocator(subs=(1, 3), numticks=8)
        one.yaxis.set_major_locator(wide if high > 8 * low else MaxNLocator(3))
        one.yaxis.set_minor_locator(NullLocator())
        one.yaxis.set_major_formatter(lambda y, _: plain(y) if y >= 1e-3 else f"{y:.0e}".replace("-", "−"))


def _height(panels: Sequence[Panel]) -> float:
    return sum(panel.height + TITLE + LEGEND * panel.legend for panel in panels)
