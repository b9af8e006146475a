"""The clipped Gaussian policy, and how a policy changes its distribution at the handover."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segue.networks import Actor, CategoricalActor, GaussianActor
from segue.networks.recast import compatible, recast

OBSERVATION, ACTION, HIDDEN = 3, 2, (8, 8)
#: The range of log σ and how it is kept, of IQL's and of AWAC's code.
KINDS = {"iql": ((-5.0, 2.0), False), "awac": ((-6.0, 0.0), True)}


def rows(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def shaken(net, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf + 0.3 * rng.normal(size=leaf.shape), jnp.float32), net)


def gaussian(kind="iql", seed=0, **options):
    bounds, smooth = KINDS[kind]
    fresh = GaussianActor.init(
        jax.random.key(seed), OBSERVATION, ACTION, HIDDEN, bounds=bounds, smooth=smooth, **options
    )
    return shaken(fresh, seed)


def squashed(seed=0, **options):
    return shaken(Actor.init(jax.random.key(seed), OBSERVATION, ACTION, HIDDEN, **options), seed)


def test_a_fresh_deviation_is_that_of_the_published_code():
    assert (np.exp(GaussianActor.init(jax.random.key(0), 3, 2, HIDDEN).log_std) == 1).all()
    awac = GaussianActor.init(jax.random.key(0), 3, 2, HIDDEN, bounds=(-6.0, 0.0), smooth=True)
    np.testing.assert_allclose(awac.log_std, -3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_deviation_stays_in_its_range(kind):
    (low, high), _ = KINDS[kind]
    for raw in (-50.0, 50.0):
        actor = dataclasses.replace(gaussian(kind), raw_log_std=jnp.full(ACTION, raw))
        np.testing.assert_allclose(actor.log_std, low if raw < 0 else high, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_have_the_mean_and_the_deviation_that_the_policy_names_and_never_leave_the_bounds(kind):
    actor, s = gaussian(kind), jnp.asarray(rows(0, 4, OBSERVATION))
    actor = dataclasses.replace(actor, raw_log_std=actor.raw_log_std - 2)
    drawn = actor.sample(s, jnp.asarray(rows(1, 20_000, 4, ACTION)))
    assert np.abs(drawn).max() <= 1
    free = (np.abs(actor.mode(s)) + 4 * np.exp(actor.log_std) < 1).all(-1)
    assert free.any()
    np.testing.assert_allclose(drawn.mean(0)[free], actor.mode(s)[free], atol=0.01)
    np.testing.assert_allclose(drawn.std(0)[free], np.broadcast_to(np.exp(actor.log_std), (4, ACTION))[free], rtol=0.02)


def test_an_action_at_a_bound_pulls_no_harder_than_its_distance():
    """The gradient of the likelihood by the mean is (a − mean) / σ², bounded, where a squashed Gaussian has atanh a."""
    actor, s = gaussian(), jnp.zeros((1, OBSERVATION))

    def pull(a):
        gradient = jax.grad(lambda policy: policy.log_prob(s, jnp.full((1, ACTION), a)).sum())(actor)
        return np.abs(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient.mlp)])).max()

    assert pull(1.0) < 1.5 * pull(0.9)


def test_the_divergence_is_that_of_the_densities_before_clipping():
    p, q, s = gaussian(seed=0), gaussian(seed=1), jnp.asarray(rows(0, 4, OBSERVATION))
    action = p.mode(s) + jnp.exp(p.log_std) * rows(1, 50_000, 4, ACTION)
    many = jnp.broadcast_to(s, (len(action), *s.shape))
    sampled = (p.log_prob(many, action) - q.log_prob(many, action)).mean(0)
    np.testing.assert_allclose(p.kl(q, s), sampled, rtol=0.05, atol=0.01)
    assert (np.abs(p.kl(p, s)) < 1e-6).all()


ACTORS = {"iql": lambda seed: gaussian("iql", seed), "awac": lambda seed: gaussian("awac", seed), "squashed": squashed}


def spread(actor, s):
    noise = rows(9, 500, len(s), ACTION)
    return np.sqrt(((np.asarray(actor.sample(s, noise)) - np.asarray(actor.mode(s))) ** 2).mean((0, 1)))


@pytest.mark.parametrize("wanted", ACTORS)
@pytest.mark.parametrize("given", ACTORS)
def test_a_recast_policy_acts_as_before_and_varies_as_much(given, wanted):
    source, like, s = ACTORS[given](0), ACTORS[wanted](1), rows(3, 300, OBSERVATION)
    source = jax.tree.map(lambda leaf: leaf, source)
    if given != "squashed":  # within what every distribution can do
        source = dataclasses.replace(source, raw_log_std=jnp.full(ACTION, 0.0 if source.smooth else -1.5))
    result = recast(source, like, s)
    assert type(result) is type(like)
    assert jax.tree.structure(result) == jax.tree.structure(like)
    np.testing.assert_array_equal(result.mode(s), source.mode(s))
    np.testing.assert_allclose(spread(result, s), spread(source, s), rtol=0.03)


def test_networks_of_another_build_are_not_recast():
    like = squashed()
    assert compatible(gaussian(), like)
    assert not compatible(gaussian(layer_norm="before"), like)
    assert not compatible(gaussian(activation="tanh"), like)
    assert not compatible(gaussian(layer_norm="before"), squashed(layer_norm="after"))
    assert not compatible(GaussianActor.init(jax.random.key(0), OBSERVATION, ACTION, (8,)), like)
    assert not compatible(GaussianActor.init(jax.random.key(0), OBSERVATION, 3, HIDDEN), like)
    assert not compatible(CategoricalActor.init(jax.random.key(0), OBSERVATION, 4, HIDDEN), like)
