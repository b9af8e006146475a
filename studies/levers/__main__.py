"""What each lever and bridge does to two handovers: `python -m studies.levers` (`make levers`).

CQL → SAC on a Hopper dataset hands over a critic; BC → discrete SAC on CartPole does not. Every arm changes one thing
of the first one, which keeps half of each batch from the dataset and holds on to nothing. Some need a second one: SAMG
asks for live data only, and is to be held against that arm.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import segue
from segue.bridges import Bridge
from studies.grid import main
from studies.logs import CARTPOLE, CARTPOLE_TASK, LOGS, sizes
from studies.panels import panel
from studies.results import Study

TASK = "hopper-mixed"


def tasks(full: bool) -> dict[str, dict[str, segue.Recipe]]:
    """The stored grid has narrower networks and two datasets."""
    continuous = {
        name: with_critic(full, {"dataset": log, "env": env_id})
        for name, (log, env_id) in LOGS.items()
        if full or name == TASK
    }
    return {**continuous, CARTPOLE: without_critic(full, CARTPOLE_TASK)}


def budget(full: bool) -> dict[str, Any]:
    return {
        "online_steps": 100_000 if full else 20_000,
        "replay": segue.Mixed(),
        "warmup_steps": 2_000,
        "eval_every": 5_000 if full else 1_000,
        "eval_episodes": 10,
        "seeds": 10 if full else 3,
    }


def samg(full: bool) -> segue.SAMG:
    return segue.SAMG() if full else segue.SAMG(hidden_sizes=(128, 128), fit_steps=2_000)


def with_critic(full: bool, task: dict[str, Any]) -> dict[str, segue.Recipe]:
    """CQL → SAC, the plain handover first."""
    small = sizes(full)
    both: dict[str, Any] = {**small, "critic_layer_norm": "before", "ensemble_size": 3, "subset_size": 2}
    cql = segue.CQL(**both) if full else segue.CQL(**both, sampled_actions=2)
    sac = segue.SAC(**both, backup_entropy=False)
    plain = segue.Recipe(**task, **budget(full), offline=cql, offline_steps=200_000 if full else 50_000, online=sac)

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
        "annealed replay": changed(replay=segue.Annealed()),
        "replaced replay": changed(replay=segue.Replaced()),
        "balanced replay": changed(replay=segue.Balanced()),
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
        "CQL kept": changed(online=cql),
        "CQL that lets go": changed(online=cql, bridges=(segue.LetGo(),)),
        "averaged actor": changed(bridges=(segue.AveragedActor(),)),
        "averaged actor, slower targets": dataclasses.replace(
            online(polyak=0.001), bridges=(segue.AveragedActor(average=0.001),)
        ),
        "Q-filter": changed(bridges=(segue.QFilter(),)),
        "SAMG": changed(bridges=(samg(full),), replay=segue.OnlineOnly()),  # which it asks for
        "critic re-fit": changed(bridges=(segue.CriticRefit(),)),
        "policy expansion": changed(bridges=(segue.PolicyExpansion(),)),
        "jump start": changed(bridges=(segue.JumpStart(rule="conservative"),)),
        "conservative update": changed(bridges=(segue.ConservativeUpdate(),)),
        "guard": changed(bridges=(segue.Guard(),)),
        "earned freedom": changed(bridges=(freedom,)),
        "earned freedom, temperature held": dataclasses.replace(
            online(temperature_learning_rate=0.0), bridges=(freedom,)
        ),
        "promotion": changed(bridges=(segue.Promotion(),)),
    }


def without_critic(full: bool, task: dict[str, Any]) -> dict[str, segue.Recipe]:
    """BC → discrete SAC, the plain handover first."""
    small = sizes(full)
    plain = segue.Recipe(
        **task, **budget(full), offline=segue.BC(**small), offline_steps=10_000, online=segue.DiscreteSAC(**small)
    )

    def changed(*bridges: Bridge, **fields: Any) -> segue.Recipe:
        return dataclasses.replace(plain, bridges=bridges, **fields)

    return {
        "plain": plain,
        "live data only": changed(replay=segue.OnlineOnly()),
        "critic re-fit": changed(segue.CriticRefit()),
        "re-fit, SAMG": changed(segue.CriticRefit(), samg(full), replay=segue.OnlineOnly()),
        "re-fit, conservative update": changed(segue.CriticRefit(), segue.ConservativeUpdate()),
        "policy expansion": changed(segue.PolicyExpansion()),
        "jump start": changed(segue.JumpStart(rule="conservative")),
        "conservative update": changed(segue.ConservativeUpdate()),
        "guard": changed(segue.Guard()),
        "promotion": changed(segue.Promotion()),
    }


STUDY = Study(
    folder=Path(__file__).parent,
    tasks=tasks,
    columns=("offline score", "final", "area", "dip", "swing", "live"),
    panels=[
        [panel(TASK, title, "plain", *arms) for title, arms in row.items()]
        for row in (
            {
                "replay": ("live data only", "annealed replay", "replaced replay", "balanced replay"),
                "pretraining": ("no LayerNorm", "three-step targets", "a fifth of the pretraining"),
                "steps and targets": ("slower targets", "shorter steps of the policy", "four updates per step"),
            },
            {
                "what is kept": ("CQL kept", "CQL that lets go", "averaged actor", "averaged actor, slower targets"),
                "critic and guides": ("Q-filter", "SAMG", "critic re-fit", "policy expansion", "jump start"),
                "evidence": ("guard", "promotion"),
            },
            {"trust regions": ("conservative update", "earned freedom", "earned freedom, temperature held")},
        )
    ]
    + [
        [
            panel(CARTPOLE, f"CartPole: {title}", "plain", *arms)
            for title, arms in {
                "critic": ("live data only", "critic re-fit", "re-fit, SAMG"),
                "guides": ("policy expansion", "jump start", "guard", "promotion"),
                "trust regions": ("conservative update", "re-fit, conservative update"),
            }.items()
        ]
    ],
)

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))
