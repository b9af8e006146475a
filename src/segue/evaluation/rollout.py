"""Judging a policy: whole episodes, usually without exploration noise, in environments of their own."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
from jaxtyping import Float

from segue import random
from segue.envs import make
from segue.errors import RecipeError

#: Longest episode that evaluation will sit through; an environment without a time limit must end by then.
MAX_EPISODE_STEPS = 100_000


class ActingPolicy(Protocol):
    """What can be evaluated: `segue.policy.Policy`, or any function like it."""

    def __call__(
        self, observation: np.ndarray, source: np.random.Generator, *, explore: bool, time: np.ndarray
    ) -> np.ndarray:
        """Actions for observations; `time` counts the steps of each episode."""


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """Whole episodes: where they began, and every reward."""

    starts: Float[np.ndarray, "episodes observation"]
    """First observations, as the environment gives them."""
    rewards: list[Float[np.ndarray, " steps"]]
    """Rewards of each episode."""

    @property
    def returns(self) -> Float[np.ndarray, " episodes"]:
        """Undiscounted returns."""
        return np.array([rewards.sum(dtype=np.float64) for rewards in self.rewards])


def evaluate(
    policy: ActingPolicy, env_id: str, episodes: int, seed: int, index: int = 0, explore: bool = False
) -> Float[np.ndarray, " episodes"]:
    """Undiscounted returns of `episodes` episodes; see `roll_out`."""
    return roll_out(policy, env_id, episodes, seed, index, explore).returns


def roll_out(
    policy: ActingPolicy, env_id: str, episodes: int, seed: int, index: int = 0, explore: bool = False
) -> Rollouts:
    """`episodes` episodes, stepped together.

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
    environments = [make(env_id) for _ in range(episodes)]
    first = getattr(environments[0].action_space, "start", 0)
    rewards: list[list[float]] = [[] for _ in environments]
    try:
        seeds = [random.environment_seed(seed, f"evaluation-{index}", i, 0) for i in range(episodes)]
        resets = [env.reset(seed=start)[0] for env, start in zip(environments, seeds, strict=True)]
        observation = np.array(resets, np.float32)
        starts, running = observation.copy(), list(range(episodes))
        for time in range(MAX_EPISODE_STEPS):
            # Ended episodes keep their row, so that no other's action depends on when they ended; only their
            # environments rest.
            action = policy(observation, source, explore=explore, time=np.full(episodes, time)) + first
            for i in tuple(running):
                observation[i], reward, terminated, truncated, _ = environments[i].step(action[i])
                rewards[i].append(float(reward))
                if terminated or truncated:
                    running.remove(i)
            if not running:
                return Rollouts(starts, [np.array(episode, np.float32) for episode in rewards])
    finally:
        for env in environments:
            env.close()
    raise RecipeError(
        f"environment {env_id!r}: an evaluation episode had not ended after {MAX_EPISODE_STEPS} steps; expected a "
        "terminal state or a time limit (gymnasium.register(..., max_episode_steps=N))"
    )
