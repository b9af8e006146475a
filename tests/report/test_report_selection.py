"""The lowest of many noisy evaluations, without the luck: nothing where nothing falls, and a true dip is found."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.report.measures import raw_dip
from segue.report.statistics import fall, highest, lowest, split_means
from segue.report.summary import Array

FLAT = np.zeros(20)
ONE_DIP = np.where(np.arange(20) == 4, -3.0, 0.0)
LASTING = np.where(np.arange(20) > 0, -3.0, 0.0)
RISING = np.arange(20) / 2


def noisy(curve: Array, source: np.random.Generator, episodes: int, skewed: bool) -> list[Array]:
    """Episodes around every point, of standard deviation 2."""
    shape = (curve.size, episodes)
    noise = source.exponential(size=shape) - 1 if skewed else source.normal(size=shape)
    return list(curve[:, None] + 2 * noise)


def mean_of(
    curve: Array, measure: Callable[[list[Array]], float], episodes: int = 10, skewed: bool = False
) -> tuple[float, float]:
    """Mean over simulated runs and its standard error."""
    source = np.random.default_rng(0)
    values = [measure(noisy(curve, source, episodes, skewed)) for _ in range(200)]
    return float(np.mean(values)), float(np.std(values) / math.sqrt(len(values)))


def corrected(episodes: list[Array]) -> float:
    return fall(split_means(episodes))


def raw(episodes: list[Array]) -> float:
    means = [e.mean() for e in episodes]
    return raw_dip(means[0], means)


@pytest.mark.parametrize("episodes", [2, 3, 5, 10])
@pytest.mark.parametrize("skewed", [False, True], ids=["normal", "skewed"])
def test_a_flat_curve_has_no_dip_on_average(episodes: int, skewed: bool) -> None:
    mean, error = mean_of(FLAT, corrected, episodes=episodes, skewed=skewed)
    assert abs(mean) < 3.5 * error
    assert mean_of(FLAT, raw, episodes=episodes, skewed=skewed)[0] > 0.8, "as the minimum of twenty looks"


@pytest.mark.parametrize("curve", [ONE_DIP, LASTING], ids=["one", "lasting"])
def test_a_true_dip_is_recovered(curve: Array) -> None:
    mean, error = mean_of(curve, corrected)
    assert mean == pytest.approx(3.0, abs=0.15 + 3 * error)


def test_the_raw_dip_overstates_a_lasting_fall_by_its_noise() -> None:
    assert mean_of(LASTING, raw)[0] > 3.8


@pytest.mark.parametrize("curve", [FLAT, ONE_DIP / 3, LASTING / 3, RISING, ONE_DIP])
def test_a_fall_is_never_overstated_on_average(curve: Array) -> None:
    mean, error = mean_of(curve, corrected)
    assert mean < curve[0] - curve.min() + 3 * error


def test_the_highest_and_the_lowest_of_equals_are_the_same() -> None:
    low, error = mean_of(FLAT, lambda episodes: lowest(split_means(episodes)))
    high, _ = mean_of(FLAT, lambda episodes: highest(split_means(episodes)))
    assert abs(low) < 3.5 * error
    assert abs(high) < 3.5 * error


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8), st.integers(2, 5))
def test_without_noise_it_is_the_plain_minimum_and_maximum(curve: list[float], episodes: int) -> None:
    means = split_means([np.full(episodes, value) for value in curve])
    close = {"rel": 1e-9, "abs": 1e-6}
    assert fall(means) == pytest.approx(curve[0] - min(curve), **close)
    assert lowest(means) == pytest.approx(min(curve), **close)
    assert highest(means) == pytest.approx(max(curve), **close)


def test_the_same_evaluations_give_the_same_number() -> None:
    episodes = noisy(ONE_DIP, np.random.default_rng(3), 10, False)
    assert corrected(episodes) == corrected(episodes)


@pytest.mark.parametrize("episodes", [[], [np.array([1.0, 2.0]), np.array([1.0])]])
def test_what_cannot_be_divided_has_no_answer(episodes: list[Array]) -> None:
    assert all(math.isnan(which(split_means(episodes))) for which in (fall, lowest, highest))


def test_evaluations_may_have_different_numbers_of_episodes() -> None:
    assert corrected([np.array([5.0, 5.0]), np.array([1.0, 1.0, 1.0, 1.0]), np.array([3.0] * 7)]) == 4.0
