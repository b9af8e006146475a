"""Several seeds in one program: their learners are one, with a leading axis of seeds, and the log is there once.

For an accelerator, which one small learner leaves idle. On a processor seeds are faster side by side in processes of
their own (segue.runner.executor): a batch of small matrix products is what XLA's CPU backend is slow at.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue.replay.base import Replay
from segue.training.update import run_updates
from segue.types import Key, Learner, Metrics


def together(learners: Sequence[Learner]) -> Learner:
    """The learners of several seeds as one."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *learners)


def alone(learners: Learner, seed: int) -> Learner:
    """The learner of one of them, by its place."""
    return jax.tree.map(lambda leaf: leaf[seed], learners)


def run_updates_together(
    learners: Learner, replay: Replay, keys: Key, progress: Float[jax.Array, ""], **options: Any
) -> tuple[Learner, Metrics]:
    """`run_updates` for every seed, each with the key of its own; metrics have the axis of seeds too."""
    return _run(learners, replay, keys, progress, options=tuple(sorted(options.items())))


@partial(jax.jit, static_argnames=("options",), donate_argnames=("learners",))
def _run(
    learners: Learner,
    replay: Replay,
    keys: Key,
    progress: Float[jax.Array, ""],
    *,
    options: tuple[tuple[str, Any], ...],
) -> tuple[Learner, Metrics]:
    def one(learner: Learner, key: Key) -> tuple[Learner, Metrics]:
        return run_updates(learner, replay, key, progress, **dict(options))

    return jax.vmap(one)(learners, keys)
