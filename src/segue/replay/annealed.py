"""Annealed: the share of the dataset in each batch falls over the online phase."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
from jaxtyping import Float, Int

from segue.core import Key
from segue.replay.base import MovingShare, Replay, draw_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annealed(MovingShare):
    """A share of each batch from the dataset that moves linearly from `start` to `end`."""

    name: ClassVar[str] = "annealed"
    mixtures: ClassVar[bool] = True

    def rows(
        self, state: Any, key: Key, batch_size: int, replay: Replay, progress: Float[jax.Array, ""]
    ) -> Int[jax.Array, " batch"]:
        """round(share · batch) rows of the dataset, then rows of the ring."""
        return draw_rows(key, batch_size, replay, self.share(progress))
