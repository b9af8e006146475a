"""Ensembles of Q functions with a leading member axis."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from segue.networks.mlp import MLP
from segue.types import Array, Key


class Critic(eqx.Module):
    """Q_i(s, a) for i = 1…N: every leaf of `members` has a leading axis of length N."""

    members: MLP

    @property
    def size(self) -> int:
        """N, the number of members."""
        return self.members.layers[0].weight.shape[0]

    def __call__(
        self, observation: Float[Array, "*batch observation"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "members *batch"]:
        """Q values of every member, member axis first."""
        xp = observation.__array_namespace__()
        x = xp.concatenate([observation, action], axis=-1)
        batch = x.shape[:-1]
        # One copy of the input per member: XLA's CPU backend is slower when it must broadcast one side of a matmul.
        x = xp.broadcast_to(x.reshape(-1, x.shape[-1]), (self.size, math.prod(batch), x.shape[-1]))
        return self.members(x).reshape(self.size, *batch)

    def each(
        self, observation: Float[Array, "members batch observation"], action: Float[Array, "members batch action"]
    ) -> Float[Array, "members batch"]:
        """Q_i(s_i, a_i): every member at inputs of its own."""
        xp = observation.__array_namespace__()
        return self.members(xp.concatenate([observation, action], axis=-1))[..., 0]

    def subset(self, members: Int[Array, " subset"]) -> Critic:
        """The ensemble of these members."""
        return Critic(jax.tree.map(lambda leaf: leaf[members], self.members))

    def first(
        self, observation: Float[Array, "*batch observation"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "*batch"]:
        """Q_1(s, a), without computing the other members."""
        return Critic(jax.tree.map(lambda leaf: leaf[:1], self.members))(observation, action)[0]

    @classmethod
    def init(
        cls,
        key: Key,
        size: int,
        observation_size: int,
        action_size: int,
        hidden: tuple[int, ...],
        **options: bool | str,
    ) -> Critic:
        """`size` members, each initialised from its own key."""
        members = [
            MLP.init(k, observation_size + action_size, hidden, 1, **options)  # type: ignore[arg-type]
            for k in jax.random.split(key, size)
        ]

        # Vectors (biases, LayerNorm) get a batch axis of one, so that they broadcast against [members, batch, width].
        def stack(*leaves: jax.Array) -> jax.Array:
            stacked = jnp.stack(leaves)
            return stacked[:, None] if stacked.ndim == 2 else stacked

        return cls(jax.tree.map(stack, *members))
