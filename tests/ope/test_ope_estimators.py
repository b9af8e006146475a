"""Estimators by importance weights against exactly solved MDPs and against sums written out by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mdps import MDP, random_policy, states_of, tabular

from segue.data.dataset import Dataset
from segue.ope import ESTIMATORS, Episodes

seeds = st.integers(0, 2**32 - 1)
MODEL_FREE = [name for name, estimator in ESTIMATORS.items() if not estimator.uses_model]


def episodes_of(log: Dataset, target: np.ndarray, discount: float, q: np.ndarray | None = None) -> Episodes:
    """The dataset with its logged propensities, judged policy and Q [S, A] given as tables."""
    ratio = tabular(target).log_prob(log.observations, log.actions) - log.behaviour_log_prob
    if q is None:
        return Episodes.of(log, discount, ratio)
    state = states_of(log)
    return Episodes.of(log, discount, ratio, q[state, log.actions], (target * q).sum(1)[state])


def estimate(name: str, episodes: Episodes) -> float:
    return float(ESTIMATORS[name].estimate(episodes, np.ones((1, len(episodes))))[0])


def standard_error(name: str, episodes: Episodes, groups: int = 40) -> float:
    """By the spread over disjoint groups of episodes."""
    counts = np.kron(np.eye(groups), np.ones(len(episodes) // groups))
    return float(ESTIMATORS[name].estimate(episodes, counts).std(ddof=1) / np.sqrt(groups))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", ESTIMATORS)
def test_it_converges_to_the_exact_value(name: str, seed: int) -> None:
    mdp = MDP.random(seed)
    behaviour, target = random_policy(seed, mdp, floor=0.6), random_policy(seed + 100, mdp, floor=0.6)
    wrong = mdp.q(target) + np.random.default_rng(seed).normal(size=mdp.reward.shape)  # a model that is off by about 1
    episodes = episodes_of(mdp.log(behaviour, 20_000, seed), target, mdp.discount, wrong)
    error = standard_error(name, episodes)
    assert abs(estimate(name, episodes) - mdp.value(target)) < 4 * error
    assert error < 0.2 * mdp.value(target), "or the comparison says nothing"


@given(seed=seeds, count=st.integers(2, 30))
@settings(max_examples=30)
def test_the_datasets_own_policy_has_weights_of_one_and_the_datasets_mean(seed: int, count: int) -> None:
    mdp = MDP.random(seed)
    behaviour = random_policy(seed, mdp)
    log = mdp.log(behaviour, count, seed)
    ratio = np.zeros(len(log))
    episodes = Episodes.of(log, mdp.discount, ratio)
    assert (episodes.weights == 1).all()
    discounted = [
        (rewards * mdp.discount ** np.arange(len(rewards))).sum()
        for rewards in np.split(log.rewards.astype(np.float64), log.episode_starts[1:])
    ]
    for name in MODEL_FREE:
        assert estimate(name, episodes) == pytest.approx(np.mean(discounted), rel=1e-12)
        support = ESTIMATORS[name].support(episodes)
        assert support.effective_episodes == pytest.approx(count, rel=1e-12)
        assert (support.max_weight, support.share) == (1, pytest.approx(1))
    exact = episodes_of(log, behaviour, mdp.discount)
    np.testing.assert_allclose(exact.weights, 1, rtol=1e-5)  # the column holds 32-bit numbers


@given(seed=seeds)
@settings(max_examples=20)
def test_per_decision_equals_ordinary_for_episodes_of_one_step(seed: int) -> None:
    mdp = MDP.random(seed, ending=1.0)
    episodes = episodes_of(mdp.log(random_policy(seed, mdp), 20, seed), random_policy(seed + 1, mdp), mdp.discount)
    assert episodes.rewards.shape == (20, 1)
    assert estimate("pdis", episodes) == pytest.approx(estimate("is", episodes), rel=1e-12)
    assert estimate("wpdis", episodes) == pytest.approx(estimate("wis", episodes), rel=1e-12)


@given(seed=seeds, count=st.integers(2, 12))
@settings(max_examples=30)
def test_every_sum_as_it_is_written_in_the_papers(seed: int, count: int) -> None:
    mdp = MDP.random(seed)
    target = random_policy(seed + 1, mdp)
    q = np.random.default_rng(seed).normal(size=mdp.reward.shape)
    v = (target * q).sum(1)
    log = mdp.log(random_policy(seed, mdp), count, seed)
    episodes = episodes_of(log, target, mdp.discount, q)
    ratio = target[states_of(log), log.actions] / np.exp(log.behaviour_log_prob.astype(np.float64))
    split = [np.split(column, log.episode_starts[1:]) for column in (ratio, log.rewards, states_of(log), log.actions)]
    length = max(map(len, split[0]))

    # w[i][t], carried on after the end; w[i][-1] is prepended as 1
    w = [np.concatenate([[1], np.cumprod(r), np.full(length - len(r), np.prod(r))]) for r in split[0]]
    total = np.sum(w, axis=0)
    expected = dict.fromkeys(ESTIMATORS, 0.0)
    for i in range(count):
        reward, state, action = (column[i].astype(np.float64) for column in split[1:])
        state, action = state.astype(int), action.astype(int)
        g = sum(mdp.discount**t * r for t, r in enumerate(reward))
        expected["is"] += w[i][-1] * g / count
        expected["wis"] += w[i][-1] * g / total[-1]
        for t, r in enumerate(reward):
            gamma, qt, vt = mdp.discount**t, q[state[t], action[t]], v[state[t]]
            expected["pdis"] += gamma * w[i][t + 1] * r / count
            expected["wpdis"] += gamma * w[i][t + 1] * r / total[t + 1]
            expected["dr"] += gamma * (w[i][t] * vt + w[i][t + 1] * (r - qt)) / count
            expected["wdr"] += gamma * (w[i][t] * vt / total[t] + w[i][t + 1] * (r - qt) / total[t + 1])
    for name in ESTIMATORS:
        assert estimate(name, episodes) == pytest.approx(expected[name], rel=1e-5, abs=1e-9), name


@given(seed=seeds)
@settings(max_examples=20)
def test_doubly_robust_with_an_exact_q_leaves_no_variance_in_a_deterministic_world(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mdp = MDP.random(seed)
    states, actions = mdp.reward.shape
    following = np.eye(states)[rng.integers(states, size=(states, actions))]
    ending = (rng.uniform(size=(states, actions)) < 0.4).astype(float)
    ending[:, 0] = 1  # every policy comes to an end
    mdp = dataclasses.replace(mdp, transition=following, ending=ending)
    target = random_policy(seed + 1, mdp)
    q = mdp.q(target)
    log = mdp.log(random_policy(seed, mdp), 15, seed)
    episodes = episodes_of(log, target, mdp.discount, q)
    each = ESTIMATORS["dr"].estimate(episodes, np.eye(len(episodes)))
    first = states_of(log)[log.episode_starts]
    np.testing.assert_allclose(each, (target * q).sum(1)[first], rtol=1e-5)


def test_doubly_robust_with_an_exact_q_varies_less_than_per_decision() -> None:
    mdp = MDP.random(3)
    target = random_policy(103, mdp)
    episodes = episodes_of(mdp.log(random_policy(3, mdp), 4000, 3), target, mdp.discount, mdp.q(target))
    assert standard_error("dr", episodes) < 0.75 * standard_error("pdis", episodes)


@given(seed=seeds, shift=st.floats(-300, 300))
@settings(max_examples=20)
def test_self_normalised_estimates_do_not_depend_on_the_scale_of_the_weights(seed: int, shift: float) -> None:
    mdp = MDP.random(seed)
    episodes = episodes_of(mdp.log(random_policy(seed, mdp), 10, seed), random_policy(seed + 1, mdp), mdp.discount)
    scaled = dataclasses.replace(episodes, log_weights=episodes.log_weights + shift)
    for name in ("wis", "wpdis"):
        assert estimate(name, scaled) == pytest.approx(estimate(name, episodes), rel=1e-9)
        assert ESTIMATORS[name].support(scaled).effective_episodes == pytest.approx(
            ESTIMATORS[name].support(episodes).effective_episodes, rel=1e-9
        )


def test_a_policy_that_never_does_what_was_logged_has_no_support_and_no_self_normalised_value() -> None:
    mdp = MDP.random(0)
    behaviour = np.tile([1.0, 0, 0], (4, 1))
    log = mdp.log(behaviour, 5, 0)
    episodes = episodes_of(log, np.tile([0, 1.0, 0], (4, 1)), mdp.discount)
    assert estimate("is", episodes) == 0
    for name in MODEL_FREE:
        support = ESTIMATORS[name].support(episodes)
        assert (support.effective_episodes, support.share, support.max_weight) == (0, 0, 0)
    assert np.isnan(estimate("wis", episodes))
    assert np.isnan(estimate("wpdis", episodes))


def test_effective_sample_size_and_shares_of_known_weights() -> None:
    log_weights = np.log([[4.0], [4.0], [1e-9], [1e-9]])
    alive: Any = np.ones((4, 1), bool)
    episodes = Episodes(np.ones((4, 1)), 1.0, log_weights, alive)
    for name in MODEL_FREE:
        support = ESTIMATORS[name].support(episodes)
        assert support.effective_episodes == pytest.approx(2)
        assert support.max_weight == pytest.approx(4)
        assert support.share == 0.5


def test_weights_too_large_for_a_float_give_finite_numbers() -> None:
    alive: Any = np.ones((3, 2), bool)
    episodes = Episodes(np.ones((3, 2)), 1.0, np.array([[0, 2000.0], [0, 1.0], [0, -np.inf]]), alive)
    for name in MODEL_FREE:
        assert np.isfinite(estimate(name, episodes))
        assert not np.isnan(ESTIMATORS[name].bounds(episodes, 0.95, np.random.default_rng(0))).any()
