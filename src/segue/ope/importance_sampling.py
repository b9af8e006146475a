"""Ordinary importance sampling (Precup, Sutton & Singh 2000, section 3; Thomas 2015)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from jaxtyping import Float

from segue.ope import betting
from segue.ope.episodes import Episodes, Support
from segue.ope.estimator import Bounds, Estimator


class ImportanceSampling(Estimator):
    """J = 1/n Σ_i w_i G_i, with w_i = Π_t π(a_t|s_t) / b(a_t|s_t) over the whole episode.

    Unbiased; its variance grows exponentially with the length of the episodes. With returns in [g, h], E[w] = 1 gives

        J(π) − g       = E[w (G − g)]                           w (G − g) ≥ 0
        J(π) − J(b)    = E[(w − 1)(G − g)]                      (w − 1)(G − g) ≥ −(h − g)
        J(b) − J(π)    = E[(w − 1)(h − G)]                      (w − 1)(h − G) ≥ −(h − g)

    and each mean has a lower bound by betting.
    """

    name: ClassVar[str] = "is"
    exact_bounds: ClassVar[bool] = True
    validity: ClassVar[str] = "betting: holds for any number of episodes, if no return lies outside the dataset's range"

    def estimate(
        self, episodes: Episodes, counts: Float[np.ndarray, "resamples episodes"]
    ) -> Float[np.ndarray, " resamples"]:
        """The mean of w G."""
        return counts @ (episodes.weights[:, -1] * episodes.returns) / counts.sum(1)

    def support(self, episodes: Episodes) -> Support:
        """Of the weights of whole episodes."""
        return episodes.trajectory_support()

    def bounds(self, episodes: Episodes, confidence: float, source: np.random.Generator) -> Bounds:
        """By betting; g and h are the smallest and largest return of the dataset."""
        weight, returns = episodes.weights[:, -1], episodes.returns
        lowest, highest = episodes.bounding.returns.min(), episodes.bounding.returns.max()
        span = highest - lowest
        return Bounds(
            lowest + betting.lower_bound(weight * (returns - lowest), confidence),
            betting.lower_bound((weight - 1) * (returns - lowest) + span, confidence) - span,
            span - betting.lower_bound((weight - 1) * (highest - returns) + span, confidence),
        )
