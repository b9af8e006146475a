"""The lowest and the highest of several noisy evaluations, without the luck of having been chosen.

The lowest of k equally good evaluations lies below their mean by itself: for normal noise of standard deviation σ by
about σ √(2 ln k), 1.9 σ for k = 20. Here one part of each evaluation's episodes chooses the evaluation and the other
part says how good it is (cross-fitting). Episodes are independent, so the second part knows nothing of the choice, and
its mean is an unbiased estimate of the chosen policy's return, whatever the distribution of returns. All numbers are
means over SPLITS random divisions, always the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from segue.report.evaluations import Array

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
