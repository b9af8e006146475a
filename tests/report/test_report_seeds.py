"""From seeds to an arm: Student's interval covers what it says, and no seed counts where it has no value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from segue.report.statistics import FEW_SEEDS, estimate, mean_curve
from segue.report.summary import NO_CURVE, Seed, decode
from segue.student_t import student_t


def recorded(plain: dict[str, Any]) -> Seed:
    return decode({"arms": {"x": {"seeds": {"0": plain}}}}).arms["x"].seeds["0"]


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.7062), (4, 2.7764), (9, 2.2622), (10, 2.2281), (11, 2.2010), (30, 2.0423), (120, 1.9799)],
)
def test_student_quantiles_are_those_of_the_printed_tables(degrees: int, quantile: float) -> None:
    assert student_t(0.975, degrees) == pytest.approx(quantile, abs=2e-4)


def test_the_interval_is_students() -> None:
    # mean 3, s = √2.5, so the half-width is 2.7764 · √2.5 / √5.
    e = estimate([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (e.mean, e.seeds, e.smallest, e.largest) == (3.0, 5, 1.0, 5.0)
    assert e.low == pytest.approx(3 - 1.96324, abs=1e-4)
    assert e.high == pytest.approx(3 + 1.96324, abs=1e-4)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    samples = np.random.default_rng(0).normal(10.0, 3.0, size=(4000, 4))
    covered = [e.low <= 10.0 <= e.high for e in map(estimate, samples)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_one_seed_has_no_interval() -> None:
    e = estimate([4.0])
    assert (e.mean, e.seeds) == (4.0, 1)
    assert math.isnan(e.low)
    assert math.isnan(e.high)


def test_few_seeds_show_their_range_and_enough_seeds_their_interval() -> None:
    few, enough = estimate(range(FEW_SEEDS - 1)), estimate(range(FEW_SEEDS))
    assert few.spread == (few.smallest, few.largest)
    assert enough.spread == (enough.low, enough.high) != (enough.smallest, enough.largest)


def test_seeds_without_a_value_do_not_count() -> None:
    assert estimate([1.0, math.nan, 3.0]) == estimate([1.0, 3.0])
    assert estimate([math.nan]).seeds == 0


def test_the_mean_curve_interpolates_between_a_seeds_evaluations_and_never_beyond_them() -> None:
    short, long = np.array([0.0, 10.0]), np.array([0.0, 5.0, 20.0])
    mean = mean_curve([(short, np.array([0.0, 10.0])), (long, np.array([2.0, 7.0, 10.0]))])
    assert mean.steps.tolist() == [0, 5, 10, 20]
    assert mean.mean.tolist() == pytest.approx([1.0, 6.0, 9.0, 10.0])
    assert mean.seeds.tolist() == [2, 2, 2, 1]
    assert mean.low.tolist() == pytest.approx([0.0, 5.0, 8.0, 10.0])


def test_the_mean_of_no_curves_is_empty() -> None:
    assert mean_curve([NO_CURVE]).steps.size == 0


def test_evaluations_are_put_in_order_and_those_without_a_finite_mean_left_out() -> None:
    rows = [(20, 2.0), (0, 1.0), (10, None), (30, math.inf), (40, math.nan)]
    plain = {"online_evaluations": [{"step": s, "mean_return": r} for s, r in rows]}
    steps, returns = recorded(plain).online_curve
    assert steps.tolist() == [0, 20]
    assert returns.tolist() == [1.0, 2.0]


def test_a_fine_tuned_curve_starts_at_its_offline_score_even_if_step_0_was_not_evaluated(seed: Any) -> None:
    steps, returns = recorded(seed({1000: 5.0}, offline_score=9.0)).online_curve
    assert (steps.tolist(), returns.tolist()) == ([0, 1000], [9.0, 5.0])


def test_an_evaluation_at_step_0_stays_what_it_was(seed: Any) -> None:
    assert recorded(seed({0: 8.0}, offline_score=9.0)).online_curve[1].tolist() == [8.0]


def episodes(plain: dict[str, Any]) -> list[list[float]]:
    return [e.returns.tolist() for e in recorded(plain).from_handover]


def test_behind_every_point_of_a_curve_are_its_episodes(seed: Any) -> None:
    record = seed({0: 8.0, 1000: 5.0}, offline_score=9.0)
    record["online_evaluations"] = [*reversed(record["online_evaluations"]), {"step": 2000, "mean_return": None}]
    record["online_evaluations"][0]["returns"] = [4.0, 6.0]
    assert episodes(record) == [[8.0], [4.0, 6.0]]


def test_behind_an_offline_score_that_was_not_measured_again_is_the_last_offline_evaluation(seed: Any) -> None:
    assert episodes(seed({1000: 5.0}, 9.0, {10: 1.0, 20: 9.0})) == [[9.0], [5.0]]
    assert episodes(seed({1000: 5.0}, 9.0)) == [[], [5.0]]
