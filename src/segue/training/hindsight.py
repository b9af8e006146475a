"""Columns of live transitions that are only known later: the return-to-go when the episode ends, the next action a
step later.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

from segue.data.dataset import returns_to_go
from segue.replay import Replay, amend
from segue.replay.journal import Journal
from segue.types import Transition


class Hindsight:
    """Watches live transitions and fills their late columns in.

    Transition number t·E + e is step t of environment e, of E. The return-to-go of an episode that a time limit cut is
    the sum of what it got.
    """

    def __init__(
        self, columns: Collection[str], discount: float, environments: int, failure_reward: float | None = None
    ) -> None:
        self.columns, self.discount, self.environments = columns, discount, environments
        self.failure_reward = failure_reward
        self.step = 0
        self.rewards: list[list[float]] = [[] for _ in range(environments)]
        self.continues = np.zeros(environments, bool)
        self.found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {column: [] for column in columns}

    def watch(self, batch: Transition, done: Bool[np.ndarray, " environments"]) -> None:
        """One step of every environment; `done` where the episode ended with it."""
        if "next_action" in self.found and self.continues.any():
            before = (self.step - 1) * self.environments + np.flatnonzero(self.continues)
            self.found["next_action"].append((before, np.asarray(batch.action)[self.continues]))
        self.continues = ~done
        if "return_to_go" in self.found:
            for env, reward in enumerate(np.asarray(batch.reward)):
                self.rewards[env].append(float(reward))
                if done[env]:
                    self.found["return_to_go"].append(self._episode(env))
                    self.rewards[env] = []
        self.step += 1

    def abandon(self, environments: Bool[np.ndarray, " environments"]) -> None:
        """The episodes that ran there will never end; others begin with the next step."""
        self.continues &= ~environments
        for env in np.flatnonzero(environments):
            self.rewards[env] = []

    def apply(self, replay: Replay, journal: Journal | None = None) -> Replay:
        """The replay with everything filled in that has become known; the journal is told."""
        for column, parts in self.found.items():
            if parts:
                numbers, values = (np.concatenate(part) for part in zip(*parts, strict=True))
                replay = amend(replay, column, numbers, values)
                if journal is not None:
                    journal.amend(column, numbers, values)
                parts.clear()
        return replay

    def position(self) -> dict[str, Any]:
        """What it knows of the running episodes, as JSON has it; everything known must have been applied."""
        return {"step": self.step, "rewards": self.rewards, "continues": self.continues.tolist()}

    def restore(self, position: Mapping[str, Any]) -> None:
        """Go back to a position."""
        self.step, self.rewards = position["step"], [list(rewards) for rewards in position["rewards"]]
        self.continues = np.array(position["continues"], bool)

    def _episode(self, env: int) -> tuple[np.ndarray, np.ndarray]:
        rewards = np.array(self.rewards[env])
        returns = returns_to_go(rewards, self.discount, self.failure_reward)
        steps = np.arange(self.step - len(rewards) + 1, self.step + 1)
        return steps * self.environments + env, returns
