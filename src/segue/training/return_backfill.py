"""Columns of live transitions that are only known later: the return-to-go when the episode ends, the next action a
step later.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from segue.core import Transition
from segue.data.dataset import returns_to_go
from segue.replay import Replay, amend
from segue.replay.replay_log import ReplayLog


class ReturnBackfill:
    """Watches live transitions and fills their late columns in.

    Transitions are numbered as they come. Each belongs to a slot, in which one episode runs after the other. The
    return-to-go of an episode that a time limit cut is the sum of what it got.
    """

    def __init__(
        self, columns: Collection[str], discount: float, slots: int, failure_reward: float | None = None
    ) -> None:
        self.columns, self.discount, self.failure_reward = columns, discount, failure_reward
        self.count = 0
        #: Of the running episode of each slot: the numbers of its transitions, and their rewards.
        self.running: list[list[tuple[int, float]]] = [[] for _ in range(slots)]
        self.found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {column: [] for column in columns}

    def watch(
        self, batch: Transition, done: Bool[np.ndarray, " rows"], slots: Int[np.ndarray, " rows"] | None = None
    ) -> None:
        """A transition of each of these slots, by default of all; `done` where the episode ended with it."""
        numbers = np.arange(self.count, self.count + len(done))
        self.count += len(done)
        if not self.found:
            return
        rewards = np.asarray(batch.reward).tolist()
        for row, slot in enumerate(range(len(done)) if slots is None else slots.tolist()):
            episode = self.running[slot]
            if episode:
                before = np.array([episode[-1][0]])
                if "next_action" in self.found:
                    self.found["next_action"].append((before, np.asarray(batch.action)[row : row + 1]))
                if "following" in self.found:
                    self.found["following"].append((before, numbers[row : row + 1].astype(np.int32)))
            if "return_to_go" not in self.found:
                episode.clear()  # the step before is all that is needed, also of an episode that never ends
            episode.append((int(numbers[row]), rewards[row]))
            if done[row]:
                if "return_to_go" in self.found:
                    self.found["return_to_go"].append(self._episode(episode))
                self.running[slot] = []

    def add_slots(self, count: int) -> None:
        """So many more."""
        self.running += [[] for _ in range(count)]

    def abandon(self, slots: Bool[np.ndarray, " slots"]) -> None:
        """The episodes that ran there will never end; others begin with the next step."""
        for slot in np.flatnonzero(slots).tolist():
            self.running[slot] = []

    def apply(self, replay: Replay, replay_log: ReplayLog | None = None) -> Replay:
        """The replay with everything filled in that has become known; the replay log is told."""
        for column, parts in self.found.items():
            if parts:
                numbers, values = (np.concatenate(part) for part in zip(*parts, strict=True))
                replay = amend(replay, column, numbers, values)
                if replay_log is not None:
                    replay_log.amend(column, numbers, values)
                parts.clear()
        return replay

    def position(self) -> dict[str, Any]:
        """What it knows of the running episodes, as JSON has it; everything known must have been applied."""
        return {"count": self.count, "running": self.running}

    def restore(self, position: Mapping[str, Any]) -> None:
        """Go back to a position."""
        self.count = position["count"]
        self.running = [[(number, reward) for number, reward in episode] for episode in position["running"]]

    def _episode(self, episode: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
        numbers, rewards = (np.array(column) for column in zip(*episode, strict=True))
        return numbers, returns_to_go(rewards, self.discount, self.failure_reward)
