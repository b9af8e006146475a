"""Q-filter: the policy learns only from samples whose action the critic rates highly enough."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue.algorithms.base import Aux
from segue.bridges.base import Bridge
from segue.types import Key, Nets, Transition


@dataclasses.dataclass(frozen=True, kw_only=True)
class QFilter(Bridge):
    """Weighs down samples with a low min_i Q_i(s, a) in the policy loss: loss = Σ w·ℓ / Σ w.

    The percentile form is the tutorial exercise's; Nair et al. 2018 (arXiv 1709.10089) introduced the idea with
    1[Q(s, a_demo) > Q(s, π(s))]. A raw Q percentile also favours good *states*, not only good actions.
    """

    name: ClassVar[str] = "q-filter"
    needs: ClassVar[tuple[str, ...]] = ("critic",)

    percentile: float = 25.0
    """Samples below this percentile of Q within the batch are filtered."""
    threshold: float | None = None
    """If set, samples with Q below this fixed value are filtered instead."""
    low_weight: float = 0.0
    """Weight of a filtered sample: 0 drops it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("percentile", 0 <= self.percentile <= 100, "between 0 and 100")
        self.require("low_weight", 0 <= self.low_weight <= 1, "between 0 and 1")

    def actor_weight(
        self, state: Any, nets: Nets, batch: Transition, key: Key
    ) -> tuple[Float[jax.Array, " batch"] | None, Aux]:
        """1 where min_i Q_i(s, a) ≥ the threshold, `low_weight` elsewhere; ties are kept."""
        q = nets.critic(batch.observation, batch.action).min(0)
        # One of the values itself: an interpolated percentile of equal values can round to just above them all.
        percentile = jnp.percentile(q, self.percentile, method="higher")
        kept = q >= (percentile if self.threshold is None else self.threshold)
        return jnp.where(kept, 1.0, self.low_weight), {"q_filter_kept": kept}
