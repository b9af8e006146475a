"""The learning curves: return against online environment steps, left of it the offline phase; a panel per task.

Where every arm ends with its offline phase, the picture shows that phase instead: returns, losses, values, actions.
"""

from __future__ import annotations

import math
import textwrap
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segue.report.figures import (
    LIGHT,
    Dash,
    Label,
    Theme,
    drawn,
    frame,
    handover_line,
    height,
    legend_columns,
    picture,
    place_labels,
    plain,
    seeds_and_mean,
)
from segue.report.statistics import estimate, mean_curve
from segue.report.summary import Curve, Summary
from segue.report.text import decimals, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec

CROWD = 5
"""With more arms than this in a panel, single seeds and offline scores' levels would hide the means."""
COLUMN = {2: 5.0, 3: 4.2}
"""Width of a panel in inches, by how many there are side by side where there are several tasks."""


@dataclass(frozen=True)
class Lines:
    """One arm as it is drawn: a curve per seed for each phase, NaN where there is no offline score."""

    name: str
    status: str
    colour: str
    dash: Dash
    offline_only: bool
    pretrained_by: str
    offline: tuple[Curve, ...]
    online: tuple[Curve, ...]
    offline_score: float


def learning_curves(summary: Summary, theme: Theme = LIGHT) -> bytes:
    """The learning curves as PNG bytes, a panel per task.

    One line per arm: the mean over seeds, dotted on where not every seed got that far. The band is their spread, and
    thin lines are the seeds. A dashed level marks the offline score, a dot where an arm starts.
    """
    size, draw_on = _canvas(summary, theme)
    return picture(size, theme, draw_on)


def learning_curves_figure(summary: Summary, theme: Theme = LIGHT) -> Figure:
    """The same as a Matplotlib figure, which a notebook shows."""
    size, draw_on = _canvas(summary, theme)
    return drawn(size, theme, draw_on)


def _canvas(summary: Summary, theme: Theme) -> tuple[tuple[float, float], Callable[[Figure], None]]:
    """Size in inches, and what draws on it."""
    if offline_only(summary):
        return offline_size(summary), lambda figure: draw_offline(figure, summary, theme)
    panels = {task: arm_lines(summary, names, theme) for task, names in summary.tasks().items()}
    if len(panels) > 1:
        columns = _columns(len(panels))
        legend = 0.25 * legend_rows(panels, columns * COLUMN[columns])
        tall = 0.7 + legend + 3.15 * math.ceil(len(panels) / columns)
        return (columns * COLUMN[columns], tall), lambda figure: draw_tasks(figure, panels, theme)
    arms = next(iter(panels.values()), [])
    tall = max(5.0, 1.2 + sum(height(_named(arm)) for arm in arms))
    return (10, tall), lambda figure: draw(figure, arms, theme)


def offline_only(summary: Summary) -> bool:
    """Whether the picture is that of the offline phase: one task, of which no arm goes on online."""
    return len(summary.tasks()) == 1 and all(arm.offline_only for arm in summary.arms.values())


def crowded(summary: Summary) -> bool:
    """Whether the picture leaves out single seeds and levels."""
    return max(map(len, summary.tasks().values()), default=0) > CROWD


def shared_pretraining(summary: Summary) -> bool:
    """Whether the picture has grey curves, of pretraining that several arms of a task share."""
    for names in summary.tasks().values():
        arms = [_key([seed.offline_curve for seed in summary.arms[name].seeds.values()]) for name in names]
        if any(arms.count(arm) > 1 and any(steps for steps, _ in arm) for arm in arms):
            return True
    return False


def arm_lines(summary: Summary, names: Sequence[str], theme: Theme = LIGHT) -> list[Lines]:
    """What is drawn of each of these arms."""
    place, lines = summary.places(), []
    for name in names:
        arm = summary.arms[name]
        seeds = arm.seeds.values()
        colour, dash = theme.arm(place[name])
        lines.append(
            Lines(
                name=" ".join(arm.method.split()),
                status=arm.status,
                colour=colour,
                dash=dash,
                offline_only=arm.offline_only,
                pretrained_by=str((arm.recipe.get("offline") or {}).get("name", "")),
                offline=tuple(seed.offline_curve for seed in seeds),
                online=tuple(arm.curves()),
                offline_score=estimate([seed.offline_score for seed in seeds]).mean,
            )
        )
    return lines


def draw(figure: Figure, arms: Sequence[Lines], theme: Theme) -> None:
    """One task on an empty figure: its panel, and every arm's name level with the end of its line."""
    low, high = 0.65 / figure.get_size_inches()[1], 1 - 0.55 / figure.get_size_inches()[1]
    place = figure.add_gridspec(1, 1, left=0.075, right=0.78, bottom=low, top=high)[0]
    online = _panel(figure, place, arms, theme)
    figure.text(0.025, 1 - 0.35 / figure.get_size_inches()[1], "mean return per episode", color=theme.quiet)
    place_labels(online, _labels(online, arms, theme))


def draw_tasks(figure: Figure, panels: Mapping[str, Sequence[Lines]], theme: Theme) -> None:
    """Several tasks on an empty figure: a panel each, and one legend for all."""

    columns, (wide, tall) = _columns(len(panels)), figure.get_size_inches()
    foot = (0.9 + 0.25 * legend_rows(panels, wide)) / tall
    edges = {"left": 0.75 / wide, "right": 1 - 0.25 / wide, "bottom": foot, "top": 1 - 0.85 / tall}
    grid = figure.add_gridspec(math.ceil(len(panels) / columns), columns, wspace=0.2, hspace=0.62, **edges)
    for i, (task, arms) in enumerate(panels.items()):
        place = grid[i]
        online = _panel(figure, place, arms, theme)
        box = place.get_position(figure)
        figure.text(box.x0, box.y1 + 0.24 / tall, task, color=theme.ink, weight="bold", va="bottom")
        online.locator_params(axis="y", nbins=5)
    figure.text(0.25 / wide, 1 - 0.22 / tall, "mean return per episode", color=theme.quiet, va="center")
    _legend(figure, [arm for arms in panels.values() for arm in arms])


def legend_rows(panels: Mapping[str, Sequence[Lines]], wide: float) -> int:
    """Rows of the legend that all panels share."""
    names = list(dict.fromkeys(_short(arm.name) for arms in panels.values() for arm in arms))
    return math.ceil(len(names) / legend_columns(names, wide - 0.5, 10, 5.2)) if names else 0


def _legend(figure: Figure, arms: Sequence[Lines]) -> None:
    """One legend at the foot, in as many columns as fit side by side."""
    from matplotlib.lines import Line2D

    looks = {_short(arm.name): arm for arm in arms}
    handles = [Line2D([], [], color=a.colour, linestyle=a.dash, linewidth=2.4, label=name) for name, a in looks.items()]
    columns = legend_columns(list(looks), figure.get_size_inches()[0] - 0.5, 10, 5.2)
    legend = figure.legend(handles=handles, loc="lower center", ncols=columns, frameon=False, handlelength=2.2)
    for text, arm in zip(legend.get_texts(), looks.values(), strict=True):
        text.set_color(arm.colour)


def _short(name: str) -> str:
    return textwrap.shorten(name, 60, placeholder=" …")


def _panel(figure: Figure, place: SubplotSpec, arms: Sequence[Lines], theme: Theme) -> Axes:
    """The online axes of a task, those of the offline phase touching them on the left; alone if no arm goes on."""
    if arms and all(arm.offline_only for arm in arms):
        axes = figure.add_subplot(place)
        frame(axes, theme, "offline updates")
        for arm in arms:
            seeds_and_mean(axes, arm.offline, arm.colour, arm.dash, crowded=len(arms) > CROWD)
        return axes
    pretrained = any(steps.size for arm in arms for steps, _ in arm.offline)
    # The axes touch: where they meet is the handover.
    grid = place.subgridspec(1, 2 if pretrained else 1, width_ratios=(1, 2.9) if pretrained else None, wspace=0.0)
    online = figure.add_subplot(grid[-1])
    frame(online, theme, "online environment steps")
    _online(online, arms, theme)
    if pretrained:
        first = figure.add_subplot(grid[0], sharey=online)
        frame(first, theme, "offline updates")
        _offline(first, arms, theme)
        # What sits on the handover, such as the dots, belongs to the online panel and lies on top.
        online.set_zorder(first.get_zorder() + 1)
        online.tick_params(axis="y", labelleft=False)
        handover_line(online, theme, named=True)
    return online


def _online(axes: Axes, arms: Sequence[Lines], theme: Theme) -> None:
    few = len(arms) <= CROWD
    for arm in arms:
        seeds_and_mean(axes, arm.online, arm.colour, arm.dash, crowded=not few)
    for level, sharing in _groups((arm.offline_score, arm) for arm in arms if np.isfinite(arm.offline_score)):
        colour = sharing[0].colour if len(sharing) == 1 else theme.quiet
        if few:
            axes.axhline(level, color=colour, linewidth=1, linestyle=(0, (5, 4)), alpha=0.8, zorder=1.5)
        axes.plot(0, level, "o", color=colour, markersize=8, mec=theme.paper, mew=1.5, clip_on=False, zorder=5)
    reached = max((s[-1] for arm in arms for s, _ in arm.online if s.size), default=0.0)
    axes.set_xlim(0, reached or 1)
    if not any(s.size for arm in arms for s, _ in arm.online):
        axes.set_xticks([])
        axes.text(0.5, 0.5, "no online evaluations yet", transform=axes.transAxes, ha="center", color=theme.quiet)


def _offline(axes: Axes, arms: Sequence[Lines], theme: Theme) -> None:
    few = len(arms) <= CROWD
    identical = ((_key(arm.offline), arm) for arm in arms)
    notes = []
    for _, sharing in _groups(identical):
        arm = sharing[0]
        # Arms with one and the same pretraining would hide each other: it is drawn once, in grey.
        common = len(sharing) > 1
        colour, dash = (theme.quiet, "solid") if common else (arm.colour, arm.dash)
        seeds_and_mean(axes, arm.offline, colour, dash, crowded=not few)
        if common and any(s.size for s, _ in arm.offline):
            notes.append(f"{arm.pretrained_by}, shared by\n{len(sharing)} arms")
    if notes and few:
        _in_a_free_corner(axes, "\n".join(notes), arms, theme)
    longest = max((s[-1] for arm in arms for s, _ in arm.offline if s.size), default=0.0)
    axes.set_xlim(0, longest or 1)
    axes.locator_params(axis="x", nbins=3)
    # The last label of this panel would run into the first of the next.
    axes.set_xticks([t for t in axes.get_xticks() if 0 <= t <= 0.7 * longest])


def _in_a_free_corner(axes: Axes, text: str, arms: Sequence[Lines], theme: Theme) -> None:
    """At the bottom, or at the top if the curves end nearer to the bottom."""
    low, high = axes.get_ylim()
    ends = [returns[steps.size // 2 :].mean() for arm in arms for steps, returns in arm.offline if steps.size]
    top = np.mean(ends) < (low + high) / 2
    place: dict[str, Any] = {"y": 0.97 if top else 0.04, "va": "top" if top else "bottom", "ha": "right"}
    box = {"facecolor": theme.paper, "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
    axes.text(0.93, s=text, transform=axes.transAxes, color=theme.quiet, fontsize=9, zorder=6, bbox=box, **place)


def _columns(panels: int) -> int:
    return 2 if panels in (2, 4) else 3


def _named(arm: Lines) -> str:
    text = "\n".join(textwrap.wrap(arm.name, 20, max_lines=2, placeholder=" …"))
    return text if arm.status == "complete" else f"{text}\n({arm.status})"


def _labels(axes: Axes, arms: Sequence[Lines], theme: Theme) -> list[Label]:
    final = decimals(v for arm in arms for _, returns in arm.online for v in returns)
    labels = []
    for arm in arms:
        mean = mean_curve(arm.online)
        text = _named(arm)
        if not mean.steps.size:
            labels.append(Label(f"{text}\nno evaluations", arm.colour, end=None))
            continue
        # A line that ends on fewer seeds does not end on the final return of the table.
        if mean.seeds[-1] == mean.seeds.max():
            text += f"  {number(mean.mean[-1], final)}"
        labels.append(Label(text, arm.colour, end=(mean.steps[-1], mean.mean[-1])))
    scores = {arm.offline_score for arm in arms if np.isfinite(arm.offline_score)}
    if len(scores) == 1 and len(arms) <= CROWD:
        level = scores.pop()
        text = f"offline score  {number(level, final)}"
        labels.append(Label(text, theme.quiet, end=(axes.get_xlim()[1], level)))
    return labels


def _groups(pairs: Iterable[tuple[Hashable, Lines]]) -> list[tuple[Any, list[Lines]]]:
    groups: dict[Any, list[Lines]] = defaultdict(list)
    for key, arm in pairs:
        groups[key].append(arm)
    return list(groups.items())


def _key(curves: Sequence[Curve]) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]:
    """Equal for equal curves."""
    return tuple((tuple(steps.tolist()), tuple(values.tolist())) for steps, values in curves)


# An offline phase alone

WIDE, TALL, ACROSS = 3.3, 2.35, 3
"""Inches of a panel, and panels side by side."""
DIMENSIONS = 6
"""Action dimensions that are drawn."""


def offline_panels(summary: Summary) -> list[tuple[str, str, Mapping[str, str]]]:
    """`(title, unit, metric → name in the legend)` of what was recorded: returns first, then losses and values."""
    recorded = {
        name
        for arm in summary.arms.values()
        for seed in arm.seeds.values()
        for name, (steps, _) in seed.metrics.get("offline", {}).items()
        if steps.size
    }
    evaluated = any(seed.offline for arm in summary.arms.values() for seed in arm.seeds.values())
    panels: list[tuple[str, str, Mapping[str, str]]] = [("Return", "mean per episode", {"return": ""})] * evaluated
    losses = sorted(name for name in recorded if name.endswith("_loss"))
    panels += [(_words(name), "", {name: ""}) for name in losses]
    pairs = [
        (
            "Q on the dataset's states",
            "",
            {"q_of_policy_actions": "policy's actions", "q_of_dataset_actions": "dataset's"},
        ),
        ("Critic against reality", "", {"value_at_start": "estimate", "return_from_start": "what followed"}),
        ("Distance to the dataset", "of actions", {"distance_to_dataset": ""}),
        ("Held-out agreement", "of Q with returns-to-go", {"held_out_agreement": ""}),
    ]
    if "q_of_dataset_actions" not in recorded:
        pairs[0] = ("Q of the batch", "", {"q_data": ""})
    return panels + [panel for panel in pairs if recorded & set(panel[2])]


def _words(metric: str) -> str:
    """Words for a metric; two letters are an abbreviation."""
    first, *rest = metric.split("_")
    return " ".join([first.upper() if len(first) == 2 else first.capitalize(), *rest])


def offline_size(summary: Summary) -> tuple[float, float]:
    """Of the figure, in inches."""
    rows = math.ceil((len(offline_panels(summary)) + _histograms(summary)) / ACROSS)
    return ACROSS * WIDE + 0.3, max(rows, 1) * TALL + 0.75


def draw_offline(figure: Figure, summary: Summary, theme: Theme) -> None:
    """Fill an empty figure: a panel per quantity, and one per action dimension with the dataset in grey."""
    wide, tall = figure.get_size_inches()
    panels, places = offline_panels(summary), summary.places()
    arms = [(arm, *theme.arm(places[name])) for name, arm in summary.arms.items()]
    count = len(panels) + _histograms(summary)
    if not count:
        figure.text(0.5, 0.5, "nothing recorded yet", color=theme.quiet, ha="center")
    edges = {"left": 0.65 / wide, "right": 1 - 0.2 / wide, "bottom": 0.95 / tall, "top": 1 - 0.4 / tall}
    grid = figure.add_gridspec(max(math.ceil(count / ACROSS), 1), ACROSS, wspace=0.28, hspace=0.75, **edges)
    for i, (title, unit, lines) in enumerate(panels):
        axes = figure.add_subplot(grid[i])
        frame(axes, theme, "offline updates")
        _title(axes, title, unit, theme)
        for j, (metric, name) in enumerate(lines.items()):
            for arm, colour, dash in arms:
                seeds = arm.seeds.values()
                curves = [s.offline_curve if metric == "return" else s.metric("offline", metric) for s in seeds]
                style = dash if not j else "dotted"
                seeds_and_mean(axes, curves, colour, style, width=2.0 if not j else 1.4, crowded=len(arms) > CROWD)
            if name:
                axes.plot([], [], color=theme.quiet, linestyle="dotted" if j else "solid", label=name)
        if any(lines.values()):
            axes.legend(fontsize=8, frameon=False, labelcolor=theme.quiet)
        axes.locator_params(axis="both", nbins=4)
    for dimension in range(_histograms(summary)):
        _actions(figure.add_subplot(grid[len(panels) + dimension]), summary, dimension, theme)
    if len(arms) > 1:
        _legend(figure, arm_lines(summary, list(summary.arms), theme))


def _histograms(summary: Summary) -> int:
    """How many action dimensions there are to draw."""
    found = [s.actions for arm in summary.arms.values() for s in arm.seeds.values() if s.actions is not None]
    return min(max((len(actions.dataset) for actions in found), default=0), DIMENSIONS)


def _actions(axes: Axes, summary: Summary, dimension: int, theme: Theme) -> None:
    """The dataset's actions as a grey area, each arm's policy as a line; means over seeds."""
    frame(axes, theme, "action")
    axes.xaxis.set_major_formatter(lambda x, _: plain(x))
    _title(axes, f"Actions, dimension {dimension + 1}", "share", theme)
    drawn = False
    for name, place in summary.places().items():
        colour, dash = theme.arm(place)
        seeds = summary.arms[name].seeds.values()
        found = [s.actions for s in seeds if s.actions is not None and dimension < len(s.actions.dataset)]
        if not found:
            continue
        bins = found[0].dataset.shape[1]
        edges = np.arange(bins + 1) - 0.5 if found[0].edges is None else found[0].edges
        if not drawn:
            axes.stairs(found[0].dataset[dimension], edges, fill=True, color=theme.quiet, alpha=0.35)
            drawn = True
        share = np.mean([actions.policy[dimension] for actions in found], axis=0)
        axes.stairs(share, edges, color=colour, linestyle=dash, linewidth=1.8)
        if found[0].edges is None:
            axes.set_xticks(range(bins)[:: max(bins // 8, 1)])
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="y", nbins=4)


def _title(axes: Axes, title: str, unit: str, theme: Theme) -> None:
    points: dict[str, Any] = {"textcoords": "offset points", "va": "bottom", "annotation_clip": False}
    head = axes.annotate(title, (0, 1), (0, 6), xycoords="axes fraction", color=theme.ink, weight="bold", **points)
    axes.annotate(unit, (1, 0), (6, 0), xycoords=head, color=theme.quiet, fontsize=8.5, **points)
