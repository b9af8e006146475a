"""What studies have in common: datasets and their environments (`make data` records those of segue/), and sizes."""

from __future__ import annotations

from typing import Any

#: Task: (log, environment), the stored grids' first.
LOGS: dict[str, tuple[str, str]] = {
    "hopper-mixed": ("segue:hopper-mixed", "Hopper-v5"),
    **{
        f"{task}-{kind}": (f"minari:segue/{task}/{kind}-v0", env_id)
        for kind in ("medium-replay", "medium")
        for task, env_id in {
            "halfcheetah": "HalfCheetah-v5",
            "walker2d": "Walker2d-v5",
            "hopper": "Hopper-v5",
        }.items()
    },
    "pointmaze-umaze": ("minari:segue/pointmaze/umaze-v0", "PointMaze_UMaze-v3"),
    "pointmaze-medium": ("minari:segue/pointmaze/medium-v0", "PointMaze_Medium-v3"),
}

#: The bundled dataset with discrete actions: its name, and what a recipe needs of it.
CARTPOLE = "cartpole-mixed"
CARTPOLE_TASK = {"dataset": f"segue:{CARTPOLE}", "env": "CartPole-v1"}


def sizes(full: bool) -> dict[str, Any]:
    """Of networks and batches: published ones, or those of the stored grids."""
    return {} if full else {"hidden_sizes": (128, 128), "batch_size": 128}
