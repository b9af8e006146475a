"""Every algorithm on a dataset and then live, without any bridge: `python -m studies.family` (`make family`).

What goes on is the algorithm itself, or a successor where it does not learn online. The pages of the algorithms draw
their curves from results.json.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import segue
from segue.algorithms import ALGORITHMS, Algorithm
from studies.grid import main
from studies.logs import CARTPOLE, CARTPOLE_TASK, LOGS, sizes
from studies.panels import panel
from studies.results import Study

HOPPER = "hopper-mixed"
#: What goes on where the offline algorithm does not learn online.
SUCCESSOR = {"bc": {"continuous": "sac", "discrete": "discrete-sac"}, "bcq": {"continuous": "sac"}}
#: Further fields that are smaller than the published ones in the stored grid.
FEW: dict[str, dict[str, Any]] = {
    "bcq": {"behaviour_hidden_sizes": (128, 128), "acting_samples": 20},
    "cql": {"sampled_actions": 2},
    "cal-ql": {"sampled_actions": 2},
    "redq": {"critic_updates_per_actor_update": 1, "ensemble_size": 5},
    "rlpd": {"critic_updates_per_actor_update": 1, "ensemble_size": 3, "subset_size": 2},
    "sac-n": {"ensemble_size": 10},
    "ppo": {"batch_size": 64},
}


def tasks(full: bool) -> dict[str, dict[str, segue.Recipe]]:
    """The stored grid has narrower networks, smaller ensembles and one update per step; `--full` is as published."""
    log, env_id = LOGS[HOPPER]
    continuous = arms(full, "continuous", {"dataset": log, "env": env_id})
    return {HOPPER: continuous, CARTPOLE: arms(full, "discrete", CARTPOLE_TASK)}


def arms(full: bool, kind: str, task: dict[str, Any]) -> dict[str, segue.Recipe]:
    """A recipe per algorithm: pretrained and gone on with, or from scratch where it learns online only. QC-FQL too."""

    def made(name: str) -> Algorithm:
        return ALGORITHMS[name](**{**sizes(full), **({} if full else FEW.get(name, {}))})

    recipes = {}
    for name, cls in ALGORITHMS.items():
        if kind not in cls.actions or cls.needs_costs:
            continue
        offline = name if "offline" in cls.phases else "bc" if name == "ppo" else None
        online = name if "online" in cls.phases else SUCCESSOR[name][kind]
        label = name if offline in (name, None) and online == name else f"{offline} → {online}"
        learning = made(online)
        recipes[label] = segue.Recipe(
            **task,
            offline=None if offline is None else made(offline),
            offline_steps=0 if offline is None else 200_000 if full else 50_000,
            online=learning,
            online_steps=100_000 if full else 50_000,
            updates_per_step=1.0 if not full and online in ("redq", "rlpd") else None,
            eval_every=5_000 if full else 2_500,
            eval_episodes=10,
            seeds=10 if full else 3,
        )
    if "fql" in recipes:
        chunked = segue.FQL(**sizes(full), chunk=5)
        recipes["qc-fql"] = dataclasses.replace(recipes["fql"], offline=chunked, online=chunked)
    return recipes


STUDY = Study(
    folder=Path(__file__).parent,
    tasks=tasks,
    columns=("offline score", "final", "area", "dip", "live"),
    panels=[
        [
            panel(HOPPER, "cloned", "bc → sac", "bcq → sac", "bc → ppo"),
            panel(HOPPER, "near the data", "td3-bc", "rebrac", "fql", "qc-fql"),
            panel(HOPPER, "weighted cloning", "iql", "awac"),
        ],
        [
            panel(HOPPER, "conservative", "cql", "cal-ql"),
            panel(HOPPER, "ensembles", "sac-n", "edac", "redq", "rlpd"),
            panel(HOPPER, "no constraint", "sac", "td3"),
        ],
        [
            panel(CARTPOLE, "CartPole: cloned", "bc → discrete-sac", "bc → ppo"),
            panel(CARTPOLE, "CartPole: near the data", "iql", "awac", "discrete-bcq"),
            panel(CARTPOLE, "CartPole: values", "discrete-cql", "discrete-sac", "dqn"),
        ],
    ],
)

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))
