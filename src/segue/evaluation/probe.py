"""A look into critic and policy at each evaluation: what they think, against what happens and what was logged."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from segue.core import Transition, as_numbers
from segue.data.dataset import returns_to_go
from segue.evaluation.rollout import Rollouts
from segue.policy import Policy
from segue.replay.on_disk import OnDisk

#: Rows of the dataset that are looked at, evenly spaced.
ROWS = 512


#: Bins of a continuous action in [-1, 1].
BINS = 20


class Probe:
    """Holds the rows of the dataset to look at; without a dataset only values and returns are compared."""

    def __init__(self, logged: Transition | OnDisk | None) -> None:
        self.observation: np.ndarray | None = None
        self.action: np.ndarray | None = None
        if logged is not None:
            count = len(logged if isinstance(logged, OnDisk) else logged.reward)
            rows = np.linspace(0, count - 1, min(ROWS, count)).astype(int)
            if isinstance(logged, OnDisk):
                seen = logged.read(rows)
                observation, action = np.asarray(seen.observation), np.asarray(seen.action)
            else:
                observation, action = np.asarray(logged.observation)[rows], np.asarray(logged.action)[rows]
            self.observation, self.action = np.asarray(as_numbers(observation)), action

    def measure(self, policy: Policy, rollouts: Rollouts) -> dict[str, float]:
        """Means, by name.

        `value_at_start` and `return_from_start`: what the critic (or V) expects of the first states of the episodes,
        and the discounted return that followed: their difference is over-estimation. `q_of_dataset_actions` and
        `q_of_policy_actions`: min_i Q_i on the dataset's states. `distance_to_dataset`: root mean squared difference
        of the policy's actions and the dataset's (share of different ones, if discrete).
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
            own = self._decide(policy, self.observation)
            if "critic" in nets:
                # A critic of action chunks has no value for the single actions of the dataset.
                single = policy.algorithm.chunk_length == 1
                rated = {"dataset": self.action, "policy": own} if single else {"policy": own}
                for name, action in rated.items():
                    measured[f"q_of_{name}_actions"] = float(nets.critic(self.observation, action).min(0).mean())
            own = own[..., : self.action.shape[-1]] if own.ndim > 1 else own
            if own.ndim == 1:
                measured["distance_to_dataset"] = float(np.mean(own != self.action))
            else:
                measured["distance_to_dataset"] = float(np.sqrt(np.mean((own - self.action) ** 2)))
        return measured

    def _value(self, policy: Policy, observation: np.ndarray) -> Float[np.ndarray, " batch"]:
        nets = policy.nets
        if "critic" not in nets:
            return nets.value(observation)[..., 0]
        return nets.critic(observation, self._decide(policy, observation)).min(0)

    @staticmethod
    def _decide(policy: Policy, observation: np.ndarray) -> np.ndarray:
        """What it would do now; with action chunks, the actions of a whole chunk side by side."""
        decision = policy.algorithm.action_distribution(policy.nets, observation, False)
        return np.asarray(decision.sample(np.random.default_rng(0)))


def action_histogram(policy: Policy, logged: Transition | OnDisk | None) -> dict[str, Any] | None:
    """Shares of actions in the dataset, and of the policy on the same states, for each action dimension.

    Plain data: `edges` of the bins (None for discrete actions, with a bin per action), `dataset` and `policy`, both
    [dimensions, bins]. None without a dataset.
    """
    probe = Probe(logged)
    if probe.observation is None or probe.action is None:
        return None
    own = probe._decide(policy, probe.observation)
    both = {"dataset": probe.action, "policy": own if own.ndim == 1 else own[:, : probe.action.shape[-1]]}
    edges: list[float] | None = None
    if probe.action.ndim == 1:
        count = int(max(actions.max() for actions in both.values())) + 1
        shares = {name: [np.bincount(actions, minlength=count) / len(actions)] for name, actions in both.items()}
    else:
        edges = np.linspace(-1, 1, BINS + 1).tolist()
        shares = {
            name: [np.histogram(column, edges)[0] / len(column) for column in actions.clip(-1, 1).T]
            for name, actions in both.items()
        }
    return {"edges": edges, **{name: np.round(found, 6).tolist() for name, found in shares.items()}}
