"""Names at the right of a picture, each level with the end of its line and none over another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
