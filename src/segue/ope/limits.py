"""The range that rewards allow a value: with rewards in [l, u] and h(T) = Σ_{t<T} γ^t, an episode of T steps earns
between l h(T) and u h(T)."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float

from segue.data.dataset import Dataset
from segue.ope.estimator import Bounds

#: A value counts as outside if it is so by this share of the largest value.
SLACK = 0.01


@dataclasses.dataclass(frozen=True)
class Limits:
    """The smallest and the largest value that rewards allow."""

    low: float
    high: float

    @classmethod
    def of_episodes(cls, dataset: Dataset, discount: float) -> Limits:
        """Of an episode as long as those of the dataset: of their length, or of 1 to T steps where lengths differ."""
        lengths = dataset.episode_lengths
        shortest = int(lengths.max()) if lengths.min() == lengths.max() else 1
        return cls._between(dataset, discount, shortest, int(lengths.max()))

    @classmethod
    def of_states(cls, dataset: Dataset, discount: float) -> Limits:
        """From any state on: of 1 to T steps where every episode ends after T, and else of any number of steps.

        An episode that was cut would have gone on, and another policy may live longer than any episode shows.
        """
        longest = int(dataset.episode_lengths.max()) if _of_one_length(dataset) else math.inf
        return cls._between(dataset, discount, 1, longest)

    @classmethod
    def of_starts(cls, dataset: Dataset, discount: float) -> Limits:
        """From the first state of an episode on, without an end at cuts."""
        return (cls.of_episodes if _of_one_length(dataset) else cls.of_states)(dataset, discount)

    @classmethod
    def _between(cls, dataset: Dataset, discount: float, shortest: int, longest: float) -> Limits:
        reach = [_horizon(discount, steps) for steps in (shortest, longest)]
        lowest, highest = float(dataset.rewards.min()), float(dataset.rewards.max())
        return cls(min(_times(lowest, h) for h in reach), max(_times(highest, h) for h in reach))

    def clip(self, values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """The values, moved into the range; an infinite one, which stands for none, is left."""
        return np.where(np.isfinite(values), np.clip(values, self.low, self.high), values)

    def clip_bounds(self, bounds: Bounds) -> Bounds:
        """The bounds, moved into the range of values and of differences between values."""
        width = self.high - self.low
        (value,), (lower, upper) = self.clip(np.array(bounds[:1])), Limits(-width, width).clip(np.array(bounds[1:]))
        return Bounds(float(value), float(lower), float(upper))

    def beyond(self, values: Float[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
        """Which values lie outside by more than rounding and the usual error of a fit."""
        slack = SLACK * max(abs(self.low), abs(self.high))
        return (values < self.low - slack) | (values > self.high + slack)

    def __str__(self) -> str:
        return f"{self.low:.4g} to {self.high:.4g}"


def _of_one_length(dataset: Dataset) -> bool:
    lengths = dataset.episode_lengths
    return bool(lengths.min() == lengths.max() and dataset.episode_terminals.all())


def _horizon(discount: float, steps: float) -> float:
    return float(steps) if discount == 1 else (1 - discount**steps) / (1 - discount)


def _times(reward: float, horizon: float) -> float:
    return reward * horizon if reward else 0.0
