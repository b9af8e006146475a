"""Networks: ensembles are their members, the host computes what the device does, and densities are densities."""

from __future__ import annotations

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import erf

from helpers import few, same_bits
from segue.networks import ACTIVATIONS, Actor, Critic
from segue.networks.linear import LayerNorm, Linear

OPTIONS = [
    {"activation": name, "layer_norm": norm, "orthogonal": norm == "before"}
    for name in ACTIVATIONS
    for norm in ("none", "before", "after")
]
every_kind = pytest.mark.parametrize("options", OPTIONS, ids=lambda o: f"{o['activation']}-{o['layer_norm']}")
OBSERVATION, ACTION, HIDDEN = 3, 2, (8, 8)


def shaken(net, seed=0):
    """Every leaf made random, biases and LayerNorm included; on the host."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: np.asarray(leaf) + 0.3 * rng.normal(size=leaf.shape).astype(np.float32), net)


def on_device(net):
    return jax.tree.map(jnp.asarray, net)


@cache
def actor(**options):
    return shaken(Actor.init(jax.random.key(0), OBSERVATION, ACTION, HIDDEN, **options))


@cache
def critic(**options):
    return shaken(Critic.init(jax.random.key(0), 3, OBSERVATION, ACTION, HIDDEN, **options))


def rows(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def by_the_book(mlp, x, place):
    """The same network in float64, with LayerNorm and activation as their papers write them."""
    activation = {
        "relu": lambda x: np.maximum(x, 0),
        "tanh": np.tanh,
        "elu": lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1),
        "gelu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
    }[mlp.activation]
    mlp, x = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), mlp), x.astype(np.float64)
    for i, layer in enumerate(mlp.layers[:-1]):
        x = x @ layer.weight + layer.bias
        if place == "after":
            x = activation(x)
        if place != "none":
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
            x = x * mlp.norms[i].scale + mlp.norms[i].shift
        if place != "after":
            x = activation(x)
    return x @ mlp.layers[-1].weight + mlp.layers[-1].bias


@every_kind
def test_a_network_computes_what_the_papers_say(options):
    mlp = actor(**options).mlp
    x = rows(1, 20, OBSERVATION)
    # gelu is the tanh form, which is within 1e-3 of the exact one
    tolerance = 5e-3 if options["activation"] == "gelu" else 1e-5
    np.testing.assert_allclose(mlp(x), by_the_book(mlp, x, options["layer_norm"]), atol=tolerance)


@every_kind
def test_a_member_of_an_ensemble_is_that_network_alone(options):
    ensemble = critic(**options)
    s, a = rows(3, 20, OBSERVATION), rows(4, 20, ACTION)
    together = ensemble(s, a)
    assert together.shape == (3, 20)
    assert ensemble.size == 3
    assert np.abs(together[0] - together[1]).min() > 1e-4
    for i in range(3):
        alone = jax.tree.map(lambda leaf, i=i: np.squeeze(leaf[i]), ensemble.members)
        alone = eqx.tree_at(lambda mlp: mlp.layers[-1].weight, alone, alone.layers[-1].weight[:, None])
        np.testing.assert_allclose(together[i], alone(np.concatenate([s, a], -1))[:, 0], atol=2e-6)
    np.testing.assert_allclose(ensemble.first(s, a), together[0], atol=2e-6)


@every_kind
def test_the_host_computes_what_the_device_does(options):
    s, a = rows(1, 20, OBSERVATION), rows(2, 20, ACTION)
    policy, ensemble = actor(**options), critic(**options)
    both = jax.jit(lambda policy, ensemble, s, a: (policy.mode(s), ensemble(s, a)))
    there = both(on_device(policy), on_device(ensemble), s, a)
    here = (policy.mode(s), ensemble(s, a))
    for device, host in zip(there, here, strict=True):
        assert isinstance(host, np.ndarray)
        assert isinstance(device, jax.Array)
        assert host.dtype == device.dtype == np.float32
        np.testing.assert_allclose(host, device, atol=3e-6)


@few
@given(batch=st.sampled_from([(), (1,), (5,), (2, 3), (2, 3, 4)]), seed=st.integers(0, 2**31 - 2))
def test_leading_axes_are_just_a_batch(batch, seed):
    s, a = rows(seed, *batch, OBSERVATION), rows(seed + 1, *batch, ACTION)
    policy, ensemble = actor(), critic()
    flat_s, flat_a = s.reshape(-1, OBSERVATION), a.reshape(-1, ACTION)
    np.testing.assert_allclose(ensemble(s, a), ensemble(flat_s, flat_a).reshape(3, *batch), atol=1e-6)
    np.testing.assert_allclose(policy.mode(s), policy.mode(flat_s).reshape(*batch, ACTION), atol=1e-6)


def test_members_start_differently_and_a_key_decides():
    ensemble = Critic.init(jax.random.key(0), 3, OBSERVATION, ACTION, HIDDEN)
    first = ensemble.members.layers[0].weight
    assert not same_bits(first[0], first[1])
    assert same_bits(ensemble, Critic.init(jax.random.key(0), 3, OBSERVATION, ACTION, HIDDEN))
    assert not same_bits(ensemble, Critic.init(jax.random.key(1), 3, OBSERVATION, ACTION, HIDDEN))


def test_a_fresh_layer_is_uniform_within_one_over_the_root_of_its_inputs():
    layer = Linear.init(jax.random.key(0), 400, 300)
    for values in (layer.weight, layer.bias):
        assert np.abs(values).max() == pytest.approx(1 / 20, rel=0.05)
        assert np.abs(values).max() <= 1 / 20
        assert np.mean(values) == pytest.approx(0, abs=0.005)


def test_an_orthogonal_layer_preserves_lengths_up_to_its_gain():
    layer = Linear.init(jax.random.key(0), 6, 6, scale=2.0, orthogonal=True)
    np.testing.assert_allclose(layer.weight.T @ layer.weight, 4 * np.eye(6), atol=1e-5)
    assert (np.asarray(layer.bias) == 0).all()


def test_a_fresh_actor_acts_near_the_centre_whatever_it_sees():
    fresh = Actor.init(jax.random.key(0), OBSERVATION, ACTION, (64, 64))
    actions = np.asarray(fresh.mode(10 * rows(0, 100, OBSERVATION)))
    assert 0 < np.abs(actions).max() < 0.2


def test_layer_norm_forgets_shift_and_scale_of_its_input():
    norm, x = LayerNorm(np.ones(8, np.float32), np.zeros(8, np.float32)), rows(0, 5, 8)
    np.testing.assert_allclose(norm(x).mean(-1), 0, atol=1e-6)
    np.testing.assert_allclose(norm(x).std(-1), 1, atol=1e-3)
    np.testing.assert_allclose(norm(3 * x + 5), norm(x), atol=1e-3)


@few
@given(scale=st.floats(0, 50), seed=st.integers(0, 2**31 - 2))
def test_the_standard_deviation_is_bounded_for_any_input(scale, seed):
    _, log_std = actor()(scale * rows(seed, 10, OBSERVATION))
    assert (log_std >= -5).all()
    assert (log_std <= 2).all()


@pytest.mark.parametrize("seed", [0, 1, 2, 4, 5])  # 3 is so wide that a part lies beyond ±6
def test_the_policys_density_integrates_to_one(seed):
    """Over (−1, 1) for one action dimension; the substitution a = tanh(u) makes a plain sum accurate."""
    policy = on_device(shaken(Actor.init(jax.random.key(seed), OBSERVATION, 1, HIDDEN), seed))
    s = rows(seed, OBSERVATION)
    u = np.linspace(-6, 6, 20001)
    a = np.tanh(u).astype(np.float32)
    density = np.exp(policy.log_prob(np.broadcast_to(s, (len(u), OBSERVATION)), a[:, None]))
    assert np.sum(density * (1 - np.tanh(u) ** 2)) * (u[1] - u[0]) == pytest.approx(1, abs=1e-3)


@few
@given(seed=st.integers(0, 2**31 - 2), draws=st.sampled_from([(), (4,), (3, 4)]))
def test_a_sample_has_the_log_probability_that_scoring_it_gives(seed, draws):
    policy, s = on_device(actor()), rows(seed, 4, OBSERVATION)
    noise = np.clip(rows(seed + 1, *draws[:-1], 4, ACTION), -2.5, 2.5)
    action, log_prob = policy.sample_with_log_prob(jnp.asarray(s), jnp.asarray(noise))
    np.testing.assert_allclose(action, policy.sample(jnp.asarray(s), jnp.asarray(noise)), atol=1e-6)
    # Nearer to the bounds float32 cannot hold the action itself.
    inside = np.abs(action).max(-1) < 0.99
    scored = policy.log_prob(jnp.broadcast_to(s, (*noise.shape[:-1], OBSERVATION)), action)
    np.testing.assert_allclose(np.asarray(log_prob)[inside], np.asarray(scored)[inside], atol=2e-3)


def test_actions_at_the_bounds_have_a_finite_likelihood_and_gradient():
    policy, s = on_device(actor()), jnp.asarray(rows(0, 4, OBSERVATION))
    a = jnp.asarray([[1.0, -1.0], [1, 1], [-1, -1], [0, 1]])
    assert np.isfinite(policy.log_prob(s, a)).all()
    gradient = jax.grad(lambda p: p.log_prob(s, a).sum())(policy)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_log_probabilities_of_saturated_samples_are_finite():
    policy, s = on_device(actor()), jnp.asarray(rows(0, 4, OBSERVATION))
    action, log_prob = policy.sample_with_log_prob(s, jnp.full((4, ACTION), 50.0))
    assert np.abs(action).max() == 1
    assert np.isfinite(log_prob).all()


def test_more_noise_than_the_mean_is_sampled_and_scored_with_extra_axes():
    policy, s = on_device(actor()), jnp.asarray(rows(0, 4, OBSERVATION))
    action, log_prob = policy.sample_with_log_prob(s, jnp.asarray(rows(1, 7, 4, ACTION)))
    assert action.shape == (7, 4, ACTION)
    assert log_prob.shape == (7, 4)
    assert len(np.unique(action[:, 0], axis=0)) == 7


def test_the_divergence_between_two_policies_is_that_of_samples():
    """Monte Carlo over actions, with the densities of the actions themselves; the formula has those before the tanh."""
    p, q = on_device(actor()), on_device(shaken(Actor.init(jax.random.key(4), OBSERVATION, ACTION, HIDDEN), 4))
    s = jnp.asarray(rows(0, 4, OBSERVATION))
    kl = p.kl(q, s)
    action, log_prob = p.sample_with_log_prob(s, jnp.asarray(rows(1, 20_000, 4, ACTION)))
    other = q.log_prob(jnp.broadcast_to(s, (20_000, *s.shape)), action)
    inside = np.abs(action).max(-1) < 0.9999  # nearer to the bounds float32 cannot hold the action itself
    assert inside.mean() > 0.99
    difference = np.where(inside, np.asarray(log_prob - other), np.nan)
    error = np.nanstd(difference, axis=0) / np.sqrt(len(difference))
    assert (np.asarray(kl) > 10 * error).all()
    assert (np.abs(np.nanmean(difference, axis=0) - kl) < 5 * error + 0.01 * kl).all()
    np.testing.assert_allclose(p.kl(p, s), 0, atol=1e-5)
