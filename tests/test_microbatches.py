"""A sum taken part by part is the sum, and so is its gradient."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import (
    critic_update,
    fresh_learner,
    same_bits,
    small,
    transitions,
)
from segue import microbatches
from segue.algorithms import cql
from segue.microbatches import number_of_microbatches, sum_over_microbatches

ROWS = 12
CQLS = {
    "entropy": small("cql"),
    "rho": small("cql", variant="rho"),
    "lagrange": small("cql", lagrange_threshold=1.0),
    "cal-ql": small("cal-ql"),
}


def product(parameters: Any, column: jax.Array, constant: jax.Array) -> tuple[jax.Array, jax.Array]:
    rows = jnp.tanh(column @ parameters["w"] + parameters["b"]) * constant
    return rows.sum(), rows.max(1).sum()


@pytest.mark.parametrize("number", [1, 2, 3, 12])
def test_value_gradients_and_the_other_sums_are_those_of_the_whole(number: int) -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    parameters = {"w": jax.random.normal(keys[0], (3, 4)), "b": jax.random.normal(keys[1], (4,))}
    column, constant = jax.random.normal(keys[2], (ROWS, 3)), jax.random.normal(keys[3], (ROWS, 4))

    def in_microbatches(parameters: Any, column: jax.Array) -> Any:
        total, other = sum_over_microbatches(product, parameters, column, constant, number)
        return 3 * total, other

    def whole(parameters: Any, column: jax.Array) -> Any:
        total, other = product(parameters, column, constant)
        return 3 * total, other

    for compute in (lambda f: f, lambda f: jax.value_and_grad(f, argnums=(0, 1), has_aux=True)):
        got, expected = compute(in_microbatches)(parameters, column), compute(whole)(parameters, column)
        assert jax.tree.structure(got) == jax.tree.structure(expected)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


@given(states=st.integers(1, 2048), rows=st.integers(1, 60))
def test_microbatches_are_equal_and_none_is_too_small_for_a_product(states: int, rows: int) -> None:
    number = number_of_microbatches(states, rows)
    assert states % number == 0
    assert number == 1 or states // number * rows >= microbatches.ROWS
    if states == 256 and rows == 30:
        assert number == 16


def test_an_accelerator_takes_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert number_of_microbatches(256, 30) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name if i < 1 else pytest.param(name, marks=pytest.mark.slow) for i, name in enumerate(CQLS)]
)
def test_cqls_update_does_not_depend_on_the_number_of_microbatches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm = CQLS[name]
    learner, batch = fresh_learner(algorithm), jax.tree.map(jnp.asarray, transitions(12))
    after = []
    for number in (1, 4):
        asked = Mock(return_value=number)
        monkeypatch.setattr(cql, "number_of_microbatches", asked)
        after.append(critic_update(algorithm, (), learner, batch, jax.random.key(1)))
        asked.assert_called_once_with(12, 3 * algorithm.sampled_actions)
    (one, metrics), (four, metrics_of_four) = after
    assert not same_bits(one.nets, learner.nets)
    for a, b in zip(jax.tree.leaves(one.nets), jax.tree.leaves(four.nets), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert metrics.keys() == metrics_of_four.keys()
    for quantity, value in metrics.items():
        assert float(metrics_of_four[quantity]) == pytest.approx(float(value), rel=1e-4, abs=1e-5), quantity
