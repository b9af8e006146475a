"""Appended: one pool of the dataset and the live transitions, as CORL fine-tunes AWAC, IQL and CQL."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from segue import rng
from segue.core import Key
from segue.replay.base import Replay, ReplayStrategy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Appended(ReplayStrategy):
    """Uniform over the dataset and the live transitions together."""

    name: ClassVar[str] = "appended"
    mixtures: ClassVar[bool] = True

    def rows(
        self, state: Any, key: Key, batch_size: int, replay: Replay, progress: Float[jax.Array, ""]
    ) -> Int[jax.Array, " batch"]:
        """Uniform over both blocks."""
        rows = jax.random.randint(key, (batch_size,), 0, replay.offline_size + replay.online_size)
        if replay.shares is None:
            return rows
        return jnp.where(rows < replay.offline_size, replay.shares.draw(rng.named(key, "log"), batch_size), rows)
