"""NewPart: one sentence on what acts at the handover, and its source."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue.bridges.base import Bridge
from segue.algorithms.base import Aux
from segue.core import Key, Nets, Transition


@dataclasses.dataclass(frozen=True, kw_only=True)
class NewPart(Bridge):
    """What it does, in one sentence; here the policy learns from the better half of each batch."""

    name: ClassVar[str] = "new-part"
    needs: ClassVar[tuple[str, ...]] = ("actor", "critic")

    low_weight: float = 0.0
    """Weight of the other half. This sentence becomes the help of the flag."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("low_weight", 0 <= self.low_weight <= 1, "between 0 and 1")

    def actor_weight(
        self, state: tuple[()], nets: Nets, batch: Transition, key: Key
    ) -> tuple[Float[jax.Array, " batch"], Aux]:
        """1 where min_i Q_i(s, a) is at least the batch's median, and `low_weight` elsewhere."""
        q = nets.critic(batch.observation, batch.action).min(0)
        return jnp.where(q >= jnp.median(q), 1.0, self.low_weight), {}
