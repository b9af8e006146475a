"""The conditional variational auto-encoder of actions, as in BCQ (Fujimoto et al. 2019, arXiv 1812.02900)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue.networks.mlp import MLP
from segue.types import Array, Key

LOG_STD_MIN, LOG_STD_MAX = -4.0, 15.0
#: Latent codes are drawn from N(0, 1) clipped to this, so that decoded actions stay near the log's.
LATENT_CLIP = 0.5


class VAE(eqx.Module):
    """q(z|s, a) and p(a|s, z) of the log's actions; z has two dimensions per action dimension."""

    encoder: MLP
    decoder: MLP

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
        noise: Float[Array, "batch latent"],
    ) -> tuple[Float[jax.Array, " batch"], Float[jax.Array, " batch"]]:
        """Squared reconstruction error (mean over action dimensions) and KL(q ‖ N(0, 1)) (mean over latent ones)."""
        mean, log_std = self.encode(observation, action)
        decoded = self.decode(observation, mean + jnp.exp(log_std) * noise)
        kl = -0.5 * (1 + 2 * log_std - mean**2 - jnp.exp(2 * log_std)).mean(-1)
        return jnp.mean((decoded - action) ** 2, -1), jnp.asarray(kl)

    @classmethod
    def init(
        cls, key: Key, observation_size: int, action_size: int, hidden: tuple[int, ...], **options: bool | str
    ) -> VAE:
        """A fresh encoder and decoder."""
        encoder_key, decoder_key = jax.random.split(key)
        latent = 2 * action_size
        return cls(
            MLP.init(encoder_key, observation_size + action_size, hidden, 2 * latent, **options),  # type: ignore[arg-type]
            MLP.init(decoder_key, observation_size + latent, hidden, action_size, **options),  # type: ignore[arg-type]
        )
