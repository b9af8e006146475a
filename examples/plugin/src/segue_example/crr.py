"""Critic-regularised regression, CRR (Wang et al. 2020, arXiv 2006.15134)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue import rng
from segue.algorithms.base import ActorCritic, Aux, expected_q
from segue.core import Key, Nets, Transition


@dataclasses.dataclass(frozen=True, kw_only=True)
class CRR(ActorCritic):
    """Imitates the actions of the dataset that the critic finds better than the policy's."""

    name: ClassVar[str] = "crr"
    actions: ClassVar[tuple[str, ...]] = ("continuous", "discrete")

    weighting: Literal["binary", "exponential"] = "binary"
    """`binary`: 1 where the advantage is positive, else 0; `exponential`: min(exp(A / β), 20)."""
    beta: float = 1.0
    """β of the exponential form."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("beta", self.beta > 0, "above 0")

    def next_value(self, nets: Nets, batch: Transition, key: Key) -> Float[jax.Array, " batch"]:
        """E_{a′~π(s′)} min_i Q̄_i(s′, a′), by one draw."""
        return expected_q(nets.target_critic, nets.actor, batch.next_observation, key)

    def actor_loss(self, actor: Any, nets: Nets, batch: Transition, key: Key) -> tuple[Float[jax.Array, " batch"], Aux]:
        """−f(A) log π(a|s), A = Q(s, a) − Q(s, ã), ã ~ π(s)."""
        baseline = expected_q(nets.critic, nets.actor, batch.observation, rng.named(key, "baseline"))
        advantage = nets.critic(batch.observation, batch.action).min(0) - baseline
        if self.weighting == "binary":
            weight = (advantage > 0).astype(jnp.float32)
        else:
            weight = jnp.minimum(jnp.exp(advantage / self.beta), 20.0)
        weight = jax.lax.stop_gradient(weight)
        return -weight * actor.log_prob(batch.observation, batch.action), {"advantage": advantage, "kept": weight}
