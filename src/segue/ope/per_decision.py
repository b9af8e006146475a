"""Per-decision importance sampling (Precup, Sutton & Singh 2000, section 4)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from jaxtyping import Float

from segue.ope import betting
from segue.ope.episodes import Episodes
from segue.ope.estimator import Bounds, Estimator


class PerDecision(Estimator):
    """J = 1/n Σ_i Σ_t γ^t w_it r_it, with w_it = Π_{k ≤ t} π(a_k|s_k) / b(a_k|s_k).

    Unbiased: a reward does not depend on later actions, so it is weighted by the earlier ones only. With rewards of at
    least l ≤ 0 and at most u ≥ 0 (an ended episode goes on with rewards of 0 and the same weight), E[w_t] = 1 gives

        J(π) − l Σ_t γ^t = E[Σ_t γ^t w_t (r_t − l)]             a sum of terms ≥ 0
        J(π) − J(b)      = E[Σ_t γ^t (w_t − 1)(r_t − l)]        at least −max Σ_t γ^t (r_t − l)
        J(b) − J(π)      = E[Σ_t γ^t (w_t − 1)(u − r_t)]        at least −max Σ_t γ^t (u − r_t)

    and each mean has a lower bound by betting.
    """

    name: ClassVar[str] = "pdis"
    exact_bounds: ClassVar[bool] = True
    validity: ClassVar[str] = (
        "betting: holds for any number of episodes, if no reward or return exceeds the dataset's range"
    )

    def estimate(
        self, episodes: Episodes, counts: Float[np.ndarray, "resamples episodes"]
    ) -> Float[np.ndarray, " resamples"]:
        """The mean of Σ_t γ^t w_t r_t."""
        return counts @ ((episodes.weights * episodes.rewards) @ episodes.discounts) / counts.sum(1)

    def bounds(self, episodes: Episodes, confidence: float, source: np.random.Generator) -> Bounds:
        """By betting; the ranges are those of the dataset."""
        weights, rewards, discounts = episodes.weights, episodes.rewards, episodes.discounts
        every = episodes.bounding
        lowest, highest = min(every.rewards.min(), 0.0), max(every.rewards.max(), 0.0)

        def difference(sign: float, end: float) -> float:
            span = ((sign * (every.rewards - end)) @ every.discounts).max()
            gain = sign * (rewards - end)
            return betting.lower_bound(((weights - 1) * gain) @ discounts + span, confidence) - span

        return Bounds(
            lowest * discounts.sum() + betting.lower_bound((weights * (rewards - lowest)) @ discounts, confidence),
            difference(1.0, lowest),
            -difference(-1.0, highest),
        )
