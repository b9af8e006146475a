"""The generative model of the dataset's actions: bounded, the same in both worlds, and its loss is the paper's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segue.networks import VAE

OBSERVATION, ACTION, HIDDEN = 3, 2, (8, 8)


def model(**options):
    rng = np.random.default_rng(0)
    fresh = VAE.init(jax.random.key(0), OBSERVATION, ACTION, HIDDEN, **options)
    return jax.tree.map(lambda leaf: np.asarray(leaf) + 0.3 * rng.normal(size=leaf.shape).astype(np.float32), fresh)


def on_device(net):
    return jax.tree.map(jnp.asarray, net)


def rows(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("batch", [(), (1,), (20,), (2, 3)])
def test_the_host_encodes_and_decodes_as_the_device_does(batch, activation):
    vae = model(activation=activation)
    assert vae.latent_size == 2 * ACTION
    s, a, z = (rows(i, *batch, size) for i, size in enumerate((OBSERVATION, ACTION, vae.latent_size)))
    here = (*vae.encode(s, a), vae.decode(s, z))
    there = on_device(vae)
    there = (*there.encode(jnp.asarray(s), jnp.asarray(a)), there.decode(jnp.asarray(s), jnp.asarray(z)))
    for host, device, size in zip(here, there, (4, 4, ACTION), strict=True):
        assert isinstance(host, np.ndarray)
        assert host.dtype == device.dtype == np.float32
        assert host.shape == device.shape == (*batch, size)
        np.testing.assert_allclose(host, device, atol=2e-6)


def test_decoded_actions_are_within_the_bounds_for_any_code_and_depend_on_it():
    vae = model()
    s = np.broadcast_to(rows(0, OBSERVATION), (50, OBSERVATION))
    actions = vae.decode(s, 100 * rows(1, 50, vae.latent_size))
    assert np.abs(actions).max() <= 1
    assert np.ptp(actions, axis=0).min() > 0.5


def test_the_codes_logarithmic_deviation_stays_between_minus_4_and_15():
    vae = jax.tree.map(lambda leaf: 30 * leaf, model())
    _, log_std = vae.encode(rows(0, 50, OBSERVATION), rows(1, 50, ACTION))
    assert log_std.min() == -4
    assert log_std.max() == 15


def test_the_divergence_of_the_codes_is_zero_for_the_standard_normal_and_monte_carlos_elsewhere():
    vae = model()
    s, a = rows(0, 5, OBSERVATION), np.tanh(rows(1, 5, ACTION))
    mean, log_std = (x.astype(np.float64) for x in vae.encode(s, a))
    z = mean + np.exp(log_std) * np.random.default_rng(2).normal(size=(200_000, *mean.shape))
    # log q(z|s, a) − log N(z; 0, 1)
    ratio = -(((z - mean) / np.exp(log_std)) ** 2) / 2 - log_std + z**2 / 2
    noise = np.zeros((5, vae.latent_size), np.float32)
    _, kl = on_device(vae).loss(jnp.asarray(s), jnp.asarray(a), jnp.asarray(s), jnp.asarray(noise))
    assert kl.max() > 0.01
    np.testing.assert_allclose(kl, ratio.mean(0).mean(-1), atol=0.01)
    standard = jax.tree.map(jnp.zeros_like, on_device(vae))
    reconstruction, kl = standard.loss(jnp.asarray(s), jnp.asarray(a), jnp.asarray(s), jnp.asarray(noise))
    np.testing.assert_allclose(kl, 0, atol=1e-7)
    np.testing.assert_allclose(reconstruction, (a**2).mean(-1), rtol=1e-5)
