"""Ensembles of Q functions with a leading member axis."""

from __future__ import annotations

import math
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from segue import rng
from segue.core import Array, Key
from segue.networks.categorical import pick
from segue.networks.encoder import FEATURES, Encoder
from segue.networks.mlp import MLP


class Ensemble(eqx.Module):
    """N networks of one shape: every leaf of `members` has a leading axis of length N."""

    members: MLP
    encoder: Encoder | None = None
    """Of images: one for all members."""

    @property
    def size(self) -> int:
        """N, the number of members."""
        return self.members.layers[0].weight.shape[0]

    def subset(self, members: Int[Array, " subset"]) -> Self:
        """The ensemble of these members."""
        return type(self)(jax.tree.map(lambda leaf: leaf[members], self.members), self.encoder)

    def encoded(self, observation: Float[Array, "*batch observation"]) -> Float[Array, "*batch features"]:
        """The features of images; other observations as they are."""
        return observation if self.encoder is None else self.encoder(observation)

    def outputs(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "members *batch outputs"]:
        """What every member makes of the same input, member axis first."""
        # A copy of the input per member, not a broadcast: XLA's CPU backend is slower when it must broadcast one side
        # of a product, and slower yet at the gradient of that, a sum over the members.
        copies = x.__array_namespace__().stack([x.reshape(-1, x.shape[-1])] * self.size)
        out = self.members(copies)
        return out.reshape(self.size, *x.shape[:-1], out.shape[-1])

    @classmethod
    def stack(
        cls,
        key: Key,
        size: int,
        inputs: int,
        hidden: tuple[int, ...],
        outputs: int,
        image: tuple[int, ...] | None = None,
        **options: Any,
    ) -> Self:
        """`size` members, each initialised from its own key; `image` as in `MLP.init`."""
        encoder = None if image is None else Encoder.init(rng.named(key, "encoder"), image)
        if image is not None:
            inputs += FEATURES - math.prod(image)
        keys = [rng.named(key, "member", i) for i in range(size)]
        members = [MLP.init(k, inputs, hidden, outputs, **options) for k in keys]

        # Vectors (biases, LayerNorm) get a batch axis of one, so that they broadcast against [members, batch, width].
        def stacked(*leaves: jax.Array) -> jax.Array:
            together = jnp.stack(leaves)
            return together[:, None] if together.ndim == 2 else together

        return cls(jax.tree.map(stacked, *members), encoder)


class Critic(Ensemble):
    """Q_i(s, a) of continuous actions for i = 1…N."""

    def __call__(
        self, observation: Float[Array, "*states observation"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "members *batch"]:
        """Q values of every member, member axis first; one observation may have many actions, in leading axes."""
        return self.outputs(self._together(observation, action))[..., 0]

    def each(
        self, observation: Float[Array, "*states observation"], action: Float[Array, "members batch action"]
    ) -> Float[Array, "members batch"]:
        """Q_i(s_i, a_i): every member at actions of its own, and at states of its own if these have as many axes."""
        return self.members(self._together(observation, action))[..., 0]

    def first(
        self, observation: Float[Array, "*states observation"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "*batch"]:
        """Q_1(s, a), without computing the other members."""
        return Critic(jax.tree.map(lambda leaf: leaf[:1], self.members), self.encoder)(observation, action)[0]

    def _together(
        self, observation: Float[Array, "*states observation"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "*batch inputs"]:
        xp, seen = observation.__array_namespace__(), self.encoded(observation)
        if seen.ndim < action.ndim:  # each image is encoded once
            seen = xp.broadcast_to(seen, (*action.shape[:-1], seen.shape[-1]))
        return xp.concatenate([seen, action], axis=-1)

    @classmethod
    def init(
        cls,
        key: Key,
        size: int,
        observation_size: int,
        action_size: int,
        hidden: tuple[int, ...],
        **options: Any,
    ) -> Critic:
        """`size` members, each initialised from its own key."""
        return cls.stack(key, size, observation_size + action_size, hidden, 1, **options)


class DiscreteCritic(Ensemble):
    """Q_i(s, a) of actions 0…n−1: each member has an output per action."""

    def all(self, observation: Float[Array, "*batch observation"]) -> Float[Array, "members *batch actions"]:
        """Q values of every action."""
        return self.outputs(self.encoded(observation))

    def __call__(
        self, observation: Float[Array, "*batch observation"], action: Int[Array, "*batch"]
    ) -> Float[Array, "members *batch"]:
        """Q values of the given actions."""
        values = self.all(observation)
        return pick(values, action.__array_namespace__().broadcast_to(action, values.shape[:-1]))

    @classmethod
    def init(
        cls, key: Key, size: int, observation_size: int, actions: int, hidden: tuple[int, ...], **options: Any
    ) -> DiscreteCritic:
        """`size` members, each initialised from its own key."""
        return cls.stack(key, size, observation_size, hidden, actions, **options)
