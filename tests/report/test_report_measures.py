"""Every measure has the value that its formula gives by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from segue.report.measures import (
    FEW_SEEDS,
    area_under_curve,
    arm_measures,
    best_return,
    curve,
    dip,
    estimate,
    final_return,
    mean_curve,
    online_curve,
    seed_measures,
    steps_to_reach,
    student_t_975,
)

STEPS = [0, 1000, 4000]
RETURNS = [100.0, 40.0, 70.0]


def test_final_is_the_last_and_best_the_highest_evaluation() -> None:
    assert final_return(RETURNS) == 70.0
    assert best_return(RETURNS) == 100.0


def test_area_weighs_evaluations_by_the_steps_between_them() -> None:
    # (1000 · 70 + 3000 · 55) / 4000
    assert area_under_curve(STEPS, RETURNS) == pytest.approx(58.75)


def test_area_of_a_constant_curve_is_the_constant_wherever_it_starts() -> None:
    assert area_under_curve([500, 700, 2500], [7.0, 7.0, 7.0]) == pytest.approx(7.0)


def test_area_needs_two_evaluations() -> None:
    assert math.isnan(area_under_curve([0], [3.0]))


def test_dip_is_the_deepest_fall_below_the_offline_score() -> None:
    assert dip(90.0, RETURNS) == 50.0


def test_an_arm_that_never_falls_has_no_dip() -> None:
    assert dip(10.0, RETURNS) == 0.0


def test_without_an_offline_score_there_is_nothing_to_dip_below() -> None:
    assert math.isnan(dip(math.nan, RETURNS))


@pytest.mark.parametrize(("level", "step"), [(100.0, 0), (60.0, 0), (-5.0, 0), (100.1, math.nan)])
def test_steps_to_reach_is_the_first_evaluation_at_or_above_the_level(level: float, step: float) -> None:
    assert steps_to_reach(STEPS, RETURNS, level) == pytest.approx(step, nan_ok=True)


def test_steps_to_reach_skips_what_is_below() -> None:
    assert steps_to_reach([0, 10, 20, 30], [1.0, 2.0, 5.0, 4.0], 4.0) == 20


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.7062), (4, 2.7764), (9, 2.2622), (10, 2.2281), (11, 2.2010), (30, 2.0423), (120, 1.9799)],
)
def test_student_quantiles_are_those_of_the_printed_tables(degrees: int, quantile: float) -> None:
    assert student_t_975(degrees) == pytest.approx(quantile, abs=2e-4)


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


def test_evaluations_are_put_in_order_and_those_without_a_finite_mean_left_out() -> None:
    rows = [(20, 2.0), (0, 1.0), (10, None), (30, math.inf), (40, math.nan)]
    steps, returns = curve([{"step": s, "mean_return": r} for s, r in rows])
    assert steps.tolist() == [0, 20]
    assert returns.tolist() == [1.0, 2.0]


def test_a_fine_tuned_curve_starts_at_its_offline_score_even_if_step_0_was_not_evaluated(seed: Any) -> None:
    steps, returns = online_curve(seed({1000: 5.0}, offline_score=9.0))
    assert (steps.tolist(), returns.tolist()) == ([0, 1000], [9.0, 5.0])


def test_an_evaluation_at_step_0_stays_what_it_was(seed: Any) -> None:
    assert online_curve(seed({0: 8.0}, offline_score=9.0))[1].tolist() == [8.0]


def test_a_seed_without_evaluations_has_no_measures() -> None:
    assert all(math.isnan(value) for value in seed_measures({}).values())


def test_an_arm_averages_its_seeds(summary: dict[str, Any]) -> None:
    measures = arm_measures(summary["arms"]["fine-tune"])
    assert {name: e.mean for name, e in measures.items()} == {
        "offline score": 1000.0,
        "final": 2000.0,
        "best": 2000.0,
        "area": pytest.approx(1175.0),
        "dip": 150.0,
    }


def test_the_mean_curve_interpolates_between_a_seeds_evaluations_and_never_beyond_them() -> None:
    short, long = np.array([0.0, 10.0]), np.array([0.0, 5.0, 20.0])
    mean = mean_curve([(short, np.array([0.0, 10.0])), (long, np.array([2.0, 7.0, 10.0]))])
    assert mean.steps.tolist() == [0, 5, 10, 20]
    assert mean.mean.tolist() == pytest.approx([1.0, 6.0, 9.0, 10.0])
    assert mean.seeds.tolist() == [2, 2, 2, 1]
    assert mean.low.tolist() == pytest.approx([0.0, 5.0, 8.0, 10.0])


def test_the_mean_of_no_curves_is_empty() -> None:
    assert mean_curve([curve([])]).steps.size == 0
