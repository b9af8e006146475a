"""Conservative Q-learning, CQL(H) (Kumar et al. 2020, arXiv 2006.04779), on top of SAC."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from segue import rng
from segue.algorithms.base import AnyStep, Aux, Step
from segue.algorithms.sac import SAC
from segue.core import Key, Nets, Spaces, Transition
from segue.describe import Panel
from segue.microbatches import number_of_microbatches, sum_over_microbatches


@dataclasses.dataclass(frozen=True, kw_only=True)
class CQL(SAC):
    """SAC whose critic is pushed down on all actions and up on the dataset's (eq. 4, importance-sampled: appendix
    F)."""

    name: ClassVar[str] = "cql"
    conservatism: ClassVar[tuple[str, ...]] = ("conservative_weight",)
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "locomotion": {
            "conservative_weight": 10.0,
            "actor_learning_rate": 3e-5,
            "critic_hidden_sizes": (256, 256, 256),
            "orthogonal_init": True,
        },
        "antmaze": {
            "lagrange_threshold": 0.8,
            "max_q_backup": True,
            "critic_hidden_sizes": (256, 256, 256, 256, 256),
            "orthogonal_init": True,
            "reward_scale": 10.0,
            "reward_shift": -5.0,
        },
        "adroit": {"conservative_weight": 1.0, "critic_hidden_sizes": (256, 256, 256), "orthogonal_init": True},
        "maze2d": {
            "conservative_weight": 10.0,
            "lagrange_threshold": 5.0,
            "critic_hidden_sizes": (256, 256, 256),
            "orthogonal_init": True,
        },
    }
    """CORL's configurations; its clipping of the gap at −200 on AntMaze is not taken over."""

    actor_learning_rate: float = 1e-4
    """Adam step size of the actor; the authors' code uses 1e-4 (or 3e-4) on the locomotion tasks."""
    critic_learning_rate: float = 3e-4
    """Adam step size of the critic."""
    backup_entropy: bool = False
    """Whether the Bellman target contains −α log π(a′|s′); the authors' code leaves it out."""
    conservative_weight: float = 5.0
    """Weight of the conservative penalty (α in the paper, min_q_weight in the authors' code: 5 or 10)."""
    sampled_actions: int = 10
    """Actions drawn per state from each of uniform, π(s) and π(s′) for the log-sum-exp."""
    variant: Literal["entropy", "rho"] = "entropy"
    """`entropy`: CQL(H), importance-sampled (the authors' min_q_version 3); `rho`: CQL(ρ) in the form of the authors'
    min_q_version 2, a log-sum-exp of the plain values that includes Q(s, a_dataset)."""
    max_q_backup: bool = False
    """Bootstrap from the best of `sampled_actions` draws of π(s′) instead of from one."""
    lagrange_threshold: float | None = None
    """If set, the weight is multiplied by a learnt α′ that holds the penalty's gap at this value (eq. 30).
    The multiplier starts at 1 (log α′ = 0), as in the authors' code; CORL starts it at e (log α′ = 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("conservative_weight", self.conservative_weight >= 0, "at least 0")
        self.require("sampled_actions", self.sampled_actions >= 1, "at least 1")

    def panels(self) -> tuple[Panel, ...]:
        """The gap that the penalty pushes down."""
        return (*super().panels(), Panel("conservative_gap", "Conservative gap", "in the critic's loss"))

    def init(self, key: Key, spaces: Spaces) -> Nets:
        """SAC's roles, and log α′ in the Lagrange form."""
        nets = super().init(key, spaces)
        return nets if self.lagrange_threshold is None else nets.replace(multiplier=jnp.zeros(()))

    def steps(self) -> tuple[AnyStep, ...]:
        """SAC's; in the Lagrange form α′ follows the critic."""
        critic, *others = super().steps()
        if self.lagrange_threshold is None:
            return critic, *others
        return critic, Step("multiplier", self.multiplier_loss, optax.adam(self.critic_learning_rate)), *others

    def next_value(self, nets: Nets, batch: Transition, key: Key) -> Float[jax.Array, " batch"]:
        """SAC's, or max_k min_i Q̄_i(s′, a′_k) over draws a′_k ~ π(s′) (the order of young-geng/CQL)."""
        if not self.max_q_backup:
            return super().next_value(nets, batch, key)
        target_critic = self.drawn_critics(nets.target_critic, rng.named(key, "critics"))
        noise = rng.normal(rng.named(key, "action"), (self.sampled_actions, *batch.action.shape))
        action, log_prob = nets.actor.sample_with_log_prob(batch.next_observation, noise)
        q = target_critic(batch.next_observation, action).min(0)
        best = q.argmax(0)[None]
        value = jnp.take_along_axis(q, best, 0)[0]
        if self.backup_entropy:
            value = value - jnp.exp(nets.temperature) * jnp.take_along_axis(log_prob, best, 0)[0]
        return value

    def calibrate(
        self, q: Float[jax.Array, "members draws batch"], batch: Transition
    ) -> Float[jax.Array, "members draws batch"]:
        """The values of the policy's actions that are pushed down; Cal-QL bounds them from below."""
        return q

    def critic_penalty(
        self, critic: Any, nets: Nets, batch: Transition, q: Float[jax.Array, "members batch"], key: Key
    ) -> tuple[Float[jax.Array, ""], Aux]:
        """w · Σ_i E[ log Σ_a exp(Q_i(s,a) − log μ(a)) − Q_i(s, a_dataset) ].

        The actions a come from uniform, π(s) and π(s′), each evaluated at s and corrected by its own density μ.
        With a Lagrange threshold the weight is α′·w and the threshold is subtracted from the gap
        (young-geng/CQL's form; the authors' own code uses α′·(w·gap − threshold)).
        """
        size, dims = self.sampled_actions, batch.action.shape[-1]
        shape = (size, *batch.action.shape)
        uniform = rng.uniform(rng.named(key, "uniform"), shape, -1.0, 1.0)
        noise, next_noise = (rng.normal(rng.named(key, of), shape) for of in ("here", "next"))
        here, here_log_prob = nets.actor.sample_with_log_prob(batch.observation, noise)
        then, then_log_prob = nets.actor.sample_with_log_prob(batch.next_observation, next_noise)
        actions = jnp.concatenate([uniform, then, here])
        log_density = jnp.concatenate([jnp.full(shape[:-1], -dims * math.log(2.0)), then_log_prob, here_log_prob])

        def soft_maximum(critic: Any, of_data: Any, given: Any) -> tuple[jax.Array, jax.Array]:
            """Summed over states; in total, and of each member."""
            batch, actions, log_density = given
            sampled_q = critic(batch.observation, actions.swapaxes(0, 1))  # [members, 3 · size, states]
            sampled_q = jnp.concatenate([sampled_q[:, :size], self.calibrate(sampled_q[:, size:], batch)], axis=1)
            if self.variant == "rho":
                among = jnp.concatenate([sampled_q, of_data.T[:, None]], axis=1)
            else:
                among = sampled_q - log_density.T
            of_member = jax.nn.logsumexp(among, axis=1).sum(1)
            return of_member.sum(), of_member

        given = (batch, actions.swapaxes(0, 1), log_density.T)
        number = number_of_microbatches(len(batch.action), 3 * size)
        total, of_member = sum_over_microbatches(soft_maximum, critic, q.T, given, number)
        gap = of_member / q.shape[1] - q.mean(1)  # [members]
        excess = total / q.shape[1] - q.mean(1).sum()
        aux = {"conservative_gap": gap}
        if self.lagrange_threshold is None:
            return self.conservative_weight * excess, aux
        multiplier = jnp.clip(jnp.exp(nets.multiplier), 0.0, 1e6)
        return multiplier * self.conservative_weight * (excess - len(gap) * self.lagrange_threshold), aux

    def multiplier_loss(
        self, log_multiplier: Float[jax.Array, ""], nets: Nets, batch: Transition, key: Key, aux: Aux
    ) -> tuple[Float[jax.Array, ""], Aux]:
        """−½ Σ_i α′ · w · (gap_i − threshold)."""
        assert self.lagrange_threshold is not None
        excess = jax.lax.stop_gradient(aux["conservative_gap"] - self.lagrange_threshold).sum()
        multiplier = jnp.exp(log_multiplier)
        loss = -0.5 * jnp.clip(multiplier, 0.0, 1e6) * self.conservative_weight * excess
        return loss, {"multiplier": multiplier}
