"""FQL and QC-FQL, offline and then live: `python -m studies.flow` (`make flow`).

Flow Q-learning with one action per decision and with chunks of five, on a Hopper dataset and on a maze: from the
dataset to live steps with the same algorithm. TD3+BC stands beside them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from studies.grid import main
from studies.results import Study

import segue

DATASETS = {
    "hopper": ("segue:hopper-mixed", "Hopper-v5", 0.99),
    "pointmaze": ("minari:segue/pointmaze/umaze-v0", "PointMaze_UMaze-v3", 0.99),
}


def tasks(full: bool) -> dict[str, dict[str, segue.Recipe]]:
    """The stored grid has narrower networks and a tenth of the budget."""
    shared: dict[str, Any] = {} if full else {"hidden_sizes": (128, 128), "batch_size": 128}
    grid: dict[str, dict[str, segue.Recipe]] = {}
    for task, (dataset, env, discount) in DATASETS.items():
        algorithms = {
            "TD3+BC": segue.TD3BC(**shared, discount=discount),
            "FQL": segue.FQL(**shared, discount=discount),
            "QC-FQL": segue.FQL(**shared, discount=discount, chunk=5),
        }
        grid[task] = {
            name: segue.Recipe(
                dataset=dataset,
                env=env,
                offline=algorithm,
                offline_steps=100_000 if full else 10_000,
                online=algorithm,
                online_steps=100_000 if full else 10_000,
                replay=segue.Appended(),
                held_out=0,
                eval_every=10_000 if full else 2_000,
                eval_episodes=10,
                seeds=5 if full else 3,
            )
            for name, algorithm in algorithms.items()
        }
    return grid


STUDY = Study(
    folder=Path(__file__).parent,
    tasks=tasks,
    columns=("offline score", "final", "area", "dip"),
)

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))
