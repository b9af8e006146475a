"""A sum over many states, differentiated microbatch by microbatch.

A critic's activations at thirty actions of every state are 8 MB a layer. A gradient taken when all of them are there
has to fetch them from memory; taken after each microbatch, it finds them in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

Parameters = TypeVar("Parameters")
Columns = TypeVar("Columns")
#: (parameters, columns, constants) → a sum over the columns' rows, and other sums, which have no gradient.
Sum = Callable[[Any, Any, Any], tuple[Float[jax.Array, ""], Any]]

#: Rows of a matrix product below which it no longer keeps the cores busy.
ROWS = 256


def number_of_microbatches(states: int, rows_of_each: int) -> int:
    """The most microbatches of equal size that are still worth a product each; one on an accelerator, which has the
    memory."""
    if jax.default_backend() != "cpu":
        return 1
    fitting = (n for n in range(states, 0, -1) if states % n == 0 and states // n * rows_of_each >= ROWS)
    return next(fitting, 1)


def sum_over_microbatches(
    function: Sum, parameters: Parameters, columns: Columns, constants: Any, number: int
) -> tuple[Float[jax.Array, ""], Any]:
    """`function` summed over so many microbatches; differentiable by parameters and columns, not by constants.

    Columns and constants have the rows first; `number` divides how many there are.
    """
    split = partial(jax.tree.map, lambda column: column.reshape(number, -1, *column.shape[1:]))
    joined = partial(jax.tree.map, lambda column: column.reshape(-1, *column.shape[2:]))

    @jax.custom_vjp
    def summed(parameters: Parameters, columns: Columns, constants: Any) -> tuple[jax.Array, Any]:
        return _over(lambda part: (function(parameters, *part), ()), split((columns, constants)))[0]

    def forward(parameters: Parameters, columns: Columns, constants: Any) -> Any:
        def differentiated(part: Any) -> Any:
            both = jax.value_and_grad(function, argnums=(0, 1), has_aux=True)
            sums, (by_parameters, by_columns) = both(parameters, *part)
            return (sums, by_parameters), by_columns

        (sums, by_parameters), by_columns = _over(differentiated, split((columns, constants)))
        return sums, (by_parameters, joined(by_columns))

    def backward(gradients: Any, cotangents: Any) -> Any:
        of_sum, _ = cotangents
        return *jax.tree.map(lambda gradient: of_sum * gradient, gradients), None

    summed.defvjp(forward, backward)
    total, others = summed(parameters, columns, constants)
    return total, jax.lax.stop_gradient(others)


def _over(function: Callable[[Any], tuple[Any, Any]], batches: Any) -> tuple[Any, Any]:
    """The sum of what `function` gives first, and what it gives second one below the other."""
    first = jax.tree.map(lambda column: column[0], batches)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, first)[0])

    def add(total: Any, part: Any) -> tuple[Any, Any]:
        sums, rows = function(part)
        return jax.tree.map(jnp.add, total, sums), rows

    return jax.lax.scan(add, zeros, batches)
