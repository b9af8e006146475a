"""The picture and the tables of README.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

#: How far the deployed survival may fall below the clinicians'.
TOLERANCE = 0.01


def draw(results: dict[str, Any], to: Path) -> None:
    """Exact survival of what acts, patient by patient: every repetition, and their median."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for panel, title, wrong in (
        (axes[0], "The learner as it is", ""),
        (axes[1], "Reward with the wrong sign", ", rew"),
    ):
        for colour, start, label in (("tab:blue", "cautious", "cautious"), ("tab:orange", "at once", "at once")):
            arms = [arm for arm in results["arms"] if arm.startswith(start + wrong) and ("," in arm) == bool(wrong)]
            for arm in arms:
                lines = [np.array(found["path"]) for found in results["arms"][arm]]
                for line in lines:
                    panel.step(line[:, 0], line[:, 1], colour, alpha=0.08, linewidth=0.7, where="post")
                grid = np.arange(0, lines[0][-1, 0] + 1, 500)
                middle = np.median([held(line, grid) for line in lines], axis=0)
                panel.step(grid, middle, colour, linewidth=2, where="post", label=label)
        for level, name in ((results["clinician"], "clinicians"), (results["optimal"], "optimal")):
            panel.axhline(level, color="0.3", linewidth=0.8, linestyle="--")
            panel.text(panel.get_xlim()[1], level, f" {name}", va="bottom", ha="right", fontsize=8)
        panel.axhline(results["clinician"] - TOLERANCE, color="tab:red", linewidth=0.8, linestyle=":")
        panel.set_title(title)
        panel.set_xlabel("patients since the records ended")
        panel.legend(loc="lower left", frameon=False)
    axes[0].set_ylabel("exact survival of what acts")
    figure.savefig(to, dpi=150)


def held(line: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The survival that was in force at these numbers of patients."""
    return line[np.searchsorted(line[:, 0], grid, side="right") - 1, 1]


def tables(results: dict[str, Any]) -> dict[str, str]:
    """What README.md shows, in Markdown: the repetitions, and what stood between the learner and the patients."""
    clinician, optimal = results["clinician"], results["optimal"]
    rows = [
        "| | repetitions | never below | lowest moment | survival at the end | half-way or more | stopped |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for arm, found in results["arms"].items():
        paths = [np.array(one["path"]) for one in found]
        lowest = np.array([path[:, 1].min() for path in paths])
        ends = np.array([path[-1, 1] for path in paths])
        kept, half = lowest >= clinician - TOLERANCE, ends >= (clinician + optimal) / 2
        stopped = sum(one["ended"] is not None for one in found)
        rows.append(
            f"| {arm} | {len(found)} | {kept.sum()} of {len(found)} | {lowest.min():.3f} | {np.median(ends):.3f} "
            f"({ends.min():.3f} … {ends.max():.3f}) | {half.sum()} of {len(found)} | {stopped} |"
        )
    repetitions = "\n".join(rows)
    gates = [one["gate"] | {"exact": one["at first"]} for one in results["arms"]["cautious"]]
    passed = [one["passed"] for one in results["arms"]["cautious"]]
    spread = np.array([one["promised"] for one in results["arms"]["cautious"]])
    gained = np.array([one["at first"] for one in results["arms"]["cautious"]]) - clinician
    answers = {
        answer: sum(gate["answer"] == answer for gate in gates) for answer in ("yes", "no", "not enough evidence")
    }
    wrong = sum(gate["at least"] > gate["exact"] for gate in gates)
    done = [number for number in passed if number is not None]
    after = f", {np.median(done):.0f} ({min(done)} … {max(done)})" if done else ""
    rows = [
        "| of the cautious arm | |",
        "| --- | --- |",
        f"| clinicians, optimal (exact) | {clinician:.4f}, {optimal:.4f} |",
        f"| learner after the records (exact) | {np.median(gained + clinician):.3f} |",
        f"| what its own model promises beyond the clinicians, and what it gains | {np.median(spread):.3f}, "
        f"{np.median(gained):.3f} |",
        f"| off-policy gate: yes, no, not enough evidence | {', '.join(str(number) for number in answers.values())} |",
        f"| its estimate, its lower bound | {np.median([gate['estimate'] for gate in gates]):.2f}, "
        f"{np.median([gate['at least'] for gate in gates]):.2f} |",
        f"| lower bounds above the exact value | {wrong} of {len(gates)} |",
        f"| trials passed, after how many patients | {len(done)} of {len(passed)}{after} |",
    ]
    return {"repetitions": repetitions, "gate": "\n".join(rows)}
