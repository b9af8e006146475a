"""ReBRAC (Tarasov et al. 2023, arXiv 2305.09836): TD3+BC with the cloning term in the critic too."""

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
from segue.networks import NormPlace

#: (β1, β2) by task: CORL's configurations, which are the authors'.
_LOCOMOTION: dict[str, tuple[float, float]] = {
    "halfcheetah-random": (0.001, 0.1),
    "halfcheetah-medium": (0.001, 0.01),
    "halfcheetah-medium-replay": (0.01, 0.001),
    "halfcheetah-medium-expert": (0.01, 0.1),
    "halfcheetah-full-replay": (0.001, 0.1),
    "halfcheetah-expert": (0.01, 0.01),
    "hopper-random": (0.001, 0.01),
    "hopper-medium": (0.01, 0.01),
    "hopper-medium-replay": (0.05, 0.5),
    "hopper-medium-expert": (0.1, 0.01),
    "hopper-full-replay": (0.01, 0.01),
    "hopper-expert": (0.1, 0.1),
    "walker2d-random": (0.01, 0.0),
    "walker2d-medium": (0.05, 0.1),
    "walker2d-medium-replay": (0.05, 0.01),
    "walker2d-medium-expert": (0.01, 0.01),
    "walker2d-full-replay": (0.01, 0.01),
    "walker2d-expert": (0.01, 0.5),
}
_ANTMAZE: dict[str, tuple[float, float]] = {
    "antmaze-umaze": (0.003, 0.002),
    "antmaze-umaze-diverse": (0.003, 0.001),
    "antmaze-medium-play": (0.001, 0.0005),
    "antmaze-medium-diverse": (0.001, 0.0),
    "antmaze-large-play": (0.002, 0.001),
    "antmaze-large-diverse": (0.002, 0.002),
}
_ADROIT: dict[str, tuple[float, float]] = {
    "pen-human": (0.1, 0.5),
    "pen-cloned": (0.05, 0.5),
    "pen-expert": (0.01, 0.01),
    "door-human": (0.1, 0.1),
    "door-cloned": (0.01, 0.1),
    "door-expert": (0.05, 0.01),
    "hammer-human": (0.01, 0.5),
    "hammer-cloned": (0.1, 0.5),
    "hammer-expert": (0.01, 0.01),
    "relocate-human": (0.1, 0.01),
    "relocate-cloned": (0.1, 0.01),
    "relocate-expert": (0.05, 0.01),
}


def _presets() -> dict[str, dict[str, Any]]:
    antmaze = {
        "batch_size": 256,
        "actor_learning_rate": 3e-4,
        "critic_learning_rate": 5e-5,
        "discount": 0.999,
        "reward_scale": 100.0,
    }
    adroit = {"batch_size": 256, "actor_learning_rate": 3e-4, "critic_learning_rate": 3e-4}
    return {
        task: {**domain, "actor_bc_weight": actor, "critic_bc_weight": critic}
        for domain, tasks in (({}, _LOCOMOTION), (antmaze, _ANTMAZE), (adroit, _ADROIT))
        for task, (actor, critic) in tasks.items()
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReBRAC(TD3):
    """TD3 with LayerNorm critics, kept near the dataset in the policy's loss and in the Bellman target."""

    name: ClassVar[str] = "rebrac"
    conservatism: ClassVar[tuple[str, ...]] = ("actor_bc_weight", "critic_bc_weight")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = _presets()
    """CORL's configurations, by task."""
    columns: ClassVar[tuple[str, ...]] = ("next_action",)

    batch_size: int = 1024
    """Transitions per update (256: AntMaze and Adroit)."""
    hidden_sizes: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of every network."""
    critic_layer_norm: NormPlace = "after"
    """LayerNorm in the critic's hidden layers, before or after the activation."""
    actor_learning_rate: float = 1e-3
    """Adam step size of the actor (3e-4: AntMaze and Adroit)."""
    critic_learning_rate: float = 1e-3
    """Adam step size of the critic (5e-5: AntMaze; 3e-4: Adroit)."""
    actor_bc_weight: float = 0.01
    """β1, weight of ‖π(s) − a‖² in the policy's loss."""
    critic_bc_weight: float = 0.01
    """β2, weight of ‖π̄(s′) + ε − a′‖² in the Bellman target."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("actor_bc_weight", self.actor_bc_weight >= 0, "at least 0")
        self.require("critic_bc_weight", self.critic_bc_weight >= 0, "at least 0")

    def next_value(self, nets: Nets, batch: Transition, key: Key) -> Float[jax.Array, " batch"]:
        """min_i Q̄_i(s′, ã′) − β2 Σ_d (ã′ − a′)², ã′ smoothed; no penalty where a′ is not known (eq. 5)."""
        action = self.smoothed_target_action(nets, batch, key)
        known = ~jnp.isnan(batch.next_action)
        distance = jnp.where(known, action - jnp.where(known, batch.next_action, 0.0), 0.0)
        value = nets.target_critic(batch.next_observation, action).min(0)
        return value - self.critic_bc_weight * (distance**2).sum(-1)

    def actor_loss(self, actor: Any, nets: Nets, batch: Transition, key: Key) -> tuple[Float[jax.Array, " batch"], Aux]:
        """β1 Σ_d (π(s) − a)² − min_i Q_i(s, π(s)) / E|min_i Q_i(s, π(s))| (eq. 4)."""
        action = actor.mode(batch.observation)
        q = nets.critic(batch.observation, action).min(0)
        bc_loss = ((action - batch.action) ** 2).sum(-1)
        scale = 1 / jax.lax.stop_gradient(jnp.abs(q).mean())
        return self.actor_bc_weight * bc_loss - scale * q, {"q_policy": q, "bc_loss": bc_loss}
