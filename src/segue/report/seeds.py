"""From seeds to an arm: means with their spread, per measure and per point of a curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from segue.report.evaluations import Array, Curve

FEW_SEEDS = 5
"""Below this many seeds a 95 % interval says more about its assumptions than about the arm (with two seeds it
is nine standard deviations either way), so reports show the smallest and largest seed instead, and say so."""


def student_t_975(degrees: int) -> float:
    """The 97.5 % quantile of Student's t: a table, then from 10 degrees of freedom Fisher's expansion."""
    table = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
    if degrees <= len(table):
        return table[degrees - 1]
    z, n = 1.959964, float(degrees)
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )


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
    half = student_t_975(x.size - 1) * float(x.std(ddof=1)) / math.sqrt(x.size) if x.size > 1 else math.nan
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
