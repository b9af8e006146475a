"""A Gaussian around tanh of the network's mean, clipped to the action bounds: the published policy of IQL and AWAC."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Float

from segue import rng
from segue.core import Array, Key
from segue.networks.distributions import ClippedGaussian
from segue.networks.functions import LOG_STD_MAX, LOG_STD_MIN
from segue.networks.mlp import MLP


class GaussianActor(eqx.Module):
    """N(tanh(mean(s)), σ²) with one learnt σ per action dimension; what it draws is clipped to [-1, 1]^A.

    The policy of the IQL authors' code. Logged actions at a bound have a bounded weight in its likelihood, where a
    squashed Gaussian's mean runs after them.
    """

    mlp: MLP
    raw_log_std: Float[Array, " action"]
    bounds: tuple[float, float] = eqx.field(static=True)
    """Range of log σ."""
    smooth: bool = eqx.field(static=True)
    """Whether log σ is squashed into its range by a sigmoid (AWAC's code) instead of being clipped (IQL's)."""

    @property
    def log_std(self) -> Float[Array, " action"]:
        """log σ of every dimension."""
        low, high = self.bounds
        raw = self.raw_log_std
        if self.smooth:
            return low + (high - low) / (1 + raw.__array_namespace__().exp(-raw))
        return raw.clip(low, high)

    def mode(self, observation: Float[Array, "*batch observation"]) -> Float[Array, "*batch action"]:
        """The mean, tanh of the network's output."""
        mean = self.mlp(observation)
        return mean.__array_namespace__().tanh(mean)

    def sample(
        self, observation: Float[Array, "*batch observation"], noise: Float[Array, "*draws action"]
    ) -> Float[Array, "*draws action"]:
        """clip(mean + σ · noise); `noise` is standard normal and may carry extra leading axes."""
        mean = self.mode(observation)
        return (mean + mean.__array_namespace__().exp(self.log_std) * noise).clip(-1, 1)

    def distribution(self, observation: Float[Array, "*batch observation"]) -> ClippedGaussian:
        """What is executed: the Gaussian's draws clipped to the bounds."""
        mean = self.mode(observation)
        return ClippedGaussian(mean, mean.__array_namespace__().exp(self.log_std))

    def draw(
        self, observation: Float[Array, "*batch observation"], source: rng.Source
    ) -> Float[Array, "*batch action"]:
        """An action from the policy."""
        return self.distribution(observation).sample(source)

    def imitation_loss(
        self, observation: Float[Array, "batch observation"], action: Float[Array, "batch action"], key: Key
    ) -> Float[Array, " batch"]:
        """(mode − a)² averaged over action dimensions."""
        return ((self.mode(observation) - action) ** 2).mean(-1)

    def log_prob(
        self, observation: Float[Array, "*batch observation"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "*batch"]:
        """log density of given actions before clipping, which is what the likelihood of IQL and AWAC is made of."""
        z = (action - self.mode(observation)) * jnp.exp(-self.log_std)
        return (-0.5 * z**2 - self.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def kl(self, other: GaussianActor, observation: Float[Array, "*batch observation"]) -> Float[Array, "*batch"]:
        """KL(π ‖ other) at each state, before clipping."""
        variance_ratio = jnp.exp(2 * (self.log_std - other.log_std))
        shift = ((self.mode(observation) - other.mode(observation)) * jnp.exp(-other.log_std)) ** 2
        return 0.5 * (variance_ratio + shift - 1 - 2 * (self.log_std - other.log_std)).sum(-1)

    @classmethod
    def init(
        cls,
        key: Key,
        observation_size: int,
        action_size: int,
        hidden: tuple[int, ...],
        *,
        bounds: tuple[float, float] = (LOG_STD_MIN, LOG_STD_MAX),
        smooth: bool = False,
        **options: Any,
    ) -> GaussianActor:
        """A fresh actor whose first actions are near the centre; σ is 1, or in the middle of a smooth range."""
        mlp = MLP.init(key, observation_size, hidden, action_size, head_scale=0.01, **options)
        return cls(mlp, jnp.zeros(action_size), bounds, smooth)
