"""Small learners, batches and comparisons that the tests of the numeric floors share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import settings

from segue.algorithms import ALGORITHMS, Algorithm
from segue.replay import Replay
from segue.training.update import init_learner, run_updates
from segue.types import Learner, Normaliser, Spaces, Transition

SPACES = Spaces(observation_size=3, action_size=2)
SMALL: dict[str, Any] = {"hidden_sizes": (8, 8), "batch_size": 16}

#: Property tests that run on the device: few examples, the same ones every time.
few = settings(max_examples=30, deadline=None, derandomize=True)

OFFLINE = [name for name, cls in ALGORITHMS.items() if "offline" in cls.phases]
ONLINE = [name for name, cls in ALGORITHMS.items() if "online" in cls.phases]


def small(name: str, **options: Any) -> Algorithm:
    """The algorithm of this name with small networks of one build, and three critics so that nothing holds for a pair
    only.
    """
    fields = ALGORITHMS[name].__dataclass_fields__
    alike = {"ensemble_size": 3, "critic_layer_norm": False}
    members = {field: value for field, value in alike.items() if field in fields}
    if "subset_size" in fields:
        members["critic_updates_per_actor_update"] = 2  # instead of twenty: the same code, sooner
    return ALGORITHMS[name](**{**SMALL, **members, **options})


def transitions(rows: int = 16, seed: int = 0, reach: float = 0.95) -> Transition:
    """Random transitions of which a quarter are terminal; actions within ±reach."""
    rng = np.random.default_rng(seed)
    observation, action = (rows, SPACES.observation_size), (rows, SPACES.action_size)
    return Transition(
        observation=rng.normal(size=observation).astype(np.float32),
        action=rng.uniform(-reach, reach, action).astype(np.float32),
        reward=rng.normal(size=rows).astype(np.float32),
        next_observation=rng.normal(size=observation).astype(np.float32),
        discount=np.where(np.arange(rows) % 4 == 1, 0, 0.99).astype(np.float32),
        return_to_go=rng.normal(size=rows).astype(np.float32),
        next_action=np.where(np.arange(rows)[:, None] % 5 == 2, np.nan, rng.uniform(-1, 1, action)).astype(np.float32),
    )


def fresh_learner(algorithm: Algorithm, seed: int = 0) -> Learner:
    """A learner as a run starts with."""
    nets = algorithm.init(jax.random.key(seed), SPACES)
    return init_learner(algorithm, nets, Normaliser.identity(SPACES.observation_size))


def random_learner(algorithm: Algorithm, seed: int = 0) -> Learner:
    """A learner whose every number is random: no role equals its target, no bias, scale or log α is special."""
    rng = np.random.default_rng(seed)

    def shake(leaf: jax.Array) -> jax.Array:
        return jnp.asarray(np.asarray(leaf) + 0.3 * rng.normal(size=leaf.shape), leaf.dtype)

    nets = jax.tree.map(shake, algorithm.init(jax.random.key(seed), SPACES))
    return init_learner(algorithm, nets, Normaliser.identity(SPACES.observation_size))


def clone(tree: Any) -> Any:
    """The same numbers in other buffers, so that the original survives a donation."""
    return jax.tree.map(jnp.copy, tree)


def same_bits(a: Any, b: Any) -> bool:
    """Whether two trees have the same structure, and leaves of the same type and bytes."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(_bits(x) == _bits(y) for x, y in pairs)


def _bits(leaf: Any) -> tuple[Any, ...]:
    array = np.asarray(leaf)
    return array.dtype, array.shape, array.tobytes()


def changed_roles(before: Learner, after: Learner) -> set[str]:
    """The roles of which any number differs."""
    old, new = before.nets.roles(), after.nets.roles()
    assert old.keys() == new.keys()
    return {role for role in old if not same_bits(old[role], new[role])}


def finite(tree: Any) -> bool:
    return all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(tree))


LOG = Replay.create(transitions(64, seed=1), 0, SPACES)


def updated(
    algorithm: Algorithm, learner: Learner, blocks: int = 5, seed: int = 0, spare: bool = True
) -> tuple[Learner, Any]:
    """The learner after these blocks of updates on a small log; the one given is spared, or else donated."""
    return run_updates(
        clone(learner) if spare else learner,
        LOG,
        jax.random.key(seed),
        jnp.zeros(()),
        algorithm=algorithm,
        bridges=(),
        strategy=None,
        spaces=SPACES,
        blocks=blocks,
    )
