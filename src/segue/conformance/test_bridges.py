"""What every bridge must keep to, on the first algorithms that accept it."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segue import conformance as suite
from segue.algorithms import ALGORITHMS, Algorithm
from segue.bridges import BRIDGES, Bridge, Handover, Report
from segue.core import Learner, Normaliser
from segue.errors import RecipeError
from segue.policy import Policy
from segue.recipe import Recipe, decode, encode
from segue.replay import OnlineOnly
from segue.training.update import replace, run_updates

#: The first of these that accepts the bridge is what it is tested on.
CANDIDATES = ("td3-bc", "iql", "sac", "discrete-cql", *ALGORITHMS)


@functools.cache
def algorithm_for(name: str) -> Algorithm:
    """An algorithm that a recipe may combine with the bridge."""
    for candidate in CANDIDATES:
        own = suite.small(candidate)
        if {"offline", "online"} <= set(own.phases):
            given: dict[str, Any] = {"dataset": "npz:made.npz", "offline": own, "offline_steps": 1}
            try:
                Recipe(online=own, online_steps=2000, bridges=(BRIDGES[name](),), replay=OnlineOnly(), **given)
            except RecipeError:
                continue
            return own
    raise AssertionError(f"no algorithm accepts the bridge {name}")


@functools.cache
def attached(name: str) -> tuple[Bridge, Algorithm, Learner]:
    """The bridge with short fits, its algorithm, and a learner that it is attached to."""
    cls, own = BRIDGES[name], algorithm_for(name)
    short = {"fit_steps": 2, "evaluate_steps": 2, "align_steps": 2}
    bridge = cls(**{field: value for field, value in short.items() if field in cls.__dataclass_fields__})
    spaces = suite.spaces_of(own)
    made = suite.dataset(spaces)
    handover = Handover(own, spaces, made, own.transitions(made, Normaliser.identity(spaces.observation_size)))
    learner, state = bridge.attach(suite.learner_of(own), handover, jax.random.key(0))
    return bridge, own, replace(learner, bridges=(state,))


def types(tree: Any) -> Any:
    """Structure, shapes and types."""
    return jax.tree.structure(tree), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


def test_a_recipe_brings_it_back(bridge: str) -> None:
    """From plain data."""
    own = BRIDGES[bridge]()
    assert own.name == bridge
    assert decode("bridge", encode(own), BRIDGES) == own
    assert (type(own).__doc__ or "").strip()


def test_its_state_has_the_shape_of_its_skeleton(bridge: str) -> None:
    """Or a checkpoint could not be read back."""
    own, algorithm, learner = attached(bridge)
    assert types(learner.bridges[0]) == types(own.skeleton(algorithm, suite.spaces_of(algorithm)))
    assert all(isinstance(line, str) for line in own.describe(learner.bridges[0]))


def test_updates_with_it_keep_every_type_and_stay_finite(bridge: str) -> None:
    """In one program."""
    own, algorithm, learner = attached(bridge)
    data = suite.replay(suite.spaces_of(algorithm))
    after, reported = run_updates(
        suite.copy_of(learner), data, jax.random.key(0), jnp.asarray(0.25), algorithm, (own,), blocks=2
    )
    assert types(after) == types(learner)
    numbers = jax.tree.leaves((after.nets, reported))
    assert all(np.isfinite(leaf).all() for leaf in numbers)


def test_a_review_keeps_the_type_of_its_state(bridge: str) -> None:
    """Of good returns and of bad ones, with costs and without."""
    own, _, learner = attached(bridge)
    state = learner.bridges[0]
    for value, cost in itertools.product((10.0, -10.0), (None, 0.0, 10.0)):
        returns = np.full(6, value)
        costs = {} if cost is None else {"costs": np.full(6, cost), "reference_costs": np.zeros(20)}
        report = Report(100, returns, np.ones(6, bool), np.linspace(0, 1, 20), learner, **costs)
        review = own.review(state, report)
        assert types(jax.tree.map(jnp.asarray, review.state)) == types(state)
        assert all(np.isfinite(metric) for metric in review.metrics.values())
        assert 0 < own.pace(review.state) <= 1


@pytest.mark.parametrize("explore", [False, True])
def test_what_it_makes_of_an_action_is_one(bridge: str, explore: bool) -> None:
    """Within the bounds, with a carry of the same structure."""
    own, algorithm, learner = attached(bridge)
    spaces, policy = suite.spaces_of(algorithm), Policy(algorithm, learner, (own,))
    rng, carry = np.random.default_rng(0), policy.start(5)
    for _ in range(3):
        acted = policy.act(rng.normal(size=(5, 3)).astype(np.float32), carry, rng, explore)
        assert acted.action.shape == ((5,) if spaces.discrete else (5, spaces.action_size))
        assert np.abs(acted.action).max() <= (spaces.action_size - 1 if spaces.discrete else 1)
        assert suite.structure(acted.carry) == suite.structure(carry)
        carry = acted.carry
