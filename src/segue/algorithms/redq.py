"""Randomised ensembled double Q-learning, REDQ (Chen et al. 2021, arXiv 2101.05982)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue import random
from segue.algorithms.base import Aux
from segue.algorithms.sac import SAC
from segue.types import Key, Nets, Transition


@dataclasses.dataclass(frozen=True, kw_only=True)
class REDQ(SAC):
    """SAC with ten critics, the minimum of two random ones in the target, and many critic updates per step."""

    name: ClassVar[str] = "redq"

    ensemble_size: int = 10
    """N, number of Q functions."""
    critic_learning_rate: float = 3e-4
    """Adam step size of the critic."""
    subset_size: int = 2
    """M, critics drawn without replacement for the minimum in each target."""
    critic_updates_per_actor_update: int = 20
    """Critic updates between two actor updates; run it with updates_per_step = 20."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("subset_size", 1 <= self.subset_size <= self.ensemble_size, "between 1 and ensemble_size")

    def next_value(self, nets: Nets, batch: Transition, key: Key) -> Float[jax.Array, " batch"]:
        """min_{i∈M} Q̄_i(s′, a′) − α log π(a′|s′), M a random subset (alg. 1)."""
        action_key, subset_key = jax.random.split(key)
        noise = random.normal(action_key, batch.action.shape)
        action, log_prob = nets.actor.sample_with_log_prob(batch.next_observation, noise)
        members = jax.random.choice(subset_key, self.ensemble_size, (self.subset_size,), replace=False)
        value = nets.target_critic.subset(members)(batch.next_observation, action).min(0)
        return value - jnp.exp(nets.temperature) * log_prob if self.backup_entropy else value

    def actor_loss(self, actor: Any, nets: Nets, batch: Transition, key: Key) -> tuple[Float[jax.Array, " batch"], Aux]:
        """α log π(ã|s) − mean_i Q_i(s, ã), ã ~ π(s) reparameterised."""
        action, log_prob = actor.sample_with_log_prob(batch.observation, random.normal(key, batch.action.shape))
        q = nets.critic(batch.observation, action).mean(0)
        alpha = jnp.exp(jax.lax.stop_gradient(nets.temperature))
        return alpha * log_prob - q, {"log_prob": log_prob, "q_policy": q}
