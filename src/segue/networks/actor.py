"""The usual continuous actor: an MLP with a mean and a log standard deviation per action dimension.

Squashed-Gaussian and deterministic algorithms share it (a deterministic one uses tanh of the mean), so any offline
algorithm can hand its policy to any online one.
"""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue import rng
from segue.core import Array, Key
from segue.networks.distributions import SquashedGaussian
from segue.networks.functions import squashed_log_std
from segue.networks.mlp import MLP


class Actor(eqx.Module):
    """State-dependent tanh-Gaussian policy π(a|s) on [-1, 1]^A."""

    mlp: MLP

    def __call__(
        self, observation: Float[Array, "*batch observation"]
    ) -> tuple[Float[Array, "*batch action"], Float[Array, "*batch action"]]:
        """Mean and log standard deviation before the tanh; the latter squashed smoothly into [-5, 2]."""
        out = self.mlp(observation)
        mean, raw = out[..., : out.shape[-1] // 2], out[..., out.shape[-1] // 2 :]
        return mean, squashed_log_std(raw)

    def mode(self, observation: Float[Array, "*batch observation"]) -> Float[Array, "*batch action"]:
        """The deterministic action, tanh of the mean."""
        mean, _ = self(observation)
        return mean.__array_namespace__().tanh(mean)

    def sample(
        self, observation: Float[Array, "*batch observation"], noise: Float[Array, "*draws action"]
    ) -> Float[Array, "*draws action"]:
        """tanh(mean + std · noise); `noise` is standard normal and may carry extra leading axes."""
        mean, log_std = self(observation)
        xp = mean.__array_namespace__()
        return xp.tanh(mean + xp.exp(log_std) * noise)

    def distribution(self, observation: Float[Array, "*batch observation"]) -> SquashedGaussian:
        """π(·|s)."""
        return SquashedGaussian(*self(observation))

    def draw(
        self, observation: Float[Array, "*batch observation"], source: rng.Source
    ) -> Float[Array, "*batch action"]:
        """An action from the policy."""
        return self.distribution(observation).sample(source)

    def sample_with_log_prob(
        self, observation: Float[Array, "*batch observation"], noise: Float[Array, "*draws action"]
    ) -> tuple[Float[Array, "*draws action"], Float[Array, "*draws"]]:
        """A reparameterised action and log π(a|s), with the exact tanh correction (Haarnoja et al. 2018, app. C)."""
        mean, log_std = self(observation)
        pre_tanh = mean + jnp.exp(log_std) * noise
        # log(1 - tanh(u)²) = 2 (log 2 - u - softplus(-2u)), which does not underflow
        correction = 2 * (math.log(2) - pre_tanh - jax.nn.softplus(-2 * pre_tanh))
        log_prob = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi) - correction
        return jnp.tanh(pre_tanh), log_prob.sum(-1)

    def imitation_loss(
        self, observation: Float[Array, "batch observation"], action: Float[Array, "batch action"], key: Key
    ) -> Float[Array, " batch"]:
        """(mode − a)² averaged over action dimensions."""
        return ((self.mode(observation) - action) ** 2).mean(-1)

    def log_prob(
        self, observation: Float[Array, "*batch observation"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "*batch"]:
        """log π(a|s) of given actions; values at the bounds are pulled inside by ACTION_MARGIN."""
        return self.distribution(observation).log_prob(action)

    def kl(self, other: Actor, observation: Float[Array, "*batch observation"]) -> Float[Array, "*batch"]:
        """KL(π ‖ other) at each state: that of the Gaussians, since tanh is a bijection."""
        (mean, log_std), (other_mean, other_log_std) = self(observation), other(observation)
        variance_ratio = jnp.exp(2 * (log_std - other_log_std))
        shift = ((mean - other_mean) * jnp.exp(-other_log_std)) ** 2
        return 0.5 * (variance_ratio + shift - 1 - 2 * (log_std - other_log_std)).sum(-1)

    @classmethod
    def init(cls, key: Key, observation_size: int, action_size: int, hidden: tuple[int, ...], **options: Any) -> Actor:
        """A fresh actor whose first actions are near the centre (output weights scaled by 0.01)."""
        return cls(MLP.init(key, observation_size, hidden, 2 * action_size, head_scale=0.01, **options))
