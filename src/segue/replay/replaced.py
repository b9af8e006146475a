"""Replaced: the dataset is taken out of the pool, bit by bit or at once, while live data comes in."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from segue.core import Key, Spaces
from segue.replay.base import MovingShare, Replay


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replaced(MovingShare):
    """Uniform over what is left of the dataset and the live transitions together.

    The part of the dataset that is left falls linearly from `start` to `end`; equal ones keep that fraction for good.
    """

    name: ClassVar[str] = "replaced"

    start: float = 1.0
    """Share of the dataset in the pool when the online phase starts."""

    def init(self, replay: Replay, spaces: Spaces, key: Key) -> Int[jax.Array, " log"]:
        """The rows of the dataset in a random order; the last ones leave first."""
        return jax.random.permutation(key, replay.offline_size)

    def rows(
        self, state: Int[jax.Array, " log"], key: Key, batch_size: int, replay: Replay, progress: Float[jax.Array, ""]
    ) -> Int[jax.Array, " batch"]:
        """Uniform over the rows of the dataset that are left, and the ring."""
        left = jnp.round(self.share(progress) * replay.offline_size).astype(jnp.int32)
        left = jnp.where(replay.online_size > 0, left, jnp.maximum(left, 1))
        drawn = jax.random.randint(key, (batch_size,), 0, left + replay.online_size)
        return jnp.where(drawn < left, state[drawn], replay.offline_size + drawn - left)
