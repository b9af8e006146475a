"""Judging a policy: whole episodes, usually without exploration noise, in environments of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from segue import rng
from segue.acting import ActingPolicy, act, restart
from segue.envs import USUAL, Environment, Episodes, Patience
from segue.envs.episodes import MAX_EPISODE_STEPS, UNLIMITED_STEPS
from segue.errors import RecipeError


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """Whole episodes: where they began, and every reward."""

    starts: Float[np.ndarray, "episodes observation"]
    """First observations, as the environment gives them."""
    rewards: list[Float[np.ndarray, " steps"]]
    """Rewards of each episode."""
    costs: Float[np.ndarray, " episodes"] | None = None
    """Sum of each episode's costs; None if none were asked for."""

    @property
    def returns(self) -> Float[np.ndarray, " episodes"]:
        """Undiscounted returns."""
        return np.array([rewards.sum(dtype=np.float64) for rewards in self.rewards])


def evaluate(
    policy: ActingPolicy, env_id: str | Environment, episodes: int, seed: int, index: int = 0, explore: bool = False
) -> Float[np.ndarray, " episodes"]:
    """Undiscounted returns of `episodes` episodes; see `roll_out`."""
    return roll_out(policy, env_id, episodes, seed, index, explore).returns


def roll_out(
    policy: ActingPolicy,
    env_id: str | Environment,
    episodes: int,
    seed: int,
    index: int = 0,
    explore: bool = False,
    patience: Patience = USUAL,
    tell: Callable[[str], None] = lambda message: None,
    must_end: bool = True,
    cost_key: str | None = None,
) -> Rollouts:
    """`episodes` episodes, stepped together; in place of one that is quarantined another one is done.

    Args:
        policy: what acts.
        env_id: the environment, or its id.
        episodes: how many.
        seed: the run's seed.
        index: number of this evaluation; each has starting states of its own, the same for every policy.
        explore: act as while collecting data.
        patience: how many bad steps of the environment are tolerated.
        tell: is told what it did wrong.
        must_end: refuse an environment in which no episode ends, instead of cutting them all.
        cost_key: where the environment's `info` has the cost of a step; None records none.

    Raises:
        RecipeError: if no episode ends within MAX_EPISODE_STEPS (UNLIMITED_STEPS without a time limit), and one must;
            or if a step does not report its cost.
        SegueError: if more steps are bad than tolerated.
    """
    source = rng.generator(seed, "evaluation", index)
    environments = Episodes(env_id, episodes, seed, f"evaluation-{index}", patience, tell, cost_key=cost_key)
    starts = environments.observation.astype(np.float32)
    rewards: list[np.ndarray] = []
    costs = np.zeros(episodes)
    begins, lengths = np.zeros(episodes, np.int64), np.zeros(episodes, np.int64)
    running = np.ones(episodes, bool)
    carry = policy.start(episodes)
    longest = MAX_EPISODE_STEPS if environments.limit else UNLIMITED_STEPS
    try:
        for step in range(1, MAX_EPISODE_STEPS + 1):
            acted = act(policy, environments.observation, carry, source, explore, environments.allowed)
            carry = acted.carry
            _, reward, terminated, truncated = environments.step(np.asarray(acted.action), running)
            rewards.append(reward)
            lengths += running
            costs[running] += environments.cost[running]
            if environments.any_lost:
                lost = environments.lost
                starts[lost], begins[lost], lengths[lost], costs[lost] = environments.observation[lost], step, 0, 0
                carry = restart(policy, carry, lost)
            running &= ~(terminated | truncated)
            if not running.any() or (running.all() and step >= longest):
                break
    finally:
        environments.close()
    if running.all() and must_end:
        raise RecipeError(
            f"environment {str(env_id)!r}: no evaluation episode had ended after {step:,} steps"
            f"{'' if environments.limit else ', and it has no time limit'}; expected a terminal state or a time limit: "
            "--max-episode-steps N cuts episodes after N steps (in Python: max_episode_steps)"
        )
    if running.any():
        tell(f"environment {str(env_id)!r}: {running.sum():,} evaluation episodes were cut after {step:,} steps")
    table = np.stack(rewards)
    return Rollouts(
        starts,
        [table[b : b + length, i] for i, (b, length) in enumerate(zip(begins, lengths, strict=True))],
        None if cost_key is None else costs,
    )
