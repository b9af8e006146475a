"""Several seeds in one program: their learners are one, with a leading axis of seeds, and the dataset is there once.

For an accelerator, which one small learner leaves idle. On a processor seeds are faster side by side in processes of
their own (segue.runner.executor): a batch of small matrix products is what XLA's CPU backend is slow at.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue.algorithms.base import Algorithm
from segue.core import Key, Learner, Metrics
from segue.replay.base import Replay
from segue.training.update import run_updates


def run_updates_together(
    learners: Sequence[Learner],
    replay: Replay,
    keys: Sequence[Key],
    progress: Float[jax.Array, ""],
    algorithm: Algorithm,
    *,
    blocks: int,
    train_policy: bool = True,
) -> list[tuple[Learner, Metrics]]:
    """`run_updates` for every seed, each with the key of its own; the given learners' buffers are reused."""
    given = (tuple(learners), replay, tuple(keys), progress, algorithm)
    return _run(*given, blocks=blocks, train_policy=train_policy)


@partial(jax.jit, static_argnames=("blocks", "train_policy"), donate_argnames=("learners",))
def _run(
    learners: tuple[Learner, ...],
    replay: Replay,
    keys: tuple[Key, ...],
    progress: Float[jax.Array, ""],
    algorithm: Algorithm,
    *,
    blocks: int,
    train_policy: bool,
) -> list[tuple[Learner, Metrics]]:
    """Stacked and taken apart in the program, which is one dispatch instead of one for every leaf of every seed."""

    def one(learner: Learner, key: Key) -> tuple[Learner, Metrics]:
        return run_updates(learner, replay, key, progress, algorithm, blocks=blocks, train_policy=train_policy)

    after = jax.vmap(one)(jax.tree.map(lambda *leaves: jnp.stack(leaves), *learners), jnp.stack(keys))
    return [jax.tree.map(lambda leaf, i=i: leaf[i], after) for i in range(len(learners))]
