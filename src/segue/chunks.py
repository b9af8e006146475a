"""Action chunks: policies that decide on several actions at once and play them one after the other (Li et al. 2025).

To learn, `sequence_batch` makes transitions of h steps out of single ones, as n-step targets need them too; to act,
`play` remembers the rest of a chunk.
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


def sequence_batch(
    replay: Replay, rows: Int[Array, " batch"], first: Transition, length: int, chunked: bool
) -> Transition:
    """Transitions of `length` steps that begin with these rows, of which `first` are the transitions.

    The reward (and the cost) is the sum of the steps', each discounted by the steps before it; the discount is the
    product. What lies beyond the end of the episode, or of what is stored, counts for nothing. `chunked`: the actions
    lie side by side, [batch, length · action], and `valid` is 1 for the steps that count. Otherwise the action is the
    first one's, as in an n-step target.
    """
    assert first.following is not None, "the replay holds no sequences: Replay.create(…, sequences=True)"
    actions, reward, discount, last = [first.action], jnp.asarray(first.reward), first.discount, first
    cost = first.cost
    valid = [jnp.ones_like(reward)]
    for _ in range(length - 1):
        assert last.following is not None
        after = replay.rows_of(last.following, rows)
        going = valid[-1] * (after >= 0) * (last.discount > 0)
        rows = jnp.where(going > 0, after, rows)
        step = replay.gather(rows)
        reward = reward + going * discount * step.reward
        cost = None if cost is None or step.cost is None else cost + going * discount * step.cost
        discount = jnp.where(going > 0, discount * step.discount, discount)
        if chunked:
            actions.append(jnp.where((going > 0)[:, None], step.action, 0.0))
        valid.append(going)
        last = step
    target = first._replace(
        reward=reward,
        cost=cost,
        discount=discount,
        next_observation=last.next_observation,
        next_action=last.next_action,
        next_allowed=last.next_allowed,
    )
    if not chunked:
        return target
    return target._replace(
        action=jnp.concatenate(actions, axis=-1),
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
