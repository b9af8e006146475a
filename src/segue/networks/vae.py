"""Conditional variational auto-encoders over (s, a): BCQ's model of actions (Fujimoto et al. 2019, arXiv 1812.02900),
and the same with the next state as what is reconstructed.
"""

from __future__ import annotations

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue import rng
from segue.core import Array, Key
from segue.networks.mlp import MLP

Target = Literal["action", "next_observation"]
LOG_STD_MIN, LOG_STD_MAX = -4.0, 15.0
#: Latent codes are drawn from N(0, 1) clipped to this, so that decoded actions stay near the dataset's.
LATENT_CLIP = 0.5


class VAE(eqx.Module):
    """q(z|s, a), and p(a|s, z) or p(s′|s, a, z); z has two dimensions per action dimension."""

    encoder: MLP
    decoder: MLP
    target: Target = eqx.field(static=True)

    @property
    def latent_size(self) -> int:
        """L, the length of z."""
        return self.encoder.layers[-1].weight.shape[-1] // 2

    def encode(
        self, observation: Float[Array, "*batch observation"], action: Float[Array, "*batch action"]
    ) -> tuple[Float[Array, "*batch latent"], Float[Array, "*batch latent"]]:
        """Mean and log standard deviation of q(z|s, a)."""
        xp = observation.__array_namespace__()
        out = self.encoder(xp.concatenate([observation, action], axis=-1))
        mean, log_std = out[..., : self.latent_size], out[..., self.latent_size :]
        return mean, log_std.clip(LOG_STD_MIN, LOG_STD_MAX)

    def decode(
        self, observation: Float[Array, "*batch observation"], latent: Float[Array, "*batch latent"]
    ) -> Float[Array, "*batch action"]:
        """An action in [-1, 1] for a latent code."""
        xp = observation.__array_namespace__()
        return xp.tanh(self.decoder(xp.concatenate([observation, latent], axis=-1)))

    def loss(
        self,
        observation: Float[Array, "batch observation"],
        action: Float[Array, "batch action"],
        next_observation: Float[Array, "batch observation"],
        noise: Float[Array, "batch latent"],
    ) -> tuple[Float[jax.Array, " batch"], Float[jax.Array, " batch"]]:
        """Squared reconstruction error and KL(q ‖ N(0, 1)), each a mean over its dimensions."""
        mean, log_std = self.encode(observation, action)
        latent = mean + jnp.exp(log_std) * noise
        kl = -0.5 * (1 + 2 * log_std - mean**2 - jnp.exp(2 * log_std)).mean(-1)
        if self.target == "action":
            error = self.decode(observation, latent) - action
        else:
            error = self.decoder(jnp.concatenate([observation, action, latent], axis=-1)) - next_observation
        return jnp.mean(error**2, -1), jnp.asarray(kl)

    @classmethod
    def init(
        cls,
        key: Key,
        observation_size: int,
        action_size: int,
        hidden: tuple[int, ...],
        target: Target = "action",
        **options: Any,
    ) -> VAE:
        """A fresh encoder and decoder."""
        both, latent = observation_size + action_size, 2 * action_size
        if target == "action":
            inputs, outputs = observation_size + latent, action_size
        else:
            inputs, outputs = both + latent, observation_size
        encoder = MLP.init(rng.named(key, "encoder"), both, hidden, 2 * latent, **options)
        decoder = MLP.init(rng.named(key, "decoder"), inputs, hidden, outputs, **options)
        return cls(encoder, decoder, target)
