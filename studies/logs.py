"""The datasets that studies compare on: where each is, and its environment. `make data` records those of segue/."""

from __future__ import annotations

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
