"""Numbers that sum up an online phase: per seed from its evaluations, and across seeds with their spread.

A curve is a pair of arrays `(steps [n], returns [n])`: online environment steps, ascending, and the mean
return of the evaluation made there. What cannot be computed is NaN, never a guess.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Curve = tuple[Array, Array]

FEW_SEEDS = 5
"""Below this many seeds a 95 % interval says more about its assumptions than about the arm (with two seeds it
is nine standard deviations either way), so reports show the smallest and largest seed instead, and say so."""


def final_return(returns: ArrayLike) -> float:
    """R_n, the last evaluation of `returns [n]`."""
    values = np.asarray(returns, dtype=float)
    return float(values[-1]) if values.size else math.nan


def best_return(returns: ArrayLike) -> float:
    """max_i R_i over `returns [n]`. It favours noise: the best of many equal evaluations is high by luck."""
    values = np.asarray(returns, dtype=float)
    return float(values.max()) if values.size else math.nan


def area_under_curve(steps: ArrayLike, returns: ArrayLike) -> float:
    """Mean return over the online steps, Σ_i (s_{i+1} − s_i)(R_i + R_{i+1})/2 / (s_n − s_1)."""
    s, r = np.asarray(steps, dtype=float), np.asarray(returns, dtype=float)
    return float(np.trapezoid(r, s) / (s[-1] - s[0])) if s.size > 1 else math.nan


def dip(offline_score: float, returns: ArrayLike) -> float:
    """max(0, R_offline − min_i R_i): the deepest fall below the offline score, in return.

    Raw: the lowest of n equally good evaluations lies below their mean by itself.
    """
    values = np.asarray(returns, dtype=float)
    if not values.size or math.isnan(offline_score):
        return math.nan
    return max(0.0, offline_score - float(values.min()))


def steps_to_reach(steps: ArrayLike, returns: ArrayLike, level: float) -> float:
    """min {s_i : R_i ≥ level}, the first evaluated step at or above `level`; NaN if none is."""
    reached = np.asarray(steps, dtype=float)[np.asarray(returns, dtype=float) >= level]
    return float(reached[0]) if reached.size else math.nan


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


def curve(evaluations: Sequence[Mapping[str, Any]]) -> Curve:
    """`(steps [n], returns [n])` in order of step; evaluations without a finite mean are left out."""
    points = sorted(
        (float(e["step"]), float(e["mean_return"]))
        for e in evaluations
        if e.get("mean_return") is not None and math.isfinite(e["mean_return"])
    )
    steps, returns = np.asarray(points, dtype=float).reshape(-1, 2).T
    return steps, returns


def score(seed: Mapping[str, Any], name: str = "offline_score") -> float:
    """A number of the seed's record; NaN where there is none."""
    value = seed.get(name)
    return math.nan if value is None else float(value)


def online_curve(seed: Mapping[str, Any]) -> Curve:
    """The online curve of one seed, from its offline score if it has one and step 0 was not evaluated."""
    steps, returns = curve(seed.get("online_evaluations") or ())
    start = score(seed)
    if math.isfinite(start) and (not steps.size or steps[0] > 0):
        return np.concatenate([[0.0], steps]), np.concatenate([[start], returns])
    return steps, returns


def seed_measures(seed: Mapping[str, Any]) -> dict[str, float]:
    """Every measure of one seed, by the name that reports give it."""
    steps, returns = online_curve(seed)
    offline = score(seed)
    return {
        "offline score": offline,
        "final": final_return(returns),
        "best": best_return(returns),
        "area": area_under_curve(steps, returns),
        "dip": dip(offline, returns),
    }


def arm_measures(arm: Mapping[str, Any]) -> dict[str, Estimate]:
    """Every measure of one arm over its seeds."""
    seeds = [seed_measures(s) for s in arm["seeds"].values()]
    return {name: estimate([m[name] for m in seeds]) for name in seed_measures({})}


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
