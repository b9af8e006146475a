"""Evidence that may be read after every unit: fair bets, intervals that hold at all times, detectors, and restarts."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import ville
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from segue.errors import DataError
from segue.evidence import (
    EFFECT_WEIGHTS,
    EFFECTS,
    RECENT,
    STAKES,
    FallDetector,
    LimitTest,
    MeanDifference,
    MeanUpper,
    RankComparison,
    SampleRatio,
    ShiftDetector,
    ranking_evidence,
    required_evidence,
)

REFERENCE = np.linspace(-1, 1, 20)
#: Few different values, so that ties are common.
values = st.integers(-3, 3).map(float)
chances = st.sampled_from([0.1, 0.3, 0.5, 0.9])
Units = list[tuple[float, bool, float]]
units = st.lists(st.tuples(values, st.booleans(), chances), max_size=25)


def arms(count: int) -> np.ndarray:
    """Every assignment of so many units, [2^count, count]."""
    return np.array(list(itertools.product((0, 1), repeat=count)))


def paths_of(test: str, returns: np.ndarray, arm: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """E-values after each unit, [units]."""
    if test == "ratio":
        return np.exp(SampleRatio().update(arm, chance))
    better, worse = RankComparison().update(returns, arm, chance)
    return np.exp(better if test == "better" else worse)


@pytest.mark.parametrize("test", ["better", "worse", "ratio"])
@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(values, chances), min_size=5, max_size=5))
def test_after_any_history_the_next_arm_is_a_fair_bet_whatever_the_returns(test, drawn):
    returns, chance = map(np.array, zip(*drawn, strict=True))
    assignments = arms(5)
    paths = np.array([paths_of(test, returns, arm, chance) for arm in assignments])
    paths = np.concatenate([np.ones((len(paths), 1)), paths], axis=1)
    for t, p in enumerate(chance):
        for history in arms(t):
            follows = (assignments[:, :t] == history).all(1)
            now = paths[follows, t]
            after = [paths[follows & (assignments[:, t] == arm), t + 1] for arm in (0, 1)]
            assert np.ptp(now) == pytest.approx(0), "later units do not change what was known"
            assert (1 - p) * after[0].mean() + p * after[1].mean() == pytest.approx(now[0])


def make(name: str) -> Any:
    return {
        "ranks": RankComparison,
        "difference": MeanDifference,
        "bounded difference": lambda: MeanDifference(0.1, (-3.0, 3.0)),
        "ratio": SampleRatio,
        "fall": lambda: FallDetector(REFERENCE, 100.0),
        "shift": lambda: ShiftDetector(np.zeros(2), np.ones(2), 100.0),
        "limit": lambda: LimitTest(1.0),
        "limit, detector": lambda: LimitTest(1.0, 100.0),
    }[name]()


def feed(test: Any, rows: Units) -> np.ndarray:
    returns, arm, chance = (np.array([row[i] for row in rows]) for i in range(3))
    if isinstance(test, SampleRatio):
        return test.update(arm, chance)
    if isinstance(test, FallDetector):
        return test.update(returns)
    if isinstance(test, LimitTest):
        return test.update(np.abs(returns))
    if isinstance(test, ShiftDetector):
        return test.update(np.stack([returns, arm], 1))
    return np.stack(test.update(returns, arm, chance), 1)


NAMES = ("ranks", "difference", "bounded difference", "ratio", "fall", "shift", "limit", "limit, detector")


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(st.lists(units, min_size=1, max_size=4), st.booleans())
def test_batches_and_restarts_change_no_bit(name, batches, long):
    # Longer than the window of recent returns, too.
    batches = [batch * 10 for batch in batches] if long else batches
    whole, resumed, paths = make(name), make(name), []
    for batch in batches:
        paths.append(feed(resumed, batch))
        resumed = type(resumed).restore(json.loads(json.dumps(resumed.state(), allow_nan=False)))
    path = feed(whole, [row for batch in batches for row in batch])
    np.testing.assert_array_equal(np.concatenate(paths), path)
    assert whole.state() == resumed.state()


def test_evidence_from_ranks_is_what_its_definition_says():
    rng = np.random.default_rng(0)
    count = RECENT + 30
    returns, chance = rng.integers(-20, 20, count).astype(float), rng.choice([0.0, 0.1, 0.5], count)
    arm = rng.random(count) < chance
    wealth, share = {(sign, e): 1.0 for sign in (1, -1) for e in EFFECTS}, 0.0
    for i, y in enumerate(returns):
        earlier = returns[max(0, i - RECENT) : i]
        rank = (sum(earlier < y) + sum(earlier == y) / 2 + 0.5) / (len(earlier) + 1)
        share += (chance[i] - share) / min(i + 1, RECENT)
        for sign, effect in wealth:
            tilt = sign * effect * NormalDist().inv_cdf(rank) + effect**2 * (share - 0.5)
            odds = chance[i] / (1 - chance[i]) * math.exp(tilt)
            q = odds / (1 + odds)
            wealth[sign, effect] *= q / chance[i] if arm[i] else (1 - q) / (1 - chance[i])
    test = RankComparison()
    test.update(returns, arm, chance)
    for sign, log in ((1, test.log_better), (-1, test.log_worse)):
        parts = zip(EFFECTS, EFFECT_WEIGHTS, strict=True)
        assert log == pytest.approx(math.log(sum(weight * wealth[sign, effect] for effect, weight in parts)))


def test_evidence_does_not_depend_on_the_unit_of_the_returns():
    rng = np.random.default_rng(1)
    returns, arm = rng.normal(size=50), rng.random(50) < 0.5
    one, other = (RankComparison().update(y, arm, 0.5) for y in (returns, np.exp(5 * returns)))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(RankComparison().update(-returns, arm, 0.5)[1], one[0])


def test_a_better_candidate_is_found_and_a_worse_one_too():
    rng = np.random.default_rng(2)
    arm = rng.random(300) < 0.5
    for effect, found in ((1.0, "log_better"), (-1.0, "log_worse")):
        test = RankComparison()
        test.update(rng.normal(size=300) + effect * arm, arm, 0.5)
        logs = {name: getattr(test, name) for name in ("log_better", "log_worse")}
        assert logs.pop(found) > math.log(1e6)
        assert max(logs.values()) < 0


def test_constant_returns_and_one_arm_alone_are_no_evidence():
    arm = np.random.default_rng(3).random(300) < 0.5
    np.testing.assert_allclose(RankComparison().update(np.full(300, 7.0), arm, 0.5), 0.0, atol=1e-12)
    rising = np.arange(300.0)
    for only in (0.0, 1.0):
        ranks, ratio = RankComparison(), SampleRatio()
        for path in (*ranks.update(rising, np.full(300, only), only), ratio.update(np.full(300, only), only)):
            np.testing.assert_allclose(path, 0.0, atol=1e-12)
        test = MeanDifference()
        test.update(rising, np.full(300, only), only)
        assert math.isnan(test.interval.effect)
        assert test.interval[1:] == (-math.inf, math.inf)


def test_earlier_returns_of_the_incumbent_sharpen_the_first_ranks():
    rng, gained = np.random.default_rng(4), []
    for _ in range(30):
        arm = rng.random(40) < 0.5
        returns = rng.normal(size=40) + 1.5 * arm
        cold, warm = RankComparison(), RankComparison()
        warm.update(rng.normal(size=RECENT), np.zeros(RECENT), 0.0)
        assert (warm.log_better, warm.log_worse) == pytest.approx((0, 0))
        for test in (cold, warm):
            test.update(returns, arm, 0.5)
        gained.append(warm.log_better - cold.log_better)
    assert np.mean(gained) > 1


def drifting(rng: np.random.Generator, count: int) -> np.ndarray:
    """Between 0 and 1, with a season and a fall."""
    i = np.arange(count)
    return (rng.random(count) < 0.5 + 0.2 * np.sin(i / 20) - 0.25 * (i > count / 2)) * rng.random(count)


def most(share: float, worlds: int) -> int:
    """No more than this are wrong if each is with this probability, but for one in ten thousand."""
    return int(binom.ppf(1 - 1e-4, worlds, share))


@pytest.mark.parametrize("chance", [0.5, 0.1])
def test_drift_and_seasons_raise_no_more_false_alarms_than_declared(chance):
    rng, worlds, bar = np.random.default_rng(5), 300, math.log(10)
    wrong = np.zeros(4)
    for _ in range(worlds):
        returns, arm = drifting(rng, 400), rng.random(400) < chance
        better, worse = RankComparison().update(returns, arm, chance)
        _, low, high = MeanDifference(0.1, (0.0, 1.0)).update(returns, arm, chance)
        ratio = SampleRatio().update(arm, chance)
        wrong += [better.max() >= bar, worse.max() >= bar, ((low > 0) | (high < 0)).any(), ratio.max() >= bar]
    assert wrong.max() <= most(0.1, worlds)


def sums(returns: np.ndarray, arm: np.ndarray, chance: np.ndarray) -> tuple[float, float, float, int]:
    """Σ D, Σ D², Σ h and their number, one by one."""
    centre, total, square, spread = returns[0], 0.0, 0.0, 0.0
    for i in range(1, len(returns)):
        difference = (arm[i] - chance[i]) * (returns[i] - centre)
        total, square, spread = total + difference, square + difference**2, spread + chance[i] * (1 - chance[i])
        centre += (returns[i] - centre) / min(i + 1, RECENT)
    return total, square, spread, len(returns) - 1


def world(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(6)
    chance = rng.choice([0.2, 0.5], count)
    arm = rng.random(count) < chance
    return np.clip(drifting(rng, count) + 0.1 * arm, 0, 1), arm, chance


def test_the_exact_interval_ends_where_the_supermartingale_reaches_two_over_alpha():
    returns, arm, chance = world(400)
    test = MeanDifference(0.05, (0.0, 2.0))
    test.update(returns, arm, chance)
    total, square, spread, _ = sums(returns, arm, chance)
    effect, low, high = test.interval
    assert effect == pytest.approx(total / spread)
    for edge, sign in ((low, 1), (high, -1)):
        z = sign * (total - edge * spread) / 2
        capital = np.exp(STAKES * z - (-np.log1p(-STAKES) - STAKES) * square / 4).mean()
        assert capital == pytest.approx(2 / 0.05)


def test_the_asymptotic_interval_is_the_normal_mixture_of_ville():
    returns, arm, chance = world(400)
    test = MeanDifference(0.05)
    test.update(returns[:50], arm[:50], chance[:50])
    assert test.interval.high == math.inf, "too few units for an asymptotic statement"
    test.update(returns[50:], arm[50:], chance[50:])
    total, square, spread, count = sums(returns, arm, chance)
    surprise = -2 * math.log(0.05)
    deviation = math.sqrt((square - total**2 / count) / count)
    radius = deviation * ville.normal_mixture(count, 0.05, 500 / (surprise + math.log1p(surprise)))
    assert test.interval == pytest.approx((total / spread, (total - radius) / spread, (total + radius) / spread))


def test_the_exact_interval_holds_the_effect_and_shrinks():
    rng, misses, widths = np.random.default_rng(7), 0, []
    for _ in range(200):
        arm = rng.random(600) < 0.3
        _, low, high = MeanDifference(0.1, (0.0, 1.0)).update(rng.random(600) * (0.5 + 0.5 * arm), arm, 0.3)
        misses += bool(((low > 0.25) | (high < 0.25)).any())
        widths.append(high[[99, -1]] - low[[99, -1]])
    assert misses <= most(0.1, 200)
    assert np.mean(widths, axis=0)[1] < 0.5 * np.mean(widths, axis=0)[0]


def test_a_mean_at_the_limit_raises_no_more_alarms_than_declared_and_one_above_it_is_found():
    rng, worlds = np.random.default_rng(9), 300
    costs = [(rng.random(600) < 0.1) * rng.exponential(size=600) for _ in range(worlds)]
    assert sum(LimitTest(0.1).update(one).max() >= math.log(10) for one in costs) <= most(0.1, worlds)
    # With 1,000 between two, six of ten streams of 600 have one at most.
    alarms = sum(bool((LimitTest(0.1, 1e3).update(one) >= math.log1p(1e3)).any()) for one in costs)
    assert alarms <= most(0.6, worlds)
    assert all(LimitTest(0.1).update(3 * one).max() >= math.log(10) for one in costs[:30])


def test_the_upper_end_of_a_mean_is_above_it_before_and_after_the_first_cost():
    rng, worlds, missed = np.random.default_rng(10), 300, 0
    for _ in range(worlds):
        test = MeanUpper(0.1)
        assert test.high == math.inf
        highs = []
        for _ in range(30):
            test.update(rng.random(100) < 0.02, largest=1.0)
            highs.append(test.high)
        missed += min(highs) < 0.02
        assert highs[-1] < 0.08
    assert missed <= most(0.1, worlds)


@pytest.mark.parametrize("test", [LimitTest(1.0), MeanUpper()])
def test_a_negative_cost_is_refused_and_changes_nothing(test):
    before = test.state()
    with pytest.raises(DataError, match=r"values\[1\] is -1; expected 0 or more"):
        test.update([0.0, -1.0])
    assert test.state() == before


def test_a_mismatch_of_the_sample_ratio_is_found_also_where_probabilities_vary():
    rng = np.random.default_rng(8)
    chance = rng.choice([0.1, 0.5], 2000)
    arm = rng.random(2000) < chance
    kept = ~arm | (rng.random(2000) < 0.7)
    assert SampleRatio().update(arm, chance).max() < math.log(20)
    assert SampleRatio().update(arm[kept], chance[kept]).max() > math.log(20)


def test_a_fall_detector_is_unfair_only_to_lucky_references():
    """For returns of the reference's own population, uniform here, M grows by more than 1 in few references."""
    rng, unfair = np.random.default_rng(9), 0
    for _ in range(300):
        reference = np.sort(rng.random(20))
        gaps = np.diff(np.concatenate([[0.0], reference, [1.0]]))
        # One return between each two of the reference, weighed by its probability.
        places = np.concatenate([[-1.0], (reference[1:] + reference[:-1]) / 2, [2.0]])
        first = [math.expm1(FallDetector(reference, 100.0).update([place])[0]) for place in places]
        unfair += gaps @ first > 1
    assert unfair <= most(0.05, 300)


def test_the_fall_detector_expects_at_most_one_more_per_return_and_ties_do_not_matter():
    reference = np.repeat([0.0, 1.0, 2.0, 5.0], 5)
    last = [
        math.expm1(FallDetector(reference, 100.0).update(stream)[-1])
        for stream in itertools.product([0.0, 1.0, 2.0, 5.0], repeat=4)
    ]
    assert 3 < np.mean(last) <= 4


def test_the_shift_detector_expects_one_more_per_observation_whatever_the_tails():
    for probability in (0.5, 0.1, 0.001):
        ends = [-math.sqrt(probability / (1 - probability)), math.sqrt((1 - probability) / probability)]
        weights = [1 - probability, probability]
        expected = 0.0
        for outcome in itertools.product((0, 1), repeat=3):
            # Mean 10 and deviation 2 in the unit of the data; the other feature does the opposite.
            stream = np.array([[10 + 2 * ends[i], 10 - 2 * ends[i]] for i in outcome])
            last = ShiftDetector([10.0, 10.0], [2.0, 2.0], 100.0).update(stream)[-1]
            expected += math.prod(weights[i] for i in outcome) * math.expm1(last)
        assert expected == pytest.approx(3)


def test_falls_and_shifts_that_begin_late_are_found_and_the_feature_is_named():
    rng = np.random.default_rng(10)
    late = np.arange(600) >= 500
    fall = FallDetector(rng.normal(size=200), 10_000.0)
    path = fall.update(rng.normal(size=600) - 1.5 * late)
    assert path[:500].max() < fall.threshold < path.max()
    for altered in (lambda x: x + 2, lambda x: x - 2, lambda x: 4 * x):
        observations = rng.normal(size=(600, 5))
        observations[late, 3] = altered(observations[late, 3])
        shift = ShiftDetector(np.zeros(5), np.ones(5), 10_000.0)
        path = shift.update(observations)
        assert path[:500].max() < shift.threshold < path.max()
        assert shift.log_features.argmax() == 3
        assert shift.log_e == path[-1]


def test_a_sensor_that_shows_nonsense_is_an_alarm_and_no_overflow():
    shift = ShiftDetector([0.0], [1.0], 1e6)
    assert math.isfinite(shift.update([[1e308]])[-1])
    assert shift.log_e > shift.threshold


def test_required_evidence_adds_up_to_alpha_over_all_candidates():
    assert required_evidence(0.05, 1, 0) == pytest.approx(40)
    assert required_evidence(0.05, 3, 1) == pytest.approx(120)
    assert sum(1 / required_evidence(0.05, k, 0) for k in range(1, 1000)) <= 0.05
    assert ranking_evidence(np.zeros(3), np.ones(1)) > 1 > ranking_evidence(np.ones(3), np.zeros(1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RankComparison().update([1, math.nan], [0, 1], 0.5), r"returns\[1\] is nan; expected a finite number"),
        (lambda: RankComparison().update([1.0], [0, 1], 0.5), r"returns has the shape \(1,\); expected \(2\)"),
        (lambda: RankComparison().update(["a"], [0], 0.5), "returns: .* expected finite numbers"),
        (lambda: RankComparison().update([1.0], [2], 0.5), r"candidate\[0\] is 2; expected 0 or 1"),
        (lambda: SampleRatio().update([0, 0], [0.5, 1.5]), r"probability\[1\] is 1.5; expected between 0 and 1"),
        (lambda: SampleRatio().update([1], 0.0), r"probability\[0\] is 0; expected one that allows the unit's arm"),
        (lambda: SampleRatio().update([0], 1.0), r"probability\[0\] is 1; expected one that allows the unit's arm"),
        (lambda: MeanDifference(alpha=1.0), "alpha is 1.0; expected between 0 and 1"),
        (lambda: MeanDifference(bounds=(1.0, 0.0)), "bounds are .* the lower one first"),
        (lambda: MeanDifference(bounds=(0.0, 1.0)).update([2.0], [0], 0.5), r"returns\[0\] is 2; expected within"),
        (lambda: FallDetector(REFERENCE, 100.0).update([math.inf]), r"returns\[0\] is inf"),
        (lambda: FallDetector(REFERENCE[:5], 100.0), "reference has 5 returns; expected 20 or more"),
        (lambda: FallDetector(REFERENCE, 0.5), "run_length is 0.5; expected a finite number above 1"),
        (lambda: ShiftDetector([0.0, 0.0], [1.0, 0.0], 100.0), r"std\[1\] is 0; expected above 0"),
        (lambda: ShiftDetector([0.0], [1.0], 100.0).update([1.0]), r"shape \(1,\); expected \(any number, 1\)"),
        (
            lambda: RankComparison.restore(RankComparison().state() | {"log_wealth": [0.0]}),
            r"log_wealth has the shape \(1,\)",
        ),
        (lambda: SampleRatio.restore({"x": 1}), "state of SampleRatio: has x; expected log_wealth"),
    ],
)
def test_bad_input_is_refused_in_words(call, message):
    with pytest.raises(DataError, match=message):
        call()


@pytest.mark.parametrize("name", NAMES)
def test_a_refused_batch_leaves_the_test_as_it_was(name):
    test = make(name)
    feed(test, [(1.0, True, 0.5), (0.5, False, 0.5)])
    before = test.state()
    with pytest.raises(DataError):
        feed(test, [(1.0, True, 0.5), (math.nan, True, 2.0)])
    assert test.state() == before


def test_a_service_that_tests_loads_no_jax():
    program = (
        "import sys; from segue.evidence import RankComparison; RankComparison().update([0.0], [1], 0.5); "
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
