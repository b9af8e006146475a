"""An environment of your own: push a point to a goal. Any Gymnasium environment will do."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class Reach(gym.Env):
    """A point with momentum on a square. The reward is minus the distance to the middle."""

    def __init__(self, friction: float = 0.2) -> None:
        self.observation_space = gym.spaces.Box(-4.0, 4.0, (4,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.friction = friction

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start at a random place, at rest."""
        super().reset(seed=seed)
        self.place, self.speed = self.np_random.uniform(-2, 2, 2), np.zeros(2)
        return self._seen(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Accelerate; walls stop the point."""
        self.speed = (1 - self.friction) * self.speed + 0.1 * np.clip(action, -1, 1)
        self.place = np.clip(self.place + self.speed, -4, 4)
        return self._seen(), -float(np.linalg.norm(self.place)), False, False, {}

    def _seen(self) -> np.ndarray:
        return np.concatenate([self.place, self.speed]).astype(np.float32)
