"""Every hyper-parameter does something: another value changes what is learnt or done, or it is listed with a reason."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from measured import ALIKE, CASES
from references import reference, variants

from helpers import (
    KINDS,
    actor_update,
    critic_update,
    random_learner,
    same_bits,
    small,
    transitions,
)
from segue.algorithms import ALGORITHMS, PPO, Algorithm
from segue.core import Normaliser
from segue.data import load
from segue.training.update import init_learner

#: Another value, where half of a number, the next whole one or the other choices are too close or not allowed.
OTHER: dict[str, Any] = {
    "subset_size": 1,
    "acting_samples": 1,
    "target_samples": 1,
    "lagrange_threshold": 1.0,
    "failure_reward": -1.0,
    "critic_hidden_sizes": (4, 4),
    "hidden_sizes": (4, 4),
    "behaviour_hidden_sizes": (4, 4),
    "weight_limit": 0.01,
    "max_gradient_norm": 0.001,
    "clip": 0.001,
    "threshold": 0.9,
    "target_noise_clip": 0.01,
}
#: What else must be set for it to matter.
GIVEN: dict[tuple[str, str], dict[str, Any]] = {
    ("ppo", "kl_until"): {"kl_weight": 1.0},
    ("bc", "distribution"): {"loss": "nll"},
}
#: What the loops use, and tests of the loops cover.
OF_LOOPS = {
    "batch_size": "rows that the update draws: tests/training/test_update.py",
    "rollout_steps": "steps between updates: tests/training/test_on_policy.py",
    "epochs": "passes over a rollout: tests/training/test_on_policy.py",
    "value_fit_epochs": "passes over the first rollout: tests/training/test_on_policy.py",
}
#: What its docstring says has no effect on these actions.
CONTINUOUS_ONLY = {("iql", "distribution"), ("awac", "distribution"), ("bc", "distribution"), ("bc", "loss")}
#: Choices and whole numbers that a variant in test_exactness.py has another value of and its reference reads: to look
#: here too would compile an update for each.
COMPARED = {
    *((name, "backup_entropy") for name in ("cql", "sac", "discrete-sac")),
    *((name, "loss") for name in ("bc", "dqn", "discrete-bcq")),
    *(("cql", "max_q_backup"), ("cql", "variant"), ("awac", "weighting"), ("fql", "normalise_q")),
    *(("discrete-sac", "subset_size"), ("bcq", "target_samples")),
}
PROGRESS = np.float32(0.4)
KEY = jax.random.key(6)


def others(cls: type[Algorithm], field: str, value: Any) -> Iterator[Any]:
    """Values to try instead of this one: every other choice, or one other number."""
    hint = get_type_hints(cls)[field]
    if field in OTHER:
        yield OTHER[field]
    elif get_origin(hint) is Literal:
        yield from (choice for choice in get_args(hint) if choice != value)
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
    else:
        yield value / 2 if value else 0.5


def fields_of(name: str, kind: str) -> list[str]:
    """What another value of must have an effect with these actions."""
    named = [field.name for field in dataclasses.fields(ALGORITHMS[name])]
    without = COMPARED | (CONTINUOUS_ONLY if kind == "discrete" else set())
    return [f for f in named if f not in OF_LOOPS and (name, f) not in without]


@cache
def log(kind: str) -> Any:
    """Twelve rows in three episodes, one of which has failed, step by step."""
    rows = transitions(12, kind=kind)
    ends = np.arange(12) % 4 == 3
    rewards = np.where(np.arange(12) < 4, -1, rows.reward)
    columns = {"observations": rows.observation, "next_observations": rows.next_observation, "actions": rows.action}
    return load({**columns, "rewards": rewards, "cost": rows.cost, "terminals": ends, "timeouts": np.zeros(12, bool)})


def learnt_from(algorithm: Algorithm, kind: str) -> Any:
    """The dataset as it learns from it, and how often its parts learn."""
    data = algorithm.select(log(kind))
    return algorithm.updates_per_block, algorithm.transitions(data, Normaliser.identity(3))


def acted(algorithm: Algorithm, nets: Any, kind: str) -> Any:
    """Actions with and without exploration."""
    states = np.random.default_rng(0).normal(size=(2048, 3)).astype(np.float32)
    host, now = jax.tree.map(np.array, nets), algorithm.at(np.asarray(PROGRESS))
    draws = [now.action_distribution(host, states, explore) for explore in (False, True)]
    return [np.asarray(drawn.sample(np.random.default_rng(1))) for drawn in draws]


def updated(algorithm: Algorithm, nets: Any, kind: str) -> Any:
    """The learner, optimisers included, after an update of everything that it trains."""
    learner, now = init_learner(algorithm, nets, Normaliser.identity(3)), algorithm.at(jnp.asarray(PROGRESS))
    batch = jax.tree.map(jnp.asarray, transitions(16, kind=kind))
    if isinstance(now, PPO):
        rollout, done = jax.tree.map(lambda column: column[:, None], batch), jnp.zeros((16, 1), bool)
        rollout = now.advantages(rollout, done, nets.value, now.gae_lambda)
        batch = jax.tree.map(lambda column: column[:, 0], rollout)
        before = nets.actor.log_prob(batch.observation, batch.action)
        batch = batch._replace(log_prob=before + jnp.linspace(-0.5, 0.5, 16))
    learner, _ = critic_update(now, (), learner, batch, KEY)
    return actor_update(now, (), learner, batch, KEY)[0]


#: For another number: it is data, so that all numbers of an algorithm share one program.
updated_at_once = jax.jit(updated, static_argnames="kind")

LOOKS = (
    lambda algorithm, nets, kind: algorithm.init(jax.random.key(0), KINDS[kind]),
    lambda algorithm, nets, kind: learnt_from(algorithm, kind),
    acted,
    lambda algorithm, nets, kind: updated_at_once(algorithm, nets, kind=kind),
    updated,
)
#: The looks in the order that is quickest: an update of another number is compiled already.
OF_NUMBERS, OF_OTHERS = (3, 1, 2, 0), (0, 1, 2, 4)


def base(name: str, **given: Any) -> Algorithm:
    return small(name, **({"rollout_steps": 16} if name == "ppo" else {}), **given)


@cache
def nets_of(name: str, kind: str, given: tuple[tuple[str, Any], ...]) -> Any:
    return random_learner(base(name, **dict(given)), kind=kind).nets


@cache
def seen(name: str, kind: str, look: int, given: tuple[tuple[str, Any], ...]) -> Any:
    algorithm = base(name, **dict(given))
    return LOOKS[look](algorithm, nets_of(name, kind, given), kind)


#: One of each kind of policy and of each loop; the others, a compiled update for each choice, with `-m slow`.
BY_DEFAULT = {("iql", "continuous"), ("discrete-sac", "discrete"), ("ppo", "continuous")}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=() if (name, kind) in BY_DEFAULT else pytest.mark.slow)
        for name, cls in ALGORITHMS.items()
        for kind in cls.actions
    ],
)
def test_another_value_changes_the_networks_the_dataset_the_actions_or_an_update(name: str, kind: str) -> None:
    ignored = []
    for field in fields_of(name, kind):
        given = GIVEN.get((name, field), {})
        algorithm = base(name, **given)
        default = getattr(algorithm, field)
        for value in others(ALGORITHMS[name], field, default):
            other = dataclasses.replace(algorithm, **{field: value})
            nets = nets_of(name, kind, tuple(given.items()))
            if all(
                same_bits(seen(name, kind, i, tuple(given.items())), LOOKS[i](other, nets, kind))
                for i in (OF_NUMBERS if isinstance(default, float) else OF_OTHERS)
            ):
                ignored.append(f"{field}={value!r}")
    assert not ignored, f"{name} accepts these and ignores them with {kind} actions"


@pytest.mark.parametrize(("name", "kind"), [("sac", "continuous"), ("discrete-sac", "discrete"), ("ppo", "discrete")])
def test_the_same_values_change_nothing(name: str, kind: str) -> None:
    """Or the test above would find an effect everywhere."""
    for i, look in enumerate(LOOKS):
        algorithm = base(name)
        assert same_bits(seen(name, kind, i, ()), look(algorithm, random_learner(algorithm, kind=kind).nets, kind))


def test_what_is_compared_elsewhere_has_another_value_there_and_is_read() -> None:
    for name, field in COMPARED:
        compared = [
            variants(name)[variant] for case, (n, variant, _) in CASES.items() if n == name and case not in ALIKE
        ]
        assert any(values.get(field, getattr(base(name), field)) != getattr(base(name), field) for values in compared)
        bases = [base.name for base in ALGORITHMS[name].__mro__ if getattr(base, "name", None) in ALGORITHMS]
        assert any(f"h.{field}" in inspect.getsource(reference(base)) for base in bases), (name, field)


def test_what_is_listed_is_there() -> None:
    fields = {(name, field.name) for name, cls in ALGORITHMS.items() for field in dataclasses.fields(cls)}
    assert fields >= CONTINUOUS_ONLY | COMPARED | set(GIVEN)
    assert {field for _, field in fields} >= set(OF_LOOPS) | set(OTHER)
