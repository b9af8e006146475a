"""An algorithm of your own: TD3+BC that clones more where its two critics disagree."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

import segue
from segue.algorithms import TD3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Careful(TD3):
    """TD3 whose cloning term grows with the disagreement of the critics about the policy's action."""

    name: ClassVar[str] = "careful"

    alpha: float = 2.5
    """Weight of Q against cloning, as in TD3+BC."""
    disagreement_weight: float = 1.0
    """How much the cloning weight grows where the critics disagree as much as they usually do."""

    def actor_loss(self, actor: Any, nets: Any, batch: Any, key: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(1 + η d / mean d) (π(s) − a)² − λ Q_1(s, π(s)), d the standard deviation of the critics."""
        action = actor.mode(batch.observation)
        values = nets.critic(batch.observation, action)  # [critics, batch]
        apart = jax.lax.stop_gradient(values.std(0))
        weight = 1 + self.disagreement_weight * apart / (apart.mean() + 1e-6)
        scale = self.alpha / jax.lax.stop_gradient(jnp.abs(values[0]).mean())
        clone = ((action - batch.action) ** 2).mean(-1)
        return weight * clone - scale * values[0], {"disagreement": apart}


segue.register(Careful)
