"""Recipes against RLPD from scratch with the dataset: `python -m studies.leaderboard` (`make leaderboard`).

It needs `make data`. The baseline that every method must beat never pretrains: half of each of its batches is the
dataset. All have the same live budget, and in the stored grid the same updates per step and networks.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import segue
from studies.grid import main
from studies.logs import LOGS
from studies.results import Study

STORED = ("hopper-mixed", "halfcheetah-medium-replay", "pointmaze-umaze")


def tasks(full: bool) -> dict[str, dict[str, segue.Recipe]]:
    """The stored grid has three datasets and recipes, narrower networks, three critics and one update a step in
    RLPD."""
    return {
        name: recipes(full, {"dataset": log, "env": env_id})
        for name, (log, env_id) in LOGS.items()
        if full or name in STORED
    }


def recipes(full: bool, task: dict[str, Any]) -> dict[str, segue.Recipe]:
    """The baseline first."""
    live: dict[str, Any] = {
        **task,
        "online_steps": 100_000 if full else 10_000,
        "eval_every": 5_000 if full else 1_000,
        "eval_episodes": 10 if full else 5,
        "seeds": 10 if full else 3,
    }
    pretrained = {**live, "offline_steps": 200_000 if full else 10_000}
    small: dict[str, Any] = {} if full else {"hidden_sizes": (128, 128), "batch_size": 128}
    cql = segue.CQL(**small) if full else segue.CQL(**small, sampled_actions=2)
    guarded = (segue.ConservativeUpdate(), segue.Guard())
    cloned = segue.BC(**small, loss="nll", top_fraction=0.1)
    fast = {key: value for key, value in small.items() if key != "batch_size"}
    ppo = segue.PPO(**fast, actor_learning_rate=1e-4, value_learning_rate=1e-3)
    arms = {
        "BC of the best tenth → PPO": segue.Recipe(**pretrained, offline=cloned, online=ppo),
        "TD3+BC → TD3, guarded": segue.Recipe(
            **pretrained, offline=segue.TD3BC(**small), online=segue.TD3(**small), replay=segue.Mixed(), bridges=guarded
        ),
        "CQL kept": segue.Recipe(**pretrained, offline=cql, online=cql, replay=segue.Mixed()),
    }
    if not full:
        few: dict[str, Any] = {**small, "ensemble_size": 3, "subset_size": 2, "critic_updates_per_actor_update": 1}
        return {"RLPD": segue.Recipe(**live, online=segue.RLPD(**few), updates_per_step=1.0), **arms}
    return {
        "RLPD": segue.Recipe(**live, online=segue.RLPD()),
        **arms,
        "CQL → SAC, guarded": segue.Recipe(
            **pretrained, offline=cql, online=segue.SAC(), replay=segue.Mixed(), bridges=guarded
        ),
        "IQL kept": segue.Recipe(**pretrained, offline=segue.IQL(), online=segue.IQL(), replay=segue.Mixed()),
        "WSRL": segue.preset("wsrl", **pretrained),
    }


STUDY = Study(
    folder=Path(__file__).parent,
    tasks=tasks,
    columns=("offline score", "final", "area", "normalised", "steps to", "dip"),
)

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))
