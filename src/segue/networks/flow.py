"""Flow-matching policies: a velocity field that carries noise to actions, and a network that makes the trip at once."""

from __future__ import annotations

from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue import rng
from segue.core import Array, Key
from segue.networks.mlp import MLP


class FlowPolicy(eqx.Module):
    """v(s, x, t): the velocity at time t of a point on its way from noise (t = 0) to an action (t = 1)."""

    mlp: MLP

    def velocity(
        self,
        observation: Float[Array, "*batch observation"],
        point: Float[Array, "*batch action"],
        time: Float[Array, "*batch 1"],
    ) -> Float[Array, "*batch action"]:
        """v(s, x, t)."""
        return self.mlp(observation.__array_namespace__().concatenate([observation, point, time], axis=-1))

    def matching_loss(
        self, observation: Float[Array, "batch observation"], action: Float[Array, "batch action"], key: Key
    ) -> Float[Array, "batch action"]:
        """(v(s, x_t, t) − (a − x_0))², x_t = (1 − t) x_0 + t a, x_0 ~ N(0, 1), t ~ U(0, 1) (Lipman et al. 2023)."""
        noise = rng.normal(rng.named(key, "noise"), action.shape)
        time = rng.uniform(rng.named(key, "time"), (*action.shape[:-1], 1), 0.0, 1.0)
        point = (1 - time) * noise + time * action
        return (self.velocity(observation, point, time) - (action - noise)) ** 2

    def generate(
        self, observation: Float[Array, "*batch observation"], noise: Float[Array, "*batch action"], steps: int
    ) -> Float[Array, "*batch action"]:
        """Where the flow carries the noise, by Euler's method; clipped to [-1, 1]."""
        xp, point = noise.__array_namespace__(), noise
        for i in range(steps):
            time = xp.full((*noise.shape[:-1], 1), i / steps, noise.dtype)
            point = point + self.velocity(observation, point, time) / steps
        return point.clip(-1, 1)

    @classmethod
    def init(cls, key: Key, observation_size: int, action_size: int, hidden: tuple[int, ...], **options: Any) -> Self:
        """A fresh field."""
        return cls(MLP.init(key, observation_size + action_size + 1, hidden, action_size, **options))


class OneStepActor(eqx.Module):
    """μ(s, z), z ~ N(0, 1): an action of any distribution in one pass."""

    mlp: MLP

    @property
    def action_size(self) -> int:
        """Length of z and of the action."""
        return self.mlp.layers[-1].weight.shape[-1]

    def __call__(
        self, observation: Float[Array, "*batch observation"], noise: Float[Array, "*batch action"]
    ) -> Float[Array, "*batch action"]:
        """μ(s, z), not clipped."""
        return self.mlp(observation.__array_namespace__().concatenate([observation, noise], axis=-1))

    def mode(self, observation: Float[Array, "*batch observation"]) -> Float[Array, "*batch action"]:
        """The action of z = 0."""
        xp = observation.__array_namespace__()
        return self(observation, xp.zeros((*observation.shape[:-1], self.action_size), observation.dtype)).clip(-1, 1)

    def draw(
        self, observation: Float[Array, "*batch observation"], source: rng.Source
    ) -> Float[Array, "*batch action"]:
        """An action from the policy."""
        return self(observation, rng.normal(source, (*observation.shape[:-1], self.action_size))).clip(-1, 1)

    def imitation_loss(
        self, observation: Float[Array, "batch observation"], action: Float[Array, "batch action"], key: Key
    ) -> Float[jax.Array, " batch"]:
        """(μ(s, z) − a)² averaged over action dimensions, for one z."""
        return jnp.square(self(observation, rng.normal(key, action.shape)) - action).mean(-1)

    @classmethod
    def init(cls, key: Key, observation_size: int, action_size: int, hidden: tuple[int, ...], **options: Any) -> Self:
        """A fresh policy whose first actions are near the centre."""
        return cls(MLP.init(key, observation_size + action_size, hidden, action_size, head_scale=0.01, **options))
