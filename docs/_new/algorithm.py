"""NewPart (Author et al. YEAR, arXiv NUMBER): one sentence on the idea."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue.algorithms.base import Aux
from segue.algorithms.td3 import TD3
from segue.core import Key, Nets, Transition


@dataclasses.dataclass(frozen=True, kw_only=True)
class NewPart(TD3):
    """What it does, in one sentence; here TD3 with a cloning term."""

    name: ClassVar[str] = "new-part"
    conservatism: ClassVar[tuple[str, ...]] = ("cloning_weight",)

    cloning_weight: float = 1.0
    """Weight of (π(s) − a)². This sentence becomes the help of the flag."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("cloning_weight", self.cloning_weight >= 0, "at least 0")

    def actor_loss(self, actor: Any, nets: Nets, batch: Transition, key: Key) -> tuple[Float[jax.Array, " batch"], Aux]:
        """w ‖π(s) − a‖² − Q_1(s, π(s)) / E|Q_1(s, π(s))| (name the equation of the paper)."""
        action = actor.mode(batch.observation)
        q = nets.critic.first(batch.observation, action)
        cloning = ((action - batch.action) ** 2).mean(-1)
        return self.cloning_weight * cloning - q / jax.lax.stop_gradient(jnp.abs(q).mean()), {"q_policy": q}
