"""What the probe measures, against the same worked out by hand."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from helpers import random_learner, small, transitions
from segue.algorithms import PPO
from segue.core import Normaliser, Spaces
from segue.evaluation import Probe, Rollouts, action_histogram, roll_out
from segue.policy import Policy
from segue.training.update import init_learner
from toys import AIM, CLOCK

STARTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
REWARDS = [np.array([1.0, 2.0, 4.0]), np.array([3.0]), np.array([0.0, 0.0]), np.array([1.0, 1.0])]


def rollouts() -> Rollouts:
    return Rollouts(STARTS, REWARDS)


def policy_of(name: str, kind: str = "continuous", **options) -> Policy:
    algorithm = small(name, **options)
    return Policy(algorithm, random_learner(algorithm, kind=kind))


def test_what_the_critic_expects_of_the_first_states_and_the_discounted_return_that_followed():
    policy = policy_of("td3", discount=0.5, reward_scale=2.0, reward_shift=-1.0)
    measured = Probe(None).measure(policy, rollouts())
    starts = np.asarray(policy.normaliser(STARTS))
    q = policy.nets.critic(starts, policy.nets.actor.mode(starts)).min(0)
    assert measured["value_at_start"] == pytest.approx(q.mean(), rel=1e-6)
    by_hand = [1 + 0.5 * 3 + 0.25 * 7, 5, -1 - 0.5, 1 + 0.5]
    assert measured["return_from_start"] == pytest.approx(np.mean(by_hand))
    assert set(measured) == {"value_at_start", "return_from_start"}, "there is no dataset to look at"


def test_an_algorithm_with_a_state_value_and_no_critic_is_asked_for_that():
    algorithm = PPO(hidden_sizes=(8,))
    policy = Policy(algorithm, random_learner(algorithm, kind="continuous"))
    value = policy.nets.value(np.asarray(policy.normaliser(STARTS)))[:, 0]
    assert Probe(None).measure(policy, rollouts())["value_at_start"] == pytest.approx(value.mean(), rel=1e-6)


def test_bc_has_no_values_to_tell():
    measured = Probe(transitions(8)).measure(policy_of("bc"), rollouts())
    assert set(measured) == {"distance_to_dataset"}


@pytest.mark.parametrize(("name", "kind"), [("td3", "continuous"), ("dqn", "discrete"), ("awac", "discrete")])
def test_on_the_datasets_states_its_actions_are_compared_with_the_policys(name, kind):
    log, policy = transitions(16, kind=kind), policy_of(name, kind)
    measured = Probe(log).measure(policy, rollouts())
    critic, states = policy.nets.critic, np.asarray(log.observation)
    own = policy.algorithm.action_distribution(policy.nets, states, False).sample(np.random.default_rng(1))
    assert measured["q_of_dataset_actions"] == pytest.approx(critic(states, log.action).min(0).mean(), rel=1e-6)
    assert measured["q_of_policy_actions"] == pytest.approx(critic(states, own).min(0).mean(), rel=1e-6)
    apart = (own != log.action).mean() if kind == "discrete" else np.sqrt(((own - log.action) ** 2).mean())
    assert 0 < apart == pytest.approx(measured["distance_to_dataset"], rel=1e-6)


def test_a_long_dataset_is_looked_at_in_512_rows_from_the_first_to_the_last():
    log = transitions(2000)
    probe = Probe(log)
    assert len(probe.observation) == 512
    assert np.array_equal(probe.observation[[0, -1]], np.asarray(log.observation)[[0, -1]])


@pytest.mark.parametrize(("env_id", "length"), [(AIM, 1), (CLOCK, 3)])
def test_rollouts_hold_the_first_states_and_the_rewards_that_make_the_returns(env_id, length):
    algorithm = small("td3")
    learner = init_learner(algorithm, algorithm.init(jax.random.key(0), Spaces(1, 1)), Normaliser.identity(1))
    seen = roll_out(Policy(algorithm, learner), env_id, 5, 0, index=7)
    assert seen.starts.shape == (5, 1)
    assert [len(rewards) for rewards in seen.rewards] == [length] * 5
    np.testing.assert_allclose([rewards.sum() for rewards in seen.rewards], seen.returns, rtol=1e-6)


@pytest.mark.parametrize(("name", "kind"), [("td3", "continuous"), ("dqn", "discrete")])
def test_the_histogram_holds_the_shares_of_the_datasets_and_the_policys_actions(name, kind):
    log, policy = transitions(64, kind=kind), policy_of(name, kind)
    found = action_histogram(policy, log)
    acts = policy.algorithm.action_distribution(policy.nets, np.asarray(log.observation), False)
    own = np.asarray(acts.sample(np.random.default_rng(1)))
    for which, actions in (("dataset", np.asarray(log.action)), ("policy", own)):
        shares = np.array(found[which])
        assert shares.sum(1) == pytest.approx(1, abs=1e-4)
        if kind == "discrete":
            assert found["edges"] is None
            assert shares[0, 0] == pytest.approx((actions == 0).mean(), abs=1e-6)
        else:
            assert len(shares) == actions.shape[1]
            first = (actions[:, 0] < found["edges"][1]).mean()
            assert shares[0, 0] == pytest.approx(first, abs=1e-6)
    assert action_histogram(policy, None) is None
