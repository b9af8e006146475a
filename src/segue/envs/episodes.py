"""A few environments stepped together, each episode reset with a seed of its own.

So an interrupted episode can be restored: reset with its seed, and its actions replayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import Bool, Float

from segue.envs.make import make, spaces_of
from segue.random import environment_seed

Stepped = tuple[
    Float[np.ndarray, "envs observation"],
    Float[np.ndarray, " envs"],
    Bool[np.ndarray, " envs"],
    Bool[np.ndarray, " envs"],
]


class Episodes:
    """Environments side by side, in this process.

    Attributes:
        observation: what the policy sees now, [environments, observation].
        episode: number of the running episode of each environment.
        time: steps since the start of it.
        actions: the actions of the running episode of each environment.
    """

    def __init__(self, env_id: str, count: int, seed: int, role: str) -> None:
        self.seed, self.role = seed, role
        # First: a count beyond all memory fails here, at once, and not one environment after the other.
        self.episode, self.time = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self.envs = [make(env_id) for _ in range(count)]
        self.spaces = spaces_of(self.envs[0])
        space = self.envs[0].action_space
        self.start = int(space.start) if isinstance(space, gym.spaces.Discrete) else 0
        self.dtype = self.envs[0].observation_space.dtype
        self.actions: list[list[np.ndarray]] = [[] for _ in range(count)]
        self.observation = np.zeros((count, self.spaces.observation_size), np.float32)
        for env in range(count):
            self._begin(env)

    def step(self, action: np.ndarray) -> Stepped:
        """Step every environment; finished ones start their next episode.

        Returns:
            The true next observation (of a finished episode: its last), reward, terminated, truncated. What the
            policy sees next is `self.observation`.
        """
        following = np.empty_like(self.observation)
        reward = np.zeros(len(self.envs), np.float32)
        terminated, truncated = np.zeros(len(self.envs), bool), np.zeros(len(self.envs), bool)
        for i, (env, taken) in enumerate(zip(self.envs, action + self.start, strict=True)):
            seen, reward[i], terminated[i], truncated[i], _ = env.step(taken)
            following[i] = self._flat(seen)
            self.actions[i].append(action[i])
        self.time += 1
        self.observation = following.copy()
        for i in np.flatnonzero(terminated | truncated).tolist():
            self.episode[i] += 1
            self._begin(i)
        return following, reward, terminated, truncated

    def position(self) -> dict[str, np.ndarray]:
        """Where each environment stands: its episode, and what was done in it."""
        place: dict[str, np.ndarray] = {"episode": self.episode.copy(), "observation": self.observation.copy()}
        return place | {f"actions.{i}": np.array(done) for i, done in enumerate(self.actions)}

    def restore(self, place: Mapping[str, np.ndarray]) -> list[int]:
        """Go back to a position by doing again what was done.

        Returns:
            The environments that did not come to the same observation: their episodes cannot be repeated.
        """
        self.episode = place["episode"].copy()
        astray = []
        for i, env in enumerate(self.envs):
            self._begin(i)
            for action in place[f"actions.{i}"]:
                seen, _, terminated, truncated, _ = env.step(action + self.start)
                self.observation[i] = self._flat(seen)
                self.actions[i].append(action)
                self.time[i] += 1
                if terminated or truncated:
                    self.episode[i] += 1
                    self._begin(i)
                    break
            if not np.array_equal(self.observation[i], place["observation"][i], equal_nan=True):
                astray.append(i)
        return astray

    def close(self) -> None:
        """Release the environments."""
        for env in self.envs:
            env.close()

    def _begin(self, env: int) -> None:
        seed = environment_seed(self.seed, self.role, env, int(self.episode[env]))
        seen, _ = self.envs[env].reset(seed=seed)
        self.observation[env] = self._flat(seen)
        self.time[env] = 0
        self.actions[env] = []

    def _flat(self, seen: Any) -> np.ndarray:
        # By way of the declared type, which is what the numbers are promised to be.
        return np.asarray(seen, self.dtype).astype(np.float32)
