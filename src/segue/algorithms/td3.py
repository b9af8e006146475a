"""Twin delayed DDPG, TD3 (Fujimoto et al. 2018, arXiv 1802.09477)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from segue import rng
from segue.algorithms.base import ActorCritic, AnyStep, Aux, Follow, copy_arrays
from segue.core import Array, Key, Nets, Spaces, Transition
from segue.networks import distributions


@dataclasses.dataclass(frozen=True, kw_only=True)
class TD3(ActorCritic):
    """Deterministic actor-critic with clipped double Q, target smoothing and delayed policy updates."""

    name: ClassVar[str] = "td3"
    has_density: ClassVar[bool] = False

    critic_updates_per_actor_update: int = 2
    """Policy delay d: critic updates per policy (and target) update."""
    target_noise: float = 0.2
    """Standard deviation of the noise on the target action."""
    target_noise_clip: float = 0.5
    """Largest size of that noise."""
    exploration_noise: float = 0.1
    """Standard deviation of the noise on actions while collecting data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("target_noise", "target_noise_clip", "exploration_noise"):
            self.require(field, getattr(self, field) >= 0, "at least 0")

    def init(self, key: Key, spaces: Spaces) -> Nets:
        """Actor and critic, each with its target."""
        nets = super().init(key, spaces)
        return nets.replace(target_actor=copy_arrays(nets.actor))

    def steps(self) -> tuple[AnyStep, ...]:
        """Critic; every d updates the policy and the targets (alg. 1)."""
        d = self.critic_updates_per_actor_update
        targets = (Follow(target, self.polyak, every=d) for target in ("target_actor", "target_critic"))
        return self.critic_step(), self.actor_step(), *targets

    def next_value(self, nets: Nets, batch: Transition, key: Key) -> Float[jax.Array, " batch"]:
        """min_i Q̄_i(s′, π̄(s′) + ε), ε clipped Gaussian (alg. 1)."""
        action = self.smoothed_target_action(nets, batch, key)
        return nets.target_critic(batch.next_observation, action).min(0)

    def smoothed_target_action(self, nets: Nets, batch: Transition, key: Key) -> Float[jax.Array, "batch action"]:
        """π̄(s′) + clip(N(0, σ), ±c), kept inside the action bounds."""
        noise = self.target_noise * rng.normal(key, batch.action.shape)
        noise = jnp.clip(noise, -self.target_noise_clip, self.target_noise_clip)
        return jnp.clip(nets.target_actor.mode(batch.next_observation) + noise, -1, 1)

    def actor_loss(self, actor: Any, nets: Nets, batch: Transition, key: Key) -> tuple[Float[jax.Array, " batch"], Aux]:
        """−Q_1(s, π(s)) (deterministic policy gradient)."""
        q = nets.critic.first(batch.observation, actor.mode(batch.observation))
        return -q, {"q_policy": q}

    def action_distribution(
        self, nets: Nets, observation: Float[Array, "*batch observation"], explore: bool
    ) -> distributions.Distribution:
        """π(s), with Gaussian noise when exploring."""
        action = nets.actor.mode(observation)
        if not explore or self.exploration_noise == 0:
            return distributions.Deterministic(action)
        return distributions.ClippedGaussian(action, np.asarray([self.exploration_noise], np.float32))
