"""Small learners, batches and comparisons that the tests of the numeric floors share."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import settings

from segue.algorithms import ALGORITHMS, Algorithm
from segue.algorithms.base import Follow, PolicyStep
from segue.core import Learner, Normaliser, Spaces, Transition
from segue.replay import Replay
from segue.training import update
from segue.training.update import init_learner, run_updates, update_bridges

SPACES = Spaces(observation_size=3, action_size=2)
DISCRETE = Spaces(observation_size=3, action_size=4, discrete=True)
KINDS = {"continuous": SPACES, "discrete": DISCRETE}
SMALL: dict[str, Any] = {"hidden_sizes": (8, 8), "batch_size": 16}

#: Property tests that run on the device: few examples, the same ones every time.
few = settings(max_examples=30, deadline=None, derandomize=True)

#: The conformance suite's: all but those that learn on-policy, which the shared update does not run.
SUITE = {name: cls for name, cls in ALGORITHMS.items() if not cls.on_policy}
#: What differs from SAC in numbers only: these learn with `-m slow` where another claim than theirs is tested.
SACS_CODE = {"sac-n", "redq", "rlpd"}
#: (algorithm, kind of actions) by a name for the pair; the kind is named where the algorithm has both.
MEMBERS = {
    name if len(cls.actions) == 1 else f"{name}-{kind}": (name, kind)
    for name, cls in SUITE.items()
    for kind in cls.actions
}


def small(name: str, **options: Any) -> Algorithm:
    """The algorithm of this name with small networks of one build, and three critics so that nothing holds for a pair
    only.
    """
    fields = ALGORITHMS[name].__dataclass_fields__
    alike = {
        "ensemble_size": 3,
        "critic_layer_norm": "none",
        "behaviour_hidden_sizes": (8, 8),
        "cost_horizon": 8,
        "cost_limit": 5.0,
    }
    members = {field: value for field, value in alike.items() if field in fields}
    if ALGORITHMS[name].updates_per_step > 1:
        members["critic_updates_per_actor_update"] = 2  # instead of twenty: the same code, sooner
    return ALGORITHMS[name](**{**SMALL, **members, **options})


def other_numbers(algorithm: Algorithm) -> Algorithm:
    """The same program with other hyper-parameters: every number with a fraction is nine tenths of what it was."""
    return jax.tree.map(lambda number: 0.9 * number, algorithm)


def kind_of(algorithm: Algorithm, kind: str | None = None) -> str:
    """This kind of actions, or the first that the algorithm names."""
    return algorithm.actions[0] if kind is None else kind


def transitions(rows: int = 16, seed: int = 0, reach: float = 0.95, kind: str = "continuous") -> Transition:
    """Random transitions of which a quarter are terminal; actions within ±reach, or every discrete one."""
    rng = np.random.default_rng(seed)
    spaces = KINDS[kind]
    observation, action = (rows, spaces.observation_size), (rows, spaces.action_size)
    batch = Transition(
        observation=rng.normal(size=observation).astype(np.float32),
        action=rng.uniform(-reach, reach, action).astype(np.float32),
        reward=rng.normal(size=rows).astype(np.float32),
        next_observation=rng.normal(size=observation).astype(np.float32),
        discount=np.where(np.arange(rows) % 4 == 1, 0, 0.99).astype(np.float32),
        return_to_go=rng.normal(size=rows).astype(np.float32),
        next_action=np.where(np.arange(rows)[:, None] % 5 == 2, np.nan, rng.uniform(-1, 1, action)).astype(np.float32),
        cost=rng.uniform(size=rows).astype(np.float32),
    )
    if not spaces.discrete:
        return batch
    actions = rng.permuted(np.arange(rows) % spaces.action_size).astype(np.int32)
    following = np.where(np.arange(rows) % 5 == 2, -1, np.roll(actions, -1)).astype(np.int32)
    return batch._replace(action=actions, next_action=following)


def fresh_learner(algorithm: Algorithm, seed: int = 0, kind: str | None = None) -> Learner:
    """A learner as a run starts with."""
    spaces = KINDS[kind_of(algorithm, kind)]
    nets = algorithm.init(jax.random.key(seed), spaces)
    return init_learner(algorithm, nets, Normaliser.identity(spaces.observation_size))


def random_learner(algorithm: Algorithm, seed: int = 0, kind: str | None = None) -> Learner:
    """A learner whose every number is random: no role equals its target, no bias, scale or log α is special.

    In buffers of its own, so that it can be donated.
    """
    return clone(_random_learner(algorithm, seed, kind))


@functools.lru_cache(maxsize=32)  # to make one takes ten times as long as to copy it
def _random_learner(algorithm: Algorithm, seed: int, kind: str | None) -> Learner:
    rng = np.random.default_rng(seed)
    spaces = KINDS[kind_of(algorithm, kind)]

    def shake(leaf: jax.Array) -> jax.Array:
        return jnp.asarray(np.asarray(leaf) + 0.3 * rng.normal(size=leaf.shape), leaf.dtype)

    nets = jax.tree.map(shake, algorithm.init(jax.random.key(seed), spaces))
    return init_learner(algorithm, nets, Normaliser.identity(spaces.observation_size))


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


def policy_role(algorithm: Algorithm) -> str | None:
    """The role that acts and is trained as such; None where the critic alone acts."""
    return algorithm.policy_step.role if algorithm.policy_step else None


def with_optimiser(algorithm: Algorithm, optimiser: Any) -> Algorithm:
    """The same algorithm, every trained role of which has this optimiser."""
    cls = type(algorithm)

    def steps(self: Algorithm) -> tuple[Any, ...]:
        return tuple(
            s if isinstance(s, Follow) else dataclasses.replace(s, optimiser=optimiser) for s in cls.steps(self)
        )

    changed = type(f"Changed{cls.__name__}", (cls,), {"steps": steps})
    return changed(**{field.name: getattr(algorithm, field.name) for field in dataclasses.fields(algorithm)})


def halves(algorithm: Algorithm) -> tuple[Any, Any]:
    """The steps before the policy's, and the policy's with those after it."""
    steps = algorithm.steps()
    place = next((i for i, step in enumerate(steps) if isinstance(step, PolicyStep)), len(steps))
    return steps[:place], steps[place:]


def critic_update(algorithm: Algorithm, bridges: Any, learner: Learner, batch: Transition, key: Any) -> Any:
    """The first half of an update, and its metrics."""
    learner, aux = update.take_all(halves(algorithm)[0], algorithm, bridges, learner, batch, key, {})
    return learner, update.means(aux)


def actor_update(algorithm: Algorithm, bridges: Any, learner: Learner, batch: Transition, key: Any) -> Any:
    """The second half, with the bridges' own states, and its metrics."""
    learner, aux = update.take_all(halves(algorithm)[1], algorithm, bridges, learner, batch, key, {})
    learner, aux = update_bridges(algorithm, bridges, learner, batch, key, aux)
    return learner, update.means(aux)


def bellman_target(algorithm: Algorithm, bridges: Any, learner: Learner, batch: Transition, key: Any) -> Any:
    """What the critic's step aims at."""
    return update.bellman_target(algorithm.bellman_step, algorithm, bridges, learner, batch, key)[0]


LOGS = {kind: Replay.create(transitions(64, seed=1, kind=kind), 0, spaces) for kind, spaces in KINDS.items()}
LOG = LOGS["continuous"]


def updated(
    algorithm: Algorithm,
    learner: Learner,
    blocks: int = 5,
    seed: int = 0,
    spare: bool = True,
    kind: str | None = None,
) -> tuple[Learner, Any]:
    """The learner after these blocks of updates on a small log; the one given is spared, or else donated."""
    kind = kind_of(algorithm, kind)
    return run_updates(
        clone(learner) if spare else learner,
        LOGS[kind],
        jax.random.key(seed),
        jnp.zeros(()),
        algorithm=algorithm,
        bridges=(),
        strategy=None,
        blocks=blocks,
    )


def for_each(names: str | tuple[str, ...], cases: Iterable[Any], **_: Any) -> Callable[[Any], Any]:
    """`pytest.mark.parametrize` within one test, for cases that take no time; an error says which case it was."""
    named = (names,) if isinstance(names, str) else names

    def decorate(test: Callable[..., None]) -> Any:
        @functools.wraps(test)
        def looped(*args: Any, **given: Any) -> None:
            for case in cases:
                values = getattr(case, "values", (case,) if isinstance(names, str) else case)
                try:
                    test(*args, **given, **dict(zip(named, values, strict=True)))
                except BaseException as error:
                    error.add_note(f"with {', '.join(f'{n}={v!r}' for n, v in zip(named, values, strict=True))}")
                    raise

        signature = inspect.signature(test)
        kept = [parameter for name, parameter in signature.parameters.items() if name not in named]
        looped.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
        return looped

    return decorate
