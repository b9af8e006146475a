"""Advantage-weighted actor-critic, AWAC (Nair et al. 2020, arXiv 2006.09359)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue import random
from segue.algorithms.base import ActorCritic, Aux, gaussian_act
from segue.types import Array, Key, Nets, Transition


@dataclasses.dataclass(frozen=True, kw_only=True)
class AWAC(ActorCritic):
    """Imitates the replayed actions, each weighted by its exponentiated advantage."""

    name: ClassVar[str] = "awac"

    temperature: float = 1 / 3
    """λ of the weights exp(A / λ) (CORL: 1/3 on locomotion, 0.1 on AntMaze and Adroit)."""
    weighting: Literal["exponential", "softmax"] = "exponential"
    """`exponential`: min(exp(A/λ), limit), as CORL; `softmax`: softmax over the batch, as the authors' code."""
    weight_limit: float = 100.0
    """Largest weight of a sample (exponential form)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("temperature", self.temperature > 0, "above 0")
        self.require("weight_limit", self.weight_limit > 0, "above 0")

    def next_value(self, nets: Nets, batch: Transition, key: Key) -> Float[jax.Array, " batch"]:
        """min_i Q̄_i(s′, a′), a′ ~ π(s′)."""
        action = nets.actor.sample(batch.next_observation, random.normal(key, batch.action.shape))
        return nets.target_critic(batch.next_observation, action).min(0)

    def actor_loss(self, actor: Any, nets: Nets, batch: Transition, key: Key) -> tuple[Float[jax.Array, " batch"], Aux]:
        """−w log π(a|s), w from A = min_i Q_i(s, a) − min_i Q_i(s, ã), ã ~ π(s) (eq. 13)."""
        drawn = nets.actor.sample(batch.observation, random.normal(key, batch.action.shape))
        value = nets.critic(batch.observation, drawn).min(0)
        advantage = nets.critic(batch.observation, batch.action).min(0) - value
        scaled = advantage / self.temperature
        if self.weighting == "softmax":
            weight = jax.nn.softmax(scaled) * len(scaled)
        else:
            weight = jnp.minimum(jnp.exp(scaled), self.weight_limit)
        weight = jax.lax.stop_gradient(weight)
        loss = -weight * actor.log_prob(batch.observation, batch.action)
        return loss, {"advantage": advantage, "advantage_weight": weight}

    def act(
        self, nets: Nets, observation: Float[Array, "*batch observation"], source: random.Source, explore: bool
    ) -> Float[Array, "*batch action"]:
        """A draw of the policy when exploring, its mode otherwise."""
        return gaussian_act(nets, observation, source, explore)
