"""Statistics over seeds and tasks after Agarwal et al. 2021 ("Deep RL at the edge of the statistical precipice").

The scores of a method are one array of seeds per task, whose lengths may differ. Estimates pool all runs, so a task
with more seeds weighs more. Intervals are percentiles of a stratified bootstrap: the seeds of each task are drawn
again, with replacement, the tasks stay. They speak of other seeds on these tasks, not of other tasks. With the same
number of seeds on every task all estimates are those of the rliable package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

Scores = Sequence[Float[np.ndarray, " seeds"]]
"""One array per task."""

RESAMPLES = 5_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A point estimate and its interval at CONFIDENCE."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: Float[np.ndarray, "*batch runs"]) -> Float[np.ndarray, "*batch"]:
    """Mean of the middle half along the last axis: ⌊n/4⌋ of n runs are left out at either end.

    Fewer than four runs have nothing left out: it is their mean. NaN without runs.
    """
    runs = scores.shape[-1]
    if not runs:
        return np.full(scores.shape[:-1], math.nan)
    cut = runs // 4
    return np.sort(scores, axis=-1)[..., cut : runs - cut].mean(-1)


def iqm(scores: Scores) -> Interval:
    """Interquartile mean over all runs of all tasks."""
    return _interval(
        float(interquartile_mean(np.concatenate(scores))),
        interquartile_mean(np.concatenate(_resample(scores, np.random.default_rng(0)), axis=1)),
    )


def improvement(first: Scores, second: Scores) -> Interval:
    """P(X > Y) = mean over tasks of Σ_ij (1[x_i > y_j] + ½ 1[x_i = y_j]) / (n m): how often a run of X beats one of Y.

    It compares ranks within a task, so tasks may have different scales. Both have to have the same tasks, in order.
    """
    source = np.random.default_rng(0)
    again = zip(_resample(first, source), _resample(second, source), strict=True)
    value = np.mean([_superiority(x, y) for x, y in zip(first, second, strict=True)])
    return _interval(float(value), np.mean([_superiority(x, y) for x, y in again], axis=0))


@dataclass(frozen=True)
class Profile:
    """Share of runs above each threshold, and its pointwise interval."""

    thresholds: Float[np.ndarray, " n"]
    share: Float[np.ndarray, " n"]
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]


def performance_profile(scores: Scores, thresholds: ArrayLike) -> Profile:
    """F̂(τ) = share of all runs with a score > τ, for every τ in `thresholds [n]`."""
    tau = np.asarray(thresholds, dtype=float)
    again = np.concatenate(_resample(scores, np.random.default_rng(0)), axis=1)
    shares = np.stack([(again > t).mean(1) for t in tau], axis=1)
    low, high = np.quantile(shares, _tails(), axis=0)
    share = (np.concatenate(scores) > tau[:, None]).mean(1)
    return Profile(tau, share, low, high)


def _resample(scores: Scores, source: np.random.Generator) -> list[Float[np.ndarray, "resamples seeds"]]:
    return [runs[source.integers(runs.size, size=(RESAMPLES, runs.size))] for runs in scores]


def _superiority(x: Float[np.ndarray, "*batch n"], y: Float[np.ndarray, "*batch m"]) -> Float[np.ndarray, "*batch"]:
    difference = x[..., :, None] - y[..., None, :]
    return ((difference > 0) + 0.5 * (difference == 0)).mean((-2, -1))


def _interval(value: float, again: Float[np.ndarray, " resamples"]) -> Interval:
    low, high = np.quantile(again, _tails())
    return Interval(value, float(low), float(high))


def _tails() -> tuple[float, float]:
    return (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
