"""What every picture of a report is made of: a canvas, axes without clutter, seeds with their mean, the seam."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from segue.report.evaluations import Curve
from segue.report.seeds import FEW_SEEDS, mean_curve
from segue.report.theme import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FONTS = ("Inter", "Helvetica Neue", "Helvetica", "Arial", "Liberation Sans", "DejaVu Sans")


def picture(size: tuple[float, float], theme: Theme, draw: Callable[[Figure], None]) -> bytes:
    """What `draw` puts on a figure of this size in inches, as PNG bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    fonts = [font for font in FONTS if font in installed]
    # Arm names are text: without this, a pair of dollar signs in one would be set as mathematics.
    with mpl.rc_context({"font.family": fonts, "font.size": 10, "text.parse_math": False}):
        figure = Figure(figsize=size, facecolor=theme.paper)
        draw(figure)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=200)
    return file.getvalue()


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


def seam_line(axes: Axes, theme: Theme, named: bool = False) -> None:
    """The line at step 0 of the online phase."""
    axes.axvline(0, color=theme.ink, linewidth=1.2, clip_on=False, zorder=3)
    if named:
        axes.annotate(
            "seam",
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
