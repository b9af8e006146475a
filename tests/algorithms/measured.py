"""Every case of the conformance suite, with what segue computes for it and what the reference says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from references import reference, variants

from helpers import (
    KINDS,
    MEMBERS,
    SACS_CODE,
    SUITE,
    actor_update,
    bellman_target,
    critic_update,
    policy_role,
    random_learner,
    small,
    transitions,
    with_optimiser,
)
from segue.algorithms import Algorithm
from segue.core import Learner, Spaces, Transition
from segue.rng import named
from segue.training.update import replace

_CASES = {
    f"{member}-{variant}": (name, variant, kind)
    for member, (name, kind) in MEMBERS.items()
    for variant in variants(name)
}
WITH_CRITIC = [case for case, (name, *_) in _CASES.items() if hasattr(SUITE[name], "critic_learning_rate")]
#: (algorithm, variant, kind of actions) by the case's name, those with a critic first
CASES = {case: _CASES[case] for case in sorted(_CASES, key=lambda case: case not in WITH_CRITIC)}
#: What runs no other code than another case: it differs in numbers, which tests/algorithms/test_effects.py sees to, or
#: in layers and distributions that another algorithm has there too, or in nothing with these actions.
ALIKE = {
    *("bcq-layer-norm", "td3-bc-small-alpha", "rebrac-strong", "td3-large-noise"),
    *("iql-continuous-antmaze", "iql-continuous-layer-norm", "cal-ql-plain-values"),
    *("iql-discrete-squashed", "iql-discrete-layer-norm", "awac-discrete-squashed"),
    *("bc-discrete-nll", "bc-discrete-squashed", "discrete-bcq-narrow", "discrete-cql-strong"),
    *(case for case, (name, *_) in CASES.items() if name in SACS_CODE and case != "redq-default"),
}
#: The algorithms as they are by default, those of SAC's code apart.
FIRST = {f"{member}-{next(iter(variants(name)))}" for member, (name, _) in MEMBERS.items() if name not in SACS_CODE}


def of(cases: set[str], among: Iterable[str] = CASES) -> pytest.MarkDecorator:
    """These cases, and the others with `-m slow`.

    The scope has pytest run all tests of a case one after the other, so that it is measured once and forgotten.
    """
    marked = [case if case in cases else pytest.param(case, marks=pytest.mark.slow) for case in among]
    return pytest.mark.parametrize("case", marked, scope="module")


every_case = of(CASES.keys() - ALIKE)
first_with_critic = of(FIRST, WITH_CRITIC)
#: Those of them whose updates are unlike.
mostly_defaults = of({case for case in FIRST if case.endswith("-default")})
#: Roles that a critic update trains; the others that are trained move in an actor update.
OF_CRITIC_UPDATE = {"behaviour", "value", "critic", "multiplier", "cost_critic"}


def algorithm_of(case: str, **options: Any) -> Algorithm:
    """A small algorithm with the hyper-parameters of this variant."""
    name, variant, _ = CASES[case]
    return small(name, **{**variants(name)[variant], **options})


@lru_cache(maxsize=4)
def learner_of(case: str, algorithm: Algorithm, seed: int = 0) -> Learner:
    """A random learner of it for the case's actions."""
    return random_learner(algorithm, seed, CASES[case][2])


def spaces_of(case: str) -> Spaces:
    """The case's observations and actions."""
    return KINDS[CASES[case][2]]


def batch_of(case: str, rows: int = 16, seed: int = 0) -> Transition:
    """Random transitions with the case's actions."""
    return transitions(rows, seed, kind=CASES[case][2])


def plain_descent(algorithm: Algorithm) -> Algorithm:
    """The same algorithm, every role of which steps by exactly minus its gradient."""
    return with_optimiser(algorithm, optax.sgd(1.0))


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
    ref, log = reference(CASES[case][0]), jax.tree.map(_in_numpy, batch)
    role = policy_role(h)
    target_key, penalty_key = named(key, "critic", "target"), named(key, "critic", "loss")
    next_key, actor_key = named(target_key, "next_value"), named(key, role or "none", "loss")
    after_actor, metrics = actor_update(h, (), learner, batch, key)
    segue: dict[str, Any] = {}
    expected: dict[str, Any] = {}
    of_role: dict[str, Any] = {}
    if role is not None:
        policy = nets.roles()[role]
        segue["actor_loss"], aux = h.actor_loss(policy, nets, batch, actor_key)
        segue["reported_actor_loss"] = metrics["actor_loss"]
        expected["actor_loss"] = ref.actor_loss(h, policy, nets, log, actor_key)
        expected["reported_actor_loss"] = expected["actor_loss"].mean()
        of_role[role] = lambda policy: ref.actor_loss(h, policy, nets, log, actor_key).mean()
    after_critic = None
    if "critic" in nets:
        after_critic, metrics = critic_update(h, (), learner, batch, key)
        then = nets  # what Q's target sees: the model of the dataset's actions and V after their steps
        if "behaviour" in nets:
            behaviour_key = named(key, "behaviour", "loss")
            segue["behaviour_loss"] = metrics["behaviour_loss"]
            of_role["behaviour"] = lambda behaviour: ref.behaviour_loss(h, behaviour, nets, log, behaviour_key)
            expected["behaviour_loss"] = of_role["behaviour"](nets.behaviour)
            then = then.replace(behaviour=after_critic.nets.behaviour)
        if "value" in nets:
            segue["value_loss"] = metrics["value_loss"]
            of_role["value"] = lambda value: ref.value_loss(h, value, nets, log, named(key, "value", "loss"))
            expected["value_loss"] = of_role["value"](nets.value)
            then = then.replace(value=after_critic.nets.value)
        segue["target"] = bellman_target(h, (), replace(learner, nets=then), batch, target_key)
        segue["critic_loss"] = metrics["critic_loss"]
        y = expected["target"] = ref.target(h, then, log, next_key)
        expected["critic_loss"] = ref.critic_loss(h, nets.critic, nets, log, y, penalty_key)
        of_role["critic"] = lambda critic: ref.critic_loss(h, critic, nets, log, y, penalty_key)
    if "temperature" in nets:
        segue["temperature_loss"] = h.temperature_loss(nets.temperature, nets, batch, key, aux)[0]
        of_role["temperature"] = lambda value: ref.temperature_loss(h, float(value), nets.actor, log, actor_key)
    if "multiplier" in nets:
        q = nets.critic(batch.observation, batch.action)
        _, critic_aux = h.critic_penalty(nets.critic, nets, batch, q, penalty_key)
        segue["multiplier_loss"] = h.multiplier_loss(nets.multiplier, nets, batch, key, critic_aux)[0]
        of_role["multiplier"] = lambda value: ref.multiplier_loss(h, float(value), nets, log, penalty_key)
    if "cost_critic" in nets:
        cost_key = named(key, "cost_critic", "loss")
        segue["cost_critic_loss"] = h.cost_critic_loss(nets.cost_critic, nets, batch, cost_key, {})[0]
        of_role["cost_critic"] = lambda critic: ref.cost_critic_loss(h, critic, nets, log, cost_key)
        expected["cost_critic_loss"] = of_role["cost_critic"](nets.cost_critic)
        segue["cost_multiplier_loss"] = h.cost_multiplier_loss(nets.cost_multiplier, nets, batch, key, aux)[0]
        of_role["cost_multiplier"] = lambda value: ref.cost_multiplier_loss(h, float(value), nets, log, actor_key)
    for role in ("temperature", "multiplier", "cost_multiplier"):
        if role in of_role:
            expected[f"{role}_loss"] = of_role[role](nets.roles()[role])
    return Measured(h, learner, batch, after_critic, after_actor, segue, expected, of_role)


@lru_cache(maxsize=4)
def in_float32(case: str) -> Measured:
    """As segue runs: float32, ReLU, Adam."""
    algorithm = algorithm_of(case)
    batch = jax.tree.map(jnp.asarray, batch_of(case, seed=5))
    return measure(case, algorithm, learner_of(case, algorithm, seed=3), batch)


@lru_cache(maxsize=4)
def in_float64(case: str) -> Measured:
    """The same code in double precision; a smooth activation, so that differences show derivatives; plain descent.

    Some actions lie at the bounds, where float32 itself is coarser than 1e-5.
    """
    with jax.enable_x64(True):
        algorithm = plain_descent(algorithm_of(case, activation="tanh"))
        batch = batch_of(case, seed=6)
        if not spaces_of(case).discrete:
            batch.action[:3] = [[1, -1], [-1, 0.3], [1, 1]]
        learner, batch = jax.tree.map(_double, (learner_of(case, algorithm, seed=4), batch))
        return measure(case, algorithm, learner, batch)


def _double(leaf: Any) -> jax.Array:
    array = np.asarray(leaf)
    return jnp.asarray(array.astype(np.float64) if array.dtype == np.float32 else array)


def _in_numpy(column: Any) -> np.ndarray:
    array = np.asarray(column)
    return array if np.issubdtype(array.dtype, np.integer) else array.astype(np.float64)
