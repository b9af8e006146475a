"""TD3+BC (Fujimoto & Gu 2021, arXiv 2106.06860): TD3 kept near the dataset by a behaviour cloning term."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue.algorithms.base import Aux
from segue.algorithms.td3 import TD3
from segue.core import Key, Nets, Transition


@dataclasses.dataclass(frozen=True, kw_only=True)
class TD3BC(TD3):
    """TD3 whose policy loss adds (π(s) − a)², with Q scaled to a comparable size."""

    name: ClassVar[str] = "td3-bc"
    conservatism: ClassVar[tuple[str, ...]] = ("bc_weight",)
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"locomotion": {}, "antmaze": {"reward_shift": -1.0}}
    """The authors' code, and CORL's rewards on AntMaze."""

    bc_weight: float = 1.0
    """Weight of the cloning term; 1 is the paper's, and what `let-go` makes smaller online."""
    alpha: float = 2.5
    """Weight of Q against cloning: λ = α / mean |Q|."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("alpha", self.alpha >= 0, "at least 0")
        self.require("bc_weight", self.bc_weight >= 0, "at least 0")

    def actor_loss(self, actor: Any, nets: Nets, batch: Transition, key: Key) -> tuple[Float[jax.Array, " batch"], Aux]:
        """−λ Q_1(s, π(s)) + ‖π(s) − a‖² averaged over action dimensions (eq. 3–4)."""
        action = actor.mode(batch.observation)
        q = nets.critic.first(batch.observation, action)
        scale = self.alpha / jax.lax.stop_gradient(jnp.abs(q).mean())
        bc_loss = ((action - batch.action) ** 2).mean(-1)
        return self.bc_weight * bc_loss - scale * q, {"q_policy": q, "bc_loss": bc_loss}
