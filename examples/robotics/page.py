"""The tables and the figure of README.md, from results.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from studies.page import put

from segue.files import write_atomically
from segue.report.figures import LIGHT, frame, picture
from segue.report.tables import markdown

Results = Mapping[str, Any]


def write(results: Results, folder: Path) -> None:
    """README.md's tables, its figure, and the numbers behind both."""
    for name, text in tables(results).items():
        put(folder / "README.md", name, text)
    write_atomically(folder / "results.json", json.dumps(results, indent=1) + "\n")
    draw(results, folder / "robotics.png")


def tables(results: Results) -> dict[str, str]:
    """Markdown by part."""
    makers = {"pushing": _pushing, "hand": _hand, "humanoid": _humanoid}
    return {name: make(results[name]) for name, make in makers.items() if name in results}


def _pushing(found: Results) -> str:
    rows = []
    for arm, seeds in found["arms"].items():
        curves = [seed["points"] for seed in seeds]
        failed = sum(seed["status"] != "complete" for seed in seeds)
        success = [[point["deployed"]["success"] for point in curve] for curve in curves]
        exploring = [[point["exploring"]["success"] for point in curve] for curve in curves]
        falls = [max(0.0, values[0] - min(values)) for values in success]
        last = [curve[-1]["deployed"] for curve in curves]
        rows.append(
            (
                f"{arm} ({failed} of {len(seeds)} failed)" if failed else arm,
                spread([values[0] for values in success]),
                spread([values[-1] for values in success]),
                spread(falls),
                spread([float(np.mean(values)) for values in exploring]),
                spread([seed["training_return"] for seed in seeds if seed["training_return"] is not None], "{:.0f}"),
                spread([one["peak"] for one in last], "{:.2f}"),
                spread([one["jerk"] for one in last], "{:.2f}"),
            )
        )
    when = ("at the handover", "at the end", "worst fall", "with noise", "live return")
    demonstrations = found["demonstrations"]
    where = [
        (
            name,
            spread([one["success"] for one in many]),
            spread([one["ever"] for one in many]),
            spread([one["peak"] for one in many], "{:.2f}"),
            spread([one["jerk"] for one in many], "{:.2f}"),
        )
        for name, many in found["references"].items()
    ]
    return (
        f"{demonstrations['episodes']} demonstrations, {demonstrations['steps']:,} steps, "
        f"{demonstrations['success']:.0%} of them successful.\n\n"
        + markdown(("who, where", "success", "reached at any step", "peak action", "jerk"), where)
        + "\n\n"
        + markdown(("arm", *when, "peak action", "jerk"), rows)
    )


def _hand(found: Results) -> str:
    rows = [
        (
            arm,
            str(limit),
            spread([one["success"] for one in seeds if one["limit"] == limit]),
            spread([one["ever"] for one in seeds if one["limit"] == limit]),
            spread([one["return"] for one in seeds if one["limit"] == limit], "{:.0f}"),
        )
        for arm, seeds in found["arms"].items()
        for limit in (200, 300)
    ]
    return markdown(("arm", "time limit", "open at the end", "open at any step", "return"), rows)


def _humanoid(found: Results) -> str:
    names = list(found["errors"]["arms"])
    rows = [(name, *(spread(found["errors"][part][name], "{:.4f}") for part in ("arms", "hands"))) for name in names]
    arms, hands = (found["joints"][part] for part in ("arms", "hands"))
    return markdown(("prediction", f"{arms} joints of the arms, rad", f"{hands} joints of the hands"), rows)


def spread(values: Sequence[float], style: str = "{:.0%}") -> str:
    """Mean, and lowest to highest where there are several; a dash for none."""
    if not values:
        return "–"
    shown = [style.format(value) for value in (float(np.mean(values)), min(values), max(values))]
    return shown[0] if len(values) == 1 else f"{shown[0]} ({shown[1]}–{shown[2]})"


def draw(results: Results, to: Path) -> None:
    """Success against live steps, as deployed and with noise; nothing where pushing was not run."""
    if "pushing" in results:
        write_atomically(to, picture((9.0, 3.9), LIGHT, lambda figure: _panels(figure, results["pushing"])))


def _panels(figure: Any, found: Results) -> None:
    from matplotlib.lines import Line2D

    grid = figure.add_gridspec(1, 2, left=0.07, right=0.985, bottom=0.28, top=0.86, wspace=0.1)
    looks = {arm: LIGHT.arm(place) for place, arm in enumerate(found["arms"])}
    for place, (mode, title) in enumerate(
        (("deployed", "As it would be deployed"), ("exploring", "The same policy with exploration noise"))
    ):
        axes = figure.add_subplot(grid[place])
        frame(axes, LIGHT, "live steps in the changed world")
        axes.set_title(title, loc="left", fontsize=10, color=LIGHT.ink, weight="bold")
        axes.tick_params(axis="y", labelleft=place == 0)
        for arm, seeds in found["arms"].items():
            colour, dash = looks[arm]
            lines = [
                (
                    [point["step"] for point in seed["points"]],
                    [100 * point[mode]["success"] for point in seed["points"]],
                )
                for seed in seeds
            ]
            for steps, values in lines:
                axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.5)
            shared = min(len(steps) for steps, _ in lines)  # an arm that diverged ends early
            mean = np.mean([values[:shared] for _, values in lines], axis=0)
            axes.plot(lines[0][0][:shared], mean, color=colour, linestyle=dash, linewidth=2.2)
        axes.set_xlim(left=0)
        axes.set_ylim(-2, 102)
    figure.text(0.012, 0.955, "episodes that end with the block at its goal, %", color=LIGHT.quiet, va="center")
    handles = [Line2D([], [], color=c, linestyle=d, linewidth=2.4, label=arm) for arm, (c, d) in looks.items()]
    figure.legend(handles=handles, loc="lower center", ncols=3, frameon=False)
