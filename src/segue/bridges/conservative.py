"""Conservative policy optimisation (Luo et al. 2023, arXiv 2303.17396, "TD3-C"): no policy update far from the last.

The paper's text could be read in part only: that the policy is constrained, by a learnt multiplier, to stay near its
slowly moving target is taken from it; the form of the distance, ε and the step size of the multiplier are **our
reconstruction**.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from segue.algorithms.base import Algorithm, Aux, copy
from segue.bridges.base import Bridge, Seam, shapes_of
from segue.networks import CategoricalActor
from segue.types import Key, Learner, Nets, Spaces, Transition


class State(NamedTuple):
    """The anchor, and the multiplier with its optimiser."""

    anchor: Any
    log_multiplier: Float[jax.Array, ""]
    optimiser: optax.OptState


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConservativeUpdate(Bridge):
    """max_θ Q(s, π_θ(s)) subject to E[distance(π_θ, π_anchor)] ≤ ε, the anchor a Polyak average of π_θ.

    The penalty λ·distance is added to the policy loss; λ falls while the constraint holds and rises while it does not.
    """

    name: ClassVar[str] = "conservative-update"
    needs: ClassVar[tuple[str, ...]] = ("actor",)
    on_policy: ClassVar[bool] = True

    epsilon: float = 1e-3
    """ε, the largest allowed distance: squared, per action dimension of [-1, 1]; or in nats."""
    distance: Literal["squared", "kl"] = "squared"
    """`squared`: of the mean actions; `kl`: KL(π ‖ anchor) of the distributions. Discrete actions: always `kl`."""
    initial_multiplier: float = 1.0
    """λ at the switch."""
    multiplier_learning_rate: float = 1e-3
    """Adam step size of log λ."""
    polyak: float = 0.005
    """τ of the anchor."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("epsilon", "initial_multiplier", "multiplier_learning_rate"):
            self.require(field, getattr(self, field) > 0, "above 0")
        self.require("polyak", 0 < self.polyak <= 1, "above 0 and at most 1")

    def attach(self, learner: Learner, seam: Seam, key: Key) -> tuple[Learner, State]:
        """The anchor is the policy that was handed over."""
        return learner, self.state(learner.nets.actor)

    def state(self, actor: Any) -> State:
        """The state with this anchor."""
        log_multiplier = jnp.log(jnp.asarray(self.initial_multiplier, jnp.float32))
        return State(copy(actor), log_multiplier, self.optimiser().init(log_multiplier))

    def skeleton(self, algorithm: Algorithm, spaces: Spaces) -> Any:
        """An actor, a scalar and its optimiser."""
        return shapes_of(lambda: self.state(algorithm.init_actor(jax.random.key(0), spaces)))

    def optimiser(self) -> optax.GradientTransformation:
        """Adam."""
        return optax.adam(self.multiplier_learning_rate)

    def deviation(self, actor: Any, anchor: Any, batch: Transition) -> Float[jax.Array, ""]:
        """E[distance]: squared, a mean over action dimensions; or KL(π ‖ anchor)."""
        if self.distance == "kl" or isinstance(actor, CategoricalActor):
            return actor.kl(anchor, batch.observation).mean()
        return ((actor.mode(batch.observation) - anchor.mode(batch.observation)) ** 2).mean()

    def actor_penalty(
        self, state: State, actor: Any, nets: Nets, batch: Transition, key: Key
    ) -> tuple[Float[jax.Array, ""], Aux]:
        """λ · E[distance(π_θ, anchor)]."""
        deviation = self.deviation(actor, jax.lax.stop_gradient(state.anchor), batch)
        multiplier = jnp.clip(jnp.exp(state.log_multiplier), 0.0, 1e6)
        aux = {"constraint": deviation, "constraint_violation": jnp.maximum(deviation - self.epsilon, 0.0)}
        return multiplier * deviation, aux

    def update(
        self, state: State, algorithm: Algorithm, nets: Nets, batch: Transition, aux: Aux, key: Key
    ) -> tuple[State, Aux]:
        """One step of log λ down λ·(ε − distance), the distance as it was before the policy's step; then the anchor."""
        slack = jax.lax.stop_gradient(self.epsilon - aux["constraint"])
        gradient = jax.grad(lambda log: jnp.exp(log) * slack)(state.log_multiplier)
        step, optimiser = self.optimiser().update(gradient, state.optimiser)
        log_multiplier = jnp.minimum(state.log_multiplier + step, jnp.log(1e6))
        anchor = optax.incremental_update(nets.actor, state.anchor, self.polyak)
        return State(anchor, log_multiplier, optimiser), {"constraint_multiplier": jnp.exp(log_multiplier)}
