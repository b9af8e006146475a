"""A look into critic and policy at each evaluation: what they think, against what happens and what was logged."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from segue.data.dataset import returns_to_go
from segue.evaluation.rollout import Rollouts
from segue.policy import Policy
from segue.types import Transition

#: Rows of the log that are looked at, evenly spaced.
ROWS = 512


class Probe:
    """Holds the rows of the log to look at; without a log only values and returns are compared."""

    def __init__(self, log: Transition | None) -> None:
        self.observation = self.action = None
        if log is not None:
            rows = np.linspace(0, len(log.reward) - 1, min(ROWS, len(log.reward))).astype(int)
            self.observation, self.action = np.asarray(log.observation)[rows], np.asarray(log.action)[rows]

    def measure(self, policy: Policy, rollouts: Rollouts) -> dict[str, float]:
        """Means, by name.

        `value_at_start` and `return_from_start`: what the critic (or V) expects of the first states of the episodes,
        and the discounted return that followed: their difference is over-estimation. `q_of_log_actions` and
        `q_of_policy_actions`: min_i Q_i on the log's states. `distance_to_log`: root mean squared difference of the
        policy's actions and the log's (share of different ones, if discrete).
        """
        algorithm, nets = policy.algorithm, policy.nets
        starts = policy.normaliser(rollouts.starts)
        measured: dict[str, float] = {}
        if "critic" in nets or "value" in nets:
            returns = [
                float(returns_to_go(algorithm.learning_rewards(rewards), algorithm.discount)[0])
                for rewards in rollouts.rewards
            ]
            measured["value_at_start"] = float(np.mean(self._value(policy, starts)))
            measured["return_from_start"] = float(np.mean(returns))
        if self.observation is not None and self.action is not None:
            own = self._act(policy, self.observation)
            if "critic" in nets:
                for name, action in (("log", self.action), ("policy", own)):
                    measured[f"q_of_{name}_actions"] = float(nets.critic(self.observation, action).min(0).mean())
            if own.ndim == 1:
                measured["distance_to_log"] = float(np.mean(own != self.action))
            else:
                measured["distance_to_log"] = float(np.sqrt(np.mean((own - self.action) ** 2)))
        return measured

    def _value(self, policy: Policy, observation: np.ndarray) -> Float[np.ndarray, " batch"]:
        nets = policy.nets
        if "critic" not in nets:
            return nets.value(observation)[..., 0]
        return nets.critic(observation, self._act(policy, observation)).min(0)

    @staticmethod
    def _act(policy: Policy, observation: np.ndarray) -> Any:
        decision = policy.algorithm.action_distribution(policy.nets, observation, False)
        return np.asarray(decision.sample(np.random.default_rng(0)))
