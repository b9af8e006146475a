"""What every dataset is made of: who acts, and for how many steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studies.data.planner import Planner

POLICIES = Path(__file__).parent / "policies"


@dataclasses.dataclass(frozen=True)
class Part:
    """Somebody acts, for this many steps: `random`, a snapshot of our SAC run (its step), or the planner."""

    who: str | int
    steps: int

    def acting(self, env_id: str) -> Any:
        """What acts, on flattened observations; None for random actions."""
        if self.who == "random":
            return None
        if self.who in PLANNERS:
            return Planner(env_id, **PLANNERS[str(self.who)])
        from segue.cli.trained import acting

        return acting(POLICIES / env_id / f"step-{self.who}", None)[0]

    def __str__(self) -> str:
        who = f"SAC at {self.who // 1000}k" if isinstance(self.who, int) else self.who
        return f"{who} × {self.steps:,}"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One dataset: its environment and its parts, in order."""

    env_id: str
    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return f"{self.env_id}: " + ", ".join(map(str, self.parts))


PLANNERS: Mapping[str, Mapping[str, Any]] = {
    "planner": {"noise": 0.5},
    "wanderer": {"noise": 0.5, "detour": 60},
}
"""The planner on its way to the goal, and on its way to random places, which never stops at the goal."""

MEDIUM = {"Hopper-v5": 45_000, "HalfCheetah-v5": 40_000, "Walker2d-v5": 150_000}
"""The snapshot whose return is nearest to a third of D4RL's expert's (3,234, 12,135 and 4,592)."""
REPLAYED = {
    "Hopper-v5": (15_000, 25_000, 35_000, 45_000),
    "HalfCheetah-v5": (10_000, 20_000, 30_000, 40_000),
    "Walker2d-v5": (30_000, 60_000, 110_000, 150_000),
}
"""Snapshots up to the medium one; with random actions they stand in for the replay buffer of that run."""
SIZE = 100_000


def recipes() -> dict[str, Recipe]:
    """Dataset by its Minari id."""
    found = {}
    for env_id, medium in MEDIUM.items():
        task = env_id.split("-")[0].lower()
        parts: tuple[str | int, ...] = ("random", *REPLAYED[env_id])
        found[f"segue/{task}/medium-v0"] = Recipe(env_id, (Part(medium, SIZE),))
        found[f"segue/{task}/medium-replay-v0"] = Recipe(env_id, tuple(Part(who, SIZE // len(parts)) for who in parts))
    for task, env_id in {"umaze": "PointMaze_UMaze-v3", "medium": "PointMaze_Medium-v3"}.items():
        found[f"segue/pointmaze/{task}-v0"] = Recipe(
            env_id, (Part("planner", SIZE // 5), Part("wanderer", 4 * SIZE // 5))
        )
    return found
