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
    updates_per_step: ClassVar[float] = 20.0

    ensemble_size: int = 10
    """N, number of Q functions."""
    critic_learning_rate: float = 3e-4
    """Adam step size of the critic."""
    subset_size: int | None = 2
    """M, critics drawn without replacement for the minimum in each target; all of them if not given."""
    critic_updates_per_actor_update: int = 20
    """Critic updates between two actor updates: one per environment step."""

    def actor_loss(self, actor: Any, nets: Nets, batch: Transition, key: Key) -> tuple[Float[jax.Array, " batch"], Aux]:
        """α log π(ã|s) − mean_i Q_i(s, ã), ã ~ π(s) reparameterised."""
        action, log_prob = actor.sample_with_log_prob(batch.observation, random.normal(key, batch.action.shape))
        q = nets.critic(batch.observation, action).mean(0)
        alpha = jnp.exp(jax.lax.stop_gradient(nets.temperature))
        return alpha * log_prob - q, {"log_prob": log_prob, "q_policy": q}
