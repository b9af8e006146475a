"""The picture: return against online environment steps, the offline phase and the seam on its left."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segue.files import write_atomically
from segue.report.drawing import frame, picture, seam_line, seeds_and_mean
from segue.report.labels import Label, place_labels
from segue.report.measures import Curve, curve, estimate, mean_curve, online_curve, score
from segue.report.runs import Summary, arm_status
from segue.report.text import decimals, number
from segue.report.theme import LIGHT, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Lines:
    """One arm as it is drawn: a curve per seed for each phase, NaN where there is no offline score."""

    name: str
    status: str
    colour: str
    dash: str
    pretrained_by: str
    offline: tuple[Curve, ...]
    online: tuple[Curve, ...]
    offline_score: float


def plot_learning_curves(summary: Summary, path: Path, theme: Theme = LIGHT) -> None:
    """Draw the learning curves of every arm into a PNG file."""
    write_atomically(Path(path), learning_curves(summary, theme))


def learning_curves(summary: Summary, theme: Theme = LIGHT) -> bytes:
    """The learning curves as PNG bytes.

    One line per arm: the mean over seeds, dotted on where not every seed got that far. Thin lines are the
    seeds and the band is their spread. A dashed level marks the offline score, a dot where an arm starts.
    """
    return picture((10, 5), theme, lambda figure: draw(figure, arm_lines(summary, theme), theme))


def arm_lines(summary: Summary, theme: Theme = LIGHT) -> list[Lines]:
    """What is drawn of each arm, in the summary's order."""
    arms = []
    for i, (name, arm) in enumerate(summary["arms"].items()):
        seeds: list[dict[str, Any]] = list(arm["seeds"].values())
        colour, dash = theme.arm(i)
        offline = (arm.get("recipe") or {}).get("offline") or {}
        arms.append(
            Lines(
                name=" ".join(name.split()),
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
    """Lay the panels out on an empty figure and fill them."""
    pretrained = any(steps.size for arm in arms for steps, _ in arm.offline)
    # The panels touch: where they meet is the seam.
    place = {"left": 0.075, "right": 0.78, "bottom": 0.13, "top": 0.89, "wspace": 0.0}
    grid = figure.add_gridspec(1, 2 if pretrained else 1, width_ratios=(1, 2.9) if pretrained else None, **place)
    online = figure.add_subplot(grid[-1])
    frame(online, theme, "online environment steps")
    _online(online, arms, theme)
    first = online
    if pretrained:
        first = figure.add_subplot(grid[0], sharey=online)
        frame(first, theme, "offline updates")
        _offline(first, arms, theme)
        # Whatever sits on the seam, such as the dots, belongs to the online panel and lies on top.
        online.set_zorder(first.get_zorder() + 1)
        online.tick_params(axis="y", labelleft=False)
        seam_line(online, theme, named=True)
    figure.text(0.025, 0.93, "mean return per episode", color=theme.quiet)
    place_labels(online, _labels(online, arms, theme))


def _online(axes: Axes, arms: Sequence[Lines], theme: Theme) -> None:
    for arm in arms:
        seeds_and_mean(axes, arm.online, arm.colour, arm.dash)
    for level, sharing in _groups((arm.offline_score, arm) for arm in arms if np.isfinite(arm.offline_score)):
        colour = sharing[0].colour if len(sharing) == 1 else theme.quiet
        axes.axhline(level, color=colour, linewidth=1, linestyle=(0, (5, 4)), alpha=0.8, zorder=1.5)
        axes.plot(0, level, "o", color=colour, markersize=8, mec=theme.paper, mew=1.5, clip_on=False, zorder=5)
    reached = max((s[-1] for arm in arms for s, _ in arm.online if s.size), default=0.0)
    axes.set_xlim(0, reached or 1)
    if not any(s.size for arm in arms for s, _ in arm.online):
        axes.set_xticks([])
        axes.text(0.5, 0.5, "no online evaluations yet", transform=axes.transAxes, ha="center", color=theme.quiet)


def _offline(axes: Axes, arms: Sequence[Lines], theme: Theme) -> None:
    identical = ((tuple((tuple(s), tuple(r)) for s, r in arm.offline), arm) for arm in arms)
    for _, sharing in _groups(identical):
        arm = sharing[0]
        # Arms with one and the same pretraining would hide each other: it is drawn once, as nobody's.
        common = len(sharing) > 1
        seeds_and_mean(axes, arm.offline, theme.quiet if common else arm.colour, "solid" if common else arm.dash)
        if common and any(s.size for s, _ in arm.offline):
            note = f"{arm.pretrained_by}, shared by\n{len(sharing)} arms"
            axes.text(0.93, 0.04, note, transform=axes.transAxes, ha="right", color=theme.quiet, fontsize=9)
    longest = max((s[-1] for arm in arms for s, _ in arm.offline if s.size), default=0.0)
    axes.set_xlim(0, longest or 1)
    # The last label of this panel would run into the first of the next.
    axes.set_xticks([t for t in axes.get_xticks() if 0 <= t <= 0.9 * longest])


def _labels(axes: Axes, arms: Sequence[Lines], theme: Theme) -> list[Label]:
    places = decimals(v for arm in arms for _, returns in arm.online for v in returns)
    labels = []
    for arm in arms:
        mean = mean_curve(arm.online)
        text = "\n".join(textwrap.wrap(arm.name, 24, max_lines=2, placeholder=" …"))
        text += "" if arm.status == "complete" else f"\n({arm.status})"
        if not mean.steps.size:
            labels.append(Label(f"{text}\nno evaluations", arm.colour, end=None))
            continue
        # A line that ends on fewer seeds does not end on the final return of the table.
        if mean.seeds[-1] == mean.seeds.max():
            text += f"  {number(mean.mean[-1], places)}"
        labels.append(Label(text, arm.colour, end=(mean.steps[-1], mean.mean[-1])))
    scores = {arm.offline_score for arm in arms if np.isfinite(arm.offline_score)}
    if len(scores) == 1:
        level = scores.pop()
        text = f"offline score  {number(level, places)}"
        labels.append(Label(text, theme.quiet, end=(axes.get_xlim()[1], level)))
    return labels


def _groups(pairs: Iterable[tuple[Hashable, Lines]]) -> list[tuple[Any, list[Lines]]]:
    groups: dict[Any, list[Lines]] = defaultdict(list)
    for key, arm in pairs:
        groups[key].append(arm)
    return list(groups.items())
