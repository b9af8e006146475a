"""Mixed: every batch holds a fixed share of the log (symmetric sampling at one half, as in RLPD and Cal-QL)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
from jaxtyping import Float, Int

from segue.core import Key
from segue.replay.base import Replay, ReplayStrategy, draw_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixed(ReplayStrategy):
    """A fixed share of each batch from the dataset, the rest from the live transitions."""

    name: ClassVar[str] = "mixed"
    mixtures: ClassVar[bool] = True

    offline_fraction: float = 0.5
    """Share of the batch that comes from the dataset."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("offline_fraction", 0 <= self.offline_fraction <= 1, "between 0 and 1")

    def rows(
        self, state: Any, key: Key, batch_size: int, replay: Replay, progress: Float[jax.Array, ""]
    ) -> Int[jax.Array, " batch"]:
        """round(offline_fraction · batch) rows of the dataset, then rows of the ring."""
        return draw_rows(key, batch_size, replay, self.offline_fraction)
