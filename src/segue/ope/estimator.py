"""What every estimator by importance weights is, and its bounds by resampling episodes."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from segue.ope import bootstrap
from segue.ope.episodes import Episodes, Support


class Bounds(NamedTuple):
    """One-sided confidence bounds, each at the stated confidence."""

    value_lower: float
    """Lower bound of J(π)."""
    difference_lower: float
    """Lower bound of J(π) − J(b)."""
    difference_upper: float
    """Upper bound of J(π) − J(b)."""


class Estimator:
    """An estimate of J(π) = E_π[Σ_t γ^t r_t] from episodes of another policy b."""

    name: ClassVar[str]
    """What the command line calls it."""
    uses_model: ClassVar[bool] = False
    """Whether it needs Q and V of the judged policy."""
    exact_bounds: ClassVar[bool] = False
    """Whether its bounds hold for every number of episodes; otherwise only for many."""
    validity: ClassVar[str] = (
        "bootstrap over episodes: approximate, wrong where large weights are rare; decides nothing"
    )
    """What its bounds promise."""

    def estimate(
        self, episodes: Episodes, counts: Float[np.ndarray, "resamples episodes"]
    ) -> Float[np.ndarray, " resamples"]:
        """J(π) from datasets that hold each episode so many times; NaN where there is no estimate."""
        raise NotImplementedError

    def support(self, episodes: Episodes) -> Support:
        """How much of the dataset it rests on."""
        return episodes.step_support()

    def bounds(self, episodes: Episodes, confidence: float, source: np.random.Generator) -> Bounds:
        """Percentile bootstrap over episodes; the dataset's own value is resampled together with the estimate."""

        def statistics(counts: Float[np.ndarray, "resamples episodes"]) -> Float[np.ndarray, "resamples statistics"]:
            value = self.estimate(episodes, counts)
            return np.stack([value, value - counts @ episodes.returns / len(episodes)], axis=1)

        value, difference = bootstrap.resample(statistics, len(episodes), source).T
        return Bounds(
            bootstrap.lower_quantile(value, confidence),
            bootstrap.lower_quantile(difference, confidence),
            -bootstrap.lower_quantile(-difference, confidence),
        )


def ratio(numerator: Float[np.ndarray, "..."], denominator: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """numerator / denominator, NaN where all weights are 0."""
    some = denominator > 0
    return np.where(some, numerator / np.where(some, denominator, 1.0), np.nan)
