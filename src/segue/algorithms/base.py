"""What every algorithm is: a frozen dataclass of hyper-parameters with a few pure functions over the learner's nets.

The shared update (segue.training.update) calls these functions; an algorithm implements only what it changes.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from segue import random
from segue.data.dataset import Dataset
from segue.errors import RecipeError, require_types
from segue.networks import Actor, Critic
from segue.types import Array, Key, Nets, Spaces, Transition

Aux = dict[str, jax.Array]
Activation = Literal["relu", "tanh", "elu", "gelu"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Algorithm:
    """Hyper-parameters that every algorithm has, and the neutral default of every hook.

    Losses of the actor are **per sample and unreduced**, so that bridges can weigh them.
    """

    name: ClassVar[str]
    """What the command line and the recipe call it."""
    phases: ClassVar[tuple[str, ...]] = ("offline", "online")
    """The phases it makes sense in."""
    actions: ClassVar[tuple[str, ...]] = ("continuous",)
    """The action types it supports."""
    columns: ClassVar[tuple[str, ...]] = ()
    """Optional columns of a transition that it uses; the online loop fills them in when they become known."""
    polyak_with_actor: ClassVar[bool] = False
    """Whether target networks move only when the actor does (TD3), instead of at every critic update (SAC)."""

    discount: float = 0.99
    """γ, the discount of future rewards."""
    batch_size: int = 256
    """Transitions per update."""
    hidden_sizes: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of every network."""
    activation: Activation = "relu"
    """Non-linearity of the hidden layers."""
    actor_layer_norm: bool = False
    """LayerNorm in the actor's hidden layers."""
    orthogonal_init: bool = False
    """Orthogonal instead of uniform initial weights."""
    actor_learning_rate: float = 3e-4
    """Adam step size of the actor."""

    def __post_init__(self) -> None:
        require_types(self, self.name)
        self.require("discount", 0 <= self.discount <= 1, "between 0 and 1")
        self.require("batch_size", self.batch_size >= 1, "at least 1")
        self.require("hidden_sizes", all(width >= 1 for width in self.hidden_sizes), "positive widths")
        self.require("actor_learning_rate", self.actor_learning_rate > 0, "above 0")

    def require(self, field: str, holds: bool, expected: str) -> None:
        """Refuse a hyper-parameter out of its range.

        Raises:
            RecipeError: naming the algorithm, the field, its value and the range.
        """
        if not holds:
            raise RecipeError(f"{self.name}: {field} is {getattr(self, field)!r}; expected {expected}")

    @property
    def critic_updates(self) -> int:
        """Critic updates per actor update; 0 for an algorithm without a critic."""
        return 0

    def init(self, key: Key, spaces: Spaces) -> Nets:
        """Fresh networks for these spaces."""
        return Nets(actor=self.init_actor(key, spaces))

    def select(self, dataset: Dataset) -> Dataset:
        """The part of the log that it learns from."""
        return dataset

    def init_actor(self, key: Key, spaces: Spaces) -> Actor:
        """A fresh actor."""
        return Actor.init(
            key,
            spaces.observation_size,
            spaces.action_size,
            self.hidden_sizes,
            activation=self.activation,
            layer_norm=self.actor_layer_norm,
            orthogonal=self.orthogonal_init,
        )

    def optimisers(self) -> dict[str, optax.GradientTransformation]:
        """The optimiser of each trained role."""
        return {"actor": optax.adam(self.actor_learning_rate)}

    def next_value(self, nets: Nets, batch: Transition, key: Key) -> Float[jax.Array, " batch"]:
        """The bootstrap V(s′) of the Bellman target r + discount · V(s′)."""
        raise NotImplementedError(f"{self.name} has no critic")

    def critic_penalty(
        self, critic: Any, nets: Nets, batch: Transition, q: Float[jax.Array, "members batch"], key: Key
    ) -> tuple[Float[jax.Array, ""], Aux]:
        """What is added to the squared Bellman errors; `q` is the critic at the batch's own actions."""
        return jnp.zeros(()), {}

    def value_loss(self, value: Any, nets: Nets, batch: Transition, key: Key) -> tuple[Float[jax.Array, ""], Aux]:
        """Loss of the state value; called, before the critic's, only for an algorithm that has the role."""
        raise NotImplementedError(f"{self.name} has no value function")

    def actor_loss(self, actor: Any, nets: Nets, batch: Transition, key: Key) -> tuple[Float[jax.Array, " batch"], Aux]:
        """Loss of the policy per sample, and what later losses and the metrics need of it."""
        raise NotImplementedError

    def temperature_loss(self, log_temperature: Float[jax.Array, ""], actor_aux: Aux, spaces_size: int) -> jax.Array:
        """Loss of the entropy temperature; called only for an algorithm that has the role."""
        raise NotImplementedError(f"{self.name} has no temperature")

    def multiplier_loss(self, log_multiplier: Float[jax.Array, ""], critic_aux: Aux) -> jax.Array:
        """Loss of a Lagrange multiplier; called only for an algorithm that has the role."""
        raise NotImplementedError(f"{self.name} has no multiplier")

    def act(
        self,
        nets: Nets,
        observation: Float[Array, "*batch observation"],
        source: random.Source,
        explore: bool,
    ) -> Float[Array, "*batch action"]:
        """Action for normalised observations, on the host or on the device."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActorCritic(Algorithm):
    """An algorithm with an ensemble of Q functions and Polyak targets."""

    critic_learning_rate: float = 3e-4
    """Adam step size of the critic."""
    ensemble_size: int = 2
    """Number of Q functions."""
    critic_layer_norm: bool = False
    """LayerNorm in the critic's hidden layers."""
    polyak: float = 0.005
    """τ of the target networks: target ← τ·online + (1 − τ)·target."""
    critic_updates_per_actor_update: int = 1
    """Critic updates between two actor updates (TD3's policy delay; RLPD's and REDQ's UTD)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("critic_learning_rate", self.critic_learning_rate > 0, "above 0")
        self.require("ensemble_size", self.ensemble_size >= 1, "at least 1")
        self.require("polyak", 0 < self.polyak <= 1, "above 0 and at most 1")
        self.require("critic_updates_per_actor_update", self.critic_updates_per_actor_update >= 1, "at least 1")

    @property
    def critic_updates(self) -> int:
        """Critic updates per actor update."""
        return self.critic_updates_per_actor_update

    def init(self, key: Key, spaces: Spaces) -> Nets:
        """A fresh actor, and a critic with its target equal to it."""
        actor_key, critic_key = jax.random.split(key)
        critic = self.init_critic(critic_key, spaces)
        return Nets(actor=self.init_actor(actor_key, spaces), critic=critic, target_critic=copy(critic))

    def init_critic(self, key: Key, spaces: Spaces) -> Critic:
        """A fresh ensemble."""
        return Critic.init(
            key,
            self.ensemble_size,
            spaces.observation_size,
            spaces.action_size,
            self.hidden_sizes,
            activation=self.activation,
            layer_norm=self.critic_layer_norm,
            orthogonal=self.orthogonal_init,
        )

    def optimisers(self) -> dict[str, optax.GradientTransformation]:
        """The optimiser of each trained role."""
        return {**super().optimisers(), "critic": optax.adam(self.critic_learning_rate)}


def copy(tree: Any) -> Any:
    """The same values in buffers of their own, so that both can be donated."""
    return jax.tree.map(jnp.copy, tree)


def gaussian_act(
    nets: Nets, observation: Float[Array, "*batch observation"], source: random.Source, explore: bool
) -> Float[Array, "*batch action"]:
    """A draw of a stochastic policy when exploring, its mode otherwise."""
    if not explore:
        return nets.actor.mode(observation)
    mean, _ = nets.actor(observation)
    return nets.actor.sample(observation, random.normal(source, mean.shape))
