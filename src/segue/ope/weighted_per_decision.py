"""Weighted (self-normalised) per-decision importance sampling (Precup, Sutton & Singh 2000, in the form of
Thomas 2015, section 3.8)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from jaxtyping import Float

from segue.ope.episodes import Episodes
from segue.ope.estimator import Estimator, ratio


class WeightedPerDecision(Estimator):
    """J = Σ_t γ^t Σ_i w_it r_it / Σ_i w_it, with w_it = Π_{k ≤ t} π(a_k|s_k) / b(a_k|s_k).

    Consistent; biased while few episodes count. An ended episode goes on with rewards of 0 and the same weight.
    """

    name: ClassVar[str] = "wpdis"

    def estimate(
        self, episodes: Episodes, counts: Float[np.ndarray, "resamples episodes"]
    ) -> Float[np.ndarray, " resamples"]:
        """The weighted mean reward of every step, discounted and summed."""
        weights = episodes.relative_weights
        return ratio(counts @ (weights * episodes.rewards), counts @ weights) @ episodes.discounts
