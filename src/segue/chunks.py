"""Action chunks: policies that decide on several actions at once and play them one after the other (Li et al. 2025).

To learn, `chunk_batch` makes transitions of h steps out of single ones; to act, `play` remembers the rest of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from segue.acting import Acted, unknown
from segue.core import Array, Transition
from segue.replay.base import Replay

#: Steps that are left of each chunk, and its actions.
Carry = tuple[Int[Array, " batch"], Float[Array, "batch chunk action"]]


def chunk_batch(replay: Replay, rows: Int[Array, " batch"], first: Transition, length: int) -> Transition:
    """Transitions of `length` steps that begin with these rows, of which `first` are the transitions.

    The reward is the sum of the steps' rewards, each discounted by the steps before it; the discount is the product;
    the actions of a chunk lie side by side, [batch, length · action]. `valid` is 1 for the steps before the end of the
    episode or of what is stored, and what lies beyond counts for nothing.
    """
    assert first.following is not None, "the replay holds no sequences: Replay.create(…, chunks=True)"
    actions, reward, discount, last = [first.action], jnp.asarray(first.reward), first.discount, first
    valid = [jnp.ones_like(reward)]
    for _ in range(length - 1):
        assert last.following is not None
        after = replay.rows_of(last.following, rows)
        going = valid[-1] * (after >= 0) * (last.discount > 0)
        rows = jnp.where(going > 0, after, rows)
        step = replay.gather(rows)
        reward = reward + going * discount * step.reward
        discount = jnp.where(going > 0, discount * step.discount, discount)
        actions.append(jnp.where((going > 0)[:, None], step.action, 0.0))
        valid.append(going)
        last = step
    return first._replace(
        action=jnp.concatenate(actions, axis=-1),
        reward=reward,
        discount=discount,
        next_observation=last.next_observation,
        valid=jnp.stack(valid, axis=-1),
    )


def start(batch: int, length: int, size: int) -> Carry:
    """No chunk has begun."""
    return np.zeros(batch, np.int32), np.zeros((batch, length, size), np.float32)


def play(decide: Callable[[], Float[Array, "batch chunk_action"]], carry: Carry) -> Acted:
    """The next action of each chunk, of a new one where there is none left."""
    left, chunk = carry
    xp, length = chunk.__array_namespace__(), chunk.shape[1]
    over = left == 0
    # Decided at every step, so that an exported policy draws the same random numbers.
    chunk = xp.where(over[:, None, None], decide().reshape(chunk.shape), chunk)
    left = xp.where(over, np.int32(length), left)
    action = xp.take_along_axis(chunk, (length - left)[:, None, None], axis=1)[:, 0]
    return Acted(action, unknown(action, left.shape), (left - 1, chunk))
