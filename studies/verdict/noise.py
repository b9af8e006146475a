"""Datasets whose rewards no action changes, or changes by a known gain, and policies fitted to them in closed form.

Actions are uniform. A policy is fitted by least squares: the return is regressed on random features of the state, for
each action (or each of some bins of a continuous action), so it follows the noise of the episodes that it is fitted to.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import segue
from segue.data.dataset import Dataset
from segue.ope import ContinuousPolicy, DiscretePolicy
from segue.ope.policy import Judged

STATE, ACTIONS, BINS, FEATURES = 4, 3, 6, 40


def noise(
    seed: int, episodes: int, *, steps: int = 1, discrete: bool = True, gain: float = 0.0, logged: bool = True
) -> Dataset:
    """Episodes of so many steps with rewards from 0 to 1, on average higher by `gain` for the better actions."""
    rng = np.random.default_rng(seed)
    rows = episodes * steps
    state = rng.normal(size=(rows, STATE))
    action = rng.integers(ACTIONS, size=rows) if discrete else rng.uniform(-1, 1, (rows, 1))
    # The better action depends on the sign of the first number of the state.
    wanted = np.sign(state[:, 0])
    better = action == 1 + wanted if discrete else action[:, 0] * wanted > 0
    named: dict[str, Any] = {
        "observations": state,
        "actions": action,
        "rewards": (1 - gain) * rng.random(rows) + gain * better,
        "next_observations": rng.normal(size=(rows, STATE)),
        "terminals": np.arange(rows) % steps == steps - 1,
        "timeouts": np.zeros(rows),
    }
    named |= {"discrete_actions": ACTIONS} if discrete else {"action_low": [-1.0], "action_high": [1.0]}
    if logged:
        named["behaviour_log_prob"] = np.full(rows, -np.log(ACTIONS if discrete else 2))
    return segue.load(named)


def fitted(dataset: Dataset, **fields: Any) -> Judged:
    """The policy that least squares prefers on these episodes; greedy over discrete actions, and soft over bins."""
    discrete = dataset.spaces.discrete
    weights = np.random.default_rng(0).normal(size=(STATE + 1, FEATURES))

    def features(state: np.ndarray) -> np.ndarray:
        return np.tanh(np.c_[state, np.ones(len(state))] @ weights)

    choice = dataset.actions if discrete else which_bin(dataset.actions)
    goal, coefficients = dataset.returns_to_go(1.0), []
    for each in range(ACTIONS if discrete else BINS):
        x, y = features(dataset.observations[choice == each]), goal[choice == each]
        coefficients.append(np.linalg.solve(x.T @ x + 0.1 * np.eye(FEATURES), x.T @ (y - goal.mean())))
    table = np.array(coefficients).T

    def greedy(state: np.ndarray) -> np.ndarray:
        return np.eye(ACTIONS)[(features(state) @ table).argmax(1)]

    def chances(state: np.ndarray) -> np.ndarray:
        """Of the bins."""
        score = features(state) @ table
        preferred = np.exp(8 * (score - score.max(1, keepdims=True)))
        return preferred / preferred.sum(1, keepdims=True)

    if discrete:
        return DiscretePolicy(greedy, **fields)

    def draw(state: np.ndarray, source: np.random.Generator) -> np.ndarray:
        bins = (chances(state).cumsum(1) < source.random((len(state), 1))).sum(1)
        return ((bins + source.random(len(state))) * 2 / BINS - 1)[:, None]

    def density(state: np.ndarray, action: np.ndarray) -> np.ndarray:
        return np.log(chances(state)[np.arange(len(state)), which_bin(action)] * BINS / 2)

    return ContinuousPolicy(draw, density, **fields)


def which_bin(action: np.ndarray) -> np.ndarray:
    return np.minimum(((action[:, 0] + 1) / 2 * BINS).astype(int), BINS - 1)
