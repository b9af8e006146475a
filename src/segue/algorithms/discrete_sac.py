"""Soft actor-critic for discrete actions (Christodoulou 2019, arXiv 1910.07207)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue import rng
from segue.algorithms.base import Aux
from segue.algorithms.sac import SAC
from segue.core import Key, Nets, Transition


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscreteSAC(SAC):
    """SAC whose expectations over actions are sums, not samples."""

    name: ClassVar[str] = "discrete-sac"
    actions: ClassVar[tuple[str, ...]] = ("discrete",)

    critic_learning_rate: float = 3e-4
    """Adam step size of the critic."""
    target_entropy_scale: float = 0.5
    """The target entropy is scale · log |A|. The paper's 0.98 (CleanRL's 0.89) is for Atari's up to 18 actions; with a
    few actions it leaves the policy nearly uniform."""

    def next_value(self, nets: Nets, batch: Transition, key: Key) -> Float[jax.Array, " batch"]:
        """Σ_a π(a|s′) (min_{i∈M} Q̄_i(s′, a) − α log π(a|s′)) (eq. 10); M all critics or a random subset."""
        target_critic = self.drawn_critics(nets.target_critic, rng.named(key, "critics"))
        log_prob = nets.actor(batch.next_observation, batch.next_allowed)
        q = target_critic.all(batch.next_observation).min(0)
        if self.backup_entropy:
            q = q - jnp.exp(nets.temperature) * log_prob
        return (jnp.exp(log_prob) * q).sum(-1)

    def actor_loss(self, actor: Any, nets: Nets, batch: Transition, key: Key) -> tuple[Float[jax.Array, " batch"], Aux]:
        """Σ_a π(a|s) (α log π(a|s) − min_i Q_i(s, a)) (eq. 12), or with the mean over i."""
        log_prob = actor(batch.observation, batch.allowed)
        probability = jnp.exp(log_prob)
        q = self.value_for_actor(nets.critic.all(batch.observation))
        alpha = jnp.exp(jax.lax.stop_gradient(nets.temperature))
        aux = {"log_prob": (probability * log_prob).sum(-1), "q_policy": (probability * q).sum(-1)}
        return (probability * (alpha * log_prob - q)).sum(-1), aux

    def target_entropy(self, nets: Nets, batch: Transition) -> float | jax.Array:
        """H̄ = scale · log |A|, per state of the actions that are allowed there."""
        if batch.allowed is not None:
            return self.target_entropy_scale * jnp.log(jnp.asarray(batch.allowed).sum(-1))
        return self.target_entropy_scale * math.log(nets.actor.actions)
