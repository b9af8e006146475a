"""Networks of discrete actions: probabilities are probabilities, draws follow them, values are gathered, not mixed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from helpers import few
from segue.networks import CategoricalActor, DiscreteCritic
from segue.networks.distributions import Categorical, EpsilonGreedy, Greedy, within
from segue.networks.functions import log_softmax

OBSERVATION, ACTIONS, HIDDEN = 3, 4, (8, 8)


def shaken(net, seed=0, size=1.0):
    """Every leaf made random; on the host."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: np.asarray(leaf) + size * rng.normal(size=leaf.shape).astype(np.float32), net)


def on_device(net):
    return jax.tree.map(jnp.asarray, net)


def actor(seed=0, size=1.0):
    return shaken(CategoricalActor.init(jax.random.key(seed), OBSERVATION, ACTIONS, HIDDEN), seed, size)


def critic():
    return shaken(DiscreteCritic.init(jax.random.key(0), 3, OBSERVATION, ACTIONS, HIDDEN))


def rows(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def chosen(seed, *shape):
    return np.random.default_rng(seed).integers(0, ACTIONS, shape).astype(np.int32)


def test_a_fresh_actor_is_nearly_uniform():
    fresh = CategoricalActor.init(jax.random.key(0), OBSERVATION, ACTIONS, (64, 64))
    assert fresh.probabilities(rows(0, 100, OBSERVATION)) == pytest.approx(1 / ACTIONS, abs=0.01)


@pytest.mark.parametrize("batch", [(), (1,), (20,), (2, 3)])
def test_probabilities_are_positive_and_sum_to_one_and_log_probabilities_are_their_logarithms(batch):
    s, a = rows(1, *batch, OBSERVATION), chosen(2, *batch)
    policy = actor()
    probabilities = policy.probabilities(s)
    assert probabilities.shape == (*batch, ACTIONS)
    assert (probabilities > 0).all()
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(policy(s), np.log(probabilities), atol=1e-5)
    logits = policy.mlp(s)
    np.testing.assert_allclose(policy(s) - policy(s)[..., :1], logits - logits[..., :1], atol=1e-4)
    assert policy.log_prob(s, a).shape == batch
    for where in np.ndindex(*batch):
        assert policy.log_prob(s, a)[where] == policy(s)[where][a[where]]


def test_huge_logits_give_finite_probabilities():
    policy = jax.tree.map(lambda leaf: 1e6 * leaf, actor())
    s = rows(1, 20, OBSERVATION)
    assert np.abs(policy.mlp(s)).max() > 1e12
    for net, observation in ((policy, s), (on_device(policy), jnp.asarray(s))):
        assert np.isfinite(net(observation)).all()
        np.testing.assert_allclose(net.probabilities(observation).sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize("device", [False, True])
def test_draws_come_as_often_as_their_probability_says(device):
    count = 20_000
    s = np.broadcast_to(rows(3, OBSERVATION), (count, OBSERVATION))
    policy = actor(2, size=0.3)
    expected = policy.probabilities(s[0])
    assert expected.min() > 0.02
    assert np.ptp(expected) > 0.1
    if device:
        drawn = on_device(policy).draw(jnp.asarray(s), jax.random.key(0))
    else:
        drawn = policy.draw(s, np.random.default_rng(0))
    frequency = np.bincount(np.asarray(drawn), minlength=ACTIONS) / count
    # five standard deviations
    assert (np.abs(frequency - expected) < 5 * np.sqrt(expected * (1 - expected) / count)).all()


@pytest.mark.parametrize("batch", [(), (20,)])
def test_the_mode_is_the_likeliest_action_and_an_array_of_integers(batch):
    s = 3 * rows(1, *batch, OBSERVATION)
    policy = actor()
    mode = policy.mode(s)
    assert isinstance(mode, np.ndarray)
    assert mode.dtype == np.int32
    assert mode.shape == batch
    np.testing.assert_array_equal(mode, policy.probabilities(s).argmax(-1))
    np.testing.assert_array_equal(mode, on_device(policy).mode(jnp.asarray(s)))
    if batch:
        assert len(np.unique(mode)) > 1


def test_the_divergence_is_the_sum_over_actions():
    p, q, s = actor(1), actor(2), rows(1, 20, OBSERVATION)
    here, there = (net.probabilities(s).astype(np.float64) for net in (p, q))
    expected = (here * np.log(here / there)).sum(-1)
    assert expected.max() > 0.1
    p, q, s = on_device(p), on_device(q), jnp.asarray(s)
    np.testing.assert_allclose(p.kl(q, s), expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(p.kl(p, s), 0, atol=1e-6)


@pytest.mark.parametrize("batch", [(), (20,), (2, 3)])
def test_the_value_of_an_action_is_that_output_of_every_member(batch):
    s, a = rows(1, *batch, OBSERVATION), chosen(2, *batch)
    ensemble = critic()
    every, given = ensemble.all(s), ensemble(s, a)
    assert ensemble.size == 3
    assert every.shape == (3, *batch, ACTIONS)
    assert given.shape == (3, *batch)
    for where in np.ndindex(3, *batch):
        assert given[where] == every[where][a[where[1:]]]
    np.testing.assert_allclose(on_device(ensemble)(jnp.asarray(s), jnp.asarray(a)), given, atol=1e-5)


def test_each_member_of_a_discrete_critic_is_that_network_alone():
    ensemble, s = critic(), rows(1, 20, OBSERVATION)
    for i in range(3):
        alone = jax.tree.map(lambda leaf, i=i: np.squeeze(leaf[i]), ensemble.members)
        np.testing.assert_allclose(ensemble.all(s)[i], alone(s), atol=1e-5)
    two = ensemble.subset(np.array([2, 0]))
    np.testing.assert_array_equal(two.all(s), ensemble.all(s)[[2, 0]])


def test_an_update_of_one_action_leaves_the_outputs_of_the_others_alone():
    """The gradient of Q(s, a) reaches the head of a only."""
    ensemble, s = on_device(critic()), jnp.asarray(rows(1, 5, OBSERVATION))
    gradient = jax.grad(lambda q: q(s, jnp.full(5, 2, jnp.int32)).sum())(ensemble).members.layers[-1].weight
    assert np.abs(gradient[..., 2]).max() > 0
    assert (np.asarray(gradient[..., [0, 1, 3]]) == 0).all()


masks = arrays.arrays(bool, (6, ACTIONS)).filter(lambda mask: mask.any(-1).all())
#: Distinct, so that one action is the best.
scores = st.integers(0, 2**32 - 1).map(lambda seed: rows(seed, 6, ACTIONS))


def distributions(values):
    return Categorical(log_softmax(values)), Greedy(values), EpsilonGreedy(values, 0.4)


@few
@given(scores, masks)
def test_among_allowed_actions_a_policy_is_renormalised_or_takes_the_best_of_them(values, mask):
    categorical, greedy, epsilon_greedy = (one.among(mask) for one in distributions(values))
    best = np.where(mask, values, -np.inf).argmax(-1)
    weights = np.exp(values) * mask
    chosen = np.eye(ACTIONS)[best]
    pairs = (
        (categorical, weights / weights.sum(-1, keepdims=True)),
        (greedy, chosen),
        (epsilon_greedy, 0.6 * chosen + 0.4 * mask / mask.sum(-1, keepdims=True)),
    )
    for distribution, probabilities in pairs:
        np.testing.assert_allclose(np.exp(distribution.log_probs), probabilities, rtol=1e-5, atol=1e-6)
        for action in range(ACTIONS):
            given_one = np.full(6, action, np.int32)
            assert np.array_equal(distribution.log_prob(given_one), distribution.log_probs[:, action])


@few
@given(scores, masks, st.integers(0, 2**32 - 1))
def test_what_is_drawn_is_allowed_and_the_device_draws_from_the_same(values, mask, seed):
    for host, device in zip(distributions(values), distributions(jnp.asarray(values)), strict=True):
        drawn = host.among(mask).sample(np.random.default_rng(seed))
        assert mask[np.arange(6), drawn].all()
        theirs = device.among(jnp.asarray(mask))
        assert mask[np.arange(6), theirs.sample(jax.random.key(seed % 2**31))].all()
        np.testing.assert_allclose(theirs.log_probs, host.among(mask).log_probs, rtol=1e-5, atol=1e-6)


@few
@given(scores)
def test_where_all_actions_are_allowed_nothing_changes(values):
    for distribution in distributions(values):
        same = distribution.among(np.ones((6, ACTIONS), bool))
        np.testing.assert_allclose(same.log_probs, distribution.log_probs, atol=1e-6)


def test_an_action_that_is_not_allowed_is_chosen_by_no_member_of_an_ensemble():
    allowed = np.array([[True, False, True], [False, True, True]])
    values = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    low = np.asarray(within(jnp.asarray(allowed), jnp.asarray(values)))
    assert np.array_equal(low[:, allowed], values[:, allowed])
    assert (low[:, ~allowed] < values.min()).all()
    assert within(None, values) is values
