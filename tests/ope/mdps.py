"""Random tabular MDPs with exactly computed values, and logs of them; every state is a one-hot observation."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from segue.data import load
from segue.data.dataset import Dataset
from segue.ope import DiscretePolicy


@dataclasses.dataclass(frozen=True)
class MDP:
    """S states, A actions, a chance to end after every step, and at most `horizon` steps (0: no limit)."""

    transition: np.ndarray  # [S, A, S], rows sum to 1 given that the episode goes on
    ending: np.ndarray  # [S, A], chance that it ends in a terminal instead
    reward: np.ndarray  # [S, A]
    start: np.ndarray  # [S]
    discount: float

    @classmethod
    def random(cls, seed: int, states: int = 4, actions: int = 3, ending: float = 0.3, discount: float = 0.9) -> MDP:
        rng = np.random.default_rng(seed)
        return cls(
            transition=rng.dirichlet(np.ones(states), (states, actions)),
            ending=rng.uniform(ending / 2, min(2 * ending, 1), (states, actions))
            if ending < 1
            else np.ones((states, actions)),
            reward=rng.uniform(0, 1, (states, actions)),
            start=rng.dirichlet(np.ones(states)),
            discount=discount,
        )

    def q(self, policy: np.ndarray) -> np.ndarray:
        """Q^π [S, A], from (I − γ P_π) v = r_π solved exactly."""
        onward = self.discount * (1 - self.ending)[..., None] * self.transition
        p = np.einsum("sa,sat->st", policy, onward)
        v = np.linalg.solve(np.eye(len(p)) - p, (policy * self.reward).sum(1))
        return self.reward + onward @ v

    def value(self, policy: np.ndarray) -> float:
        """J(π)."""
        return float(self.start @ (policy * self.q(policy)).sum(1))

    def log(self, behaviour: np.ndarray, episodes: int, seed: int, logged: bool = True) -> Dataset:
        """Episodes of a policy, all to their true end, stepped together."""
        rng = np.random.default_rng(seed)
        states, actions = self.reward.shape
        running = np.arange(episodes)
        state = _draw(rng, np.broadcast_to(self.start, (episodes, states)))
        rows: list[tuple[np.ndarray, ...]] = []
        while len(running):
            action = _draw(rng, behaviour[state])
            ends = rng.uniform(size=len(running)) < self.ending[state, action]
            following = _draw(rng, self.transition[state, action])
            rows.append((running, state, action, self.reward[state, action], following, ends))
            running, state = running[~ends], following[~ends]
        episode, state, action, reward, following, ends = (np.concatenate(c) for c in zip(*rows, strict=True))
        order = np.argsort(episode, kind="stable")
        named: dict[str, Any] = {
            "observations": np.eye(states)[state[order]],
            "actions": action[order],
            "rewards": reward[order],
            "next_observations": np.eye(states)[following[order]],
            "terminals": ends[order],
            "timeouts": np.zeros(len(order)),
            "discrete_actions": actions,
        }
        if logged:
            named["behaviour_log_prob"] = np.log(behaviour[state, action])[order]
        return load(named)


def _draw(rng: np.random.Generator, chances: np.ndarray) -> np.ndarray:
    reached = chances.cumsum(1) > rng.uniform(size=len(chances))[:, None]
    return np.where(reached.any(1), reached.argmax(1), chances.shape[1] - 1)


def random_policy(seed: int, mdp: MDP, floor: float = 0.1) -> np.ndarray:
    """π [S, A] that does everything with at least some probability."""
    states, actions = mdp.reward.shape
    return floor / actions + (1 - floor) * np.random.default_rng(seed).dirichlet(np.ones(actions), states)


def tabular(policy: np.ndarray) -> DiscretePolicy:
    """π [S, A] as what is judged."""
    return DiscretePolicy(lambda observation: observation @ policy)


def states_of(dataset: Dataset) -> np.ndarray:
    return dataset.observations.argmax(1)
