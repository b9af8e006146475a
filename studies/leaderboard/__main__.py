"""Recipes on one live budget, against RLPD from scratch with the dataset: `python -m studies.leaderboard`
(`make leaderboard`). It needs `make data`.

The baseline that every method must beat never pretrains: half of each of its batches is the dataset.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import segue
from segue.algorithms import Algorithm
from segue.bridges import Bridge
from segue.replay import ReplayStrategy
from segue.report import decode
from segue.report.aggregate import aggregate
from studies.grid import main
from studies.logs import CARTPOLE, CARTPOLE_TASK, LOGS, sizes
from studies.panels import panel
from studies.results import Study

STORED = (
    "hopper-mixed",
    "walker2d-medium-replay",
    "halfcheetah-medium-replay",
    "hopper-medium-replay",
    "pointmaze-medium",
)
GROUPS = {
    "promoted": ("RLPD", "BC of the best tenth → RLPD, promoted", "CQL → SAC, promoted"),
    "handed over": ("BC of the best tenth → PPO", "IQL → PPO", "WSRL", "TD3+BC → TD3, guarded"),
    "one method": ("Cal-QL", "IQL", "AWAC", "ReBRAC", "FQL"),
    "four updates": ("RLPD", "RLPD, four updates", "CQL → RLPD, four updates", "WSRL, four updates"),
}
"""What is drawn together, beside `auto`."""
DISCRETE_GROUPS = {
    "promoted": ("discrete SAC", "BC of the best tenth → discrete SAC, promoted"),
    "handed over": ("BC of the best tenth → PPO", "discrete CQL → discrete SAC"),
    "one method": ("discrete BCQ", "AWAC", "IQL"),
}
SPARSE = ("pointmaze-umaze", "pointmaze-medium")
"""Where rewards are, and `auto` is another recipe."""


def tasks(full: bool) -> dict[str, dict[str, segue.Recipe]]:
    """The stored grid has narrower networks; `--full` has published sizes, and every dataset."""
    named = {name: {"dataset": log, "env": env_id} for name, (log, env_id) in LOGS.items()}
    continuous = {name: recipes(full, named[name], name in SPARSE) for name in (named if full else STORED)}
    return {**continuous, CARTPOLE: discrete(full, CARTPOLE_TASK)}


def budget(full: bool) -> dict[str, Any]:
    return {
        "online_steps": 100_000 if full else 50_000,
        "eval_every": 5_000 if full else 2_500,
        "eval_episodes": 10,
        "seeds": 10 if full else 5,
    }


def cautious(full: bool) -> segue.PPO:
    """PPO with small steps."""
    wide: dict[str, Any] = {} if full else {"hidden_sizes": (128, 128)}
    return segue.PPO(**wide, actor_learning_rate=1e-4, value_learning_rate=1e-3)


def recipes(full: bool, task: dict[str, Any], sparse: bool) -> dict[str, segue.Recipe]:
    """The baseline first."""
    live: dict[str, Any] = {**task, **budget(full)}
    pretrained = {**live, "offline_steps": 200_000 if full else 50_000}
    small = sizes(full)
    few: dict[str, Any] = {} if full else {**small, "ensemble_size": 3, "subset_size": 2}
    quick: dict[str, Any] = {} if full else {"sampled_actions": 2}
    compact = segue.BC(hidden_sizes=(128, 128), batch_size=128, loss="nll", top_fraction=0.1)
    promoted = segue.preset("promoted", **live)
    assert isinstance(promoted.online, segue.RLPD)
    cloned_only = dataclasses.replace(
        promoted,
        offline=compact,
        offline_steps=10_000,
        online=dataclasses.replace(promoted.online, initial_temperature=0.1),  # BC has none to carry over
        bridges=(segue.Promotion(),),
    )
    ppo = cautious(full)
    cloned = segue.BC(**small, loss="nll", top_fraction=0.1)
    return {
        "RLPD": segue.Recipe(**live, online=segue.RLPD()) if full else _small_rlpd(live, few),
        "auto": segue.preset("iql-sac", **live) if sparse else promoted,
        "BC of the best tenth → RLPD, promoted": cloned_only,
        "BC of the best tenth → PPO": segue.Recipe(**live, offline=cloned, offline_steps=10_000, online=ppo),
        "WSRL": segue.preset("wsrl", **pretrained) if full else _from_cql(pretrained, few, segue.OnlineOnly()),
        "CQL → SAC, promoted": _from_cql(pretrained, few, segue.Mixed(), segue.Promotion()),
        "IQL → PPO": segue.Recipe(**pretrained, offline=segue.IQL(**small, distribution="squashed"), online=ppo),
        "TD3+BC → TD3, guarded": segue.Recipe(
            **pretrained,
            offline=segue.TD3BC(**small),
            online=segue.TD3(**small),
            replay=segue.Mixed(),
            bridges=(segue.ConservativeUpdate(), segue.Guard()),
        ),
        "Cal-QL": _goes_on(pretrained, segue.CalQL(**small, **quick)),
        "IQL": _goes_on(pretrained, segue.IQL(**small)),
        "AWAC": _goes_on(pretrained, segue.AWAC(**small)),
        "ReBRAC": _goes_on(pretrained, segue.ReBRAC(**small)),
        "FQL": _goes_on(pretrained, segue.FQL(**small)),
        **_four_updates(promoted, live),
    }


def discrete(full: bool, task: dict[str, Any]) -> dict[str, segue.Recipe]:
    """The arms that make sense with discrete actions. Like RLPD, the baseline never pretrains and has the dataset."""
    live: dict[str, Any] = {**task, **budget(full)}
    pretrained = {**live, "offline_steps": 200_000 if full else 50_000}
    small = sizes(full)
    sac = segue.DiscreteSAC(**small)
    cloned = {**live, "offline": segue.BC(**small, loss="nll", top_fraction=0.1), "offline_steps": 10_000}
    chosen = segue.preset("discrete-cql", **live)
    return {
        "discrete SAC": segue.Recipe(**live, online=sac),
        "auto": chosen,
        "BC of the best tenth → discrete SAC, promoted": segue.Recipe(
            **cloned, online=sac, bridges=(segue.Promotion(),)
        ),
        "BC of the best tenth → PPO": segue.Recipe(**cloned, online=cautious(full)),
        "discrete CQL → discrete SAC": segue.Recipe(**pretrained, offline=chosen.offline, online=sac),
        "discrete BCQ": _goes_on(pretrained, segue.DiscreteBCQ(**small)),
        "AWAC": _goes_on(pretrained, segue.AWAC(**small)),
        "IQL": _goes_on(pretrained, segue.IQL(**small)),
    }


def _goes_on(pretrained: Mapping[str, Any], algorithm: Algorithm) -> segue.Recipe:
    """One algorithm on the dataset and then live, with all that it has against leaving the data."""
    return segue.Recipe(**pretrained, offline=algorithm, online=algorithm)


def _four_updates(promoted: segue.Recipe, live: Mapping[str, Any]) -> dict[str, segue.Recipe]:
    """What `promoted` is made of: its learner from scratch and after its pretraining; and WSRL with those critics."""
    learner, wsrl = promoted.online, segue.preset("wsrl", **live)
    assert isinstance(learner, segue.RLPD)
    both: dict[str, Any] = {name: getattr(learner, name) for name in ("hidden_sizes", "batch_size", "ensemble_size")}
    assert isinstance(wsrl.offline, segue.CQL)
    assert isinstance(wsrl.online, segue.SAC)
    return {
        "RLPD, four updates": segue.Recipe(
            **live, online=learner, updates_per_step=promoted.updates_per_step, replay=promoted.replay
        ),
        "CQL → RLPD, four updates": dataclasses.replace(promoted, bridges=()),
        "WSRL, four updates": dataclasses.replace(
            wsrl,
            offline=dataclasses.replace(wsrl.offline, **both, sampled_actions=2),
            offline_steps=promoted.offline_steps,
            online=dataclasses.replace(wsrl.online, **both),
        ),
    }


def _small_rlpd(live: Mapping[str, Any], few: Mapping[str, Any]) -> segue.Recipe:
    """With three critics and one update per step; published: ten, and 20."""
    return segue.Recipe(**live, online=segue.RLPD(**few, critic_updates_per_actor_update=1), updates_per_step=1.0)


def _from_cql(
    pretrained: Mapping[str, Any], few: Mapping[str, Any], replay: ReplayStrategy, *bridges: Bridge
) -> segue.Recipe:
    """WSRL's way into SAC; in the stored grid with three critics and one update per step (published: ten, four)."""
    both: dict[str, Any] = {**few, "critic_layer_norm": "before"}
    quick: dict[str, Any] = {"sampled_actions": 2} if few else {}
    return segue.Recipe(
        **pretrained,
        offline=segue.CQL(**both, **quick),
        online=segue.SAC(**both, backup_entropy=False),
        warmup_steps=2_000,
        replay=replay,
        bridges=bridges,
    )


def over_tasks(results: Mapping[str, Any]) -> str:
    """Statistics over tasks and seeds, and how often `auto` ends higher; with 95 % intervals."""
    arms = {label: arm for label, arm in results["arms"].items() if arm["run"] != CARTPOLE}  # it has other arms
    tasks_of = Counter(arm["method"] for arm in arms.values())
    everywhere = {label: arm for label, arm in arms.items() if tasks_of[arm["method"]] == max(tasks_of.values())}
    found = aggregate(decode({**results, "arms": everywhere}))
    if found is None:
        return "Not enough seeds yet.\n"
    lines = [
        "| arm | final (IQM of normalised scores) | area | auto ends higher |",
        "| :-- | --: | --: | --: |",
    ]
    for method in found.methods:
        pair = found.pairs.get(("auto", method.name))
        cells = [
            "–" if one is None else f"{one.value:{form}} ({one.low:{form}}–{one.high:{form}})"
            for one, form in ((method.final, ".1f"), (method.area, ".1f"), (pair, ".2f"))
        ]
        lines.append(f"| {method.name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *found.notes])


STUDY = Study(
    folder=Path(__file__).parent,
    tasks=tasks,
    panels=[
        *([panel(task, f"{task}: {title}", "auto", *arms) for title, arms in GROUPS.items()] for task in STORED),
        [panel(CARTPOLE, f"{CARTPOLE}: {title}", "auto", *arms) for title, arms in DISCRETE_GROUPS.items()],
    ],
    columns=("offline score", "final", "area", "normalised", "steps to", "dip", "swing", "live"),
    more={"over tasks": over_tasks},
)

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))
