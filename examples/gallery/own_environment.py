"""Your own environment: a Gymnasium class in a module, trained from scratch. See also docs/environments.md."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class Thermostat(gym.Env):
    """Heat or not, so that a room stays at its set point; five degrees of noise come from outside."""

    def __init__(self, outside: float = 5.0) -> None:
        self.observation_space = gym.spaces.Box(-50.0, 50.0, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self.outside = outside

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start at a random distance from the set point."""
        super().reset(seed=seed)
        self.off = float(self.np_random.uniform(-self.outside, self.outside))
        return np.array([self.off], np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Lose a degree to the outside, gain two by heating."""
        self.off += -1.0 + 2.0 * int(action) + 0.1 * float(self.np_random.normal())
        return np.array([self.off], np.float32), -abs(self.off), False, False, {}


if __name__ == "__main__":
    import segue

    recipe = segue.Recipe(
        env="own_environment:Thermostat",  # by its module, so that workers and later commands find it
        max_episode_steps=30,
        online=segue.DQN(hidden_sizes=(32, 32), initial_epsilon=1.0),
        online_steps=600,
        warmup_steps=100,
        eval_every=300,
        eval_episodes=3,
    )
    result = segue.run(recipe, "runs/own-environment", progress=False)
    print(result.curves()[["step", "mean_return"]])
