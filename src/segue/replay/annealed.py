"""Annealed: the share of the dataset in each batch falls over the online phase."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from segue.core import Key
from segue.replay.base import Replay, ReplayStrategy, draw_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annealed(ReplayStrategy):
    """A share of each batch from the dataset that moves linearly from `start` to `end`."""

    name: ClassVar[str] = "annealed"
    mixtures: ClassVar[bool] = True

    start: float = 0.5
    """Share of the dataset when the online phase starts."""
    end: float = 0.0
    """Share of the dataset when the annealing is over."""
    until: float = 0.5
    """Share of the online phase after which the fraction stays at `end`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, low in (("start", 0.0), ("end", 0.0), ("until", 1e-6)):
            self.require(field, low <= getattr(self, field) <= 1, f"between {low:g} and 1")

    def rows(
        self, state: Any, key: Key, batch_size: int, replay: Replay, progress: Float[jax.Array, ""]
    ) -> Int[jax.Array, " batch"]:
        """round(fraction · batch) rows of the dataset, then rows of the ring."""
        fraction = self.start + (self.end - self.start) * jnp.minimum(progress / self.until, 1.0)
        return draw_rows(key, batch_size, replay, fraction)
