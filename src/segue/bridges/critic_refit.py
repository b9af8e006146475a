"""Critic re-fit at the handover (after OCR-CFT, Luo et al. 2024, arXiv 2412.18855): a critic that fits the policy.

For a policy without a critic (BC), or with a pessimistic one (CQL, EDAC). There are two stages, in which the policy
takes no step. First the online algorithm evaluates the policy on the dataset, without its conservatism. (IQL evaluates
the dataset's better actions, not the policy.) Then an alignment leaves no action near the policy's rated above it. The
paper pushes a copy of the actor towards high values during the alignment; **we keep its target and draw the actions at
random** around the policy's. For discrete actions the same is our analogue.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from segue import rng
from segue.algorithms.base import Algorithm, Aux, copy_arrays
from segue.bridges.base import Bridge, Handover
from segue.core import Array, Key, Learner, as_numbers
from segue.describe import Remedy

#: Updates per dispatch.
DISPATCH = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class CriticRefit(Bridge):
    """Evaluates the handed-over policy on the dataset, then aligns the critic with it, before anything is learnt
    live."""

    name: ClassVar[str] = "critic-refit"
    single_actions: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("actor", "critic")
    needs_dataset: ClassVar[bool] = True
    needs_pretrained: ClassVar[bool] = True
    provides: ClassVar[tuple[str, ...]] = ("critic", "value")
    attach_order: ClassVar[int] = 0
    remedies: ClassVar[tuple[Remedy, ...]] = (
        Remedy(
            "critic off at the handover",
            "at the handover the critic's estimate did not match what the policy earned",
        ),
    )

    evaluate_steps: int = 5_000
    """Critic updates of the evaluation."""
    align_steps: int = 2_000
    """Critic updates of the alignment."""
    fresh: bool = True
    """Start from a fresh critic; otherwise from the one that was handed over."""
    noise: float = 0.2
    """Standard deviation of the actions around the policy's, clipped at 0.5."""
    decline: float = 1.0
    """β: how fast values must fall with the distance d from the policy's action, as 1 / (1 + β d²)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("evaluate_steps", self.evaluate_steps >= int(self.fresh), "at least 1, or 0 if not fresh")
        self.require("align_steps", self.align_steps >= 0, "at least 0")
        for field in ("noise", "decline"):
            self.require(field, getattr(self, field) >= 0, "at least 0")

    def inherits(self, online: Algorithm) -> tuple[str, ...]:
        """The policy that it evaluates."""
        return ("actor",)

    def attach(self, learner: Learner, handover: Handover, key: Key) -> tuple[Learner, Any]:
        """The learner with the new critic and target, and a fresh optimiser for them."""
        assert handover.logged is not None
        algorithm, logged = handover.algorithm, jax.tree.map(jnp.asarray, handover.logged)
        if self.fresh:
            fresh = algorithm.init(rng.named(key, "init"), handover.spaces)
            roles = {role: net for role, net in fresh.roles().items() if role in ("critic", "target_critic", "value")}
            states = {r: algorithm.optimisers()[r].init(net) for r, net in roles.items() if r in learner.optimisers}
            learner = dataclasses.replace(
                learner, nets=learner.nets.replace(**roles), optimisers={**learner.optimisers, **states}
            )
        learner = handover.fit_critic(learner, self.evaluate_steps)
        for step in range(0, self.align_steps, DISPATCH):
            keys = jax.random.split(rng.named(key, "align", step), min(DISPATCH, self.align_steps - step))
            learner = align(self, algorithm, learner, logged, keys)
            jax.block_until_ready(learner.step)
            handover.tell(step + len(keys), self.align_steps)
        return learner, ()

    def describe(self, state: Any) -> tuple[str, ...]:
        """What was done."""
        return (
            f"critic-refit: the critic evaluated the policy on the dataset for {self.evaluate_steps} updates and was "
            f"aligned with it for {self.align_steps}",
        )


@jax.jit
def align(refit: CriticRefit, algorithm: Algorithm, learner: Learner, logged: Any, keys: Array) -> Learner:
    """Critic updates towards values that decline around the policy's action (OCR-CFT's `align_value`).

    Q(s, ã) → min(Q̄(s, ã), Q_π(s) / (1 + β d²)) where Q_π(s) = min_i Q̄_i(s, π(s)) ≥ 0, and Q_π · (1 + β d²) where it is
    negative; d = min(‖π(s) − ã‖ / √|A|, 0.2). And Q(s, π(s)) → Q_π(s), for every member. Q̄ is the target critic at the
    start of each dispatch of 100 updates: it is renewed so that the ceilings follow what has been aligned already.
    """
    anchor = copy_arrays(learner.nets.target_critic)
    optimiser = algorithm.optimisers()["critic"]

    def step(carry: Learner, key: Any) -> tuple[Learner, None]:
        rows = jax.random.randint(rng.named(key, "rows"), (algorithm.batch_size,), 0, len(logged.reward))
        s = as_numbers(jnp.take(logged.observation, rows, axis=0))
        nets = carry.nets
        own = nets.actor.mode(s)
        q_own = anchor(s, own).min(0)

        def loss(critic: Any) -> tuple[jax.Array, Aux]:
            keep = ((critic(s, own) - q_own) ** 2).mean(1).sum()
            if own.ndim == 1:
                excess = jnp.maximum(critic.all(s) - q_own[..., None], 0.0)
                return keep + (excess**2).mean((1, 2)).sum(), {}
            noise = rng.normal(rng.named(key, "noise"), own.shape)
            noise = jnp.clip(refit.noise * noise, -0.5, 0.5)
            near = jnp.clip(own + noise, -1, 1)
            distance = jnp.minimum(jnp.sqrt(((own - near) ** 2).mean(-1)), 0.2)
            decline = 1 + refit.decline * distance**2
            ceiling = jnp.where(q_own >= 0, q_own / decline, q_own * decline)
            target = jax.lax.stop_gradient(jnp.minimum(anchor(s, near), ceiling))
            return keep + ((critic(s, near) - target) ** 2).mean(1).sum(), {}

        gradient, _ = jax.grad(loss, has_aux=True)(nets.critic)
        move, state = optimiser.update(gradient, carry.optimisers["critic"], nets.critic)
        critic = optax.apply_updates(nets.critic, move)
        target_critic = optax.incremental_update(critic, nets.target_critic, algorithm.polyak)  # type: ignore[attr-defined]
        carry = dataclasses.replace(
            carry,
            nets=nets.replace(critic=critic, target_critic=target_critic),
            optimisers={**carry.optimisers, "critic": state},
        )
        return carry, None

    learner, _ = jax.lax.scan(step, learner, keys)
    return learner
