"""Recipes against RLPD from scratch with the dataset: `python -m studies.leaderboard` (`make leaderboard`).

It needs `make data`. All have the same live budget. The baseline that every method must beat never pretrains: half of
each of its batches is the dataset. `--arm NAME` runs some of the recipes only; the grid grows run by run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import segue
from segue.presets import promoted
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
#: Updates of the recipes that learn a critic from the dataset.
PRETRAINING = 100_000


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
        "seeds": 10 if full else 5,
    }
    cloned = {**live, "offline_steps": 10_000}
    pretrained = {**live, "offline_steps": PRETRAINING}
    small: dict[str, Any] = {} if full else {"hidden_sizes": (128, 128), "batch_size": 128}
    wide = {key: value for key, value in small.items() if key != "batch_size"}
    few = {**small, "ensemble_size": 3, "subset_size": 2, "critic_updates_per_actor_update": 1}
    ppo = segue.PPO(**wide, actor_learning_rate=1e-4, value_learning_rate=1e-3)
    cql = segue.CQL(**small) if full else segue.CQL(**small, sampled_actions=2)
    mixed = segue.Mixed()
    return {
        "RLPD": segue.Recipe(**live, online=segue.RLPD(**few), updates_per_step=1.0),
        "auto": segue.Recipe(**live, **promoted(0.1)),
        "BC of the best tenth → PPO": segue.Recipe(
            **cloned, offline=segue.BC(**small, loss="nll", top_fraction=0.1), online=ppo
        ),
        "BC of the best half → PPO": segue.Recipe(
            **cloned, offline=segue.BC(**small, loss="nll", top_fraction=0.5), online=ppo
        ),
        "IQL → PPO": segue.Recipe(
            **{**live, "offline_steps": 11_000}, offline=segue.IQL(**small, distribution="squashed"), online=ppo
        ),
        "TD3+BC → TD3, held": segue.Recipe(
            **pretrained,
            offline=segue.TD3BC(**small),
            online=segue.TD3(**small),
            replay=mixed,
            bridges=(segue.ConservativeUpdate(), segue.Guard()),
        ),
        "ReBRAC kept": segue.Recipe(
            **pretrained, offline=segue.ReBRAC(**small), online=segue.ReBRAC(**small), replay=mixed
        ),
        "IQL kept": segue.Recipe(**pretrained, offline=segue.IQL(**small), online=segue.IQL(**small), replay=mixed),
        "CQL → SAC": segue.Recipe(**pretrained, offline=cql, online=segue.SAC(**small), replay=mixed),
        "Cal-QL kept": segue.Recipe(
            **pretrained, offline=segue.CalQL(**small), online=segue.CalQL(**small), replay=mixed
        ),
        "FQL kept": segue.Recipe(**pretrained, offline=segue.FQL(**small), online=segue.FQL(**small), replay=mixed),
        "WSRL": segue.preset("wsrl", **pretrained, updates_per_step=4.0)
        if full
        else segue.Recipe(
            **pretrained,
            offline=cql,
            online=segue.SAC(
                **{**small, "ensemble_size": 2, "critic_layer_norm": "before", "actor_layer_norm": "before"},
                critic_updates_per_actor_update=4,
            ),
            replay=segue.OnlineOnly(),
            warmup_steps=5_000,
            updates_per_step=4.0,
        ),
    }


STUDY = Study(
    folder=Path(__file__).parent,
    tasks=tasks,
    columns=("offline score", "final", "area", "normalised", "steps to", "dip", "live"),
)

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))
