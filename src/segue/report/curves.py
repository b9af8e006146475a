"""The picture: return against online environment steps, on its left the offline phase and the seam; a panel a task."""

from __future__ import annotations

import math
import textwrap
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segue.files import write_atomically
from segue.report.drawing import frame, picture, seam_line, seeds_and_mean
from segue.report.evaluations import Curve, curve, online_curve, score
from segue.report.labels import Label, height, place_labels
from segue.report.runs import Summary, arm_status
from segue.report.seeds import estimate, mean_curve
from segue.report.tasks import method, places, tasks
from segue.report.text import decimals, number
from segue.report.theme import LIGHT, Dash, Theme

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
    pretrained_by: str
    offline: tuple[Curve, ...]
    online: tuple[Curve, ...]
    offline_score: float


def plot_learning_curves(summary: Summary, path: Path, theme: Theme = LIGHT) -> None:
    """Draw the learning curves of every arm into a PNG file."""
    write_atomically(Path(path), learning_curves(summary, theme))


def learning_curves(summary: Summary, theme: Theme = LIGHT) -> bytes:
    """The learning curves as PNG bytes, a panel per task.

    One line per arm: the mean over seeds, dotted on where not every seed got that far. The band is their spread, and
    thin lines are the seeds. A dashed level marks the offline score, a dot where an arm starts.
    """
    panels = {task: arm_lines(summary, names, theme) for task, names in tasks(summary).items()}
    if len(panels) > 1:
        columns = _columns(len(panels))
        size = (columns * COLUMN[columns], 0.9 + 3.15 * math.ceil(len(panels) / columns))
        return picture(size, theme, lambda figure: draw_tasks(figure, panels, theme))
    arms = next(iter(panels.values()), [])
    tall = max(5.0, 1.2 + sum(height(_named(arm)) for arm in arms))
    return picture((10, tall), theme, lambda figure: draw(figure, arms, theme))


def crowded(summary: Summary) -> bool:
    """Whether the picture leaves out single seeds and levels."""
    return max(map(len, tasks(summary).values()), default=0) > CROWD


def shared_pretraining(summary: Summary) -> bool:
    """Whether the picture has grey curves, of pretraining that several arms of a task share."""
    together = [[summary["arms"][name]["seeds"] for name in names] for names in tasks(summary).values()]
    offline = [[[s.get("offline_evaluations") for s in seeds.values()] for seeds in arms] for arms in together]
    return any(any(arm) and arms.count(arm) > 1 for arms in offline for arm in arms)


def arm_lines(summary: Summary, names: Sequence[str], theme: Theme = LIGHT) -> list[Lines]:
    """What is drawn of each of these arms."""
    place, arms = places(summary), []
    for name in names:
        arm = summary["arms"][name]
        seeds: list[dict[str, Any]] = list(arm["seeds"].values())
        colour, dash = theme.arm(place[name])
        offline = (arm.get("recipe") or {}).get("offline") or {}
        arms.append(
            Lines(
                name=" ".join(method(summary, name).split()),
                status=arm_status(arm),
                colour=colour,
                dash=dash,
                pretrained_by=str(offline.get("name", "")),
                offline=tuple(curve(s.get("offline_evaluations") or ()) for s in seeds),
                online=tuple(online_curve(s) for s in seeds),
                offline_score=estimate([score(s) for s in seeds]).mean,
            )
        )
    return arms


def draw(figure: Figure, arms: Sequence[Lines], theme: Theme) -> None:
    """One task on an empty figure: its panel, and every arm's name level with the end of its line."""
    low, high = 0.65 / figure.get_size_inches()[1], 1 - 0.55 / figure.get_size_inches()[1]
    place = figure.add_gridspec(1, 1, left=0.075, right=0.78, bottom=low, top=high)[0]
    online = _panel(figure, place, arms, theme)
    figure.text(0.025, 1 - 0.35 / figure.get_size_inches()[1], "mean return per episode", color=theme.quiet)
    place_labels(online, _labels(online, arms, theme))


def draw_tasks(figure: Figure, panels: Mapping[str, Sequence[Lines]], theme: Theme) -> None:
    """Several tasks on an empty figure: a panel each, and one legend for all."""
    from matplotlib.lines import Line2D

    columns, (wide, tall) = _columns(len(panels)), figure.get_size_inches()
    edges = {"left": 0.75 / wide, "right": 1 - 0.25 / wide, "bottom": 1.15 / tall, "top": 1 - 0.85 / tall}
    grid = figure.add_gridspec(math.ceil(len(panels) / columns), columns, wspace=0.2, hspace=0.62, **edges)
    for i, (task, arms) in enumerate(panels.items()):
        place = grid[i]
        online = _panel(figure, place, arms, theme)
        box = place.get_position(figure)
        figure.text(box.x0, box.y1 + 0.24 / tall, task, color=theme.ink, weight="bold", va="bottom")
        online.locator_params(axis="y", nbins=5)
    figure.text(0.25 / wide, 1 - 0.22 / tall, "mean return per episode", color=theme.quiet, va="center")
    looks = {arm.name: arm for arms in panels.values() for arm in arms}
    handles = [Line2D([], [], color=a.colour, linestyle=a.dash, linewidth=2.4, label=name) for name, a in looks.items()]
    legend = figure.legend(
        handles=handles, loc="lower center", ncols=min(len(handles), 5), frameon=False, handlelength=2.2
    )
    for text, arm in zip(legend.get_texts(), looks.values(), strict=True):
        text.set_color(arm.colour)


def _panel(figure: Figure, place: SubplotSpec, arms: Sequence[Lines], theme: Theme) -> Axes:
    """The online axes of a task, those of the offline phase touching them on the left."""
    pretrained = any(steps.size for arm in arms for steps, _ in arm.offline)
    # The axes touch: where they meet is the seam.
    grid = place.subgridspec(1, 2 if pretrained else 1, width_ratios=(1, 2.9) if pretrained else None, wspace=0.0)
    online = figure.add_subplot(grid[-1])
    frame(online, theme, "online environment steps")
    _online(online, arms, theme)
    if pretrained:
        first = figure.add_subplot(grid[0], sharey=online)
        frame(first, theme, "offline updates")
        _offline(first, arms, theme)
        # Whatever sits on the seam, such as the dots, belongs to the online panel and lies on top.
        online.set_zorder(first.get_zorder() + 1)
        online.tick_params(axis="y", labelleft=False)
        seam_line(online, theme, named=True)
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
    identical = ((tuple((tuple(s), tuple(r)) for s, r in arm.offline), arm) for arm in arms)
    notes = []
    for _, sharing in _groups(identical):
        arm = sharing[0]
        # Arms with one and the same pretraining would hide each other: it is drawn once, as nobody's.
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
    axes.set_xticks([t for t in axes.get_xticks() if 0 <= t <= 0.8 * longest])


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
