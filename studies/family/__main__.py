"""Every algorithm offline and then online, on both bundled datasets: `python -m studies.family` (`make family`).

Budgets are small (6,000 updates on the dataset, 3,000 live steps), so networks are 256-256 and batches 256 for all, the
ensembles have five members, CQL draws four actions of each kind instead of ten, and BCQ's generative model is as small
as the rest. Results go to results.json; the
table to docs/algorithms.md. A run that is there already is not run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import segue
from segue.algorithms import ALGORITHMS, Algorithm
from studies.page import put
from studies.parts import run

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs" / "algorithms.md"
SEEDS, OFFLINE_STEPS, ONLINE_STEPS = 3, 6_000, 3_000
SHARED = {"batch_size": 256, "hidden_sizes": (256, 256)}
SPECIAL: dict[str, dict[str, Any]] = {
    "bcq": {"behaviour_hidden_sizes": (256, 256), "acting_samples": 20},
    "cql": {"sampled_actions": 4},
    "cal-ql": {"sampled_actions": 4},
    # Published with 20 critic updates per step and per actor update; here everything gets one per step.
    "redq": {"critic_updates_per_actor_update": 1, "ensemble_size": 5},
    "rlpd": {"critic_updates_per_actor_update": 1, "ensemble_size": 5},
    "sac-n": {"ensemble_size": 5},
    "edac": {"ensemble_size": 5},
}
#: What goes on where the offline algorithm does not learn online.
SUCCESSOR = {"bc": {"continuous": "sac", "discrete": "discrete-sac"}, "bcq": {"continuous": "sac"}}
TASKS = {"hopper-mixed": "continuous", "cartpole-mixed": "discrete"}


def make(name: str) -> Algorithm:
    values = {**SHARED, **SPECIAL.get(name, {})}
    if name == "ppo":
        values |= {"batch_size": 64, "rollout_steps": 1024}
    return ALGORITHMS[name](**values)


def arms(log: str, kind: str) -> dict[str, segue.Recipe]:
    """A recipe per algorithm: pretrained and gone on with, or from scratch where it learns online only."""
    recipes = {}
    for name, cls in ALGORITHMS.items():
        if kind not in cls.actions:
            continue
        offline = name if "offline" in cls.phases else "bc" if name == "ppo" else None
        online = name if "online" in cls.phases else SUCCESSOR[name][kind]
        label = name if offline in (name, None) and online == name else f"{offline} → {online}"
        recipes[label] = segue.Recipe(
            dataset=f"segue:{log}",
            held_out=0.0,
            offline=None if offline is None else make(offline),
            offline_steps=0 if offline is None else OFFLINE_STEPS,
            online=make(online),
            online_steps=ONLINE_STEPS,
            updates_per_step=None if online == "ppo" else 1.0,
            eval_every=1_500,
            seeds=SEEDS,
        )
    return recipes


def measured(summary: Mapping[str, Any]) -> dict[str, Any]:
    rows = {}
    for label, arm in summary["arms"].items():
        seeds = list(arm["seeds"].values())
        curves = [[e["mean_return"] for e in seed["online_evaluations"]] for seed in seeds]
        pretrained = bool(seeds[0]["offline_evaluations"])
        rows[label] = {
            "offline": [curve[0] for curve in curves] if pretrained else None,
            "lowest": [min(curve) for curve in curves],
            "final": [curve[-1] for curve in curves],
        }
    return rows


def cell(values: list[float] | None) -> str:
    if values is None:
        return "–"
    return f"{np.mean(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def table(rows: dict[str, Any]) -> str:
    lines = ["| algorithm | offline | lowest online | final online |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {label} | {cell(row['offline'])} | {cell(row['lowest'])} | {cell(row['final'])} |"
        for label, row in rows.items()
    ]
    return "\n".join(lines)


def main() -> None:
    def compared(log: str) -> dict[str, Any]:
        return measured(segue.compare(arms(log, TASKS[log]), Path("runs/family") / log).summary)

    results = run(__doc__, HERE / "results.json", {log: partial(compared, log) for log in TASKS})
    for log, rows in results.items():
        put(DOCUMENT, log, table(rows))


if __name__ == "__main__":
    main()
