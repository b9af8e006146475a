"""Implicit Q-learning (Kostrikov et al. 2021, arXiv 2110.06169)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from segue import rng
from segue.algorithms.base import ActorCritic, AnyStep, Aux, Distribution, Progress, Schedule, Step, log_prob_of
from segue.core import Key, Nets, Spaces, Transition
from segue.networks import Actor, GaussianActor


@dataclasses.dataclass(frozen=True, kw_only=True)
class IQL(ActorCritic):
    """Never asks the critic about an action that the dataset does not hold: V is an upper expectile of Q over the
    dataset.

    Each update steps V, then Q, then the policy; the authors' code steps the policy before Q.
    """

    name: ClassVar[str] = "iql"
    actions: ClassVar[tuple[str, ...]] = ("continuous", "discrete")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "locomotion": {"orthogonal_init": True},
        "antmaze": {
            "orthogonal_init": True,
            "expectile": 0.9,
            "inverse_temperature": 10.0,
            "reward_shift": -1.0,
        },
        "kitchen": {"orthogonal_init": True, "inverse_temperature": 0.5},
        "adroit": {"orthogonal_init": True, "inverse_temperature": 0.5},
    }
    """The authors' code. Not taken over: its reward scaling by the dataset's returns on locomotion, its actor dropout
    of 0.1 on Kitchen and Adroit, and its cosine schedule offline (`actor_schedule`)."""

    value_learning_rate: float = 3e-4
    """Adam step size of V."""
    value_schedule: Schedule = "constant"
    """How V's step size falls to 0 over the phase."""
    expectile: float = 0.7
    """τ of the expectile regression: 0.5 is the mean, towards 1 the maximum over the dataset's actions (0.9:
    AntMaze)."""
    inverse_temperature: float = 3.0
    """β of the advantage weights (10: AntMaze; 0.5: Adroit and Kitchen)."""
    weight_limit: float = 100.0
    """Largest weight of a sample."""
    distribution: Distribution = "gaussian"
    """Of continuous actions. `gaussian`: around tanh(mean), one σ per dimension (the authors' code); `squashed`: tanh
    of a Gaussian with a σ per state, which runs after actions at their bounds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("value_learning_rate", self.value_learning_rate > 0, "above 0")
        self.require("expectile", 0 < self.expectile < 1, "between 0 and 1, both excluded")
        self.require("inverse_temperature", self.inverse_temperature >= 0, "at least 0")
        self.require("weight_limit", self.weight_limit > 0, "above 0")

    def init(self, key: Key, spaces: Spaces) -> Nets:
        """Actor, critic with target, and V."""
        value = self.init_value(rng.named(key, "value"), spaces)
        return super().init(key, spaces).replace(value=value)

    def continuous_actor(self) -> Callable[..., Actor | GaussianActor]:
        """What makes a fresh actor of the chosen distribution."""
        return GaussianActor.init if self.distribution == "gaussian" else Actor.init

    def at(self, progress: Progress) -> Self:
        """The algorithm at this point of its phase."""
        return super().at(progress).scheduled("value", progress)

    def steps(self) -> tuple[AnyStep, ...]:
        """V, Q and its target, policy."""
        return Step("value", self.value_loss, optax.adam(self.value_learning_rate)), *super().steps()

    def value_loss(
        self, value: Any, nets: Nets, batch: Transition, key: Key, aux: Aux
    ) -> tuple[Float[jax.Array, ""], Aux]:
        """E[ |τ − 1(u < 0)| u² ], u = min_i Q̄_i(s, a) − V(s) (eq. 5)."""
        v = value(batch.observation)[..., 0]
        u = nets.target_critic(batch.observation, batch.action).min(0) - v
        loss = (jnp.where(u < 0, 1 - self.expectile, self.expectile) * u**2).mean()
        return loss, {"value_loss": loss, "value": v}

    def next_value(self, nets: Nets, batch: Transition, key: Key) -> Float[jax.Array, " batch"]:
        """V(s′) (eq. 6)."""
        return nets.value(batch.next_observation)[..., 0]

    def actor_loss(self, actor: Any, nets: Nets, batch: Transition, key: Key) -> tuple[Float[jax.Array, " batch"], Aux]:
        """−min(exp(β (min_i Q̄_i(s, a) − V(s))), limit) · log π(a|s) (eq. 7)."""
        q = nets.target_critic(batch.observation, batch.action).min(0)
        advantage = q - nets.value(batch.observation)[..., 0]
        weight = jnp.minimum(jnp.exp(self.inverse_temperature * advantage), self.weight_limit)
        weight = jax.lax.stop_gradient(weight)
        loss = -weight * log_prob_of(actor, batch, batch.action)
        return loss, {"advantage": advantage, "advantage_weight": weight}
