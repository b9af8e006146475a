"""Statistics over seeds and tasks are those of rliable, and intervals cover what they say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.report import statistics
from segue.report.statistics import improvement, interquartile_mean, iqm, performance_profile

EXPECTED: dict[str, Any] = json.loads((Path(__file__).parent / "rliable.json").read_text())
"""What rliable computed; `made_by` says how."""


def by_task(scores: list[list[float]]) -> list[np.ndarray]:
    """rliable's matrix, [runs, tasks], as one array per task."""
    return list(np.array(scores, dtype=float).T)


X, Y = by_task(EXPECTED["x"]), by_task(EXPECTED["y"])
SCORES = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9).map(np.array)


def test_rliables_own_example() -> None:
    own = EXPECTED["own"]
    x, y = by_task(own["x"]), by_task(own["y"])
    assert [iqm(x).value, iqm(y).value] == own["iqm"] == [1.5, 2.0]
    assert improvement(x, y).value == pytest.approx(own["improvement"], rel=1e-12) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("scores", "name"), [(X, "x"), (Y, "y")])
def test_interquartile_means_and_their_intervals_agree(scores: list[np.ndarray], name: str) -> None:
    value, low, high = EXPECTED["iqm"][name]
    found = iqm(scores)
    assert found.value == pytest.approx(value, rel=1e-12)
    # Two bootstraps of thousands of resamples: the quantiles agree to a fiftieth of the interval.
    assert (found.low, found.high) == pytest.approx((low, high), abs=(high - low) / 50)


def test_the_probability_of_improvement_and_its_interval_agree() -> None:
    value, low, high = EXPECTED["improvement"]
    found = improvement(X, Y)
    assert found.value == pytest.approx(value, rel=1e-12)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)


def test_performance_profiles_and_their_intervals_agree() -> None:
    found = performance_profile(X, EXPECTED["thresholds"])
    assert found.share == pytest.approx(EXPECTED["profile"], rel=1e-12)
    low, high = EXPECTED["profile_interval"]
    # Shares of 24 runs come in steps of 1/24.
    assert found.low == pytest.approx(low, abs=1 / 24 + 1e-9)
    assert found.high == pytest.approx(high, abs=1 / 24 + 1e-9)


def test_rliable_itself_agrees_where_it_is_installed() -> None:
    metrics = pytest.importorskip("rliable.metrics")  # pip install rliable "pandas<3"
    library = pytest.importorskip("rliable.library")
    source = np.random.default_rng(11)
    for tasks, runs in ((1, 3), (2, 5), (5, 10)):
        x, y = source.normal(size=(2, runs, tasks))
        assert iqm(list(x.T)).value == pytest.approx(metrics.aggregate_iqm(x), rel=1e-12)
        expected = metrics.probability_of_improvement(x, y)
        assert improvement(list(x.T), list(y.T)).value == pytest.approx(expected, rel=1e-12)
        tau = np.linspace(-2, 2, 9)
        assert performance_profile(list(x.T), tau).share == pytest.approx(library.score_distributions(x, tau))


@pytest.mark.parametrize(("runs", "mean"), [([1, 2, 9], 4), ([9, 1, 2, 3], 2.5), ([0, 1, 2, 3, 4, 5, 6, 100], 3.5)])
def test_a_quarter_is_left_out_at_either_end(runs: list[float], mean: float) -> None:
    assert interquartile_mean(np.array(runs, dtype=float)) == pytest.approx(mean)


def test_a_task_with_fewer_runs_weighs_as_much_as_the_others() -> None:
    some, others = np.array([1.0, 2.0, 3.0, 10.0]), np.array([4.0, 5.0, 6.0, 7.0])
    many = np.repeat(others, 3)
    assert iqm([some, many]).value == pytest.approx(iqm([some, others]).value)
    grid = [0.0, 3.5, 5.5, 8.0]
    assert performance_profile([some, many], grid).share == pytest.approx(
        performance_profile([some, others], grid).share
    )


def test_no_runs_have_no_mean() -> None:
    assert math.isnan(interquartile_mean(np.empty(0)))


def test_three_seeds_reach_from_the_lowest_to_the_highest() -> None:
    # Of the 27 resamples one is the lowest seed three times, more than 2.5 %, and one the highest.
    found = iqm([np.array([1.0, 2.0, 10.0])])
    assert (found.low, found.high) == (1.0, 10.0)


@pytest.mark.parametrize(
    ("tasks", "seeds", "low", "high"), [(1, 3, 0.68, 0.82), (1, 10, 0.90, 0.98), (5, 5, 0.88, 0.97)]
)
def test_intervals_cover_as_documented(
    tasks: int, seeds: int, low: float, high: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/measures.md gives these figures; with three seeds of one task it is far from 95 %."""
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    samples = np.random.default_rng(0).normal(size=(500, tasks, seeds))
    covered = [found.low <= 0 <= found.high for found in map(iqm, map(list, samples))]
    assert low < np.mean(covered) < high


@given(SCORES, SCORES)
def test_one_of_two_is_better_or_they_are_equal(x: np.ndarray, y: np.ndarray) -> None:
    assert improvement([x], [y]).value + improvement([y], [x]).value == pytest.approx(1.0)
    assert improvement([x], [x]).value == pytest.approx(0.5)


@given(SCORES, SCORES)
def test_ranks_do_not_depend_on_the_scale_of_a_task(x: np.ndarray, y: np.ndarray) -> None:
    assert improvement([x, x], [y, y]) == improvement([x, 8 * x], [y, 8 * y])


@given(st.lists(SCORES, min_size=1, max_size=3))
def test_profiles_fall_from_one_to_zero_within_their_intervals(scores: list[np.ndarray]) -> None:
    runs = np.concatenate(scores)
    found = performance_profile(scores, [runs.min() - 1, *np.sort(runs), runs.max() + 1])
    assert found.share[0] == 1
    assert found.share[-1] == 0
    assert (np.diff(found.share) <= 0).all()
    assert (found.low <= found.high).all()


@given(st.lists(SCORES, min_size=1, max_size=3))
def test_interquartile_means_lie_within_the_runs(scores: list[np.ndarray]) -> None:
    runs, found = np.concatenate(scores), iqm(scores)
    for value in (found.value, found.low, found.high):
        assert runs.min() - 1e-9 <= value <= runs.max() + 1e-9
