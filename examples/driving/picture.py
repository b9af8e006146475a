"""The picture of the findings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt
from examples.driving.journeys import with_intervals
from examples.driving.judge import RULES

COLOURS = ("#000000", "#999933", "#d55e00", "#e69f00", "#0072b2", "#56b4e9", "#cc79a7", "#117733")
#: Episodes that the curve of crashes averages over, as a share of the fine-tuning.
WINDOW = 0.25
#: The rule-based drivers, which share a colour.
MARKERS = dict(zip(RULES, "XsDv", strict=True))


def draw(found: dict[str, Any], path: Path) -> None:
    """Safety against speed of every driver, and crashes while fine-tuning."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    learnt = [name for name in found["journeys"] if name not in RULES]
    colours = dict.fromkeys(RULES, "#555555") | dict(zip(learnt, COLOURS, strict=True))
    for name, journeys in found["journeys"].items():
        values = with_intervals(np.array(journeys, float))
        x, y = values["km/h"], values["crashes per 100 km"]
        spread = [[[v[0] - v[1]], [v[2] - v[0]]] for v in (x, y)]
        # Hollow: what is guarded may lie on what is not, where the guard never acts.
        look = {"marker": MARKERS.get(name, "o"), "mfc": "none" if "guarded" in name else colours[name], "ls": "none"}
        left.errorbar(x[0], y[0], spread[1], spread[0], color=colours[name], label=name, capsize=2, **look)
    left.set(xlabel="mean speed, km/h", ylabel="crashes per 100 km", ylim=(0, None), title="On the test track")
    left.legend(fontsize=8)
    for name, seeds in found["training"].items():
        for i, points in enumerate(seeds.values()):
            steps, crashes = np.array(points).T
            wide = max(int(len(steps) * WINDOW), 1)
            means = np.convolve(crashes, np.ones(wide) / wide, "valid")
            style = "--" if "guarded" in name else "-"
            right.plot(steps[wide - 1 :], means, style, color=colours[name], lw=1, label=None if i else name)
    right.axhline(found["limit"], color="black", ls=":", lw=1, label="limit of the guard")
    right.set(xlabel="live step (seconds of driving)", ylabel="crashes per episode", ylim=(0, None))
    right.set_title(f"While fine-tuning (moving mean over {WINDOW:.0%} of it; one line per seed)", fontsize=10)
    right.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)
