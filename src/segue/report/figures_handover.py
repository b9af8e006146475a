"""The picture of the handover: a column per arm, a panel per question, one line through all of them at the handover."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from segue.report.figures import LIGHT, Theme, frame, handover_line, legend_columns, picture, plain, seeds_and_mean
from segue.report.handover import HandoverArm, lowest_point
from segue.report.statistics import mean_curve
from segue.report.text import decimals, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    from segue.describe import Panel

COLUMNS = 3
"""Arms side by side; more of them go into further pictures."""
WIDTHS = {1: 8.4, 2: 4.9, 3: 3.7}
"""Of a column's panels, in inches, by how many columns there are."""
GUTTER, FOOT, TOP, RIGHT = 0.66, 0.62, 0.36, 0.2
"""Left of each column; under, over and right of the whole, in inches."""
TITLE, LEGEND = 0.34, 0.19
"""Over each panel, and of each row of its legend, in inches."""
ALIKE = 20.0
"""Columns share the scale of a panel unless their ranges differ by more than this factor."""
OFFLINE = 0.24
"""Share of a panel that the offline phase takes."""
LEVEL = (0, (5, 4))
"""Dashes of a level."""
SMALL = 8.5
"""Points of units and legends."""


@dataclass(frozen=True)
class Question:
    """One row of the picture: quantities and what the legend calls them.

    The first line takes the arm's colour, the second is the reference beside it.
    """

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    gap: tuple[str, str] | None = None
    """What the area between the two lines is called where the first lies above, and where it lies below."""
    returns: bool = False
    """Whether it shows returns: the offline score is its level, training returns are dots, events are explained."""
    height: float = 0.95
    """In inches."""

    def shown(self, arm: HandoverArm) -> bool:
        """Whether the arm has anything to draw here."""
        return any(arm.tracks[quantity] for quantity, _ in self.lines if quantity in arm.tracks)

    def panel(self, arm: HandoverArm) -> Panel | None:
        """What a part of the arm says of it, where it is a part's own."""
        return next((panel for panel in arm.panels if panel.metric == self.lines[0][0]), None)

    def level(self, arm: HandoverArm) -> tuple[float, str] | None:
        """The level to compare this arm with, and its name."""
        panel = self.panel(arm)
        if self.returns and np.isfinite(arm.offline_score):
            return arm.offline_score, "offline score"
        limit = arm.recipe.get("cost_limit")
        if self.lines[0][0] == "cost" and limit is not None:
            return float(limit), "limit"
        return None if panel is None or panel.threshold is None else (panel.threshold, panel.threshold_name)


QUESTIONS = (
    Question(
        "Return",
        "mean per episode",
        (("return", "evaluations"), ("training_return", "training")),
        returns=True,
        height=2.1,
    ),
    Question("Cost", "mean per episode", (("cost", "evaluations"),), height=1.2),
    Question(
        "Critic against reality",
        "discounted return from the start",
        (("value_at_start", "critic's estimate"), ("return_from_start", "what followed")),
        gap=("over-estimated", "under-estimated"),
        height=1.5,
    ),
    Question(
        "Q on the dataset's states",
        "",
        (("q_of_policy_actions", "policy's actions"), ("q_of_dataset_actions", "dataset's actions")),
        height=1.2,
    ),
    Question("Critic's preference", "Q(policy's) − Q(dataset's)", (("preference", ""),)),
    Question("Distance to the dataset", "of actions: RMS, or share", (("distance_to_dataset", ""),)),
)
"""What every arm with a probe can answer."""


def questions(arms: Sequence[HandoverArm], arm: HandoverArm) -> list[Question]:
    """The rows of one arm's column: what any of the arms answers, then what its own parts ask for."""
    common = [question for question in QUESTIONS if any(question.shown(one) for one in arms)]
    return common + [Question(panel.title, panel.label, panel.lines) for panel in arm.panels]


def handover_pictures(arms: Sequence[HandoverArm], theme: Theme = LIGHT) -> list[bytes]:
    """PNG bytes, up to COLUMNS arms a picture, about as many in each."""
    each = -(-len(arms) // -(-len(arms) // COLUMNS))
    groups = [arms[i : i + each] for i in range(0, len(arms), each)]
    return [picture(size(group), theme, partial(draw, arms=group, theme=theme)) for group in groups]


def size(arms: Sequence[HandoverArm]) -> tuple[float, float]:
    """Of the figure of up to COLUMNS arms, in inches."""
    tallest = max(sum(_height(arms, question) for question in questions(arms, arm)) for arm in arms)
    return len(arms) * (GUTTER + WIDTHS[len(arms)]) + RIGHT, TOP + tallest + FOOT


def draw(figure: Figure, arms: Sequence[HandoverArm], theme: Theme) -> None:
    """Fill an empty figure of the right size."""
    width, height = size(arms)
    wide = WIDTHS[len(arms)]
    rows: dict[str, list[Axes]] = {}
    for i, arm in enumerate(arms):
        left, top = GUTTER + i * (GUTTER + wide), height - TOP
        drawn: list[list[Axes]] = []
        for question in questions(arms, arm):
            top -= _height(arms, question)
            place = (left / width, top / height, wide / width, question.height / height)
            if not question.shown(arm):
                absent = f"{question.title}: not recorded in this arm"
                middle = place[1] + place[3] / 2
                figure.text(place[0], middle, absent, color=theme.quiet, fontsize=9)
                continue
            drawn.append(_panel(figure, place, arms, arm, question, theme))
            rows.setdefault(question.title, []).append(drawn[-1][-1])
        name = textwrap.shorten(" ".join(arm.name.split()), int(9.5 * wide), placeholder=" …")
        words = ["" if arm.status == "complete" else arm.status, "" if arm.pretrained else "no offline phase"]
        title = figure.text(
            left / width, 1 - 0.3 / height, name, color=theme.arm(arm.place)[0], fontsize=13, weight="bold", va="bottom"
        )
        _note(drawn[-1][-1], ", ".join(filter(None, words)), (1, 0), (8, 0), theme.quiet, xycoords=title)
        _column(drawn, arm, theme)
    for axes in rows.values():
        _same_scale(axes)


def _height(arms: Sequence[HandoverArm], question: Question) -> float:
    """Of a row with its title and its legend, which is as tall as the arm needs that has most to explain."""
    return question.height + TITLE + LEGEND * _legend_rows(arms, question)


def _legend_rows(arms: Sequence[HandoverArm], question: Question) -> int:
    names = [[str(h.get_label()) for h in _handles(arm, question, LIGHT)] for arm in arms if question.shown(arm)]
    return max((-(-len(of) // legend_columns(of, WIDTHS[len(arms)])) for of in names if of), default=0)


def _panel(
    figure: Figure,
    place: tuple[float, float, float, float],
    arms: Sequence[HandoverArm],
    arm: HandoverArm,
    question: Question,
    theme: Theme,
) -> list[Axes]:
    """Filled axes at this place: of the offline phase, if there was one, and of the online phase touching them."""
    left, bottom, width, height = place
    split = OFFLINE * width if arm.pretrained else 0.0
    online = figure.add_axes((left + split, bottom, width - split, height))
    frame(online, theme, "")
    online.set_xlim(0, arm.window)
    both = [online]
    if arm.pretrained:
        offline = figure.add_axes((left, bottom, split, height), sharey=online)
        frame(offline, theme, "")
        longest = max((s[-1] for s, _ in arm.tracks["return"].offline if s.size), default=0.0)
        offline.set_xlim(0, longest or 1)
        offline.locator_params(axis="x", nbins=3)
        # The last label would run into the first of the online phase.
        offline.set_xticks([t for t in offline.get_xticks() if 0 <= t <= 0.7 * longest])
        online.set_zorder(offline.get_zorder() + 1)
        online.tick_params(axis="y", labelleft=False)
        handover_line(online, theme)
        _lines(offline, arm, question, "offline", theme)
        both = [offline, online]
    _lines(online, arm, question, "online", theme)
    level, panel = question.level(arm), question.panel(arm)
    if level is not None:
        online.axhline(level[0], color=theme.quiet, linewidth=1, linestyle=LEVEL, zorder=1.5)
    online.margins(y=0.09)
    if panel is not None and panel.limits is not None:
        online.set_ylim(panel.limits[0], panel.limits[1] * 1.04)  # a line at the limit is drawn whole
    for one in both:
        one.tick_params(axis="x", labelbottom=False, length=0)
        one.tick_params(axis="y", labelsize=9)
        one.grid(axis="x", color=theme.rule, linewidth=0.5)
        if panel is not None and panel.logarithmic:
            one.set_yscale("log")
        else:
            one.locator_params(axis="y", nbins=5 if question.height > 1.2 else 3)
    _head(both[0], arms, arm, question, theme)
    return both


def _lines(axes: Axes, arm: HandoverArm, question: Question, phase: str, theme: Theme) -> None:
    colour, dash = theme.arm(arm.place)
    for i, (quantity, _) in enumerate(question.lines):
        curves = getattr(arm.tracks[quantity], phase)
        if i and question.returns:
            for steps, values in curves:
                axes.plot(steps, values, ".", color=theme.quiet, markersize=4, alpha=0.6, mec="none", zorder=1.8)
        elif i == 0:
            seeds_and_mean(axes, curves, colour, dash, width=2.0)
        else:
            seeds_and_mean(axes, curves, theme.ink, "dashed", width=1.5)
    steps, first, second = _gap(arm, question, phase)
    for where, shade in ((first >= second, theme.alert), (first < second, theme.quiet)):
        axes.fill_between(
            steps, first, second, where=where, interpolate=True, color=shade, alpha=0.2, linewidth=0, zorder=1.2
        )


def _gap(arm: HandoverArm, question: Question, phase: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps and the means of the two lines between which the panel shades; empty if it does not."""
    if question.gap is not None:
        first, second = (mean_curve(getattr(arm.tracks[quantity], phase)) for quantity, _ in question.lines)
        if np.array_equal(first.steps, second.steps):
            return first.steps, first.mean, second.mean
    return np.empty(0), np.empty(0), np.empty(0)


def _head(axes: Axes, arms: Sequence[HandoverArm], arm: HandoverArm, question: Question, theme: Theme) -> None:
    """Over the panel its title and unit, and under them what the lines are."""
    handles = _handles(arm, question, theme)
    up = 4 + LEGEND * 72 * _legend_rows(arms, question)
    title = _note(axes, question.title, (0, 1), (0, up), theme.ink, weight="bold")
    _note(axes, question.unit, (1, 0), (6, 0), theme.quiet, xycoords=title, fontsize=SMALL)
    if handles:
        names = [str(handle.get_label()) for handle in handles]
        axes.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(-0.01, 0.99),
            ncols=legend_columns(names, WIDTHS[len(arms)]),
            frameon=False,
            fontsize=SMALL,
            labelcolor=theme.quiet,
            borderaxespad=0.25,
            borderpad=0,
            handlelength=1.6,
            columnspacing=1.2,
            handletextpad=0.5,
            labelspacing=0.25,
        )


def _handles(arm: HandoverArm, question: Question, theme: Theme) -> list[Line2D | Patch]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    colour, dash = theme.arm(arm.place)
    looks: list[dict[str, Any]] = [
        {"color": colour, "linestyle": dash, "linewidth": 2},
        {"linestyle": "none", "marker": ".", "markersize": 6, "color": theme.quiet}
        if question.returns
        else {"color": theme.ink, "linestyle": "dashed", "linewidth": 1.5},
    ]
    handles: list[Line2D | Patch] = [
        Line2D([], [], label=name, **look)
        for (quantity, name), look in zip(question.lines, looks, strict=False)
        if name and arm.tracks[quantity]
    ]
    level = question.level(arm)
    if level is not None:
        handles.append(Line2D([], [], color=theme.quiet, linestyle=LEVEL, linewidth=1, label=level[1]))
    gaps = [_gap(arm, question, phase) for phase in ("offline", "online")]
    # Named only where it can be seen: by more than a tenth.
    difference = np.concatenate([first - second for _, first, second in gaps])
    difference[np.abs(difference) < 0.1 * np.concatenate([np.maximum(abs(a), abs(b)) for _, a, b in gaps])] = 0
    above, below = question.gap or ("", "")
    if (difference > 0).any():
        handles.append(Patch(facecolor=theme.alert, alpha=0.3, label=above))
    if (difference < 0).any():
        handles.append(Patch(facecolor=theme.quiet, alpha=0.3, label=below))
    if question.returns and any(event.step <= arm.window for event in arm.events):
        who = ", ".join(dict.fromkeys(event.message.split(":")[0][:16] for event in arm.events))
        handles.append(Line2D([], [], linestyle="none", marker="v", markersize=5, color=theme.ink, label=who))
    return handles


def _column(drawn: Sequence[Sequence[Axes]], arm: HandoverArm, theme: Theme) -> None:
    """What belongs to the whole column: the handover's name, the lowest point, events, steps under the last panel."""
    first = drawn[0][-1]
    _mark_lowest(first, arm, theme)
    if arm.pretrained:
        _note(first, "handover", (0, 0), (4, 4), theme.ink, weight="bold", fontsize=9, zorder=7)
    for i, both in enumerate(drawn):
        for step in (event.step for event in arm.events if event.step <= arm.window):
            both[-1].axvline(step, color=theme.ink, linewidth=0.9, linestyle=(0, (1, 1.5)), zorder=1.6)
            if i == 0:
                top = both[-1].get_xaxis_transform()
                both[-1].plot(step, 0.96, transform=top, marker="v", markersize=6, color=theme.ink, zorder=6)
    for one, label in zip(drawn[-1][::-1], ("online environment steps", "offline updates"), strict=False):
        one.tick_params(axis="x", labelbottom=True, length=3, labelsize=9)
        one.set_xlabel(label, color=theme.ink, labelpad=5, fontsize=9.5)


def _mark_lowest(axes: Axes, arm: HandoverArm, theme: Theme) -> None:
    """An arrow from the level at the handover to the lowest mean return, where the fall matters."""
    found = lowest_point(arm)
    if found is None or not found.matters:
        return
    arrow = {"arrowstyle": "-|>,head_width=0.2,head_length=0.4", "color": theme.ink, "linewidth": 1.1, "shrinkA": 0}
    axes.annotate("", (found.step, found.after), (found.step, found.before), arrowprops=arrow, zorder=6)
    left = found.step > 0.35 * arm.window  # where three columns leave more room for the words
    # The level, not the difference: the fall without the luck of being the lowest is the dip in the table.
    axes.annotate(
        f"lowest {number(found.after, decimals([found.before, found.after]))}, step {number(found.step)}",
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


def _note(axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], colour: str, **more: Any) -> Any:
    """Text at a corner of the axes or of another text."""
    kind: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom", **more}
    return axes.annotate(text, at, offset, color=colour, annotation_clip=False, **kind)


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
