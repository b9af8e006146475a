"""What every algorithm is: a frozen dataclass of hyper-parameters with a few pure functions over the learner's nets.

The shared update (segue.training.update) calls these functions; an algorithm implements only what it changes.
"""

from __future__ import annotations

import copy as shallow
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from segue import random
from segue.data.dataset import Dataset
from segue.describe import Panel
from segue.errors import RecipeError, require_types, unknown
from segue.networks import MLP, Actor, CategoricalActor, Critic, DiscreteCritic, GaussianActor, NormPlace
from segue.types import Array, Key, Nets, Normaliser, Spaces, Transition

Aux = dict[str, jax.Array]
Activation = Literal["relu", "tanh", "elu", "gelu"]
Schedule = Literal["constant", "linear", "cosine"]
Distribution = Literal["gaussian", "squashed"]
Action = Float[Array, "*batch action"] | Int[Array, "*batch"]
#: The share of a phase that is over, in [0, 1].
Progress = Float[Array, ""]


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
    policy: ClassVar[str | None] = "actor"
    """The role that `actor_loss` trains; None for an algorithm that acts by its critic alone."""
    on_policy: ClassVar[bool] = False
    """Whether it learns from its own fresh rollouts only (segue.training.on_policy), not from a replay."""
    updates_per_step: ClassVar[float] = 1.0
    """Critic updates per environment step (UTD ratio) that it is published with."""
    conservatism: ClassVar[tuple[str, ...]] = ()
    """The weights that hold it near the log, which `let-go` makes smaller online."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Published hyper-parameters by domain or task, where they differ from the defaults."""

    discount: float = 0.99
    """γ, the discount of future rewards."""
    reward_scale: float = 1.0
    """Rewards are learnt as scale · r + shift; evaluations show them as they are."""
    reward_shift: float = 0.0
    """What is added to every reward after scaling (−1 makes a 0/1 success a cost per step)."""
    batch_size: int = 256
    """Transitions per update."""
    hidden_sizes: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of every network."""
    activation: Activation = "relu"
    """Non-linearity of the hidden layers."""
    orthogonal_init: bool = False
    """Orthogonal instead of uniform initial weights."""

    def __post_init__(self) -> None:
        require_types(self, self.name)
        self.require("discount", 0 <= self.discount <= 1, "between 0 and 1")
        self.require("reward_scale", self.reward_scale > 0, "above 0")
        self.require("batch_size", self.batch_size >= 1, "at least 1")
        widths = self.hidden_sizes or (0,)
        self.require("hidden_sizes", min(widths) >= 1 and max(widths) <= 100_000, "positive widths up to 100,000")

    def require(self, field: str, holds: bool, expected: str) -> None:
        """Refuse a hyper-parameter out of its range.

        Raises:
            RecipeError: naming the algorithm, the field, its value and the range.
        """
        if not holds:
            raise RecipeError(f"{self.name}: {field} is {getattr(self, field)!r}; expected {expected}")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """The algorithm with the published hyper-parameters of a domain or task, and with these changes.

        Raises:
            RecipeError: if there is no such preset.
        """
        if name not in cls.presets:
            raise RecipeError(unknown(f"preset of {cls.name}", name, cls.presets))
        return cls(**{**cls.presets[name], **changes})

    @property
    def critic_updates(self) -> int:
        """Critic updates per actor update; 0 for an algorithm without a critic."""
        return 0

    def panels(self) -> tuple[Panel, ...]:
        """The metrics of the online phase that it wants shown in the report, besides those of every algorithm."""
        return ()

    def caveats(self) -> tuple[str, ...]:
        """Why its critic's estimate and the discounted return are not quite comparable, each a clause."""
        return ()

    def adjusted(self, **values: Any) -> Self:
        """A copy with these values, which may be traced; it is for use inside an update and cannot be hashed."""
        twin = shallow.copy(self)
        for name, value in values.items():
            object.__setattr__(twin, name, value)
        return twin

    def at(self, progress: Progress) -> Self:
        """The algorithm at this point of its phase: what follows a schedule has its value of now."""
        return self

    def scheduled(self, role: str, progress: Progress) -> Self:
        """A copy whose step size of this role is decayed; itself if that is constant."""
        schedule, rate = getattr(self, f"{role}_schedule"), f"{role}_learning_rate"
        if schedule == "constant":
            return self
        cosine = progress.__array_namespace__().cos(math.pi * progress)
        factor = 1 - progress if schedule == "linear" else 0.5 * (1 + cosine)
        return self.adjusted(**{rate: getattr(self, rate) * factor})

    def learning_rewards(self, reward: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
        """scale · r + shift."""
        return np.float32(self.reward_scale) * reward + np.float32(self.reward_shift)

    def init(self, key: Key, spaces: Spaces) -> Nets:
        """Fresh networks for these spaces."""
        raise NotImplementedError

    def select(self, dataset: Dataset) -> Dataset:
        """The part of the log that it learns from."""
        return dataset

    def log(self, dataset: Dataset, normaliser: Normaliser) -> Transition:
        """The whole log as this algorithm learns from it: its discount, its rewards, normalised observations."""
        rewards = self.learning_rewards(dataset.rewards)
        scaled = dataclasses.replace(dataset, rewards=rewards)
        return scaled.transitions(self.discount, normaliser, self.sparse_failure_reward)

    @property
    def sparse_failure_reward(self) -> float | None:
        """The reward of every step of a failed episode, where an algorithm treats sparse rewards by themselves."""
        return None

    def optimisers(self) -> dict[str, optax.GradientTransformation]:
        """The optimiser of each trained role."""
        return {}

    def behaviour_loss(
        self, behaviour: Any, nets: Nets, batch: Transition, key: Key
    ) -> tuple[Float[jax.Array, ""], Aux]:
        """Loss of the model of the log's actions; called, before the critic's, only for an algorithm that has one."""
        raise NotImplementedError(f"{self.name} has no behaviour model")

    def next_value(self, nets: Nets, batch: Transition, key: Key) -> Float[jax.Array, " batch"]:
        """The bootstrap V(s′) of the Bellman target r + discount · V(s′)."""
        raise NotImplementedError(f"{self.name} has no critic")

    def bellman_loss(self, error: Float[jax.Array, "members batch"]) -> Float[jax.Array, "members batch"]:
        """What Q minus its target costs: its square."""
        return error**2

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

    def temperature_loss(self, log_temperature: Float[jax.Array, ""], actor_aux: Aux, action_size: int) -> jax.Array:
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
    ) -> Action:
        """Action for normalised observations, on the host or on the device."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActorBased(Algorithm):
    """An algorithm with a policy network."""

    actor_layer_norm: NormPlace = "none"
    """LayerNorm in the actor's hidden layers, before or after the activation."""
    actor_learning_rate: float = 3e-4
    """Adam step size of the actor."""
    actor_schedule: Schedule = "constant"
    """How the actor's step size falls to 0 over the phase."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("actor_learning_rate", self.actor_learning_rate > 0, "above 0")

    def at(self, progress: Progress) -> Self:
        """The algorithm at this point of its phase."""
        return super().at(progress).scheduled("actor", progress)

    def init(self, key: Key, spaces: Spaces) -> Nets:
        """A fresh actor."""
        return Nets(actor=self.init_actor(random.named(key, "actor"), spaces))

    def continuous_actor(self) -> Callable[..., Actor | GaussianActor]:
        """What makes a fresh actor of continuous actions."""
        return Actor.init

    def init_actor(self, key: Key, spaces: Spaces) -> Actor | GaussianActor | CategoricalActor:
        """A fresh actor."""
        make: Any = CategoricalActor.init if spaces.discrete else self.continuous_actor()
        return make(
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
        return {**super().optimisers(), "actor": optax.adam(self.actor_learning_rate)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CriticBased(Algorithm):
    """An algorithm with an ensemble of Q functions and its Polyak target."""

    critic_learning_rate: float = 3e-4
    """Adam step size of the critic."""
    critic_schedule: Schedule = "constant"
    """How the critic's step size falls to 0 over the phase."""
    critic_hidden_sizes: tuple[int, ...] | None = None
    """Widths of the critic's (and V's) hidden layers, if not `hidden_sizes`."""
    ensemble_size: int = 2
    """Number of Q functions."""
    critic_layer_norm: NormPlace = "none"
    """LayerNorm in the critic's hidden layers, before the activation (RLPD, WSRL) or after it (ReBRAC)."""
    polyak: float = 0.005
    """τ of the target networks: target ← τ·online + (1 − τ)·target."""
    critic_updates_per_actor_update: int = 1
    """Critic updates between two actor updates (TD3's policy delay; RLPD's and REDQ's UTD)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("critic_learning_rate", self.critic_learning_rate > 0, "above 0")
        self.require(
            "critic_hidden_sizes",
            min(self.critic_hidden_sizes or (0,)) >= 1 or self.critic_hidden_sizes is None,
            "positive widths",
        )
        self.require("ensemble_size", 1 <= self.ensemble_size <= 1000, "between 1 and 1,000")
        self.require("polyak", 0 < self.polyak <= 1, "above 0 and at most 1")
        self.require("critic_updates_per_actor_update", self.critic_updates_per_actor_update >= 1, "at least 1")

    @property
    def critic_updates(self) -> int:
        """Critic updates per actor update."""
        return self.critic_updates_per_actor_update

    def at(self, progress: Progress) -> Self:
        """The algorithm at this point of its phase."""
        return super().at(progress).scheduled("critic", progress)

    def init(self, key: Key, spaces: Spaces) -> Nets:
        """A fresh critic, and its target equal to it."""
        critic = self.init_critic(random.named(key, "critic"), spaces)
        return Nets(critic=critic, target_critic=copy(critic))

    def init_critic(self, key: Key, spaces: Spaces) -> Critic | DiscreteCritic:
        """A fresh ensemble."""
        kind: Any = DiscreteCritic if spaces.discrete else Critic
        return kind.init(
            key,
            self.ensemble_size,
            spaces.observation_size,
            spaces.action_size,
            self.hidden_sizes if self.critic_hidden_sizes is None else self.critic_hidden_sizes,
            activation=self.activation,
            layer_norm=self.critic_layer_norm,
            orthogonal=self.orthogonal_init,
        )

    def init_value(self, key: Key, spaces: Spaces) -> MLP:
        """A fresh state value, built like the critic."""
        return MLP.init(
            key,
            spaces.observation_size,
            self.hidden_sizes if self.critic_hidden_sizes is None else self.critic_hidden_sizes,
            1,
            activation=self.activation,
            layer_norm=self.critic_layer_norm,
            orthogonal=self.orthogonal_init,
        )

    def optimisers(self) -> dict[str, optax.GradientTransformation]:
        """The optimiser of each trained role."""
        return {**super().optimisers(), "critic": optax.adam(self.critic_learning_rate)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActorCritic(CriticBased, ActorBased):
    """An algorithm with both."""

    def init(self, key: Key, spaces: Spaces) -> Nets:
        """A fresh actor, and a critic with its target equal to it."""
        nets = CriticBased.init(self, key, spaces)
        return nets.replace(actor=ActorBased.init(self, key, spaces).actor)


def copy(tree: Any) -> Any:
    """The same values in buffers of their own, so that both can be donated."""
    return jax.tree.map(jnp.copy, tree)


def stochastic_act(
    nets: Nets, observation: Float[Array, "*batch observation"], source: random.Source, explore: bool
) -> Action:
    """A draw of a stochastic policy when exploring, its mode otherwise."""
    return nets.actor.draw(observation, source) if explore else nets.actor.mode(observation)


def expected_q(
    critic: Any, actor: Any, observation: Float[Array, "batch observation"], key: Key
) -> Float[jax.Array, " batch"]:
    """E_{a~π(s)} min_i Q_i(s, a): exact over discrete actions, by one draw over continuous ones."""
    if isinstance(actor, CategoricalActor):
        return (actor.probabilities(observation) * critic.all(observation).min(0)).sum(-1)
    return critic(observation, actor.draw(observation, key)).min(0)
