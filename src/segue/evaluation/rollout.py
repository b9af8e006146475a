"""Judging a policy: whole episodes, usually without exploration noise, in environments of their own."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from jaxtyping import Float

from segue import random
from segue.envs import Episodes
from segue.errors import RecipeError

#: Longest episode that evaluation will sit through; an environment without a time limit must end by then.
MAX_EPISODE_STEPS = 100_000


class ActingPolicy(Protocol):
    """What can be evaluated: `segue.policy.Policy`, or any function like it."""

    def __call__(
        self, observation: np.ndarray, source: np.random.Generator, *, explore: bool, time: np.ndarray
    ) -> np.ndarray:
        """Actions for observations; `time` counts the steps of each episode."""


def evaluate(
    policy: ActingPolicy, env_id: str, episodes: int, seed: int, index: int = 0, explore: bool = False
) -> Float[np.ndarray, " episodes"]:
    """Undiscounted returns of `episodes` episodes, stepped together.

    Args:
        policy: maps observations [episodes, observation] and the steps since each episode's start to actions.
        env_id: Gymnasium id.
        episodes: how many.
        seed: the run's seed.
        index: number of this evaluation; each has starting states of its own, the same for every policy.
        explore: act as while collecting data.

    Raises:
        RecipeError: if an episode does not end within MAX_EPISODE_STEPS.
    """
    source = random.generator(seed, "evaluation", index)
    environments = Episodes(env_id, episodes, seed, f"evaluation-{index}")
    returns = np.zeros(episodes)
    running = np.ones(episodes, bool)
    try:
        for _ in range(MAX_EPISODE_STEPS):
            _, reward, terminated, truncated = environments.step(
                policy(environments.observation, source, explore=explore, time=environments.time)
            )
            returns += np.where(running, reward, 0.0)
            running &= ~(terminated | truncated)
            if not running.any():
                return returns
    finally:
        environments.close()
    raise RecipeError(
        f"environment {env_id!r}: an evaluation episode had not ended after {MAX_EPISODE_STEPS} steps; expected a "
        "terminal state or a time limit (gymnasium.register(..., max_episode_steps=N))"
    )
