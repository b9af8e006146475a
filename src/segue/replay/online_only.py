"""Online only: the dataset is left behind at the handover."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from segue.core import Key
from segue.replay.base import Replay, ReplayStrategy


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnlineOnly(ReplayStrategy):
    """Uniform over the live transitions."""

    name: ClassVar[str] = "online-only"
    needs_dataset: ClassVar[bool] = False

    def rows(
        self, state: Any, key: Key, batch_size: int, replay: Replay, progress: Float[jax.Array, ""]
    ) -> Int[jax.Array, " batch"]:
        """Uniform over the ring."""
        return replay.offline_size + jax.random.randint(key, (batch_size,), 0, jnp.maximum(replay.online_size, 1))
