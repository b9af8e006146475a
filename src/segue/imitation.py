"""A policy is fitted to given actions by its own `imitation_loss`: to a teacher's, or to those of a dataset's episodes.

That is the likelihood of discrete actions and the squared error of continuous ones (of the mean; a standard deviation
stays as it was).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int, Real

from segue import rng
from segue.algorithms.base import Algorithm
from segue.core import Array, Key, as_numbers


@partial(jax.jit, static_argnames=("steps",))
def imitate(
    policy: Any,
    state: Any,
    algorithm: Algorithm,
    observation: Real[Array, "rows observation"],
    action: Float[Array, "rows action"] | Int[Array, " rows"],
    key: Key,
    steps: int,
) -> tuple[Any, Any, Float[Array, " steps"]]:
    """So many updates on random batches of these rows, with the optimiser of the algorithm's policy.

    Args:
        policy: the network of `algorithm.policy_role`, and `state` that of its optimiser.
        observation: normalised.
        action: in [-1, 1], or an integer from 0.

    Returns:
        The network, the optimiser's state, and the losses.
    """
    optimiser = algorithm.optimisers()[algorithm.policy_role]

    def step(carry: tuple[Any, Any], step_key: Key) -> tuple[tuple[Any, Any], jax.Array]:
        policy, state = carry
        rows = jax.random.randint(rng.named(step_key, "rows"), (algorithm.batch_size,), 0, len(observation))
        seen, done = as_numbers(jnp.take(observation, rows, axis=0)), jnp.take(action, rows, axis=0)
        error, gradient = jax.value_and_grad(
            lambda policy: policy.imitation_loss(seen, done, rng.named(step_key, "loss")).mean()
        )(policy)
        move, state = optimiser.update(gradient, state, policy)
        return (optax.apply_updates(policy, move), state), error

    (policy, state), losses = jax.lax.scan(step, (policy, state), jax.random.split(key, steps))
    return policy, state, losses
