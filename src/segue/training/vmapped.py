"""Several trainings in one program: an axis over their learners, keys and numbers; the dataset is there once.

They are the seeds and trials of one algorithm, alike in all that decides which program it is (segue.hyper). This is for
an accelerator, which one small learner leaves idle. On a processor they are faster side by side in processes of
their own (segue.runner.executor): a batch of small matrix products is what XLA's CPU backend is slow at.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from segue.algorithms.base import Algorithm
from segue.core import Key, Learner, Metrics
from segue.replay.base import Replay
from segue.training.update import run_updates


def run_updates_together(
    learners: Sequence[Learner],
    replay: Replay,
    keys: Sequence[Key],
    progress: Float[jax.Array, ""],
    algorithms: Sequence[Algorithm],
    *,
    blocks: int,
    train_policy: bool = True,
) -> list[tuple[Learner, Metrics]]:
    """`run_updates` of each learner with its own key and algorithm; the given learners stay as they are.

    The algorithms differ in their numbers only.
    """
    stacked = [jax.tree.map(_stacked, *trees) for trees in (learners, keys, algorithms)]
    after = _run(*stacked, replay, progress, blocks=blocks, train_policy=train_policy)
    return [_member(after, i) for i in range(len(learners))]


# Stacking and taking apart are programs of their own: within the other one, every leaf of every learner is compiled.
@jax.jit
def _stacked(*leaves: jax.Array) -> jax.Array:
    return jnp.stack(leaves)


@jax.jit
def _member(trees: Any, i: Int[jax.Array, ""]) -> Any:
    return jax.tree.map(lambda leaf: leaf[i], trees)


@partial(jax.jit, static_argnames=("blocks", "train_policy"), donate_argnames=("learners",))
def _run(
    learners: Learner,
    keys: Key,
    algorithms: Algorithm,
    replay: Replay,
    progress: Float[jax.Array, ""],
    *,
    blocks: int,
    train_policy: bool,
) -> tuple[Learner, Metrics]:
    """The first three have a leading axis, of as many as there are learners."""

    def one(learner: Learner, key: Key, algorithm: Algorithm) -> tuple[Learner, Metrics]:
        return run_updates(learner, replay, key, progress, algorithm, blocks=blocks, train_policy=train_policy)

    return jax.vmap(one)(learners, keys, algorithms)
