"""What each lever does to one handover, CQL → SAC on a Hopper dataset: `python -m studies.levers` (`make levers`).

Every arm changes one thing of the first one, which keeps half of each batch from the dataset and holds on to nothing.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import segue
from studies.grid import main
from studies.logs import LOGS
from studies.results import Study

TASK = "hopper-mixed"


def tasks(full: bool) -> dict[str, dict[str, segue.Recipe]]:
    """The stored grid has narrower networks and one dataset."""
    return {
        name: arms(full, {"dataset": log, "env": env_id})
        for name, (log, env_id) in LOGS.items()
        if full or name == TASK
    }


def arms(full: bool, task: dict[str, Any]) -> dict[str, segue.Recipe]:
    """The plain handover first."""
    small: dict[str, Any] = {} if full else {"hidden_sizes": (128, 128), "batch_size": 128}
    both: dict[str, Any] = {**small, "critic_layer_norm": "before", "ensemble_size": 3, "subset_size": 2}
    cql = segue.CQL(**both) if full else segue.CQL(**both, sampled_actions=2)
    sac = segue.SAC(**both, backup_entropy=False)
    plain = segue.Recipe(
        **task,
        offline=cql,
        offline_steps=200_000 if full else 50_000,
        online=sac,
        online_steps=100_000 if full else 20_000,
        replay=segue.Mixed(),
        warmup_steps=2_000,
        eval_every=5_000 if full else 1_000,
        eval_episodes=10,
        seeds=10 if full else 3,
    )

    def changed(**fields: Any) -> segue.Recipe:
        return dataclasses.replace(plain, **fields)

    def online(**fields: Any) -> segue.Recipe:
        return changed(online=dataclasses.replace(sac, **fields))

    freedom = segue.EarnedFreedom(distance="kl", epsilon=0.05)

    def without_norm(algorithm: Any) -> Any:
        return dataclasses.replace(algorithm, critic_layer_norm="none")

    return {
        "plain": plain,
        "live data only": changed(replay=segue.OnlineOnly()),
        "no LayerNorm": changed(offline=without_norm(cql), online=without_norm(sac)),
        "three-step targets": changed(
            offline=dataclasses.replace(cql, n_step=3), online=dataclasses.replace(sac, n_step=3)
        ),
        "a fifth of the pretraining": changed(offline_steps=plain.offline_steps // 5),
        "slower targets": online(polyak=0.001),
        "shorter steps of the policy": online(actor_learning_rate=3e-5),
        "four updates per step": changed(
            online=dataclasses.replace(sac, critic_updates_per_actor_update=4), updates_per_step=4.0
        ),
        "averaged actor": changed(bridges=(segue.AveragedActor(),)),
        "averaged actor, slower targets": dataclasses.replace(
            online(polyak=0.001), bridges=(segue.AveragedActor(average=0.001),)
        ),
        "conservative update": changed(bridges=(segue.ConservativeUpdate(),)),
        "guard": changed(bridges=(segue.Guard(),)),
        "earned freedom": changed(bridges=(freedom,)),
        "earned freedom, temperature held": dataclasses.replace(
            online(temperature_learning_rate=0.0), bridges=(freedom,)
        ),
        "promotion": changed(bridges=(segue.Promotion(),)),
    }


STUDY = Study(
    folder=Path(__file__).parent,
    tasks=tasks,
    columns=("offline score", "final", "area", "dip", "swing", "live"),
    panels=[
        [
            (name, {arm: f"{TASK}: {arm}" for arm in ("plain", *group)})
            for name, group in (
                (
                    "data and pretraining",
                    ("live data only", "no LayerNorm", "three-step targets", "a fifth of the pretraining"),
                ),
                (
                    "steps and targets",
                    ("slower targets", "shorter steps of the policy", "four updates per step"),
                ),
            )
        ],
        [
            (name, {arm: f"{TASK}: {arm}" for arm in ("plain", *group)})
            for name, group in (
                ("averages", ("averaged actor", "averaged actor, slower targets")),
                ("what holds", ("conservative update", "guard", "earned freedom, temperature held", "promotion")),
            )
        ],
    ],
)

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))
