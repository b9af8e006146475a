"""Weighted (self-normalised) importance sampling (Precup, Sutton & Singh 2000, section 3)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from jaxtyping import Float

from segue.ope.episodes import Episodes, Support
from segue.ope.estimator import Estimator, ratio


class Weighted(Estimator):
    """J = Σ_i w_i G_i / Σ_i w_i, with w_i = Π_t π(a_t|s_t) / b(a_t|s_t) over the whole episode.

    Never outside the dataset's returns, and consistent; biased towards the dataset's value while few episodes count.
    """

    name: ClassVar[str] = "wis"

    def estimate(
        self, episodes: Episodes, counts: Float[np.ndarray, "resamples episodes"]
    ) -> Float[np.ndarray, " resamples"]:
        """The weighted mean of G."""
        weight = episodes.relative_weights[:, -1]
        return ratio(counts @ (weight * episodes.returns), counts @ weight)

    def support(self, episodes: Episodes) -> Support:
        """Of the weights of whole episodes."""
        return episodes.trajectory_support()
