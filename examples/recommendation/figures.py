"""The two pictures of the page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segue.report.figures import LIGHT, frame, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def clicks(found: list[dict[str, Any]], out: Path) -> None:
    """What one log says of the other's policy beside the truth, into `out/open-bandit.png`."""
    known = [one for one in found if one["truth"] is not None]

    def draw(figure: Figure) -> None:
        for axes, one in zip(figure.subplots(1, len(known), sharex=True), known, strict=True):
            frame(axes, LIGHT, "clicks per 1,000 impressions")
            names = [estimate["method"] for estimate in one["estimates"]]
            truth = one["truth"]
            axes.axvspan(1000 * truth["low"], 1000 * truth["high"], color=LIGHT.arms[2], alpha=0.2, linewidth=0)
            axes.axvline(1000 * truth["rate"], color=LIGHT.arms[2])
            axes.axvline(1000 * one["log"]["rate"], color=LIGHT.quiet, linestyle="dotted")
            for row, estimate in enumerate(one["estimates"]):
                low = 1000 * estimate["bounds"]["value_lower"]
                axes.plot([low, 1000 * estimate["value"]], [row, row], color=LIGHT.arms[0])
                axes.plot(low, row, "|", color=LIGHT.arms[0], markersize=10)
                axes.plot(1000 * estimate["value"], row, "o", color=LIGHT.arms[0])
            axes.set_yticks(range(len(names)), names)
            axes.invert_yaxis()
            axes.set_xlim(0, 1050 * max(each["truth"]["high"] for each in known))
            axes.set_title(one["question"], color=LIGHT.ink, fontsize=10)
        figure.tight_layout()

    (out / "open-bandit.png").write_bytes(picture((9, 3), LIGHT, draw))


def shop(found: dict[str, Any], out: Path) -> None:
    """Clicks per session of each policy, and what each shows, into `out/shop.png`."""
    worth, exposure = found["clicks per session"], found["exposure"]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(2, 3))
        frame(left, LIGHT, "clicks per session")
        for row, clicks in enumerate(worth.values()):
            left.errorbar(clicks["mean"], row, xerr=clicks["within"], fmt="o", color=LIGHT.arms[row])
        left.set_yticks(range(len(worth)), list(worth))
        left.invert_yaxis()
        left.set_xlim(left=0)
        frame(right, LIGHT, "items, each policy's most shown first")
        for row, (name, count) in enumerate(exposure.items()):
            share = np.sort(np.array(count))[::-1] / np.sum(count)
            right.plot(range(1, len(share) + 1), 100 * share, color=LIGHT.arms[row], label=name)
        right.xaxis.get_major_locator().set_params(integer=True)
        right.set_ylabel("share of what is shown, %", color=LIGHT.ink)
        right.set_ylim(bottom=0)
        right.legend(frameon=False)
        figure.tight_layout()

    (out / "shop.png").write_bytes(picture((9, 3.4), LIGHT, draw))
