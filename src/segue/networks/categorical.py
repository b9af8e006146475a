"""The one discrete actor: an MLP with a logit per action."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Bool, Float, Int

from segue import rng
from segue.core import Array, Key
from segue.networks.distributions import Categorical, best, pick, within
from segue.networks.functions import log_softmax
from segue.networks.mlp import MLP


class CategoricalActor(eqx.Module):
    """Policy π(a|s) over actions 0…n−1."""

    mlp: MLP

    @property
    def actions(self) -> int:
        """n."""
        return self.mlp.layers[-1].weight.shape[-1]

    def __call__(
        self, observation: Float[Array, "*batch observation"], allowed: Bool[Array, "*batch actions"] | None = None
    ) -> Float[Array, "*batch actions"]:
        """log π(·|s) of every action, among the allowed ones (FORBIDDEN or less of the others)."""
        return log_softmax(within(allowed, self.mlp(observation)))

    def probabilities(
        self, observation: Float[Array, "*batch observation"], allowed: Bool[Array, "*batch actions"] | None = None
    ) -> Float[Array, "*batch actions"]:
        """π(·|s) of every action, among the allowed ones."""
        log_prob = self(observation, allowed)
        return log_prob.__array_namespace__().exp(log_prob)

    def mode(self, observation: Float[Array, "*batch observation"]) -> Int[Array, "*batch"]:
        """The likeliest action."""
        return best(self.mlp(observation))

    def distribution(self, observation: Float[Array, "*batch observation"]) -> Categorical:
        """π(·|s)."""
        return Categorical(self(observation))

    def draw(self, observation: Float[Array, "*batch observation"], source: rng.Source) -> Int[Array, "*batch"]:
        """An action from the policy."""
        return self.distribution(observation).sample(source)

    def imitation_loss(
        self, observation: Float[Array, "batch observation"], action: Int[Array, " batch"], key: Key
    ) -> Float[Array, " batch"]:
        """−log π(a|s)."""
        return -self.log_prob(observation, action)

    def log_prob(
        self,
        observation: Float[Array, "*batch observation"],
        action: Int[Array, "*batch"],
        allowed: Bool[Array, "*batch actions"] | None = None,
    ) -> Float[Array, "*batch"]:
        """log π(a|s) of given actions, among the allowed ones."""
        return pick(self(observation, allowed), action)

    def kl(self, other: CategoricalActor, observation: Float[Array, "*batch observation"]) -> Float[Array, "*batch"]:
        """KL(π ‖ other) at each state."""
        log_prob = self(observation)
        return (jax.numpy.exp(log_prob) * (log_prob - other(observation))).sum(-1)

    @classmethod
    def init(
        cls, key: Key, observation_size: int, actions: int, hidden: tuple[int, ...], **options: Any
    ) -> CategoricalActor:
        """A fresh actor, close to uniform (output weights scaled by 0.01)."""
        return cls(MLP.init(key, observation_size, hidden, actions, head_scale=0.01, **options))
