"""Distillation: a fresh actor learns to act as the pretrained policy does, where that policy has no actor to carry."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Real

from segue import rng
from segue.algorithms.base import Algorithm, Aux
from segue.core import Array, Key, Learner, as_numbers
from segue.data.mapped import Column
from segue.policy import Policy
from segue.training.update import descend

#: States of the dataset that the teacher is asked about; BCQ tries a hundred actions in each.
STATES = 20_000
#: States per call of the teacher.
CHUNK = 1_000


def distil(
    teacher: Policy,
    learner: Learner,
    algorithm: Algorithm,
    observations: Real[np.ndarray, "rows observation"] | Column,
    steps: int,
    seed: int,
) -> tuple[Learner, float]:
    """The learner with its actor fitted, by `steps` updates, to what the teacher does without exploration.

    By the actor's own `imitation_loss`: the likelihood of discrete actions, the squared error of continuous ones (of
    the mean; a standard deviation stays as it was initialised).

    Args:
        teacher: the pretrained policy; it gets raw observations.
        learner: a learner of `algorithm`; only its actor and the optimiser of that change.
        algorithm: has an actor.
        observations: raw ones, of the dataset.
        steps: updates.
        seed: the run's.

    Returns:
        The learner, and the loss over the last tenth of the updates.
    """
    chosen = rng.generator(seed, "distil").permutation(len(observations))[:STATES]
    states = observations[np.sort(chosen)]
    source = rng.generator(seed, "distil", "teacher")
    actions = np.concatenate([teacher(states[i : i + CHUNK], source) for i in range(0, len(states), CHUNK)])
    normalised = np.asarray(teacher.normaliser(states))
    learner, losses = _fit(learner, normalised, actions, rng.stream(seed, "distil"), algorithm, steps)
    return learner, float(losses[-max(steps // 10, 1) :].mean())


@partial(jax.jit, static_argnames=("steps",))
def _fit(
    learner: Learner,
    observation: Real[Array, "rows observation"],
    action: Float[Array, "rows action"] | Int[Array, " rows"],
    key: Key,
    algorithm: Algorithm,
    steps: int,
) -> tuple[Learner, Float[Array, " steps"]]:
    policy = algorithm.policy_step
    assert policy is not None

    def step(carry: Learner, step_key: Key) -> tuple[Learner, jax.Array]:
        rows = jax.random.randint(rng.named(step_key, "rows"), (algorithm.batch_size,), 0, len(observation))
        seen, done = as_numbers(jnp.take(observation, rows, axis=0)), jnp.take(action, rows, axis=0)

        def loss(actor: Any) -> tuple[jax.Array, Aux]:
            error = actor.imitation_loss(seen, done, rng.named(step_key, "loss")).mean()
            return error, {"loss": error}

        carry, aux = descend(policy, carry, loss)
        return carry, aux["loss"]

    return jax.lax.scan(step, learner, jax.random.split(key, steps))
