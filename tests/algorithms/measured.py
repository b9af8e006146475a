"""Every case of the conformance suite, with what segue computes for it and what the reference says."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from references import reference, variants

from helpers import SPACES, random_learner, small, transitions
from segue.algorithms import ALGORITHMS, Algorithm
from segue.training.update import actor_update, bellman_target, critic_update, replace
from segue.types import Learner, Transition

CASES = {f"{name}-{variant}": (name, variant) for name in ALGORITHMS for variant in variants(name)}
WITH_CRITIC = [case for case, (name, _) in CASES.items() if hasattr(ALGORITHMS[name], "critic_learning_rate")]


def algorithm_of(case: str, **options: Any) -> Algorithm:
    """A small algorithm with the hyper-parameters of this variant."""
    name, variant = CASES[case]
    return small(name, **{**variants(name)[variant], **options})


def plain_descent(algorithm: Algorithm) -> Algorithm:
    """The same algorithm, every role of which steps by exactly minus its gradient."""
    cls = type(algorithm)

    def optimisers(self: Algorithm) -> dict[str, optax.GradientTransformation]:
        return {role: optax.sgd(1.0) for role in cls.optimisers(self)}

    plain = type(f"Plain{cls.__name__}", (cls,), {"optimisers": optimisers})
    return plain(**{f.name: getattr(algorithm, f.name) for f in dataclasses.fields(algorithm)})


@dataclasses.dataclass(frozen=True)
class Measured:
    """One learner and batch, what each update makes of them, and every quantity twice: segue's and the reference's."""

    algorithm: Algorithm
    before: Learner
    batch: Transition
    after_critic: Learner | None
    after_actor: Learner
    segue: dict[str, Any]
    reference: dict[str, Any]
    of_role: dict[str, Any]
    """The reference's loss of each trained role, as a function of that role."""


def measure(case: str, algorithm: Algorithm, learner: Learner, batch: Transition) -> Measured:
    """Both sides, on the keys that the shared update hands out."""
    h, nets, key = algorithm, learner.nets, jax.random.key(7)
    ref, log = reference(CASES[case][0]), jax.tree.map(lambda column: np.asarray(column, np.float64), batch)
    target_key, penalty_key = jax.random.split(key)
    next_key, actor_key = jax.random.split(target_key, 1)[0], jax.random.split(key, 1)[0]
    actor_loss, aux = h.actor_loss(nets.actor, nets, batch, actor_key)
    after_actor, metrics = actor_update(h, (), learner, batch, key, SPACES.action_size)
    segue = {"actor_loss": actor_loss, "reported_actor_loss": metrics["actor_loss"]}
    expected = {"actor_loss": ref.actor_loss(h, nets.actor, nets, log, actor_key)}
    expected["reported_actor_loss"] = expected["actor_loss"].mean()
    of_role = {"actor": lambda actor: ref.actor_loss(h, actor, nets, log, actor_key).mean()}
    after_critic = None
    if nets.critic is not None:
        after_critic, metrics = critic_update(h, (), learner, batch, key)
        then = nets  # what Q's target sees: V after its step
        if nets.value is not None:
            segue["value_loss"] = metrics["value_loss"]
            of_role["value"] = lambda value: ref.value_loss(h, value, nets, log, key)
            expected["value_loss"] = of_role["value"](nets.value)
            then = nets.replace(value=after_critic.nets.value)
        segue["target"] = bellman_target(h, (), replace(learner, nets=then), batch, target_key)
        segue["critic_loss"] = metrics["critic_loss"]
        y = expected["target"] = ref.target(h, then, log, next_key)
        expected["critic_loss"] = ref.critic_loss(h, nets.critic, nets, log, y, penalty_key)
        of_role["critic"] = lambda critic: ref.critic_loss(h, critic, nets, log, y, penalty_key)
    if nets.temperature is not None:
        segue["temperature_loss"] = h.temperature_loss(nets.temperature, aux, SPACES.action_size)
        of_role["temperature"] = lambda value: ref.temperature_loss(h, float(value), nets.actor, log, actor_key)
    if nets.multiplier is not None:
        q = nets.critic(batch.observation, batch.action)
        _, critic_aux = h.critic_penalty(nets.critic, nets, batch, q, penalty_key)
        segue["multiplier_loss"] = h.multiplier_loss(nets.multiplier, critic_aux)
        of_role["multiplier"] = lambda value: ref.multiplier_loss(h, float(value), nets, log, penalty_key)
    for role in ("temperature", "multiplier"):
        if role in of_role:
            expected[f"{role}_loss"] = of_role[role](nets.roles()[role])
    return Measured(h, learner, batch, after_critic, after_actor, segue, expected, of_role)


@cache
def in_float32(case: str) -> Measured:
    """As segue runs: float32, ReLU, Adam."""
    algorithm = algorithm_of(case)
    batch = jax.tree.map(jnp.asarray, transitions(seed=5))
    return measure(case, algorithm, random_learner(algorithm, seed=3), batch)


@cache
def in_float64(case: str) -> Measured:
    """The same code in double precision; a smooth activation, so that differences show derivatives; plain descent.

    Some actions lie at the bounds, where float32 itself is coarser than 1e-5.
    """
    with jax.enable_x64(True):
        algorithm = plain_descent(algorithm_of(case, activation="tanh"))
        batch = transitions(seed=6)
        batch.action[:3] = [[1, -1], [-1, 0.3], [1, 1]]
        learner, batch = jax.tree.map(_double, (random_learner(algorithm, seed=4), batch))
        return measure(case, algorithm, learner, batch)


def _double(leaf: Any) -> jax.Array:
    array = np.asarray(leaf)
    return jnp.asarray(array.astype(np.float64) if array.dtype == np.float32 else array)
