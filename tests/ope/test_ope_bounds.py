"""Confidence bounds: how often they cover the exact value over many datasets, and how often equal policies seem
better."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mdps import MDP, random_policy
from test_ope_estimators import episodes_of

from segue.ope import ESTIMATORS, Bounds, Episodes, Support, betting, bootstrap, decide

LOGS, EPISODES, DELTA = 300, 100, 0.1
#: Misses that a bound of exactly 1 − δ exceeds once in a thousand times.
ALLOWED = DELTA + 3.1 * np.sqrt(DELTA * (1 - DELTA) / LOGS)
EXACT = [name for name, estimator in ESTIMATORS.items() if estimator.exact_bounds]
APPROXIMATE = [name for name in ESTIMATORS if name not in EXACT]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "RESAMPLES", 200)


def logs(mdp: MDP, behaviour: np.ndarray, target: np.ndarray, size: int) -> Iterator[Episodes]:
    """Many logs of `size` episodes, with a model of Q that is wrong by half a reward."""
    wrong = mdp.q(target) + np.random.default_rng(0).normal(0, 0.5, mdp.reward.shape)
    together = episodes_of(mdp.log(behaviour, LOGS * size, 0), target, mdp.discount, wrong)
    for i in range(LOGS):
        yield together[i * size : (i + 1) * size]


@pytest.mark.parametrize("sign", [1, pytest.param(-1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", EXACT)
def test_a_bound_by_betting_covers_as_often_as_it_says_also_with_heavy_weights(name: str, sign: int) -> None:
    mdp = MDP.random(4)
    mdp = dataclasses.replace(mdp, reward=sign * mdp.reward)
    behaviour, target = random_policy(4, mdp, floor=0.1), random_policy(5, mdp, floor=0.1)
    value, better = mdp.value(target), mdp.value(target) - mdp.value(behaviour)
    each = [
        ESTIMATORS[name].bounds(log, 1 - DELTA, np.random.default_rng(0))
        for log in logs(mdp, behaviour, target, EPISODES)
    ]
    value_lower, lower, upper = np.array(each).T
    assert np.mean(value_lower > value) <= ALLOWED
    assert np.mean(lower > better) <= ALLOWED
    assert np.mean(upper < better) <= ALLOWED
    assert (lower < upper).all()


@pytest.mark.parametrize("name", APPROXIMATE)
def test_a_lower_bound_by_the_bootstrap_covers_as_often_as_it_says_with_even_weights(name: str) -> None:
    mdp = MDP.random(1)
    behaviour, target = random_policy(1, mdp, floor=0.5), random_policy(2, mdp, floor=0.5)
    value, better = mdp.value(target), mdp.value(target) - mdp.value(behaviour)
    bounds = np.array(
        [
            ESTIMATORS[name].bounds(log, 1 - DELTA, np.random.default_rng(i))
            for i, log in enumerate(logs(mdp, behaviour, target, EPISODES))
        ]
    )
    assert np.mean(bounds[:, 0] > value) <= ALLOWED
    assert np.mean(bounds[:, 1] > better) <= ALLOWED


def equally_good(seed: int, sign: int) -> tuple[MDP, np.ndarray, np.ndarray]:
    """Two different policies with the same value: rewards are mixed until the difference is 0."""
    rng = np.random.default_rng(seed)
    mdp = MDP.random(seed)
    behaviour, target = random_policy(seed, mdp, floor=0.1), random_policy(seed + 1, mdp, floor=0.1)

    def gap(reward: np.ndarray) -> float:
        world = dataclasses.replace(mdp, reward=reward)
        return world.value(target) - world.value(behaviour)

    other = next(r for r in (rng.uniform(size=mdp.reward.shape) for _ in range(100)) if gap(r) * gap(mdp.reward) < 0)
    share = gap(mdp.reward) / (gap(mdp.reward) - gap(other))
    equal = dataclasses.replace(mdp, reward=sign * ((1 - share) * mdp.reward + share * other))
    assert equal.value(target) == pytest.approx(equal.value(behaviour))
    return equal, behaviour, target


@pytest.mark.parametrize(
    ("name", "sign"),
    [pytest.param(name, sign, marks=() if sign == 1 else pytest.mark.slow) for name in ESTIMATORS for sign in (1, -1)],
)
def test_equally_good_policies_are_not_called_better_or_worse_more_often_than_delta(name: str, sign: int) -> None:
    estimator = ESTIMATORS[name]
    answers = [
        decide(
            estimator.bounds(log, 1 - DELTA, np.random.default_rng(i)),
            1 - DELTA,
            f"{EPISODES} episodes",
            estimator.support(log),
            estimator.exact_bounds,
        ).answer
        for i, log in enumerate(logs(*equally_good(4, sign), EPISODES))
    ]
    assert np.mean([answer == "yes" for answer in answers]) <= ALLOWED
    assert np.mean([answer == "no" for answer in answers]) <= ALLOWED


def test_why_the_bootstrap_decides_nothing() -> None:
    # Equally good policies, and the self-normalised bound is above 0 three times as often as it says.
    bounds = [
        ESTIMATORS["wis"].bounds(log, 1 - DELTA, np.random.default_rng(i))
        for i, log in enumerate(logs(*equally_good(4, -1), EPISODES))
    ]
    assert np.mean([bound.difference_lower > 0 for bound in bounds]) > 2 * ALLOWED


@pytest.mark.parametrize("name", EXACT)
def test_a_policy_that_is_much_better_or_worse_is_recognised(name: str) -> None:
    mdp = MDP.random(2, ending=1.0)
    behaviour = np.full((4, 3), 1 / 3)
    for action, expected in ((mdp.reward.argmax(1), "yes"), (mdp.reward.argmin(1), "no")):
        log = episodes_of(mdp.log(behaviour, 1000, 0), np.eye(3)[action], mdp.discount)
        estimator = ESTIMATORS[name]
        bounds = estimator.bounds(log, 0.95, np.random.default_rng(0))
        assert decide(bounds, 0.95, "1000 episodes", estimator.support(log), estimator.exact_bounds).answer == expected


@pytest.mark.parametrize("tail", ["bernoulli", "log-normal", "constant"])
def test_the_betting_bound_covers_heavy_tails_too(tail: str) -> None:
    rng = np.random.default_rng(0)
    draws, mean = {
        "bernoulli": (lambda: (rng.uniform(size=40) < 0.02) / 0.02, 1.0),
        "log-normal": (lambda: rng.lognormal(0, 2, 40), float(np.exp(2))),
        "constant": (lambda: np.full(40, 3.0), 3.0),
    }[tail]
    bounds = np.array([betting.lower_bound(draws(), 1 - DELTA) for _ in range(LOGS)])
    assert np.mean(bounds > mean) <= ALLOWED
    assert (bounds >= 0).all()


def test_the_betting_bound_approaches_the_mean() -> None:
    values = np.random.default_rng(0).uniform(0, 1, 20_000)
    assert 0.49 < betting.lower_bound(values, 0.95) < values.mean()


@given(
    values=st.lists(st.floats(0, 1e6), min_size=1, max_size=20),
    scale=st.floats(1e-3, 1e3),
    confidence=st.floats(0.5, 0.99),
)
def test_the_betting_bound_scales_with_the_values_and_never_exceeds_their_mean(values, scale, confidence) -> None:
    bound = betting.lower_bound(np.array(values), confidence)
    assert 0 <= bound <= np.mean(values)
    assert betting.lower_bound(np.array(values) * scale, confidence) == pytest.approx(bound * scale, rel=1e-6, abs=1e-9)
    assert betting.lower_bound(np.array(values), (1 + confidence) / 2) <= bound


SOME = Support(effective_episodes=50.0, max_weight=3.0, share=1.0)
FEW = Support(effective_episodes=3.0, max_weight=90.0, share=0.02)


@pytest.mark.parametrize(
    ("bounds", "support", "exact", "answer", "reason"),
    [
        (Bounds(0, 0.1, 0.5), SOME, True, "yes", "better by 0.1 or more at 95%"),
        (Bounds(0, -0.5, -0.1), SOME, True, "no", "worse by 0.1 or more at 95%"),
        (Bounds(0, -0.5, 0.1), SOME, True, "not enough evidence", "anywhere from -0.5 to +0.1"),
        (Bounds(0, -0.5, 0.1), FEW, True, "not enough evidence", "effective sample size 3 of 200 episodes: the policy"),
        (Bounds(0, 0.1, 0.5), FEW, True, "yes", "effective sample size 3 of 200"),
        (Bounds(0, 0.1, 0.5), SOME, False, "not enough evidence", "points to better, by 0.1 or more"),
        (Bounds(0, -0.5, -0.1), SOME, False, "not enough evidence", "points to worse, by 0.1 or more"),
        (Bounds(0, 0.1, 0.5), FEW, False, "not enough evidence", "effective sample size 3 of 200 episodes: the policy"),
        (Bounds(0, 0.1, 0.5), None, False, "not enough evidence", "as far as the critic is right"),
        (Bounds(-np.inf, -np.inf, np.inf), SOME, False, "not enough evidence", "too few episodes count for a bound"),
    ],
)
def test_the_verdict_says_why(bounds, support, exact, answer, reason) -> None:
    verdict = decide(bounds, 0.95, "200 episodes", support, exact)
    assert verdict.answer == answer
    assert reason in verdict.reason
