"""Action chunks: policies that decide on several actions at once and play them one after the other (Li et al. 2025).

To learn, `chunk_batch` makes transitions of h steps out of single ones; to act, `play` remembers the rest of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from segue.acting import Acted, unknown
from segue.replay.base import Replay
from segue.types import Array, Transition

#: Steps that are left of each chunk, and its actions.
Carry = tuple[Int[Array, " batch"], Float[Array, "batch chunk action"]]


def chunk_batch(replay: Replay, rows: Int[Array, " batch"], first: Transition, length: int) -> Transition:
    """Transitions of `length` steps that begin with these rows, of which `first` are the transitions.

    The reward is the sum of the steps' rewards, each discounted by the steps before it; the discount is the product;
    the actions of a chunk lie side by side, [batch, length · action]. `valid` is 1 for the steps before the end of the
    episode or of what is stored, and what lies beyond counts for nothing.
    """
    actions, reward, discount, following = [first.action], jnp.asarray(first.reward), first.discount, first
    valid = [jnp.ones_like(reward)]
    for _ in range(length - 1):
        rows = replay.following(rows)
        step = replay.gather(rows)
        # A row goes on where the one before it led; an episode's last row leads where no other begins.
        goes_on = (step.observation == following.next_observation).all(-1) & (following.discount > 0)
        going = valid[-1] * goes_on
        reward = reward + going * discount * step.reward
        discount = jnp.where(going > 0, discount * step.discount, discount)
        keep = (going > 0)[:, None]
        following = step._replace(
            next_observation=jnp.where(keep, step.next_observation, following.next_observation),
            discount=jnp.where(going > 0, step.discount, 0.0),
        )
        actions.append(jnp.where(keep, step.action, 0.0))
        valid.append(going)
    return first._replace(
        action=jnp.concatenate(actions, axis=-1),
        reward=reward,
        discount=discount,
        next_observation=following.next_observation,
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
    if xp is not np or over.any():
        chunk = xp.where(over[:, None, None], decide().reshape(chunk.shape), chunk)
        left = xp.where(over, np.int32(length), left)
    action = xp.take_along_axis(chunk, (length - left)[:, None, None], axis=1)[:, 0]
    return Acted(action, unknown(action, left.shape), (left - 1, chunk))
