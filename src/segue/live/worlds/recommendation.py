"""Sessions of users who are shown items: a contextual bandit whose users leave when they are bored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float

ITEMS, TASTES, STEPS = 8, 4, 10
#: What is known of an item: the same in every copy of this world.
FEATURES = np.random.default_rng(2_024).normal(size=(ITEMS, TASTES)) / np.sqrt(TASTES)
#: Users whose numbers lie this far apart have opposite tastes on average.
GENERATION = 4_000
#: Probability with which the behaviour policy shows an item at random.
RANDOM = 0.3


class Recommendation(gym.Env):
    """Which of eight items is shown to a user; the reward is 1 for a click.

    A user u has hidden tastes p ∈ R⁴, and clicks on item i with probability σ(3 p·fᵢ − 1), half of it if the item was
    shown before. Without a click the user leaves with probability 0.3; a session has ten steps at most.

    An observation has 13 numbers: a noisy view of the tastes (4), which items the session has shown (8), and how much
    of it is over. Users of neighbouring numbers have tastes around a common mean that turns with the number, so traffic
    that moves on to new users drifts.
    """

    observation_space = gym.spaces.Box(-10.0, 10.0, (TASTES + ITEMS + 1,), np.float32)
    action_space = gym.spaces.Discrete(ITEMS)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float[np.ndarray, " observation"], dict[str, Any]]:
        """A session of a user begins; `options={"unit": n}` says of which, by default of any."""
        super().reset(seed=seed)
        unit = int((options or {}).get("unit", self.np_random.integers(1_000)))
        angle = np.pi * unit / GENERATION
        mean = np.array([np.cos(angle), np.sin(angle), 0.0, 0.0])
        self._tastes = mean + np.random.default_rng(unit).normal(size=TASTES)
        self._view = self._tastes + 0.3 * self.np_random.normal(size=TASTES)
        self._shown, self._step = np.zeros(ITEMS), 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Float[np.ndarray, " observation"], float, bool, bool, dict[str, Any]]:
        """Show an item."""
        item = int(action)
        click = self.np_random.random() < self.probability(item)
        self._shown[item] = 1.0
        self._step += 1
        left = not click and self.np_random.random() < 0.3
        return self._observation(), float(click), bool(left or self._step == STEPS), False, {}

    def probability(self, item: int) -> float:
        """Of a click on this item now."""
        return float((1.0 - 0.5 * self._shown[item]) / (1.0 + np.exp(1.0 - 3.0 * FEATURES[item] @ self._tastes)))

    def behaviour(
        self, observation: Float[np.ndarray, " observation"], source: np.random.Generator
    ) -> tuple[np.ndarray, float]:
        """An editor's rule: the item nearest to the first taste alone, or with probability 0.3 one at random."""
        favourite = int(np.argmax(FEATURES[:, 0] * observation[0]))
        item = int(source.integers(ITEMS)) if source.random() < RANDOM else favourite
        return np.asarray(item), float(np.log(RANDOM / ITEMS + (1.0 - RANDOM) * (item == favourite)))

    def _observation(self) -> Float[np.ndarray, " observation"]:
        return np.concatenate([self._view, self._shown, [self._step / STEPS]]).astype(np.float32)
