"""Conservative policy optimisation (Luo et al. 2023, arXiv 2303.17396, "TD3-C"): no policy update far from the last.

The paper's text could be read in part only: that the policy is constrained, by a learnt multiplier, to stay near its
slowly moving target is taken from it; the form of the distance, ε, and where the multiplier starts and how fast it
moves are **our reconstruction**.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from segue import rng
from segue.algorithms.base import Algorithm, Aux, copy_arrays
from segue.bridges.base import Bridge, Handover, shapes_of
from segue.core import Key, Learner, Nets, Spaces, Transition
from segue.describe import Panel, Remedy
from segue.networks import CategoricalActor
from segue.replay.base import ReplayStrategy, take

#: States of the dataset on which the first multiplier is measured.
SAMPLE = 1024


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
    remedies: ClassVar[tuple[Remedy, ...]] = (
        Remedy("policy left the dataset", "the policy moved away from the dataset; it bounds how fast"),
    )

    epsilon: float = 1e-4
    """ε, the largest allowed distance: squared, per action dimension of [-1, 1]; or in nats."""
    distance: Literal["squared", "kl"] = "squared"
    """`squared`: of the mean actions; `kl`: KL(π ‖ anchor) of the distributions. Discrete actions: always `kl`."""
    initial_multiplier: float | None = None
    """λ at the handover; by default so large that at the distance ε the penalty pulls as strongly as the policy's own
    loss pushes (1 without a critic or a dataset). A λ of 1 does nothing while |Q| is in the hundreds, until it has
    grown, which is too late: the fall comes within some hundred updates."""
    multiplier_learning_rate: float = 1e-2
    """Adam step size of log λ."""
    polyak: float = 0.005
    """τ of the anchor."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("epsilon", "initial_multiplier", "multiplier_learning_rate"):
            value = getattr(self, field)
            self.require(field, value is None or value > 0, "above 0")
        self.require("polyak", 0 < self.polyak <= 1, "above 0 and at most 1")

    def panels(self) -> tuple[Panel, ...]:
        """The distance against its bound, and the multiplier."""
        title = "Conservative update: distance"
        words = "distance to the slowly moving average of the policy"
        return (
            Panel("constraint", title, "to its slow average", words, self.epsilon, "bound ε", logarithmic=True),
            Panel(
                "constraint_multiplier",
                "Conservative update: multiplier",
                "λ",
                "multiplier of that distance",
                logarithmic=True,
            ),
        )

    def refusal(self, online: Algorithm, replay: ReplayStrategy, others: Iterable[Bridge]) -> str | None:
        """A policy without densities has no KL."""
        if self.distance == "kl" and not online.has_density:
            return f"{online.name}'s policy has no density: there is no KL between two; expected distance squared"
        return None

    def attach(self, learner: Learner, handover: Handover, key: Key) -> tuple[Learner, Any]:
        """The anchor is the policy that was handed over."""
        multiplier = jnp.asarray(self.initial_multiplier or 1.0, jnp.float32)
        if self.initial_multiplier is None and "critic" in learner.nets and handover.logged is not None:
            rows = jax.random.randint(rng.named(key, "rows"), (SAMPLE,), 0, len(handover.logged.reward))
            batch = take(handover.logged, rows)
            multiplier = self.balance(handover.algorithm, learner.nets, batch, rng.named(key, "loss"))
        return learner, self.state(learner.nets.actor, multiplier)

    def balance(self, algorithm: Algorithm, nets: Nets, batch: Transition, key: Key) -> Float[jax.Array, ""]:
        """λ at which the penalty's slope equals that of the policy's own loss, where its gradient leads, ε away.

        Down the gradient g by a step t the distance is ½ t² gᵀHg, with H its Hessian at the anchor: it reaches ε at
        t = √(2ε / gᵀHg). There the penalty rises by λ t gᵀHg, and the loss falls by gᵀg.
        """
        step = algorithm.policy_step
        assert step is not None
        push = jax.grad(lambda actor: step.loss(actor, nets, batch, key)[0].mean())(nets.actor)
        pull = jax.grad(lambda actor: self.deviation(actor, nets.actor, batch))
        curved = jax.grad(lambda actor: optax.tree.vdot(pull(actor), push))(nets.actor)
        multiplier = optax.tree.vdot(push, push) / jnp.sqrt(2 * self.epsilon * optax.tree.vdot(push, curved))
        return jnp.clip(jnp.nan_to_num(multiplier, nan=0.0), 1e-6, 1e8)  # without a push: as small as it may be

    def state(self, actor: Any, multiplier: Float[jax.Array, ""]) -> Any:
        """The state with this anchor and λ."""
        log_multiplier = jnp.log(multiplier)
        return State(copy_arrays(actor), log_multiplier, self.optimiser().init(log_multiplier))

    def describe(self, state: Any) -> tuple[str, ...]:
        """λ at the handover."""
        return (f"{self.name}: the multiplier starts at {float(jnp.exp(state.log_multiplier)):.3g}",)

    def skeleton(self, algorithm: Algorithm, spaces: Spaces) -> Any:
        """An actor, a scalar and its optimiser."""
        return shapes_of(lambda: self.state(algorithm.init(jax.random.key(0), spaces).actor, jnp.ones(())))

    def optimiser(self) -> optax.GradientTransformation:
        """Adam."""
        return optax.adam(self.multiplier_learning_rate)

    def bound(self, state: Any) -> float | Float[jax.Array, ""]:
        """ε now."""
        return self.epsilon

    def deviation(self, actor: Any, anchor: Any, batch: Transition) -> Float[jax.Array, ""]:
        """E[distance]: squared, a mean over action dimensions; or KL(π ‖ anchor)."""
        if self.distance == "kl" or isinstance(actor, CategoricalActor):
            return actor.kl(anchor, batch.observation).mean()
        return ((actor.mode(batch.observation) - anchor.mode(batch.observation)) ** 2).mean()

    def actor_penalty(
        self, state: Any, actor: Any, nets: Nets, batch: Transition, loss: Float[jax.Array, " batch"], key: Key
    ) -> tuple[Float[jax.Array, ""], Aux]:
        """λ · E[distance(π_θ, anchor)]."""
        deviation = self.deviation(actor, jax.lax.stop_gradient(state.anchor), batch)
        multiplier = jnp.clip(jnp.exp(state.log_multiplier), 0.0, 1e8)
        aux = {"constraint": deviation, "constraint_violation": jnp.maximum(deviation - self.bound(state), 0.0)}
        return multiplier * deviation, aux

    def update(
        self, state: Any, algorithm: Algorithm, nets: Nets, batch: Transition, aux: Aux, key: Key
    ) -> tuple[Any, Aux]:
        """One step of log λ down λ·(ε − distance), the distance as it was before the policy's step; then the anchor."""
        slack = jax.lax.stop_gradient(self.bound(state) - aux["constraint"])
        gradient = jax.grad(lambda log: jnp.exp(log) * slack)(state.log_multiplier)
        step, optimiser = self.optimiser().update(gradient, state.optimiser)
        log_multiplier = jnp.minimum(state.log_multiplier + step, jnp.log(1e8))
        anchor = optax.incremental_update(nets.actor, state.anchor, self.polyak)
        moved = state._replace(anchor=anchor, log_multiplier=log_multiplier, optimiser=optimiser)
        return moved, {"constraint_multiplier": jnp.exp(log_multiplier)}
