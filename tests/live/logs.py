"""A run, its exported policy, and a log that a service wrote with it: what learning from live data starts from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

import segue
from segue.deployment.export import export_policy
from segue.live import Service
from segue.live.learner import recipe_of
from segue.recipe import Recipe
from toys import SMALL, pendulum

FINAL = "checkpoints/offline-cal-ql/seed-0/final"


def made_run(where: Path, **changes: Any) -> Path:
    """A run's offline phase on noise in Pendulum's shapes, which has critics; its policy is exported beside it."""
    recipe = pendulum(**({"offline": segue.CalQL(**SMALL), "online": None, "online_steps": 0} | changes))
    segue.run(recipe, where / "run", progress=False)
    export_policy(where / "run" / FINAL, where / "policy")
    return where / "run"


def live_recipe(run: Path, **changes: Any) -> Recipe:
    """What learns from the log: Cal-QL, which needs returns and next actions that are known late."""
    usual = {"online": segue.CalQL(**SMALL), "online_steps": 400, "warmup_steps": 20}
    return dataclasses.replace(recipe_of(run / FINAL), **(usual | {"replay": segue.Mixed(capacity=300)} | changes))


class World:
    """Noise as a live system: episodes side by side, whose outcomes come late, out of order, or never.

    Args:
        service: decides.
        seed: of everything.
        together: episodes that are going on.
        lost: share of the outcomes that never come.
        overridden: share of the decisions that are not executed; of every second one the replacement is known.
    """

    def __init__(
        self, service: Service, seed: int = 0, together: int = 4, lost: float = 0.0, overridden: float = 0.0
    ) -> None:
        self.service, self.lost, self.overridden = service, lost, overridden
        self.random = np.random.default_rng(seed)
        self.going_on: list[tuple[str, int]] = []
        self.together, self.begun, self.seed = together, 0, seed
        self.late: list[dict[str, Any]] = []

    def steps(self, count: int) -> World:
        """So many decisions, each of an episode drawn at random, and the outcomes that have come until then."""
        for _ in range(count):
            while len(self.going_on) < self.together:
                self.going_on.append((f"e{self.seed}-{self.begun}", 0))
                self.begun += 1
            place = int(self.random.integers(len(self.going_on)))
            episode, t = self.going_on.pop(place)
            name, seen = f"{episode}-{t}", self.random.normal(size=3).astype(np.float32)
            self.service.decide(decision_id=name, episode_id=episode, observation=seen.tolist())
            if self.random.random() < self.overridden:
                action = [0.5] if self.random.random() < 0.5 else None
                self.service.activation(decision_id=name, executed=False, action=action, who="a human")
            end = t >= 2 and self.random.random() < 0.3
            if end:
                over = {"terminated": True} if self.random.random() < 0.5 else self.cut()
            else:
                over = {}
                self.going_on.append((episode, t + 1))
            self.late.append({"decision_id": name, "reward": float(self.random.normal()), **over})
            while len(self.late) > 3:
                self.give(self.late.pop(int(self.random.integers(len(self.late)))))
        return self

    def cut(self) -> dict[str, Any]:
        """The end of an episode that could have gone on."""
        return {"truncated": True, "next_observation": self.random.normal(size=3).tolist()}

    def give(self, outcome: dict[str, Any]) -> None:
        if self.random.random() >= self.lost:
            self.service.outcome(**outcome)

    def settle(self) -> World:
        """What is late comes."""
        while self.late:
            self.give(self.late.pop(0))
        return self
