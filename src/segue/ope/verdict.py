"""From confidence bounds to an answer a practitioner can act on."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from segue.ope.episodes import Support
from segue.ope.estimator import Bounds

Answer = Literal["yes", "no", "not enough evidence"]
#: With fewer effective episodes than this, their number is the reason for an open answer.
FEW_EFFECTIVE_EPISODES = 30


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Is the judged policy better than the dataset's?"""

    answer: Answer
    reason: str


def decide(
    bounds: Bounds,
    confidence: float,
    episodes: str,
    support: Support | None,
    exact: bool,
    refusal: str | None = None,
) -> Verdict:
    """`yes` if the lower bound of J(π) − J(b) is above 0, `no` if the upper one is below 0, each at `confidence`.

    Only bounds that hold for every number of episodes decide. A bootstrap resamples the weights that were seen; where
    weights are heavy-tailed, those that matter most were not, and a self-normalised estimate is biased towards what is
    common in the dataset: its bound then errs several times more often than it says, also with a hundred effective
    episodes (docs/evaluation.md). Such a bound, and that of a fitted critic, is reported as the way it points.

    Args:
        bounds: of the difference.
        confidence: 1 − δ of each bound.
        episodes: how many were judged, and what they are: "126 episodes that the policy has not learnt from".
        support: of the weights; None for an estimate without weights.
        exact: whether the bounds hold for every number of episodes.
        refusal: why the episodes cannot show that the policy is better, if they cannot: the answer is then never yes.
    """
    low, high = bounds.difference_lower, bounds.difference_upper
    direction, size = ("better", low) if low > 0 else ("worse", -high)
    decided = low > 0 or high < 0
    if exact and decided:
        assert support is not None
        if low > 0 and refusal is not None:
            return Verdict("not enough evidence", f"points to better, by {size:.3g} or more, but {refusal}")
        reason = f"{direction} by {size:.3g} or more at {confidence:.0%} ({_basis(support, episodes)})"
        return Verdict("yes" if low > 0 else "no", reason)
    if decided:
        found = f"points to {direction}, by {size:.3g} or more"
    elif math.isinf(low) and math.isinf(high):
        found = "too few episodes count for a bound of the difference"
    else:
        found = f"the difference may be anywhere from {low:+.3g} to {high:+.3g}"
    if support is None:
        return Verdict("not enough evidence", f"{found}, as far as the critic is right, which no bound covers")
    if support.effective_episodes < FEW_EFFECTIVE_EPISODES:
        few = support.share > 0.5  # most episodes count, so that what is missing is more of them
        why = "there are too few episodes" if few else "the policy does things that the dataset hardly ever tried"
        basis = f"{_basis(support, episodes)}: {why}; {found}"
    else:
        basis = f"{found} ({_basis(support, episodes)})"
    caution = "; the bound is approximate and decides nothing" if decided else ""
    return Verdict("not enough evidence", basis + caution)


def keeps(
    limit: float,
    lower: float,
    upper: float,
    confidence: float,
    episodes: str,
    support: Support,
    exact: bool,
    refusal: str | None = None,
) -> Verdict:
    """`yes` if the upper bound of the mean cost is at most the limit, `no` if the lower one is above it.

    The arguments are those of `decide`. Only bounds that hold for every number of episodes decide.
    """
    basis = _basis(support, episodes)
    if exact and upper <= limit and refusal is None:
        return Verdict("yes", f"at most {upper:.3g} at {confidence:.0%} ({basis})")
    if exact and lower > limit:
        return Verdict("no", f"at least {lower:.3g} at {confidence:.0%} ({basis})")
    found = f"it may be anywhere from {lower:.3g} to {upper:.3g} ({basis})"
    if upper <= limit and refusal is not None:
        found += f"; {refusal}"
    if not exact:
        found += "; the propensities are estimated, so that the bounds are approximate and decide nothing"
    return Verdict("not enough evidence", found)


def _basis(support: Support, episodes: str) -> str:
    return f"effective sample size {support.effective_episodes:,.0f} of {episodes}"
