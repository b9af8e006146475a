"""The classic exercise: `python -m studies.exercise` (`make exercise`).

A policy is pretrained on a Hopper dataset by SAC or by CQL and fine-tuned live by SAC; the same SAC learns from
scratch; and it is fine-tuned with a Q-filter. Which reaches a high return first, and does the filter reduce
instability?
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import segue
from segue.report import decode
from segue.report.tables import markdown
from studies.grid import main
from studies.results import Study


def tasks(full: bool) -> dict[str, dict[str, segue.Recipe]]:
    """The stored grid has narrower networks, fewer actions in CQL, a smaller log and a quarter of the updates."""
    shared: dict[str, Any] = {} if full else {"hidden_sizes": (128, 128), "batch_size": 128}
    sac = segue.SAC(**shared)
    cql = segue.CQL(**shared) if full else segue.CQL(**shared, sampled_actions=2)
    live: dict[str, Any] = {
        "env": "Hopper-v5",
        "online": sac,
        "online_steps": 100_000,
        "eval_every": 5_000,
        "handover_eval_every": 1_000,
        "eval_episodes": 5,
        "seeds": 10 if full else 3,
    }
    log = "minari:segue/hopper/medium-replay-v0" if full else "segue:hopper-mixed"
    offline_steps = 200_000 if full else 50_000
    arms = {"scratch": segue.Recipe(**live)}
    for name, algorithm in {"SAC": sac, "CQL": cql}.items():
        pretrained = {**live, "dataset": log, "offline": algorithm, "offline_steps": offline_steps}
        arms[f"{name}, fine-tune"] = segue.Recipe(**pretrained)
        arms[f"{name}, fine-tune, Q-filter"] = segue.Recipe(**pretrained, bridges=(segue.QFilter(percentile=25),))
    return {"hopper": arms}


def instability(results: Mapping[str, Any]) -> str:
    """Markdown: how much of the return is lost from one evaluation to the next, by arm, over seeds."""
    rows = []
    for arm in decode(results).arms.values():
        curves = [seed.online_curve[1] for seed in arm.seeds.values() if seed.finished]
        if curves:
            falls = [np.maximum(-np.diff(curve), 0) for curve in curves]
            cells = [[fall.mean() for fall in falls], [fall.max() for fall in falls]]
            rows.append([arm.method, *(f"{np.mean(c):,.0f} ({min(c):,.0f}–{max(c):,.0f})" for c in cells)])
    return markdown(("arm", "mean fall", "largest fall"), rows)


STUDY = Study(
    folder=Path(__file__).parent,
    tasks=tasks,
    columns=("offline score", "final", "area", "steps to", "dip", "share below", "stability"),
    reach=1_500,
    more={"instability": instability},
)

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))
