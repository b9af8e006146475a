"""SAC and CQL under a limit on cost, by a Lagrange multiplier (Ray, Achiam & Amodei 2019, "Benchmarking Safe
Exploration in Deep RL"; Stooke et al. 2020, arXiv 2007.03964).

    max_π E[Σ r]  subject to  E[cost of an episode] ≤ limit

The limit is in the units of an episode's summed cost. Spread over the T steps of an episode it allows κ = limit / T per
step. A cost critic learns the discounted sum of what exceeds it,

    Qc(s, a) = E[ Σ_k γ^k (c_k − κ) ],

and the multiplier λ rises while E[Qc(s, π(s))], over the states that are sampled, is above 0. So the constraint is:
from these states on, the discounted average cost per step is at most κ. An episode that ends after t < T steps may cost
κ·t; where episodes usually end early, set `cost_horizon` to their usual length.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from segue import rng
from segue.algorithms.base import Algorithm, AnyStep, Aux, Follow, PolicyStep, Step, copy_arrays
from segue.algorithms.cql import CQL
from segue.algorithms.sac import SAC
from segue.core import Key, Nets, Spaces, Transition
from segue.describe import Panel
from segue.errors import RecipeError

#: λ stays between these: it could otherwise take as long to come back as it was pushed away.
SMALLEST, LARGEST = 1e-3, 1e4


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostLimited(Algorithm):
    """What a limit on cost adds to an actor-critic of SAC's kind, which it precedes among the base classes.

    It has no field of SAC's, so that the defaults of the class it is combined with stay as they are.
    """

    needs_costs: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # those of SAC and CQL know no costs

    cost_limit: float | None = None
    """Largest expected cost of an episode, in the unit of the summed costs (Safety Gymnasium: 25); by default the
    recipe's."""
    cost_horizon: int | None = None
    """T, steps of an episode that the limit is for; by default the environment's time limit, or the dataset's longest
    episode."""
    cost_critic_learning_rate: float = 3e-4
    """Adam step size of the cost critic."""
    cost_multiplier_learning_rate: float = 1e-3
    """Adam step size of log λ."""
    initial_cost_multiplier: float = 1.0
    """λ at the start of training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("cost_limit", self.cost_limit is None or self.cost_limit >= 0, "at least 0")
        self.require("cost_horizon", self.cost_horizon is None or self.cost_horizon >= 1, "at least 1")
        self.require("cost_critic_learning_rate", self.cost_critic_learning_rate > 0, "above 0")
        self.require("cost_multiplier_learning_rate", self.cost_multiplier_learning_rate > 0, "above 0")
        self.require(
            "initial_cost_multiplier", SMALLEST <= self.initial_cost_multiplier <= LARGEST, "between 0.001 and 10,000"
        )

    def for_episodes(self, steps: int | None, cost_limit: float | None) -> Self:
        """With the horizon and the limit of these episodes, unless it has its own.

        Raises:
            RecipeError: if there are none.
        """
        own = self.cost_horizon or steps, cost_limit if self.cost_limit is None else self.cost_limit
        found = dataclasses.replace(self, cost_horizon=own[0], cost_limit=own[1])
        _ = found.allowed_per_step
        return found

    @property
    def allowed_per_step(self) -> float | jax.Array:
        """κ, the cost that the limit allows per step.

        Raises:
            RecipeError: if the limit or the length of an episode is not known.
        """
        if self.cost_limit is None:
            raise RecipeError(f"{self.name}: cost_limit is None; expected the largest mean cost of an episode")
        if self.cost_horizon is None:
            raise RecipeError(
                f"{self.name}: cost_horizon is None, and neither a time limit nor a dataset gives the length of an "
                "episode; expected the steps that cost_limit is for"
            )
        return self.cost_limit / self.cost_horizon

    def panels(self) -> tuple[Panel, ...]:
        """The cost above the limit, and the multiplier."""
        excess = Panel(
            "cost_excess",
            "Cost above the limit",
            "discounted, by the cost critic",
            threshold=0.0,
            threshold_name="limit",
        )
        return (*super().panels(), excess, Panel("cost_multiplier", "Cost multiplier", "λ", logarithmic=True))

    def init(self, key: Key, spaces: Spaces) -> Nets:
        """The algorithm's roles, a cost critic with its target, and log λ."""
        critic = self.init_critic(rng.named(key, "cost_critic"), spaces)  # type: ignore[attr-defined]
        multiplier = jnp.asarray(math.log(self.initial_cost_multiplier), jnp.float32)
        nets = super().init(key, spaces)
        return nets.replace(cost_critic=critic, target_cost_critic=copy_arrays(critic), cost_multiplier=multiplier)

    def steps(self) -> tuple[AnyStep, ...]:
        """The algorithm's, with the cost critic before the policy and the multiplier at last."""
        steps, polyak = super().steps(), self.polyak  # type: ignore[attr-defined]
        place = next(i for i, step in enumerate(steps) if isinstance(step, PolicyStep))
        return (
            *steps[:place],
            Step("cost_critic", self.cost_critic_loss, optax.adam(self.cost_critic_learning_rate)),
            Follow("target_cost_critic", polyak),
            *steps[place:],
            Step("cost_multiplier", self.cost_multiplier_loss, self._ascent(), steps[place].every),
        )

    def _ascent(self) -> optax.GradientTransformation:
        low, high = math.log(SMALLEST), math.log(LARGEST)

        def bounded(move: Any, log_multiplier: Any) -> Any:
            return jnp.clip(log_multiplier + move, low, high) - log_multiplier

        return optax.chain(optax.adam(self.cost_multiplier_learning_rate), optax.stateless(bounded))

    def cost_critic_loss(
        self, cost_critic: Any, nets: Nets, batch: Transition, key: Key, aux: Aux
    ) -> tuple[Float[jax.Array, ""], Aux]:
        """Σ_i E[(Qc_i(s, a) − (c − κ + γ max_j Q̄c_j(s′, a′)))²], a′ ~ π(s′): of two estimates the worse."""
        assert batch.cost is not None
        action, _ = nets.actor.sample_with_log_prob(batch.next_observation, rng.normal(key, batch.action.shape))
        worst = nets.target_cost_critic(batch.next_observation, action).max(0)
        target = jax.lax.stop_gradient(batch.cost - self.allowed_per_step + batch.discount * worst)
        loss = ((cost_critic(batch.observation, batch.action) - target) ** 2).mean(1).sum()
        return loss, {"cost_critic_loss": loss}

    def actor_loss(self, actor: Any, nets: Nets, batch: Transition, key: Key) -> tuple[Float[jax.Array, " batch"], Aux]:
        """(ℓ + λ max_i Qc_i(s, ã)) / (1 + λ), ã ~ π(s), with the algorithm's own loss ℓ."""
        loss, aux = super().actor_loss(actor, nets, batch, rng.named(key, "reward"))  # type: ignore[misc]
        noise = rng.normal(rng.named(key, "cost"), batch.action.shape)
        action, _ = actor.sample_with_log_prob(batch.observation, noise)
        excess = nets.cost_critic(batch.observation, action).max(0)
        multiplier = jnp.exp(jax.lax.stop_gradient(nets.cost_multiplier))
        return (loss + multiplier * excess) / (1 + multiplier), {**aux, "cost_excess": excess}

    def cost_multiplier_loss(
        self, log_multiplier: Float[jax.Array, ""], nets: Nets, batch: Transition, key: Key, aux: Aux
    ) -> tuple[Float[jax.Array, ""], Aux]:
        """−λ E[max_i Qc_i(s, ã)]."""
        multiplier = jnp.exp(log_multiplier)
        return -multiplier * jax.lax.stop_gradient(aux["cost_excess"]).mean(), {"cost_multiplier": multiplier}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SACLagrangian(CostLimited, SAC):
    """SAC that keeps the expected cost of an episode below a limit."""

    name: ClassVar[str] = "sac-lagrangian"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CQLLagrangian(CostLimited, CQL):
    """CQL that keeps the expected cost of an episode below a limit; its cost critic has no conservative penalty."""

    name: ClassVar[str] = "cql-lagrangian"
