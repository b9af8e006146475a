"""One panel of the picture of the seam: the online phase and, touching it on its left, the offline one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segue.report.drawing import frame, seam_line, seeds_and_mean
from segue.report.seam import SeamArm
from segue.report.seam_panels import Panel
from segue.report.seeds import mean_curve
from segue.report.theme import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

OFFLINE = 0.24
"""Share of a panel that the offline phase takes."""
LEVEL = (0, (5, 4))
"""Dashes of a level."""
SMALL = 8.5
"""Points of units and legends."""


@dataclass(frozen=True)
class Place:
    """Where a panel goes, in shares of the figure."""

    left: float
    bottom: float
    width: float
    height: float


@dataclass(frozen=True)
class PanelAxes:
    """The axes of one panel; `offline` only where there was an offline phase."""

    online: Axes
    offline: Axes | None

    @property
    def both(self) -> list[Axes]:
        """From left to right."""
        return [self.online] if self.offline is None else [self.offline, self.online]


def draw_panel(figure: Figure, place: Place, arm: SeamArm, panel: Panel, theme: Theme) -> PanelAxes:
    """Axes at this place, filled."""
    split = OFFLINE * place.width if arm.pretrained else 0.0
    online = figure.add_axes((place.left + split, place.bottom, place.width - split, place.height))
    frame(online, theme, "")
    online.set_xlim(0, arm.window)
    offline = None
    if arm.pretrained:
        offline = figure.add_axes((place.left, place.bottom, split, place.height), sharey=online)
        frame(offline, theme, "")
        _offline_scale(offline, arm)
        online.set_zorder(offline.get_zorder() + 1)
        online.tick_params(axis="y", labelleft=False)
        seam_line(online, theme)
        _lines(offline, arm, panel, "offline", theme)
    _lines(online, arm, panel, "online", theme)
    level, _ = panel.level_of(arm)
    if np.isfinite(level):
        online.axhline(level, color=theme.quiet, linewidth=1, linestyle=LEVEL, zorder=1.5)
    online.margins(y=0.09)
    if panel.limits is not None:
        online.set_ylim(panel.limits[0], panel.limits[1] * 1.04)  # a line at the limit is drawn whole
    axes = PanelAxes(online, offline)
    for one in axes.both:
        one.tick_params(axis="x", labelbottom=False, length=0)
        one.tick_params(axis="y", labelsize=9)
        one.grid(axis="x", color=theme.rule, linewidth=0.5)
        if panel.logarithmic:
            one.set_yscale("log")
        else:
            one.locator_params(axis="y", nbins=5 if panel.height > 1.2 else 3)
    _head(axes.both[0], arm, panel, theme)
    return axes


def _lines(axes: Axes, arm: SeamArm, panel: Panel, phase: str, theme: Theme) -> None:
    colour, dash = theme.arm(arm.place)
    for i, line in enumerate(panel.lines):
        curves = getattr(arm.tracks[line.quantity], phase)
        if line.dots:
            for steps, values in curves:
                axes.plot(steps, values, ".", color=theme.quiet, markersize=4, alpha=0.6, mec="none", zorder=1.8)
        elif i == 0:
            seeds_and_mean(axes, curves, colour, dash, width=2.0)
        else:
            seeds_and_mean(axes, curves, theme.ink, "dashed", width=1.5)
    for above, shade in ((True, theme.alert), (False, theme.quiet)):
        steps, first, second = _gap(arm, panel, phase)
        where = (first >= second) == above
        style: dict[str, Any] = {"color": shade, "alpha": 0.2, "linewidth": 0, "zorder": 1.2}
        axes.fill_between(steps, first, second, where=where, interpolate=True, **style)


def _gap(arm: SeamArm, panel: Panel, phase: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps and the means of the two lines between which the panel shades; empty if it does not."""
    if panel.gap is not None:
        first, second = (mean_curve(getattr(arm.tracks[line.quantity], phase)) for line in panel.lines)
        if np.array_equal(first.steps, second.steps):
            return first.steps, first.mean, second.mean
    return np.empty(0), np.empty(0), np.empty(0)


def _head(axes: Axes, arm: SeamArm, panel: Panel, theme: Theme) -> None:
    """Over the panel its title and unit, and under them what the lines are."""
    points: dict[str, Any] = {"textcoords": "offset points", "va": "bottom", "annotation_clip": False}
    up = 18 if panel.legend else 4
    title = axes.annotate(
        panel.title, (0, 1), (0, up), xycoords="axes fraction", color=theme.ink, weight="bold", **points
    )
    axes.annotate(panel.unit, (1, 0), (6, 0), xycoords=title, color=theme.quiet, fontsize=SMALL, **points)
    handles = _handles(arm, panel, theme)
    if handles:
        axes.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(-0.01, 0.99),
            ncols=len(handles),
            frameon=False,
            fontsize=SMALL,
            labelcolor=theme.quiet,
            borderaxespad=0.25,
            borderpad=0,
            handlelength=1.6,
            columnspacing=1.2,
            handletextpad=0.5,
        )


def _handles(arm: SeamArm, panel: Panel, theme: Theme) -> list[Line2D | Patch]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    colour, dash = theme.arm(arm.place)
    handles: list[Line2D | Patch] = []
    for i, line in enumerate(panel.lines):
        if not line.name or not arm.tracks[line.quantity]:
            continue
        if line.dots:
            handles.append(Line2D([], [], linestyle="none", marker=".", markersize=6, color=theme.quiet))
        elif i == 0:
            stroke: dict[str, Any] = {"color": colour, "linestyle": dash, "linewidth": 2}
            handles.append(Line2D([], [], **stroke))
        else:
            handles.append(Line2D([], [], color=theme.ink, linestyle="dashed", linewidth=1.5))
        handles[-1].set_label(line.name)
    level, name = panel.level_of(arm)
    if np.isfinite(level):
        handles.append(Line2D([], [], color=theme.quiet, linestyle=LEVEL, linewidth=1, label=name))
    gaps = [_gap(arm, panel, phase) for phase in ("offline", "online")]
    # Named only where it can be seen: by more than a tenth.
    difference = np.concatenate([first - second for _, first, second in gaps])
    difference[np.abs(difference) < 0.1 * np.concatenate([np.maximum(abs(a), abs(b)) for _, a, b in gaps])] = 0
    above, below = panel.gap or ("", "")
    if (difference > 0).any():
        handles.append(Patch(facecolor=theme.alert, alpha=0.3, label=above))
    if (difference < 0).any():
        handles.append(Patch(facecolor=theme.quiet, alpha=0.3, label=below))
    if panel.events and any(event.step <= arm.window for event in arm.events):
        who = ", ".join(dict.fromkeys(event.message.split(":")[0][:16] for event in arm.events))
        handles.append(Line2D([], [], linestyle="none", marker="v", markersize=5, color=theme.ink, label=who))
    return handles


def _offline_scale(axes: Axes, arm: SeamArm) -> None:
    longest = max((s[-1] for s, _ in arm.tracks["return"].offline if s.size), default=0.0)
    axes.set_xlim(0, longest or 1)
    axes.locator_params(axis="x", nbins=3)
    # The last label would run into the first of the online phase.
    axes.set_xticks([t for t in axes.get_xticks() if 0 <= t <= 0.8 * longest])
