"""Ensembles of Q functions with a leading member axis."""

from __future__ import annotations

from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from segue import rng
from segue.core import Array, Key
from segue.networks.categorical import pick
from segue.networks.mlp import MLP


class Ensemble(eqx.Module):
    """N networks of one shape: every leaf of `members` has a leading axis of length N."""

    members: MLP

    @property
    def size(self) -> int:
        """N, the number of members."""
        return self.members.layers[0].weight.shape[0]

    def subset(self, members: Int[Array, " subset"]) -> Self:
        """The ensemble of these members."""
        return type(self)(jax.tree.map(lambda leaf: leaf[members], self.members))

    def outputs(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "members *batch outputs"]:
        """What every member makes of the same input, member axis first."""
        # A copy of the input per member, not a broadcast: XLA's CPU backend is slower when it must broadcast one side
        # of a product, and slower yet at the gradient of that, a sum over the members.
        copies = x.__array_namespace__().stack([x.reshape(-1, x.shape[-1])] * self.size)
        out = self.members(copies)
        return out.reshape(self.size, *x.shape[:-1], out.shape[-1])

    @classmethod
    def stack(
        cls, key: Key, size: int, inputs: int, hidden: tuple[int, ...], outputs: int, **options: bool | str
    ) -> Self:
        """`size` members, each initialised from its own key."""
        keys = [rng.named(key, "member", i) for i in range(size)]
        members = [MLP.init(k, inputs, hidden, outputs, **options) for k in keys]  # type: ignore[arg-type]

        # Vectors (biases, LayerNorm) get a batch axis of one, so that they broadcast against [members, batch, width].
        def stacked(*leaves: jax.Array) -> jax.Array:
            together = jnp.stack(leaves)
            return together[:, None] if together.ndim == 2 else together

        return cls(jax.tree.map(stacked, *members))


class Critic(Ensemble):
    """Q_i(s, a) of continuous actions for i = 1…N."""

    def __call__(
        self, observation: Float[Array, "*batch observation"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "members *batch"]:
        """Q values of every member, member axis first."""
        return self.outputs(observation.__array_namespace__().concatenate([observation, action], axis=-1))[..., 0]

    def each(
        self, observation: Float[Array, "members batch observation"], action: Float[Array, "members batch action"]
    ) -> Float[Array, "members batch"]:
        """Q_i(s_i, a_i): every member at inputs of its own."""
        return self.members(observation.__array_namespace__().concatenate([observation, action], axis=-1))[..., 0]

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
        return cls.stack(key, size, observation_size + action_size, hidden, 1, **options)


class DiscreteCritic(Ensemble):
    """Q_i(s, a) of actions 0…n−1: each member has an output per action."""

    def all(self, observation: Float[Array, "*batch observation"]) -> Float[Array, "members *batch actions"]:
        """Q values of every action."""
        return self.outputs(observation)

    def __call__(
        self, observation: Float[Array, "*batch observation"], action: Int[Array, "*batch"]
    ) -> Float[Array, "members *batch"]:
        """Q values of the given actions."""
        values = self.all(observation)
        return pick(values, action.__array_namespace__().broadcast_to(action, values.shape[:-1]))

    @classmethod
    def init(
        cls, key: Key, size: int, observation_size: int, actions: int, hidden: tuple[int, ...], **options: bool | str
    ) -> DiscreteCritic:
        """`size` members, each initialised from its own key."""
        return cls.stack(key, size, observation_size, hidden, actions, **options)
