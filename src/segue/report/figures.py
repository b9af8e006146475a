"""What every picture is made of: colours and line styles, a canvas, plain axes, seeds with their mean, labels."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from segue.report.statistics import FEW_SEEDS, mean_curve
from segue.report.summary import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Dash = Literal["solid", "dashed", "dotted"]
DASHES: tuple[Dash, ...] = get_args(Dash)
"""Arms beyond the palette take its colours again, dashed, then dotted; CSS and Matplotlib know the names."""


@dataclass(frozen=True)
class Theme:
    """One background and what is legible on it; `arms`, after Okabe and Ito, are colour-blind safe."""

    paper: str
    ink: str
    quiet: str
    rule: str
    alert: str
    arms: tuple[str, ...]

    def arm(self, index: int) -> tuple[str, Dash]:
        """`(colour, line style)` of the arm at this place."""
        again, place = divmod(index, len(self.arms))
        return self.arms[place], DASHES[again % len(DASHES)]


LIGHT = Theme(
    paper="#ffffff",
    ink="#1b1f24",
    quiet="#68707c",
    rule="#e3e6ea",
    alert="#a84300",
    arms=("#0072b2", "#d55e00", "#009e73", "#b85a94", "#b07800", "#4a4f57"),
)
DARK = Theme(
    paper="#14171b",
    ink="#e7eaee",
    quiet="#97a1ad",
    rule="#2b3037",
    alert="#ffb454",
    arms=("#4aa8e0", "#ff8a3d", "#2fc79b", "#e08fc0", "#f0c029", "#c9d1d9"),
)


# Canvas

FONTS = ("Inter", "Helvetica Neue", "Helvetica", "Arial", "Liberation Sans", "DejaVu Sans")


def picture(size: tuple[float, float], theme: Theme, draw: Callable[[Figure], None]) -> bytes:
    """What `draw` puts on a figure of this size in inches, as PNG bytes."""
    with _style():
        file = io.BytesIO()
        drawn(size, theme, draw).savefig(file, format="png", dpi=200)
    return file.getvalue()


def drawn(size: tuple[float, float], theme: Theme, draw: Callable[[Figure], None]) -> Figure:
    """A figure of this size in inches, with what `draw` puts on it."""
    from matplotlib.figure import Figure

    class Shown(Figure):
        """One that a notebook shows; pyplot, which the others need for that, would keep every figure in memory."""

        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png")
            return file.getvalue()

    with _style():
        figure = Shown(figsize=size, facecolor=theme.paper)
        draw(figure)
    return figure


def _style() -> AbstractContextManager[None]:
    import matplotlib as mpl
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    fonts = [font for font in FONTS if font in installed]
    # Arm names are text: without this, a pair of dollar signs in one would be set as mathematics.
    return mpl.rc_context({"font.family": fonts, "font.size": 10, "text.parse_math": False})


def frame(axes: Axes, theme: Theme, label: str) -> None:
    """Only what helps to read values: horizontal rules, a base line and its name."""
    axes.set_facecolor(theme.paper)
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.quiet)
    axes.grid(axis="y", color=theme.rule, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.quiet, length=0, pad=6)
    axes.tick_params(axis="x", length=3)
    axes.set_xlabel(label, color=theme.ink, labelpad=7)
    axes.xaxis.set_major_formatter(lambda x, _: short(x))
    axes.yaxis.set_major_formatter(lambda y, _: plain(y))


def handover_line(axes: Axes, theme: Theme, named: bool = False) -> None:
    """The line at step 0 of the online phase."""
    axes.axvline(0, color=theme.ink, linewidth=1.2, clip_on=False, zorder=3)
    if named:
        axes.annotate(
            "handover",
            xy=(0, 1),
            xytext=(0, 5),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            color=theme.ink,
            weight="bold",
        )


def seeds_and_mean(
    axes: Axes, curves: Sequence[Curve], colour: str, dash: str, width: float = 2.4, crowded: bool = False
) -> None:
    """The mean over seeds and the band of their spread, dotted on where not every seed got that far.

    While the band is but the range of few seeds, each is a thin line; among many arms, `crowded`, none is, and the band
    is fainter.
    """
    mean = mean_curve(curves)
    if not mean.steps.size:
        return
    if len(curves) > 1:
        shade = 0.06 if crowded else 0.14
        axes.fill_between(mean.steps, mean.low, mean.high, color=colour, alpha=shade, linewidth=0, zorder=2)
        for steps, values in () if crowded or len(curves) >= FEW_SEEDS else curves:
            axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.45, zorder=2.2)
    together = np.flatnonzero(mean.seeds == mean.seeds.max())[-1]
    for part, style in ((slice(0, together + 1), dash), (slice(together, None), "dotted")):
        axes.plot(mean.steps[part], mean.mean[part], linestyle=style, color=colour, linewidth=width, zorder=4)


def plain(value: float) -> str:
    """Values on an axis: `−0.5`, `2,000`, and `20k` where they would become long."""
    return short(value).replace("-", "−") if abs(value) >= 10_000 else f"{value:,.10g}".replace("-", "−")


def short(value: float) -> str:
    """Steps on an axis: `500`, `20k`, `1.5M`."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


# Labels at the ends of lines

LINE_HEIGHT = 0.2
"""Of one line of 10 points, and the gap between labels, in inches."""
GAP = 0.065


@dataclass(frozen=True)
class Label:
    """A text and the `(x, y)` in data coordinates where its line ends; None if there is no line."""

    text: str
    colour: str
    end: tuple[float, float] | None


def place_labels(axes: Axes, labels: Sequence[Label]) -> None:
    """Write the labels beside the axes, tied to their lines' ends; those without a line go to the bottom."""
    low, high = axes.get_ylim()
    wanted = [(label.end[1] - low) / (high - low) if label.end else 0.0 for label in labels]
    whole = axes.get_window_extent().height / axes.figure.dpi  # in inches
    heights = [height(label.text) / whole for label in labels]
    for label, middle in zip(labels, spread_apart(wanted, heights), strict=True):
        tie = {
            "arrowstyle": "-",
            "linewidth": 0.8,
            "alpha": 0.5,
            "shrinkA": 2,
            "shrinkB": 3,
            "relpos": (0, 0.5),
        }
        axes.annotate(
            label.text,
            xy=label.end or (0, low),
            xytext=(1.035, middle),
            textcoords="axes fraction",
            va="center",
            color=label.colour,
            annotation_clip=False,
            arrowprops={**tie, "color": label.colour} if label.end else None,
        )


def height(text: str) -> float:
    """Of a label with the gap to the next, in inches."""
    return LINE_HEIGHT * (1 + text.count("\n")) + GAP


def spread_apart(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Centres near `wanted [n]`, on an axis from 0 to 1, such that labels of `heights [n]` do not overlap."""
    order = np.argsort(wanted, kind="stable")
    placed = np.asarray(wanted, dtype=float)
    floor = -np.inf
    for i in order:
        placed[i] = max(placed[i], floor + heights[i] / 2)
        floor = placed[i] + heights[i] / 2
    # More labels than fit: they go on above the axes rather than over each other.
    ceiling = max(1.0, sum(heights))
    for i in order[::-1]:
        placed[i] = min(placed[i], ceiling - heights[i] / 2)
        ceiling = placed[i] - heights[i] / 2
    return [float(p) for p in placed]


def legend_columns(names: Sequence[str], width: float, points: float = 8.5, around: float = 3.6) -> int:
    """How many columns of a legend fit into `width` inches; at least one. Matplotlib splits names evenly, as here.

    `around` is what each name has beside it (line, padding, gap), in font sizes.
    """
    wide = [points * (around / 72 + 0.0078 * len(name)) for name in names]
    for columns in range(len(names), 1, -1):
        if sum(max(column) for column in np.array_split(wide, columns)) <= width:
            return columns
    return 1
