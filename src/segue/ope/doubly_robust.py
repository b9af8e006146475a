"""The doubly robust estimator (Jiang & Li 2016, arXiv 1511.03722; as a sum over steps in Thomas & Brunskill 2016)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from jaxtyping import Float

from segue.ope.episodes import Episodes
from segue.ope.estimator import Estimator


class DoublyRobust(Estimator):
    """J = 1/n Σ_i Σ_t γ^t [ w_{i,t−1} V(s_it) + w_it (r_it − Q(s_it, a_it)) ], with w_{i,−1} = 1.

    Unbiased for any Q and V(s) = E_{a~π} Q(s, a) that are independent of the episode, if the propensities are right;
    the better the model, the smaller the variance. At the last step of an episode nothing is bootstrapped, so a cut
    episode counts to its cut, as for every estimator by weights.
    """

    name: ClassVar[str] = "dr"
    uses_model: ClassVar[bool] = True

    def estimate(
        self, episodes: Episodes, counts: Float[np.ndarray, "resamples episodes"]
    ) -> Float[np.ndarray, " resamples"]:
        """The mean of the episodes' sums."""
        assert episodes.q is not None
        assert episodes.v is not None
        weights = episodes.weights
        before = np.concatenate([np.ones((len(weights), 1)), weights[:, :-1]], axis=1)
        each = (before * episodes.v + weights * (episodes.rewards - episodes.q)) @ episodes.discounts
        return counts @ each / counts.sum(1)
