"""Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905) with a learnt temperature."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from segue import rng
from segue.algorithms.base import ActorCritic, AnyStep, Aux, Step
from segue.core import Key, Nets, Spaces, Transition
from segue.describe import Panel


@dataclasses.dataclass(frozen=True, kw_only=True)
class SAC(ActorCritic):
    """Maximum-entropy off-policy actor-critic."""

    name: ClassVar[str] = "sac"

    critic_learning_rate: float = 1e-3
    """Adam step size of the critic (CleanRL's; the paper uses 3e-4)."""
    temperature_learning_rate: float = 3e-4
    """Adam step size of log α; 0 holds α."""
    initial_temperature: float = 1.0
    """α at the start of training."""
    target_entropy_scale: float = 1.0
    """The target entropy is −scale · |A|."""
    backup_entropy: bool = True
    """Whether the Bellman target contains −α log π(a′|s′)."""
    subset_size: int | None = None
    """M, critics drawn without replacement for the minimum in each target (REDQ); all of them if not given."""
    actor_value: Literal["min", "mean"] = "min"
    """What the policy's loss takes of the ensemble: its minimum, or its mean (REDQ)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("temperature_learning_rate", self.temperature_learning_rate >= 0, "at least 0")
        self.require("initial_temperature", self.initial_temperature > 0, "above 0")
        subset = self.ensemble_size if self.subset_size is None else self.subset_size
        self.require("subset_size", 1 <= subset <= self.ensemble_size, "between 1 and ensemble_size")

    def panels(self) -> tuple[Panel, ...]:
        """The temperature."""
        return (*super().panels(), Panel("temperature", "Entropy temperature"))

    def caveats(self) -> tuple[str, ...]:
        """The entropy bonus."""
        bonus = "the critic's estimate contains an entropy bonus that the return does not"
        return (*super().caveats(), bonus) if self.backup_entropy else super().caveats()

    def init(self, key: Key, spaces: Spaces) -> Nets:
        """Actor, critic with target, and log α."""
        # The dtype is spelt out: a weakly typed scalar would have every phase compile twice.
        temperature = jnp.asarray(math.log(self.initial_temperature), jnp.float32)
        return super().init(key, spaces).replace(temperature=temperature)

    def steps(self) -> tuple[AnyStep, ...]:
        """Critic, its target, policy, α."""
        adam, every = optax.adam(self.temperature_learning_rate), self.critic_updates_per_actor_update
        return *super().steps(), Step("temperature", self.temperature_loss, adam, every)

    def next_value(self, nets: Nets, batch: Transition, key: Key) -> Float[jax.Array, " batch"]:
        """min_{i∈M} Q̄_i(s′, a′) − α log π(a′|s′), a′ ~ π(s′) (eq. 3); M all critics or a random subset."""
        target_critic = self.drawn_critics(nets.target_critic, rng.named(key, "critics"))
        noise = rng.normal(rng.named(key, "action"), batch.action.shape)
        action, log_prob = nets.actor.sample_with_log_prob(batch.next_observation, noise)
        value = target_critic(batch.next_observation, action).min(0)
        return value - jnp.exp(nets.temperature) * log_prob if self.backup_entropy else value

    def drawn_critics(self, critic: Any, key: Key) -> Any:
        """The critics that a target is made of (REDQ, alg. 1)."""
        if self.subset_size is None:
            return critic
        return critic.subset(jax.random.choice(key, self.ensemble_size, (self.subset_size,), replace=False))

    def value_for_actor(self, q: Float[jax.Array, "members *batch"]) -> Float[jax.Array, "*batch"]:
        """The minimum of the ensemble, or its mean."""
        return q.min(0) if self.actor_value == "min" else q.mean(0)

    def actor_loss(self, actor: Any, nets: Nets, batch: Transition, key: Key) -> tuple[Float[jax.Array, " batch"], Aux]:
        """α log π(ã|s) − min_i Q_i(s, ã), ã ~ π(s) reparameterised (eq. 7); or with the mean over i."""
        action, log_prob = actor.sample_with_log_prob(batch.observation, rng.normal(key, batch.action.shape))
        q = self.value_for_actor(nets.critic(batch.observation, action))
        alpha = jnp.exp(jax.lax.stop_gradient(nets.temperature))
        return alpha * log_prob - q, {"log_prob": log_prob, "q_policy": q}

    def target_entropy(self, nets: Nets, batch: Transition) -> float | jax.Array:
        """H̄ = −scale · |A|."""
        return -self.target_entropy_scale * batch.action.shape[-1]

    def temperature_loss(
        self, log_temperature: Float[jax.Array, ""], nets: Nets, batch: Transition, key: Key, aux: Aux
    ) -> tuple[Float[jax.Array, ""], Aux]:
        """α · E[−log π(a|s) − H̄] (eq. 18)."""
        excess = jax.lax.stop_gradient(-aux["log_prob"] - self.target_entropy(nets, batch))
        temperature = jnp.exp(log_temperature)
        return temperature * excess.mean(), {"temperature": temperature}
