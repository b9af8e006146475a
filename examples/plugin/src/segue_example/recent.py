"""Recent: the newest live transitions only."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from segue.core import Key
from segue.replay.base import Replay, ReplayStrategy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recent(ReplayStrategy):
    """Uniform over the newest live transitions."""

    name: ClassVar[str] = "recent"
    needs_dataset: ClassVar[bool] = False

    newest: int = 5000
    """How many."""

    def rows(
        self, state: Any, key: Key, batch_size: int, replay: Replay, progress: Float[jax.Array, ""]
    ) -> Int[jax.Array, " batch"]:
        """The newest row is the one before the next to be written."""
        size = jnp.minimum(replay.online_size, self.newest)
        age = jax.random.randint(key, (batch_size,), 0, jnp.maximum(size, 1))
        return replay.offline_size + (replay.count - 1 - age) % replay.capacity
