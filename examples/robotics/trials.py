"""Episodes of a policy in the words of the field: success, return, how hard and how roughly it acts."""

from __future__ import annotations

from typing import Any

import numpy as np

from segue import rng
from segue.acting import ActingPolicy
from segue.envs import Environment
from segue.envs.make import make


def trials(
    policy: ActingPolicy, environment: Environment, success: str, episodes: int, seed: int, explore: bool = False
) -> dict[str, Any]:
    """What so many episodes come to; the same starts for every policy.

    Args:
        policy: what acts.
        environment: where, with observations and actions as Segue shapes them.
        success: the key of `info` that says whether the task is done now.
        episodes: how many.
        seed: of the starts, and of what the policy draws.
        explore: act as while collecting data.

    Returns:
        `success` in the last step and `ever` in any one, as shares of the episodes; the mean `return`; `peak`, the
        largest |action| of an episode, and `jerk`, the mean change of an action from step to step, both as the largest
        component in [−1, 1] and averaged over episodes.
    """
    env, source = make(environment), rng.generator(seed, "trials", "actions")
    found: dict[str, list[float]] = {name: [] for name in ("success", "ever", "return", "peak", "jerk")}
    try:
        for episode in range(episodes):
            observation, _ = env.reset(seed=rng.environment_seed(seed, "trials", 0, episode))
            carry, over, done, rewards, actions = policy.start(1), False, [], [], []
            while not over:
                acted = policy.act(np.asarray(observation, np.float32)[None], carry, source, explore)
                carry = acted.carry
                actions.append(np.clip(np.asarray(acted.action)[0], -1, 1))
                observation, reward, terminated, truncated, info = env.step(actions[-1])
                over = terminated or truncated
                rewards.append(float(reward))
                done.append(bool(info[success]))
            found["success"].append(done[-1])
            found["ever"].append(any(done))
            found["return"].append(sum(rewards))
            found["peak"].append(float(np.abs(actions).max()))
            found["jerk"].append(float(np.abs(np.diff(actions, axis=0)).max(-1).mean()))
    finally:
        env.close()
    return {name: round(float(np.mean(values)), 4) for name, values in found.items()}
