"""Random draws: those that are not compiled are those that are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.random import uniform, uniform_at_once


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 10), st.floats(-2, 2))
def test_fresh_weights_are_what_jax_draws_to_the_bit(seed, width, middle):
    key, low, high = jax.random.key(seed), middle - width, middle + width
    ours = uniform_at_once(key, (40, 25), low, high)
    assert isinstance(ours, jax.Array)
    assert ours.dtype == jnp.float32
    np.testing.assert_array_equal(ours, uniform(key, (40, 25), low, high))


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 1, 5)])
def test_so_they_are_in_every_shape_and_of_a_key_that_was_split(shape):
    for key in jax.random.split(jax.random.key(3), 4):
        np.testing.assert_array_equal(uniform_at_once(key, shape, -0.5, 0.5), uniform(key, shape, -0.5, 0.5))


def test_so_they_are_while_they_are_traced_and_of_a_key_of_another_kind():
    key = jax.random.key(5)
    traced = jax.jit(lambda key: uniform_at_once(key, (6, 2), -1.0, 1.0))(key)
    np.testing.assert_array_equal(traced, uniform_at_once(key, (6, 2), -1.0, 1.0))
    other = jax.random.key(5, impl="rbg")
    np.testing.assert_array_equal(uniform_at_once(other, (6, 2), -1.0, 1.0), uniform(other, (6, 2), -1.0, 1.0))
