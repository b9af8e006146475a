"""Evidence that may be read after every unit: tests and intervals that hold at any time.

An e-process starts at 1 and is ever as large as 1/α with probability α at most if its null hypothesis is true (Ville's
inequality; Ramdas et al. 2023, arXiv 2210.01948, "Game-theoretic statistics and safe anytime-valid inference"). So a
service may look at it whenever it likes, and act when it reaches 1/α.

| class or function | its question | holds if |
| --- | --- | --- |
| `RankComparison` | does the arm matter for returns, and which way? | arms are drawn with the stated probabilities |
| `MeanDifference` | by how much do the means differ? | the same, and declared bounds; without them for many units |
| `SampleRatio` | are arms drawn with the stated probabilities? | always |
| `LimitTest` | is a mean cost above a limit? | costs are never negative |
| `MeanUpper` | how large may a mean cost be? | for many units |
| `FallDetector` | have returns fallen below a reference? | the reference has independent returns |
| `ShiftDetector` | have observations left their mean and deviation? | one observation per episode |
| `ranking_evidence` | is one of two small sets of returns better? | returns are exchangeable |
| `required_evidence` | how much evidence does candidate k need? | always |

**Units enter in the order in which they were assigned.** In the order in which they finish, the arms that are drawn no
longer have the stated probabilities, and `RankComparison` raises false alarms (studies/evidence).

**A unit is one draw of an arm.** A user who keeps an arm is one unit, with one return for all of their episodes.

Each class is incremental: `update` takes any number of units and returns the path after each of them. `state` gives
plain numbers, from which `restore` goes on as if there had been no break.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from segue.errors import DataError

#: How much more likely the better of two episodes, one of each, is the candidate's in `ranking_evidence`.
ODDS = 8.0
#: Earlier returns that a return is ranked among: enough for a fine rank, few enough to follow a drift.
RECENT = 200
#: Effects that `RankComparison` bets on, in standard deviations, and the share of the capital on each.
EFFECTS = np.array([0.125, 0.25, 0.5, 1.0])
EFFECT_WEIGHTS = np.array([0.1, 0.3, 0.3, 0.3])
#: Shifts of the log odds of the arms that `SampleRatio` bets on.
SHIFTS = np.array([-1.0, -0.4, -0.2, -0.1, 0.1, 0.2, 0.4, 1.0])
#: Stakes of the exact interval, as shares of the largest that is allowed.
STAKES = np.geomspace(0.005, 0.6, 8)
#: Units at 50/50 for which the asymptotic interval is shortest, and before which it is infinite.
SHORTEST, FEWEST = 500, 100
#: Stakes of `LimitTest`, as shares of the largest that is admissible.
LIMIT_STAKES = np.geomspace(0.002, 0.9, 8)
#: Shares of the largest admissible stake in `FallDetector`.
FALL_STAKES = np.array([0.1, 0.25, 0.5, 0.9])
#: Probability that a reference is so lucky that `FallDetector` has more false alarms than declared.
LUCKY = 0.05
#: Fewest returns of a reference.
FEWEST_REFERENCE = 20
#: Shifts of observations that `ShiftDetector` bets on, in standard deviations.
DEVIATIONS = np.array([-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0])
#: Standardised observations count up to this value, so that squares are finite.
FARTHEST = 1e100
#: Units that are worked on at once, which bounds the memory of a long history.
CHUNK = 10_000


class _Resumable:
    """A dataclass whose fields are all there is to it: `restore(state())` goes on where it stopped."""

    def state(self) -> dict[str, Any]:
        """Plain numbers and lists, fit for JSON."""
        return {
            field.name: np.asarray(getattr(self, field.name)).tolist()
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        """The test that `state` was taken from.

        Raises:
            DataError: if it is the state of something else.
        """
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        if sorted(state) != sorted(names):
            raise DataError(f"state of {cls.__name__}: has {', '.join(sorted(state))}; expected {', '.join(names)}")
        return cls(**state)


@dataclasses.dataclass
class RankComparison(_Resumable):
    """Two e-processes from one experiment: that the candidate is better, and that it is worse.

    The null hypothesis: given the history and the return of a unit, its arm is still a draw with the stated
    probability. So it is where the arm changes no unit's return (Fisher's sharp null), however returns drift, depend on
    each other or on the season. The arms alone are random, and the test looks at a return before it bets on the arm:

        factor = (q/p)^L · ((1 − q)/(1 − p))^(1 − L),   logit q = logit p + δ z + δ² (p̄ − ½)

    L is 1 for the candidate, p its probability, p̄ its recent mean, z the normal score of the return's mid-rank
    among the RECENT returns before it. The expectation over L is 1 for every q, so the product is a martingale. The bet
    is best if the candidate's returns are normal and shifted by δ standard deviations. The e-process is the mean over
    EFFECTS, with δ > 0 for "better" and δ < 0 for "worse". A unit with p = 0 only adds to the returns that later ones
    are ranked among.

    It does not test means. An arm that changes only the spread or the tails makes the null false as well, and good
    ranks do not exclude a lower mean: promote only where `MeanDifference` does not contradict. Arms that are not drawn
    with the stated probabilities make it false, too: look at `SampleRatio` first.

    Testing by betting: Ramdas et al. 2023 (arXiv 2210.01948). For shifts of any distribution, normal scores are
    asymptotically as efficient as a t-test or more (Chernoff & Savage 1958). The combination is ours.
    """

    recent: Float[np.ndarray, " recent"] = dataclasses.field(default_factory=lambda: np.zeros(0))
    """The last returns, at most RECENT, oldest first."""
    units: int = 0
    """Units so far."""
    share: float = 0.0
    """Recent mean of the candidate's probability."""
    log_wealth: Float[np.ndarray, "2 effects"] = dataclasses.field(default_factory=lambda: np.zeros((2, len(EFFECTS))))
    """log of the capital of each bet: on better, on worse."""

    def __post_init__(self) -> None:
        self.recent = _finite("recent", self.recent)
        self.log_wealth = _finite("log_wealth", self.log_wealth, (2, len(EFFECTS)))

    @property
    def log_better(self) -> float:
        """log e-value for "the candidate is better"."""
        return float(_log_mean(self.log_wealth[0], EFFECT_WEIGHTS))

    @property
    def log_worse(self) -> float:
        """log e-value for "the candidate is worse"."""
        return float(_log_mean(self.log_wealth[1], EFFECT_WEIGHTS))

    def update(
        self, returns: ArrayLike, candidate: ArrayLike, probability: ArrayLike
    ) -> tuple[Float[np.ndarray, " units"], Float[np.ndarray, " units"]]:
        """Bets on units, in the order of their assignment.

        Args:
            returns: what each unit earned, [units], in any unit of measurement.
            candidate: whether the candidate acted, [units].
            probability: with which the candidate was drawn, [units] or one for all.

        Returns:
            log e-values after each unit, for better and for worse, [units] each.

        Raises:
            DataError: for values that are not finite, and for an arm whose probability is 0. Nothing has changed then.
        """
        arm, chance = _arms(candidate, probability)
        values = _finite("returns", returns, (len(arm),))
        scores = _normal_scores(_mid_ranks(self.recent, values))
        shares = _running_means(chance, self.share, self.units)
        effects = np.stack([EFFECTS, -EFFECTS])
        tilt = effects * scores[:, None, None] + effects**2 * (shares[1:] - 0.5)[:, None, None]
        paths = _walk(self.log_wealth, _log_factor(tilt, arm[:, None, None], chance[:, None, None]))
        self.recent = np.concatenate([self.recent, values])[-RECENT:]
        self.units, self.share, self.log_wealth = self.units + len(values), float(shares[-1]), paths[-1]
        better, worse = _log_mean(paths[1:], EFFECT_WEIGHTS).T
        return better, worse


class Interval(NamedTuple):
    """An effect and its interval; the effect is NaN and the interval infinite while nothing is known."""

    effect: float
    low: float
    high: float


@dataclasses.dataclass
class MeanDifference(_Resumable):
    """Mean return of the candidate less that of the other arm, with an interval that holds at all times at once.

    With L the arm, p its probability and c the recent mean of earlier returns, D = (L − p)(y − c) has the mean h τ,
    where h = p (1 − p) and τ is the effect of the unit. So Σ D / Σ h estimates Σ h τ / Σ h, the mean effect that weighs
    units by h: with one p, the plain mean effect so far, also where returns drift.

    With `bounds`, the interval is exact: exp(θ (D − h τ) / B − ψ(θ) (D / B)²) with B = high − low, ψ(θ) = −log(1 − θ) −
    θ is a supermartingale (Fan et al. 2015; the empirical Bernstein bound of Waudby-Smith & Ramdas 2023, arXiv
    2010.09686), and so is its mean over STAKES. Without, it is the asymptotic confidence sequence of Waudby-Smith et
    al. 2024 (arXiv 2103.06476), which needs finite variances, holds for many units only, and is infinite before as many
    as FEWEST at 50/50.
    """

    alpha: float = 0.05
    """Probability that the interval is ever wrong, at most."""
    bounds: tuple[float, float] | None = None
    """Lowest and highest possible return; None: unknown."""
    units: int = 0
    """Units so far."""
    centre: float = 0.0
    """Recent mean of returns."""
    sums: Float[np.ndarray, "4"] = dataclasses.field(default_factory=lambda: np.zeros(4))
    """Σ D, Σ D², Σ h and the number of units with h > 0."""

    def __post_init__(self) -> None:
        self.sums = _finite("sums", self.sums, (4,))
        if not 0 < self.alpha < 1:
            raise DataError(f"alpha is {self.alpha}; expected between 0 and 1, both excluded")
        if self.bounds is not None and not -np.inf < self.bounds[0] < self.bounds[1] < np.inf:
            raise DataError(f"bounds are {self.bounds}; expected two finite numbers, the lower one first")

    @property
    def interval(self) -> Interval:
        """What is known now, in the unit of the returns."""
        return Interval(*(float(column[0]) for column in self._intervals(self.sums[None])))

    def update(
        self, returns: ArrayLike, candidate: ArrayLike, probability: ArrayLike
    ) -> tuple[Float[np.ndarray, " units"], Float[np.ndarray, " units"], Float[np.ndarray, " units"]]:
        """Adds units, in the order of their assignment; arguments as for `RankComparison`.

        The first unit only sets the centre.

        Returns:
            effect, low and high after each unit, [units] each.

        Raises:
            DataError: for values that are not finite or out of bounds, and for an arm whose probability is 0. Nothing
                has changed then.
        """
        arm, chance = _arms(candidate, probability)
        values = _finite("returns", returns, (len(arm),))
        if self.bounds is not None:
            beyond = (values < self.bounds[0]) | (values > self.bounds[1])
            if beyond.any():
                i = int(beyond.argmax())
                raise DataError(f"returns[{i}] is {values[i]:g}; expected within the declared bounds {self.bounds}")
        centres = _running_means(values, self.centre, self.units)
        known = self.units + np.arange(len(values)) > 0
        spread = known * chance * (1 - chance)
        difference = known * (arm - chance) * (values - centres[:-1])
        steps = np.stack([difference, difference**2, spread, (spread > 0).astype(float)], 1)
        paths = _walk(self.sums, steps)
        self.units, self.centre, self.sums = self.units + len(values), float(centres[-1]), paths[-1]
        return self._intervals(paths[1:])

    def _intervals(
        self, sums: Float[np.ndarray, "n 4"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        difference, square, spread, units = sums.T
        if self.bounds is None:
            radius = np.where(4 * spread < FEWEST, np.inf, _radius(difference, square, units, self.alpha))
        else:
            width = self.bounds[1] - self.bounds[0]
            radius = width * self._exact(square / width**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            effect = difference / spread
            return effect, *(np.where(spread > 0, effect + sign * radius / spread, sign * np.inf) for sign in (-1, 1))

    def _exact(self, square: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """The z at which mean_θ exp(θ z − ψ(θ) Σ D²) reaches 2/α, for returns with bounds at a distance of 1."""
        target = np.log(2 / self.alpha) + np.log(len(STAKES))
        costs = (-np.log1p(-STAKES) - STAKES) * square[:, None]
        z = ((target + costs) / STAKES).min(1)
        # Newton from above on a convex function stays above its zero, so that stopping early is on the safe side.
        for _ in range(8):
            logs = STAKES * z[:, None] - costs
            value = np.logaddexp.reduce(logs, axis=1)
            slope = (np.exp(logs - value[:, None]) * STAKES).sum(1)
            z = z - (value - target) / slope
        return z


@dataclasses.dataclass
class SampleRatio(_Resumable):
    """Evidence that arms are not drawn with the stated probabilities (sample-ratio mismatch).

    Causes are assignments that are lost, repeated or filtered in one arm more often than in the other. It bets on the
    arm with log odds that are shifted by each of SHIFTS; the mean over them is the e-process. Lindon & Malek 2022
    (arXiv 2011.03567) mix over all shifts, for probabilities that never change; here each unit has its own.
    """

    log_wealth: Float[np.ndarray, " shifts"] = dataclasses.field(default_factory=lambda: np.zeros(len(SHIFTS)))
    """log of the capital of each bet."""

    def __post_init__(self) -> None:
        self.log_wealth = _finite("log_wealth", self.log_wealth, (len(SHIFTS),))

    @property
    def log_e(self) -> float:
        """log e-value for a mismatch."""
        return float(_log_mean(self.log_wealth))

    def update(self, candidate: ArrayLike, probability: ArrayLike) -> Float[np.ndarray, " units"]:
        """Bets on the arms of units: [units] and [units], or one probability for all. Returns log e-values, [units].

        Raises:
            DataError: for a probability that is none, and for an arm whose probability is 0. Nothing has changed then.
        """
        arm, chance = _arms(candidate, probability)
        paths = _walk(self.log_wealth, _log_factor(SHIFTS, arm[:, None], chance[:, None]))
        self.log_wealth = paths[-1]
        return _log_mean(paths[1:])


@dataclasses.dataclass
class LimitTest(_Resumable):
    """Evidence that the mean of values which are never negative, such as costs, is above a limit.

    The null hypothesis: given those before, the mean of a value x is the limit at most. Then 1 + θ (x / limit − 1) has
    an expectation of 1 at most for each stake θ in (0, 1), however heavy the tails. So its product is a
    supermartingale, and the mean over LIMIT_STAKES an e-process (Waudby-Smith & Ramdas 2023, arXiv 2010.09686, section
    4).

    With a `run_length` it looks for a change at a time that nobody knows, like `FallDetector`: M ← (M + 1) f.
    """

    limit: float
    """Largest mean that is tolerated; above 0."""
    run_length: float | None = None
    """Mean number of values until a false alarm, at least; None: it may never be wrong, with probability 1 − α."""
    log_values: Float[np.ndarray, " stakes"] = dataclasses.field(default_factory=lambda: np.zeros(len(LIMIT_STAKES)))
    """log of the capital of each stake, or log(1 + M)."""

    def __post_init__(self) -> None:
        self.log_values = _finite("log_values", self.log_values, (len(LIMIT_STAKES),))
        if not 0 < self.limit < np.inf:
            raise DataError(f"limit is {self.limit}; expected a finite number above 0")
        if self.run_length is not None:
            _check_run_length(self.run_length)

    @property
    def log_e(self) -> float:
        """log e-value for a mean above the limit, or log(1 + M): an alarm at log(1 + run_length)."""
        return float(_log_mean(self.log_values))

    def update(self, values: ArrayLike) -> Float[np.ndarray, " units"]:
        """Bets on values, [units], and gives `log_e` after each.

        Raises:
            DataError: for values that are negative or not finite. Nothing has changed then.
        """
        costs = _costs(values)
        factors = np.log1p(LIMIT_STAKES * (costs / self.limit - 1)[:, None])
        paths = (_walk if self.run_length is None else _detect)(self.log_values, factors)
        self.log_values = paths[-1]
        return _log_mean(paths[1:])


@dataclasses.dataclass
class MeanUpper(_Resumable):
    """Upper end of an interval of the mean of values which are never negative, at all times at once, for many units.

    It is the asymptotic confidence sequence of `MeanDifference` for one mean. Costs are often rare and large, and
    before the first of them their variance is 0. So one unit more counts than there was, as large as `largest`: without
    a cost in n units the upper end is near 4 largest / n, and not 0. That unit is ours.
    """

    alpha: float = 0.05
    """Probability that the mean is ever above the upper end: half of it at most, for many units."""
    largest: float = 0.0
    """A value that is possible: the largest one that was seen, or known."""
    sums: Float[np.ndarray, "3"] = dataclasses.field(default_factory=lambda: np.zeros(3))
    """Number of values, their sum, and that of their squares."""

    def __post_init__(self) -> None:
        self.sums = _finite("sums", self.sums, (3,))

    @property
    def high(self) -> float:
        """The upper end now; infinite before FEWEST values."""
        units, total, square = self.sums + np.array([1, self.largest, self.largest**2])
        if units <= FEWEST:
            return math.inf
        return float((total + _radius(total, square, units, self.alpha)) / units)

    def update(self, values: ArrayLike, largest: float = 0.0) -> None:
        """Adds values, [units]; `largest` is one of others that is as possible.

        Raises:
            DataError: for values that are negative or not finite. Nothing has changed then.
        """
        costs = _costs(values)
        self.largest = max(self.largest, largest, *costs.tolist())
        self.sums = self.sums + np.array([len(costs), costs.sum(), (costs**2).sum()])


@dataclasses.dataclass
class FallDetector(_Resumable):
    """An alarm when returns have fallen below those of a reference, at a time that nobody knows.

    The null hypothesis: given those before, a return has the distribution of the reference's population, or is
    stochastically larger. Its mid-rank u among m independent references, in [0, 1], then has a mean of ½ − ε or more,
    ε = √(log(1/LUCKY) / 6m), except for a share LUCKY of references: like the uniform distribution, mid-ranks are
    sub-Gaussian with variance 1/12. So f = 1 + λ (½ − ε − u) has an expectation of 1 at most, and M ← (M + 1) f is an
    e-detector (Shin, Ramdas & Rinaldo 2024, arXiv 2203.03532): without a fall, the mean number of returns until M
    reaches `run_length` is `run_length` at least. M is the mean over FALL_STAKES, as shares of the largest λ. Betting
    on mid-ranks with this ε is ours.

    Seasons and drift are changes of level, too: take the reference from a time that has them.
    """

    reference: Float[np.ndarray, " reference"]
    """Independent returns of the policy while all was well."""
    run_length: float
    """Mean number of returns until a false alarm, at least."""
    log_values: Float[np.ndarray, " stakes"] = dataclasses.field(default_factory=lambda: np.zeros(len(FALL_STAKES)))
    """log(1 + M) of each stake."""

    def __post_init__(self) -> None:
        self.reference = np.sort(_finite("reference", self.reference))
        self.log_values = _finite("log_values", self.log_values, (len(FALL_STAKES),))
        if len(self.reference) < FEWEST_REFERENCE:
            raise DataError(f"reference has {len(self.reference)} returns; expected {FEWEST_REFERENCE} or more")
        _check_run_length(self.run_length)

    @property
    def threshold(self) -> float:
        """The `log_e` of an alarm, log(1 + run_length)."""
        return math.log1p(self.run_length)

    @property
    def log_e(self) -> float:
        """log(1 + M)."""
        return float(_log_mean(self.log_values))

    def update(self, returns: ArrayLike) -> Float[np.ndarray, " units"]:
        """Bets on returns, [units], and gives `log_e` after each.

        Raises:
            DataError: for values that are not finite. Nothing has changed then.
        """
        values = _finite("returns", returns)
        size = len(self.reference)
        places = [np.searchsorted(self.reference, values, side) for side in ("left", "right")]
        ranks = (places[0] + places[1]) / (2 * size)
        slack = np.sqrt(-np.log(LUCKY) / (6 * size))
        stakes = FALL_STAKES / (0.5 + slack)
        paths = _detect(self.log_values, np.log1p(stakes * (0.5 - slack - ranks)[:, None]))
        self.log_values = paths[-1]
        return _log_mean(paths[1:])


@dataclasses.dataclass
class ShiftDetector(_Resumable):
    """An alarm when observations leave the mean and standard deviation that the policy was trained with.

    The null hypothesis: each standardised feature z has mean 0 and variance 1 at most, given the observations before.
    Then (1 + λ z + λ² z² / 2) / (1 + λ² / 2) has an expectation of 1 at most, also with heavy tails (after Catoni 2012
    and Wang & Ramdas 2023, arXiv 2202.01250; this form is ours). The e-detector is the mean over DEVIATIONS as λ, which
    look up and down, and over features. A larger spread raises it as well; a feature that stops at its mean does not.
    Shifts below an eighth of a standard deviation are not found, on purpose: no training set is that typical.

    With a `tolerance` δ each bet is on a shift beyond δ standard deviations, and deviations are taken as larger by δ:
    for worlds that drift, and for a mean and standard deviation that were estimated. Those of n independent
    observations are off by √(2 log(2 d / LUCKY) / n) in any of d features, but for a share LUCKY of samples, roughly.

    Observations of one episode depend on each other: give one of each, drawn at random.
    """

    mean: Float[np.ndarray, " features"]
    """Of the training data."""
    std: Float[np.ndarray, " features"]
    """Of the training data; above 0."""
    run_length: float
    """Mean number of observations until a false alarm, at least."""
    tolerance: float = 0.0
    """Standard deviations by which a mean may be off."""
    log_values: Float[np.ndarray, "features deviations"] = dataclasses.field(default_factory=lambda: np.zeros(()))
    """log(1 + M) of each bet; a single 0 stands for all."""

    def __post_init__(self) -> None:
        self.mean = _finite("mean", self.mean)
        self.std = _finite("std", self.std, self.mean.shape)
        if not (self.std > 0).all():
            i = int((self.std <= 0).argmax())
            raise DataError(f"std[{i}] is {self.std[i]:g}; expected above 0: leave out features that never change")
        shape = (len(self.mean), len(DEVIATIONS))
        self.log_values = _finite("log_values", self.log_values if np.ndim(self.log_values) else np.zeros(shape), shape)
        _check_run_length(self.run_length)

    @property
    def threshold(self) -> float:
        """The `log_e` of an alarm, log(1 + run_length)."""
        return math.log1p(self.run_length)

    @property
    def log_features(self) -> Float[np.ndarray, " features"]:
        """log(1 + M) of each feature, [features]: the largest one names the culprit."""
        return _log_mean(self.log_values)

    @property
    def log_e(self) -> float:
        """log(1 + M) of all."""
        return float(_log_mean(self.log_features))

    def update(self, observations: ArrayLike) -> Float[np.ndarray, " units"]:
        """Bets on observations, [units, features] in the unit of the training data, and gives `log_e` after each.

        Raises:
            DataError: for values that are not finite. Nothing has changed then.
        """
        values = _finite("observations", observations, (None, len(self.mean)))
        scores = np.clip((values - self.mean) / (self.std * (1 + self.tolerance)), -FARTHEST, FARTHEST)
        bets = DEVIATIONS * scores[:, :, None] - np.abs(DEVIATIONS) * self.tolerance
        paths = _detect(self.log_values, np.log1p(bets + bets**2 / 2) - np.log1p(DEVIATIONS**2 / 2))
        self.log_values = paths[-1]
        return _log_mean(_log_mean(paths[1:]))


def required_evidence(alpha: float, candidate: int, promotions: int) -> float:
    """The evidence that promotes the candidate with this number (from 1 on), 1/α_k, after so many promotions.

    α_k = α · (promotions + 1) / (k (k + 1)): e-LOND (Xu & Ramdas 2024), for which the expected share of false ones
    among the promotions is at most α, also where the candidates depend on each other.
    """
    return candidate * (candidate + 1) / (alpha * (promotions + 1))


def ranking_evidence(earned: Float[np.ndarray, " incumbent"], tried: Float[np.ndarray, " candidate"]) -> float:
    """Likelihood of the ranking of these returns if the candidate is better by ODDS, over the one if it is not.

    Π_k k · w_k / (I_k + ODDS · C_k) over the returns in ascending order: w is ODDS for the candidate's and 1 for the
    incumbent's, C and I count those up to k. Equal returns have no order: it is the mean over all orders of them.
    """
    evidence, below = 1.0, (0, 0)
    for value in np.unique(np.concatenate([earned, tried])):
        equal = int((earned == value).sum()), int((tried == value).sum())
        evidence *= _of_equals(*equal, *below)
        below = below[0] + equal[0], below[1] + equal[1]
    return evidence


def _of_equals(incumbent: int, candidate: int, incumbent_below: int, candidate_below: int) -> float:
    """The factor of so many equal returns of each, with so many below them.

    Of i and c of them the last in an order is the incumbent's with probability i / (i + c).
    """
    mean = np.ones((incumbent + 1, candidate + 1))
    for i, c in itertools.product(range(incumbent + 1), range(candidate + 1)):
        if i + c:
            own, theirs = candidate_below + c, incumbent_below + i
            last = (i * mean[i - 1, c] if i else 0.0) + (c * ODDS * mean[i, c - 1] if c else 0.0)
            mean[i, c] = last / (i + c) * (own + theirs) / (ODDS * own + theirs)
    return float(mean[incumbent, candidate])


def _finite(name: str, values: ArrayLike, shape: tuple[int | None, ...] = (None,)) -> Float[np.ndarray, "..."]:
    """The values as numbers of this shape, where None is any length."""
    try:
        array = np.asarray(values, float)
    except (TypeError, ValueError):
        raise DataError(f"{name}: {values!r:.200} are no numbers; expected finite numbers") from None
    if array.ndim != len(shape) or any(w not in (None, n) for w, n in zip(shape, array.shape, strict=True)):
        words = ", ".join("any number" if n is None else str(n) for n in shape)
        raise DataError(f"{name} has the shape {array.shape}; expected ({words})")
    if not np.isfinite(array).all():
        place = np.argwhere(~np.isfinite(array))[0].tolist()
        found = array[tuple(place)]
        raise DataError(f"{name}{place} is {found}; expected a finite number: decide what a missing one counts as")
    return array


def _costs(values: ArrayLike) -> Float[np.ndarray, " units"]:
    """Values that are not negative."""
    costs = _finite("values", values)
    if (costs < 0).any():
        i = int((costs < 0).argmax())
        raise DataError(f"values[{i}] is {costs[i]:g}; expected 0 or more: no limit can be tested on negative costs")
    return costs


def _radius(
    total: Float[np.ndarray, "*n"] | float,
    square: Float[np.ndarray, "*n"] | float,
    units: Float[np.ndarray, "*n"] | float,
    alpha: float,
) -> Float[np.ndarray, "*n"]:
    """Of the sum `total` of so many values: theorem 2.2 of Waudby-Smith et al. 2024, with the sample variance."""
    many = np.maximum(units, 1)
    variance = np.maximum(square - np.square(total) / many, 0.0) / many
    surprise = -2 * np.log(alpha)
    precision = (surprise + np.log1p(surprise)) / SHORTEST
    grown = units * precision + 1
    return np.sqrt(variance * grown / precision * (np.log(grown) + surprise))


def _arms(
    candidate: ArrayLike, probability: ArrayLike
) -> tuple[Bool[np.ndarray, " units"], Float[np.ndarray, " units"]]:
    """Arms and probabilities, checked."""
    arm = _finite("candidate", candidate)
    every = np.full(arm.shape, probability) if np.ndim(probability) == 0 else probability
    chance = _finite("probability", every, arm.shape)
    for wrong, what, expected in (
        ((arm != 0) & (arm != 1), "candidate", "0 or 1"),
        ((chance < 0) | (chance > 1), "probability", "between 0 and 1"),
        (((chance == 0) & (arm == 1)) | ((chance == 1) & (arm == 0)), "probability", "one that allows the unit's arm"),
    ):
        if wrong.any():
            i = int(wrong.argmax())
            raise DataError(f"{what}[{i}] is {(arm if what == 'candidate' else chance)[i]:g}; expected {expected}")
    return arm == 1, chance


def _check_run_length(run_length: float) -> None:
    if not 1 < run_length < np.inf:
        raise DataError(f"run_length is {run_length}; expected a finite number above 1")


def _mid_ranks(earlier: Float[np.ndarray, " earlier"], values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Mid-rank of each value among the RECENT before it, in (0, 1); ½ for the first."""
    padded = np.concatenate([np.full(RECENT - len(earlier), np.nan), earlier, values])
    windows = np.lib.stride_tricks.sliding_window_view(padded[:-1], RECENT) if len(values) else np.zeros((0, RECENT))
    known = np.minimum(len(earlier) + np.arange(len(values)), RECENT)
    below = np.zeros(len(values))
    for start in range(0, len(values), CHUNK):
        rows = slice(start, start + CHUNK)
        window, value = windows[rows], values[rows, None]
        below[rows] = (window < value).sum(1) + (window == value).sum(1) / 2
    return (below + 0.5) / (known + 1)


def _normal_scores(ranks: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    from scipy.special import ndtri  # imported here, since bridges import this module and need none of it

    return ndtri(ranks)


def _running_means(values: Float[np.ndarray, " n"], mean: float, count: int) -> Float[np.ndarray, " n1"]:
    """Mean after 0, 1, … n of the values: of all so far, and later exponentially of about the last RECENT."""
    rates = 1 / np.minimum(np.arange(count + 1, count + len(values) + 1), RECENT)
    steps = zip(values.tolist(), rates.tolist(), strict=True)
    return np.array(list(itertools.accumulate(steps, lambda m, step: m + step[1] * (step[0] - m), initial=mean)))


def _log_factor(
    tilt: Float[np.ndarray, "..."], arm: Bool[np.ndarray, "..."], chance: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """log of (q/p)^L ((1 − q)/(1 − p))^(1 − L) for logit q = logit p + tilt."""
    return arm * tilt - np.log1p(chance * np.expm1(tilt))


def _walk(start: Float[np.ndarray, "*bets"], steps: Float[np.ndarray, "n *bets"]) -> Float[np.ndarray, "n1 *bets"]:
    """Sums after 0, 1, … n steps, added one by one, so that batches do not matter."""
    return np.cumsum(np.concatenate([start[None], steps]), axis=0)


def _detect(start: Float[np.ndarray, "*bets"], factors: Float[np.ndarray, "n *bets"]) -> Float[np.ndarray, "n1 *bets"]:
    """log(1 + M) after 0, 1, … n units of M ← (1 + M) · factor (Shiryaev–Roberts)."""
    walk = itertools.accumulate(factors, lambda value, log: np.logaddexp(value + log, 0.0), initial=start)
    return np.array(list(walk))


def _log_mean(logs: Float[np.ndarray, "*shape bets"], weights: Float[np.ndarray, " bets"] | None = None) -> Any:
    """log of the mean of exp(logs) over the last axis."""
    shares = np.full(logs.shape[-1], 1 / logs.shape[-1]) if weights is None else weights
    return np.logaddexp.reduce(logs + np.log(shares), axis=-1)
