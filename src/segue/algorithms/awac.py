"""Advantage-weighted actor-critic, AWAC (Nair et al. 2020, arXiv 2006.09359)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue.algorithms.base import ActorCritic, Aux, Distribution, expected_q, log_prob_of
from segue.core import Key, Nets, Transition
from segue.networks import Actor, GaussianActor


@dataclasses.dataclass(frozen=True, kw_only=True)
class AWAC(ActorCritic):
    """Imitates the replayed actions, each weighted by its exponentiated advantage."""

    name: ClassVar[str] = "awac"
    actions: ClassVar[tuple[str, ...]] = ("continuous", "discrete")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "locomotion": {"hidden_sizes": (256, 256, 256)},
        "antmaze": {"hidden_sizes": (256, 256, 256), "temperature": 0.1},
        "adroit": {"hidden_sizes": (256, 256, 256), "temperature": 0.1},
    }
    """CORL's configurations."""

    temperature: float = 1 / 3
    """λ of the weights exp(A / λ) (CORL: 1/3 on locomotion, 0.1 on AntMaze and Adroit)."""
    weighting: Literal["exponential", "softmax"] = "exponential"
    """`exponential`: min(exp(A/λ), limit), as CORL; `softmax`: softmax over the batch, as the authors' code."""
    weight_limit: float = 100.0
    """Largest weight of a sample (exponential form)."""
    distribution: Distribution = "gaussian"
    """Of continuous actions. `gaussian`: around tanh(mean), one σ per dimension with log σ in [−6, 0] (the authors'
    code; CORL's has no tanh); `squashed`: tanh of a Gaussian with a σ per state."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("temperature", self.temperature > 0, "above 0")
        self.require("weight_limit", self.weight_limit > 0, "above 0")

    def continuous_actor(self) -> Callable[..., Actor | GaussianActor]:
        """What makes a fresh actor of the chosen distribution."""
        if self.distribution == "squashed":
            return Actor.init
        return functools.partial(GaussianActor.init, bounds=(-6.0, 0.0), smooth=True)

    def next_value(self, nets: Nets, batch: Transition, key: Key) -> Float[jax.Array, " batch"]:
        """E_{a′~π(s′)} min_i Q̄_i(s′, a′): by one draw, or exact over discrete actions."""
        return expected_q(nets.target_critic, nets.actor, batch.next_observation, key, batch.next_allowed)

    def actor_loss(self, actor: Any, nets: Nets, batch: Transition, key: Key) -> tuple[Float[jax.Array, " batch"], Aux]:
        """−w log π(a|s), w from A = min_i Q_i(s, a) − E_{ã~π(s)} min_i Q_i(s, ã) (eq. 13)."""
        value = expected_q(nets.critic, nets.actor, batch.observation, key, batch.allowed)
        advantage = nets.critic(batch.observation, batch.action).min(0) - value
        scaled = advantage / self.temperature
        if self.weighting == "softmax":
            weight = jax.nn.softmax(scaled) * len(scaled)
        else:
            weight = jnp.minimum(jnp.exp(scaled), self.weight_limit)
        weight = jax.lax.stop_gradient(weight)
        loss = -weight * log_prob_of(actor, batch, batch.action)
        return loss, {"advantage": advantage, "advantage_weight": weight}
