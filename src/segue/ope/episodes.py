"""A dataset as off-policy estimators see it: episodes side by side, importance weights, and how much of them counts."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from segue.data.dataset import Dataset

#: Cumulative log weights are cut here before they are exponentiated, so that their squares stay finite. Only weights
#: of 10¹³⁰ are made smaller by it; an estimate that meets one rests on a single episode anyway.
LARGEST_LOG_WEIGHT = 300.0
#: An episode's weight is negligible below this share of the mean weight.
NEGLIGIBLE = 0.01


@dataclasses.dataclass(frozen=True)
class Support:
    """How much of the dataset an estimate rests on."""

    effective_episodes: float
    """Kish's effective sample size, (Σ w)² / Σ w²: so many equally weighted episodes would vary as much."""
    max_weight: float
    """The largest importance weight."""
    share: float
    """Share of the episodes whose weight is at least 1 % of the mean weight."""

    @classmethod
    def of(cls, weights: Float[np.ndarray, " episodes"], largest: float) -> Support:
        """The support of one weight per episode, known up to a common factor; `largest` is the largest one itself."""
        total = weights.sum()
        if total == 0:
            return cls(0.0, 0.0, 0.0)
        share = float((weights >= NEGLIGIBLE * weights.mean()).mean())
        return cls(float(total**2 / (weights**2).sum()), largest, share)


@dataclasses.dataclass(frozen=True)
class Episodes:
    """n episodes, padded at their ends to the T steps of the longest; rewards and values there are 0.

    After its end an episode keeps its weight, as in an absorbing state where all policies do the same.
    """

    rewards: Float[np.ndarray, "episodes steps"]
    discount: float
    """γ."""
    log_weights: Float[np.ndarray, "episodes steps"]
    """log w_t = Σ_{k ≤ t} log π(a_k|s_k) − log b(a_k|s_k); −inf where the judged policy never does it."""
    alive: Bool[np.ndarray, "episodes steps"]
    """Whether the step was taken."""
    q: Float[np.ndarray, "episodes steps"] | None = None
    """A model's Q(s_t, a_t) of the judged policy."""
    v: Float[np.ndarray, "episodes steps"] | None = None
    """The same model's V(s_t) = E_{a~π} Q(s_t, a)."""
    dataset: Episodes | None = None
    """All episodes of the dataset, where these are only the ones that judge: what they earned bounds rewards."""

    @property
    def bounding(self) -> Episodes:
        """The episodes that show the range of rewards and returns."""
        return self if self.dataset is None else self.dataset

    def __len__(self) -> int:
        return len(self.rewards)

    def __getitem__(self, chosen: slice) -> Episodes:
        """Some of the episodes."""
        return Episodes(
            rewards=self.rewards[chosen],
            discount=self.discount,
            log_weights=self.log_weights[chosen],
            alive=self.alive[chosen],
            q=None if self.q is None else self.q[chosen],
            v=None if self.v is None else self.v[chosen],
            dataset=self.dataset,
        )

    @cached_property
    def discounts(self) -> Float[np.ndarray, " steps"]:
        """γ^t."""
        return self.discount ** np.arange(self.rewards.shape[1], dtype=np.float64)

    @cached_property
    def returns(self) -> Float[np.ndarray, " episodes"]:
        """G = Σ_t γ^t r_t, to the last step in the dataset."""
        return self.rewards @ self.discounts

    @cached_property
    def weights(self) -> Float[np.ndarray, "episodes steps"]:
        """w_t = Π_{k ≤ t} π(a_k|s_k) / b(a_k|s_k)."""
        return np.exp(np.minimum(self.log_weights, LARGEST_LOG_WEIGHT))

    @cached_property
    def relative_weights(self) -> Float[np.ndarray, "episodes steps"]:
        """w_t divided by the largest of its step, for self-normalised estimators; 0 where every weight is 0."""
        largest = self.log_weights.max(0)
        return np.exp(self.log_weights - np.where(np.isfinite(largest), largest, 0.0))

    @cached_property
    def followed(self) -> int:
        """Steps from the start to the last at which some episode of the dataset has done what the judged policy may
        do."""
        return int(np.isfinite(self.log_weights).any(0).sum())

    def trajectory_support(self) -> Support:
        """Of the weights of whole episodes."""
        return Support.of(self.relative_weights[:, -1], float(self.weights[:, -1].max()))

    def step_support(self) -> Support:
        """Of the weights w_t, averaged over steps by how much discounted reward, in magnitude, is paid there."""
        paid = np.abs(self.rewards).sum(0) * self.discounts
        shares = paid / paid.sum() if paid.sum() > 0 else np.full(len(paid), 1 / len(paid))
        each = [Support.of(column, 0.0) for column in self.relative_weights.T]
        return Support(
            float(shares @ np.array([support.effective_episodes for support in each])),
            float(self.weights[self.alive].max()),
            float(shares @ np.array([support.share for support in each])),
        )

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        discount: float,
        log_ratio: Float[np.ndarray, " N"],
        q: Float[np.ndarray, " N"] | None = None,
        v: Float[np.ndarray, " N"] | None = None,
    ) -> Episodes:
        """The episodes of a dataset.

        Args:
            dataset: N transitions.
            discount: γ.
            log_ratio: log π(a|s) − log b(a|s) of every row.
            q: Q(s, a) of every row, for estimators that use a model.
            v: V(s) of every row.
        """
        lengths = dataset.episode_lengths
        alive = np.arange(lengths.max()) < lengths[:, None]

        def padded(column: Float[np.ndarray, " N"]) -> Float[np.ndarray, "episodes steps"]:
            table = np.zeros(alive.shape)
            table[alive] = column
            return table

        return cls(
            rewards=padded(dataset.rewards),
            discount=discount,
            log_weights=padded(log_ratio).cumsum(1),
            alive=alive,
            q=None if q is None else padded(q),
            v=None if v is None else padded(v),
        )
