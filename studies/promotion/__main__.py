"""Does promotion pay? A cloned policy that goes live with RLPD and promotion, with PPO, and RLPD from scratch with the
dataset: `python -m studies.promotion` (`make promotion`). It needs `make data`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import segue
from segue.report import decode
from segue.report.aggregate import aggregate
from studies.grid import main
from studies.logs import LOGS
from studies.results import Study

STORED = (
    "hopper-mixed",
    "walker2d-medium-replay",
    "halfcheetah-medium-replay",
    "hopper-medium-replay",
    "pointmaze-medium",
)


def tasks(full: bool) -> dict[str, dict[str, segue.Recipe]]:
    """The stored grid has narrower networks; `--full` has published sizes, and every dataset."""
    named = {name: {"dataset": log, "env": env_id} for name, (log, env_id) in LOGS.items()}
    return {name: recipes(full, named[name]) for name in (named if full else STORED)}


def recipes(full: bool, task: dict[str, Any]) -> dict[str, segue.Recipe]:
    """The baseline first."""
    live: dict[str, Any] = {
        **task,
        "online_steps": 100_000 if full else 50_000,
        "eval_every": 5_000 if full else 2_500,
        "eval_episodes": 10,
        "seeds": 10 if full else 4,
    }
    small: dict[str, Any] = {} if full else {"hidden_sizes": (128, 128), "batch_size": 128}
    wide = {key: value for key, value in small.items() if key != "batch_size"}
    few = {**small, "ensemble_size": 3, "subset_size": 2, "critic_updates_per_actor_update": 1}
    ppo = segue.PPO(**wide, actor_learning_rate=1e-4, value_learning_rate=1e-3)
    cloned = segue.BC(**small, loss="nll", top_fraction=0.1)
    return {
        "RLPD": segue.Recipe(**live, online=segue.RLPD(**few), updates_per_step=1.0),
        "promoted": segue.preset("promoted", **live),
        "BC of the best tenth → PPO": segue.Recipe(**live, offline=cloned, offline_steps=10_000, online=ppo),
    }


def over_tasks(results: Mapping[str, Any]) -> str:
    """Statistics over tasks and seeds, and how often the promoted policy ends higher; with 95 % intervals."""
    found = aggregate(decode(results))
    if found is None:
        return "Not enough seeds yet.\n"
    lines = [
        "| arm | final (IQM of normalised scores) | area | promoted ends higher |",
        "| :-- | --: | --: | --: |",
    ]
    for method in found.methods:
        pair = found.pairs.get(("promoted", method.name))
        cells = [
            "–" if one is None else f"{one.value:{form}} ({one.low:{form}}–{one.high:{form}})"
            for one, form in ((method.final, ".1f"), (method.area, ".1f"), (pair, ".2f"))
        ]
        lines.append(f"| {method.name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *found.notes])


STUDY = Study(
    folder=Path(__file__).parent,
    tasks=tasks,
    columns=("offline score", "final", "area", "normalised", "steps to", "dip", "live"),
    more={"over tasks": over_tasks},
)

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))
