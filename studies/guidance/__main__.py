"""SAMG on top of AWAC, IQL, CQL and Cal-QL: `python -m studies.guidance` (`make guidance`).

Each algorithm is pretrained on a dataset and goes on live: alone with half of each batch from the dataset,
alone with live data only, and with live data only and SAMG, which is what SAMG is meant to make possible. AWAC and
IQL go on also as they are published, with live data appended to the dataset; on IQL there are SAMG's ablations too.
The strong baselines are WSRL, which drops the dataset as well, and RLPD, which learns from scratch with it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import segue
from studies.grid import main
from studies.logs import LOGS
from studies.panels import Panel, panel
from studies.results import Study

WAYS = {
    **dict.fromkeys(("AWAC", "IQL"), ("dataset kept", "dataset appended", "live only", "SAMG")),
    **dict.fromkeys(("CQL", "Cal-QL"), ("dataset kept", "live only", "SAMG")),
}
COEFFICIENTS = ("", ", p even", ", p random", ", adaptive")
STORED = ("hopper-mixed", "walker2d-medium-replay")


def tasks(full: bool) -> dict[str, dict[str, segue.Recipe]]:
    """The stored grid has two datasets, narrower networks, fewer actions in CQL, and smaller baselines."""
    named = {name: {"dataset": log, "env": env_id} for name, (log, env_id) in LOGS.items()}
    return {name: arms(full, named[name]) for name in (named if full else STORED)}


def arms(full: bool, task: dict[str, Any]) -> dict[str, segue.Recipe]:
    """Every algorithm in its three ways, the ablations, and the baselines."""
    small: dict[str, Any] = {} if full else {"hidden_sizes": (128, 128), "batch_size": 128}
    conservative: dict[str, Any] = small if full else {**small, "sampled_actions": 2}
    algorithms: dict[str, Any] = {
        "AWAC": segue.AWAC(**small),
        "IQL": segue.IQL(**small),
        "CQL": segue.CQL(**conservative),
        "Cal-QL": segue.CalQL(**conservative),
    }
    samg: dict[str, Any] = {} if full else {"hidden_sizes": (128, 128), "fit_steps": 2_000}
    live: dict[str, Any] = {
        **task,
        "offline_steps": 200_000 if full else 50_000,
        "online_steps": 100_000 if full else 10_000,
        "eval_every": 5_000 if full else 1_000,
        "eval_episodes": 10,
        "seeds": 10 if full else 3,
    }
    found = {}
    for name, algorithm in algorithms.items():
        pretrained = {**live, "offline": algorithm, "online": algorithm}
        only_live = {**pretrained, "replay": segue.OnlineOnly()}
        found[f"{name}, dataset kept"] = segue.Recipe(**pretrained, replay=segue.Mixed())
        found[f"{name}, live only"] = segue.Recipe(**only_live)
        found[f"{name}, SAMG"] = segue.Recipe(**only_live, bridges=(segue.SAMG(**samg),))
        if name in ("AWAC", "IQL"):
            found[f"{name}, dataset appended"] = segue.Recipe(**pretrained, replay=segue.Appended())
        if name == "IQL":
            for ablation in ("even", "random"):
                bridge = segue.SAMG(**samg, coefficient=ablation)
                found[f"IQL, SAMG, p {ablation}"] = segue.Recipe(**only_live, bridges=(bridge,))
            adaptive = segue.SAMG(**samg, adaptive=True)
            found["IQL, SAMG, adaptive"] = segue.Recipe(**only_live, bridges=(adaptive,))
    return {**found, **baselines(full, live)}


def baselines(full: bool, live: dict[str, Any]) -> dict[str, segue.Recipe]:
    """WSRL and RLPD as published, or with three critics and one update per step."""
    scratch = {name: value for name, value in live.items() if name != "offline_steps"}
    if full:
        return {"WSRL": segue.preset("wsrl", **live), "RLPD": segue.Recipe(**scratch, online=segue.RLPD())}
    small: dict[str, Any] = {"hidden_sizes": (128, 128), "batch_size": 128, "critic_layer_norm": "before"}
    few = {**small, "ensemble_size": 3, "subset_size": 2}
    warm: dict[str, Any] = {"warmup_steps": 2_000, "replay": segue.OnlineOnly()}
    rlpd = segue.RLPD(**few, critic_updates_per_actor_update=1)
    return {
        "WSRL": segue.Recipe(
            **live, **warm, offline=segue.CQL(**few, sampled_actions=2), online=segue.SAC(**few, backup_entropy=False)
        ),
        "RLPD": segue.Recipe(**scratch, online=rlpd, updates_per_step=1.0),
    }


def _rows(task: str) -> list[list[Panel]]:
    return [
        [_ways(task, "AWAC"), _ways(task, "IQL")],
        [_ways(task, "CQL"), _ways(task, "Cal-QL")],
        [panel(task, f"{task}: what SAMG's coefficient is", *(f"IQL, SAMG{p}" for p in COEFFICIENTS))],
    ]


def _ways(task: str, base: str) -> Panel:
    named = {way: f"{task}: {base}, {way}" for way in WAYS[base]}
    return f"{task}: {base}", named | {name: f"{task}: {name}" for name in ("WSRL", "RLPD")}


STUDY = Study(
    folder=Path(__file__).parent,
    tasks=tasks,
    columns=("offline score", "final", "area", "dip", "share below"),
    panels=[row for task in STORED for row in _rows(task)],
)

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))
