"""The conformance suite: what every algorithm, bridge, replay strategy and dataset reader must keep to.

    python -m segue.conformance --part my-algorithm                     # an installed plug-in, by name
    python -m segue.conformance --import my_module --part my-algorithm  # one that a module registers
    pytest --pyargs segue.conformance                                   # all parts there are

Segue's own parts pass the same tests. A part needs defaults for all its hyper-parameters.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from segue.algorithms import ALGORITHMS, Algorithm
from segue.bridges import BRIDGES
from segue.core import Learner, Normaliser, Spaces, Transition
from segue.data import FORMATS
from segue.data.dataset import Dataset
from segue.replay import REPLAYS, Replay
from segue.training.update import init_learner

CONTINUOUS, DISCRETE = Spaces(observation_size=3, action_size=2), Spaces(3, 4, discrete=True)
#: Of algorithms that see images.
IMAGE = (6, 5)
KINDS = {"continuous": CONTINUOUS, "discrete": DISCRETE}
#: Names of the parts that are tested; all if there are none.
WANTED: list[str] = []
#: Small networks and batches, for the hyper-parameters that an algorithm has of these.
SMALL: dict[str, Any] = {"hidden_sizes": (8, 8), "batch_size": 16, "rollout_steps": 32, "behaviour_hidden_sizes": (8,)}
#: What a run takes from its environment.
SMALL |= {"cost_horizon": 8, "cost_limit": 5.0}


def known() -> dict[str, Mapping[str, Any]]:
    """All parts by what a test calls them."""
    return {"algorithm": ALGORITHMS, "bridge": BRIDGES, "strategy": REPLAYS, "scheme": FORMATS}


def small(name: str) -> Algorithm:
    """The algorithm with small networks; one published with many updates per policy update makes two."""
    cls = ALGORITHMS[name]
    given = {field: value for field, value in SMALL.items() if field in cls.__dataclass_fields__}
    if cls.updates_per_step > 1 and "critic_updates_per_actor_update" in cls.__dataclass_fields__:
        given["critic_updates_per_actor_update"] = 2
    return cls(**given)


def spaces_of(algorithm: Algorithm, kind: str | None = None) -> Spaces:
    """Spaces with this kind of actions, by default the first that it supports."""
    return KINDS[kind or algorithm.actions[0]]


def transitions(spaces: Spaces, rows: int = 64, seed: int = 0) -> Transition:
    """Random episodes of eight steps, every second one ended by a terminal."""
    rng = np.random.default_rng(seed)
    shape = (rows, spaces.observation_size)
    if spaces.discrete:
        action = rng.integers(spaces.action_size, size=rows).astype(np.int32)
    else:
        action = rng.uniform(-1, 1, (rows, spaces.action_size)).astype(np.float32)
    following = np.roll(action, -1, axis=0)
    following[7::8] = -1 if spaces.discrete else np.nan
    observation = seen(rng.normal(size=shape), spaces)
    after = np.roll(observation, -1, axis=0)
    after[7::8] = seen(rng.normal(size=(len(after[7::8]), spaces.observation_size)), spaces)
    return Transition(
        observation=observation,
        action=action,
        reward=rng.normal(size=rows).astype(np.float32),
        next_observation=after,
        discount=np.where(np.arange(rows) % 16 == 15, 0.0, 0.99).astype(np.float32),
        return_to_go=rng.normal(size=rows).astype(np.float32),
        next_action=following,
        cost=rng.uniform(size=rows).astype(np.float32),
    )


def seen(normal: np.ndarray, spaces: Spaces) -> np.ndarray:
    """Observations made of normal numbers."""
    return normal.astype(np.float32) if spaces.image is None else (100 + 50 * normal).clip(0, 255).astype(np.uint8)


def dataset(spaces: Spaces, rows: int = 64) -> Dataset:
    """The same as a dataset."""
    made = transitions(spaces, rows)
    return Dataset(
        observations=np.asarray(made.observation),
        actions=np.asarray(made.action),
        rewards=np.asarray(made.reward),
        next_observations=np.asarray(made.next_observation),
        terminals=np.arange(rows) % 16 == 15,
        episode_starts=np.arange(0, rows, 8),
        spaces=spaces,
        source="made",
        cost=np.asarray(made.cost),
    )


@functools.cache
def replay(spaces: Spaces, rows: int = 64) -> Replay:
    """The same on the device."""
    return Replay.create(transitions(spaces, rows), 0, spaces)


def learner_of(algorithm: Algorithm, kind: str | None = None, seed: int = 0) -> Learner:
    """A fresh learner, in buffers of its own."""
    return copy_of(_learner_of(algorithm, kind, seed))


@functools.lru_cache(maxsize=4)  # the tests of an algorithm come one after the other, and most of them want one
def _learner_of(algorithm: Algorithm, kind: str | None, seed: int) -> Learner:
    spaces = spaces_of(algorithm, kind)
    nets = algorithm.init(jax.random.key(seed), spaces)
    return init_learner(algorithm, nets, Normaliser.identity(spaces.observation_size))


def copy_of(tree: Any) -> Any:
    """The same numbers in buffers of their own."""
    return jax.tree.map(jnp.copy, tree)


def same_bits(a: Any, b: Any) -> bool:
    """Whether two trees have the same structure, types and bytes."""
    leaves = [[np.asarray(leaf) for leaf in jax.tree.leaves(tree)] for tree in (a, b)]
    structures: list[Any] = [jax.tree.structure(tree) for tree in (a, b)]
    return structures[0] == structures[1] and all(
        x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in zip(*leaves, strict=True)
    )


def structure(tree: Any) -> Any:
    """Of a pytree."""
    return jax.tree.structure(tree)
