"""Statistics of numbers: over seeds, of the lowest of many evaluations, and over seeds and tasks.

**Over seeds and tasks** after Agarwal et al. 2021 ("Deep RL at the edge of the statistical precipice"). The scores of a
method are one array of seeds per task, whose lengths may differ; a task with more seeds weighs as much as the others.
Intervals are percentiles of a stratified bootstrap: the seeds of each task are drawn again, with replacement, the tasks
stay. They speak of other seeds on these tasks, not of other tasks. With the same number of seeds on every task all
estimates are those of the rliable package.

**Selection**: the lowest of k equally good evaluations lies below their mean, for normal noise of standard deviation σ
by about σ √(2 ln k), 1.9 σ for k = 20. Here one part of each evaluation's episodes chooses the evaluation and the other
part says how good it is (cross-fitting). Episodes are independent, so the second part knows nothing of the choice, and
its mean is an unbiased estimate of the chosen policy's return, for any distribution of returns. All numbers are
means over SPLITS random divisions, always the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from segue.report.summary import Array, Curve
from segue.student_t import student_t

FEW_SEEDS = 5
"""Below this many seeds a 95 % interval says more about its assumptions than about the arm (with two seeds it
is nine standard deviations either way), so reports show the smallest and largest seed instead, and say so."""


@dataclass(frozen=True)
class Estimate:
    """One measure over `seeds` seeds: its mean, its 95 % interval and the smallest and largest seed."""

    mean: float
    low: float
    high: float
    smallest: float
    largest: float
    seeds: int

    @property
    def spread(self) -> tuple[float, float]:
        """What a report shows beside the mean: the interval, or with few seeds the smallest and largest."""
        return (self.low, self.high) if self.seeds >= FEW_SEEDS else (self.smallest, self.largest)


def estimate(values: ArrayLike) -> Estimate:
    """Mean x̄ of `values [seeds]` and the interval x̄ ± t₀.₉₇₅(n−1)·s/√n, s² = Σ(x − x̄)²/(n−1).

    Seeds without a value are left out; with one seed there is no interval.
    """
    x = np.asarray(values, dtype=float)
    x = x[np.isfinite(x)]
    if not x.size:
        return Estimate(math.nan, math.nan, math.nan, math.nan, math.nan, 0)
    mean = float(x.mean())
    half = student_t(0.975, x.size - 1) * float(x.std(ddof=1)) / math.sqrt(x.size) if x.size > 1 else math.nan
    return Estimate(mean, mean - half, mean + half, float(x.min()), float(x.max()), x.size)


@dataclass(frozen=True)
class MeanCurve:
    """Mean return [n] over seeds at `steps [n]`, its spread [n], and how many seeds got that far [n]."""

    steps: Array
    mean: Array
    low: Array
    high: Array
    seeds: Array


def mean_curve(curves: Sequence[Curve]) -> MeanCurve:
    """The mean over seeds at every step that any of them evaluated.

    A seed is interpolated linearly between its own evaluations and never extrapolated: past its last one it
    no longer counts, which `seeds` shows.
    """
    curves = [c for c in curves if c[0].size]
    grid = np.unique(np.concatenate([s for s, _ in curves])) if curves else np.empty(0)
    values = [np.interp(grid, s, r, left=math.nan, right=math.nan) for s, r in curves]
    points = [estimate(column) for column in zip(*values, strict=True)]
    low, high = np.asarray([p.spread for p in points], dtype=float).reshape(-1, 2).T
    return MeanCurve(
        steps=grid,
        mean=np.asarray([p.mean for p in points], dtype=float),
        low=low,
        high=high,
        seeds=np.asarray([p.seeds for p in points], dtype=float),
    )


# Selection

SPLITS = 200
CHOOSING = 2 / 3
"""Share of the episodes that choose. In simulations (docs/measures.md) half misses true dips more often, and nine
tenths is noisier."""

Means = Float[np.ndarray, "splits evaluations"]


def split_means(episodes: Sequence[Array]) -> tuple[Means, Means] | None:
    """Mean returns of the choosing and of the judging part of every evaluation, per split.

    Args:
        episodes: returns of each evaluation's episodes.

    Returns:
        None where there is no evaluation, or one that has fewer than two episodes and so cannot be divided.
    """
    if not episodes or min(returns.size for returns in episodes) < 2:
        return None
    source = np.random.default_rng(0)
    choosing, judging = [], []
    for returns in episodes:
        shuffled = source.permuted(np.tile(returns, (SPLITS, 1)), axis=1)
        first = min(max(round(CHOOSING * returns.size), 1), returns.size - 1)
        choosing.append(shuffled[:, :first].mean(1))
        judging.append(shuffled[:, first:].mean(1))
    return np.stack(choosing, 1), np.stack(judging, 1)


def fall(means: tuple[Means, Means] | None) -> float:
    """E[R₀ − R_î], î = argmin_{i ≥ 0} of the choosing parts, R of the judging ones: the fall from the first evaluation.

    For a curve of n policies with returns J its expectation is E[J₀ − J_î] ≤ J₀ − min_i J_i: 0 if nothing changes, and
    never more than the true fall. Single values may be negative, by noise; NaN if it cannot be said.
    """
    if means is None:
        return math.nan
    choosing, judging = means
    rows = np.arange(len(choosing))
    return float((judging[:, 0] - judging[rows, choosing.argmin(1)]).mean())


def lowest(means: tuple[Means, Means] | None) -> float:
    """E[R_î], î = argmin_i: the return of the evaluation that looks worst; NaN if it cannot be said."""
    if means is None:
        return math.nan
    choosing, judging = means
    return float(judging[np.arange(len(choosing)), choosing.argmin(1)].mean())


def highest(means: tuple[Means, Means] | None) -> float:
    """E[R_î], î = argmax_i: the return of the evaluation that looks best; NaN if it cannot be said."""
    return -lowest(None if means is None else (-means[0], -means[1]))


# Over seeds and tasks

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


def weighted_interquartile_mean(
    scores: Float[np.ndarray, "*batch runs"], weights: Float[np.ndarray, " runs"]
) -> Float[np.ndarray, "*batch"]:
    """Mean of the middle half of the weight along the last axis; of a run at its edge the part inside counts."""
    order = np.argsort(scores, axis=-1)
    own = (weights / weights.sum())[order]
    upto = np.cumsum(own, axis=-1)
    inside = np.clip(np.minimum(upto, 0.75) - np.maximum(upto - own, 0.25), 0.0, None)
    return (inside * np.take_along_axis(scores, order, axis=-1)).sum(-1) / inside.sum(-1)


def iqm(scores: Scores) -> Interval:
    """Interquartile mean over all runs of all tasks; a task with fewer runs weighs as much as the others."""
    again = np.concatenate(_resample(scores, np.random.default_rng(0)), axis=1)
    if len({runs.size for runs in scores}) == 1:
        return _interval(float(interquartile_mean(np.concatenate(scores))), interquartile_mean(again))
    weights = np.concatenate([np.full(runs.size, 1 / runs.size) for runs in scores])
    value = weighted_interquartile_mean(np.concatenate(scores), weights)
    return _interval(float(value), weighted_interquartile_mean(again, weights))


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
    """F̂(τ) = mean over tasks of the share of runs with a score > τ, for every τ in `thresholds [n]`."""
    tau = np.asarray(thresholds, dtype=float)
    again = _resample(scores, np.random.default_rng(0))
    shares = np.stack([np.mean([(runs > t).mean(1) for runs in again], axis=0) for t in tau], axis=1)
    low, high = np.quantile(shares, _tails(), axis=0)
    share = np.mean([(runs > tau[:, None]).mean(1) for runs in scores], axis=0)
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


# A difference of two arms


def difference(first: ArrayLike, second: ArrayLike) -> Interval:
    """Mean of `first [n]` minus mean of `second [m]`, with Welch's 95 % interval; NaN bounds with fewer than two each.

    Both without spread: the interval has no width.
    """
    x, y = (np.asarray(values, dtype=float) for values in (first, second))
    value = float(x.mean() - y.mean())
    if min(x.size, y.size) < 2:
        return Interval(value, math.nan, math.nan)
    parts = np.array([x.var(ddof=1) / x.size, y.var(ddof=1) / y.size])
    if not parts.sum():
        return Interval(value, value, value)
    degrees = parts.sum() ** 2 / float((parts**2 / np.array([x.size - 1, y.size - 1])).sum())
    half = student_t((1 + CONFIDENCE) / 2, degrees) * math.sqrt(parts.sum())
    return Interval(value, value - half, value + half)
