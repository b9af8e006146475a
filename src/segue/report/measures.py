"""Numbers that sum up the online phase of one seed; docs/measures.md explains each.

A curve is a pair of arrays `(steps [n], returns [n])`: online environment steps, ascending, and the mean return of the
evaluation made there, of which the first is the policy that was handed over. What cannot be computed is NaN, never a
guess; what was never reached within the budget is infinite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from segue.report.references import Reference
from segue.report.statistics import fall, highest, lowest, split_means
from segue.report.summary import Arm, Seed

Kind = Literal["return", "score", "regret", "share", "steps", "cost"]


@dataclass(frozen=True)
class Measure:
    """A measure's name in reports, what kind of number it is, and what it means in a sentence."""

    name: str
    kind: Kind
    about: str


LEVELS = (
    Measure("offline score", "return", "Offline score: mean return of the policy at the handover."),
    Measure("final", "return", "Final: last evaluation."),
    Measure("area", "return", "Area: mean return over the online steps."),
    Measure(
        "normalised", "score", "Normalised: final return on the scale where the reference's two returns are 0 and 100."
    ),
    Measure("regret", "regret", "Regret: 1 − mean normalised return / 100, averaged over online evaluations."),
    Measure("cost", "cost", "Cost: mean sum of an episode's costs at the last evaluation."),
    Measure(
        "within limit", "share", "Within limit: share of online evaluations whose mean cost is at most the cost_limit."
    ),
)
"""How good: returns and scores."""
HANDOVER = (
    Measure(
        "dip",
        "return",
        "Dip: how far the return fell below the offline score, corrected for evaluation noise. It is 0 on average "
        "where nothing changes, and can be negative.",
    ),
    Measure(
        "swing",
        "return",
        "Swing: how far an evaluation typically lies from the line between its neighbours, corrected for evaluation "
        "noise; can be negative.",
    ),
    Measure("live", "return", "Live: mean return of the training episodes, which explore."),
    Measure("share below", "share", "Share below: share of online evaluations below the offline score."),
    Measure(
        "recovery",
        "steps",
        "Recovery: steps until an evaluation after the lowest one reaches the offline score; median over seeds.",
    ),
    Measure(
        "stability", "return", "Stability: lowest evaluation minus the better of offline score and dataset return."
    ),
    Measure("plasticity", "return", "Plasticity: highest evaluation minus the same; both corrected for noise."),
)
"""What the handover cost, and what fine-tuning gained."""


def final_return(returns: ArrayLike) -> float:
    """R_n, the last evaluation of `returns [n]`."""
    values = np.asarray(returns, dtype=float)
    return float(values[-1]) if values.size else math.nan


def area_under_curve(steps: ArrayLike, returns: ArrayLike) -> float:
    """Mean return over the online steps, Σ_i (s_{i+1} − s_i)(R_i + R_{i+1})/2 / (s_n − s_1)."""
    s, r = np.asarray(steps, dtype=float), np.asarray(returns, dtype=float)
    return float(np.trapezoid(r, s) / (s[-1] - s[0])) if s.size > 1 else math.nan


def steps_to_reach(steps: ArrayLike, returns: ArrayLike, level: float) -> float:
    """min {s_i : R_i ≥ level}, the first evaluated step at or above `level`; ∞ if none is, NaN without evaluations."""
    s = np.asarray(steps, dtype=float)
    reached = s[np.asarray(returns, dtype=float) >= level]
    return float(reached[0]) if reached.size else math.inf if s.size and not math.isnan(level) else math.nan


def raw_dip(offline_score: float, returns: ArrayLike) -> float:
    """max(0, R_offline − min_i R_i): the deepest fall as it looks, which evaluation noise alone makes positive."""
    values = np.asarray(returns, dtype=float)
    if not values.size or math.isnan(offline_score):
        return math.nan
    return max(0.0, offline_score - float(values.min()))


def swing(steps: ArrayLike, episodes: Sequence[Float[np.ndarray, " episodes"]]) -> float:
    """Root of mean_i ((R_i − L_i)² − its variance by noise), negative where that mean is.

    L_i is on the straight line from R_{i−1} to R_{i+1}, at s_i.

    Args:
        steps: of the evaluations, ascending.
        episodes: returns of each evaluation's episodes.

    Returns:
        NaN with fewer than three evaluations, or fewer than two episodes in one.
    """
    if len(episodes) < 3 or min(returns.size for returns in episodes) < 2:
        return math.nan
    mean = np.array([returns.mean() for returns in episodes])
    noise = np.array([returns.var(ddof=1) / returns.size for returns in episodes])
    s = np.asarray(steps, dtype=float)
    share = (s[1:-1] - s[:-2]) / (s[2:] - s[:-2])
    apart = mean[1:-1] - (1 - share) * mean[:-2] - share * mean[2:]
    square = float((apart**2 - noise[1:-1] - (1 - share) ** 2 * noise[:-2] - share**2 * noise[2:]).mean())
    return math.copysign(math.sqrt(abs(square)), square)


def share_below(offline_score: float, steps: ArrayLike, returns: ArrayLike) -> float:
    """|{i : s_i > 0, R_i < R_offline}| / |{i : s_i > 0}|; about one half for a policy that does not change."""
    live = np.asarray(returns, dtype=float)[np.asarray(steps, dtype=float) > 0]
    return float((live < offline_score).mean()) if live.size and not math.isnan(offline_score) else math.nan


def time_to_recover(offline_score: float, steps: ArrayLike, returns: ArrayLike) -> float:
    """min {s_i : i ≥ l, R_i ≥ R_offline} with l the lowest evaluation, in steps from the handover.

    0 if no evaluation lies below the offline score; ∞ if the budget ended first.
    """
    s, r = np.asarray(steps, dtype=float), np.asarray(returns, dtype=float)
    if not s.size or math.isnan(offline_score):
        return math.nan
    if r.min() >= offline_score:
        return 0.0
    after = s[(np.arange(s.size) >= r.argmin()) & (r >= offline_score)]
    return float(after[0]) if after.size else math.inf


def cumulative_regret(steps: ArrayLike, scores: ArrayLike) -> float:
    """mean_{i : s_i > 0} (1 − score_i / 100) of normalised scores, as CORL's fine-tuning of Cal-QL reports it.

    There the score is a success rate, so it lies in [0, 1]; where scores pass 100 regret can be negative.
    """
    live = np.asarray(scores, dtype=float)[np.asarray(steps, dtype=float) > 0]
    return float((1 - live / 100).mean()) if live.size else math.nan


def prior_knowledge(offline_score: float, dataset_return: float) -> float:
    """J* = max(R_offline, R_dataset): the better of handed-over policy and dataset; NaN if the latter is unknown."""
    return float(np.fmax(offline_score, dataset_return)) if math.isfinite(dataset_return) else math.nan


def seed_measures(
    seed: Seed,
    convention: Reference | None = None,
    dataset_return: float = math.nan,
    cost_limit: float | None = None,
) -> dict[str, float]:
    """Every measure of one seed by its name, and `raw dip`.

    Args:
        seed: what it recorded.
        convention: what normalised scores refer to.
        dataset_return: mean return of the dataset's episodes; NaN without one, or where it was not recorded.
        cost_limit: of the recipe; None without one.
    """
    steps, returns = seed.online_curve
    episodes = [evaluation.returns for evaluation in seed.from_handover]
    offline = seed.offline_score
    prior = prior_knowledge(offline, dataset_return)
    live = split_means([e for step, e in zip(steps, episodes, strict=True) if step > 0])
    fell = math.isfinite(offline) and bool((steps > 0).any())
    scores = np.full(returns.size, math.nan) if convention is None else convention.scores(returns)
    return {
        "offline score": offline,
        "final": final_return(returns),
        "area": area_under_curve(steps, returns),
        "normalised": final_return(scores),
        "regret": cumulative_regret(steps, scores),
        "cost": seed.from_handover[-1].mean_cost if seed.from_handover else math.nan,
        "within limit": share_within(cost_limit, seed),
        "dip": fall(split_means(episodes)) if fell else math.nan,
        "raw dip": raw_dip(offline, returns) if fell else math.nan,
        "swing": swing(steps, episodes),
        "live": seed.training_return,
        "share below": share_below(offline, steps, returns),
        "recovery": time_to_recover(offline, steps, returns) if fell else math.nan,
        "stability": lowest(live) - prior,
        "plasticity": highest(live) - prior,
    }


def share_within(cost_limit: float | None, seed: Seed) -> float:
    """Share of the evaluations after the handover whose mean cost is at most the limit; NaN if there is none."""
    costs = np.array([e.mean_cost for e in seed.online if e.step > 0 and e.costs.size])
    return math.nan if cost_limit is None or not costs.size else float((costs <= cost_limit).mean())


def arm_measures(arm: Arm) -> dict[str, dict[str, float]]:
    """Seed → every measure of it."""
    convention, limit = arm.reference, arm.recipe.get("cost_limit")
    return {key: seed_measures(seed, convention, arm.dataset_return, limit) for key, seed in arm.seeds.items()}
