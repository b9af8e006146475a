"""Proximal policy optimisation, PPO (Schulman et al. 2017, arXiv 1707.06347), scratch or pretrained."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool, Float

from segue import rng
from segue.algorithms.base import (
    ActorBased,
    AnyStep,
    Aux,
    PolicyStep,
    Progress,
    Schedule,
    Step,
    copy_arrays,
    log_prob_of,
)
from segue.core import Array, Key, Nets, Spaces, Transition
from segue.networks import MLP, CategoricalActor

#: Bound of log ρ. An action at a bound of the space is far outside a squashed policy whose mean lies beyond it: there a
#: small step multiplies the density by more than float32 holds.
MAX_LOG_RATIO = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPO(ActorBased):
    """On-policy learning with a clipped likelihood ratio; it learns from its own rollouts, not from a replay.

    Actor and value have an optimiser each, so there is no weight between their losses; values are not clipped. The
    actor is the one every algorithm shares (the standard deviation depends on the state), so a pretrained one carries
    over; V is fitted to it before it moves.
    """

    name: ClassVar[str] = "ppo"
    phases: ClassVar[tuple[str, ...]] = ("online",)
    actions: ClassVar[tuple[str, ...]] = ("continuous", "discrete")
    on_policy: ClassVar[bool] = True

    batch_size: int = 64
    """Transitions per minibatch."""
    value_learning_rate: float = 3e-4
    """Adam step size of V."""
    value_schedule: Schedule = "linear"
    """How V's step size falls to 0 over the phase."""
    actor_schedule: Schedule = "linear"
    """How the actor's step size falls to 0 over the phase."""
    rollout_steps: int = 2048
    """Environment steps, over all environments, between updates."""
    epochs: int = 10
    """Passes over each rollout."""
    value_fit_epochs: int = 40
    """Passes over the first rollout, before the first policy update, that fit V to the policy that was handed over."""
    gae_lambda: float = 0.95
    """λ of generalised advantage estimation."""
    clip: float = 0.2
    """ε: the likelihood ratio counts within 1 ± ε."""
    entropy_weight: float = 0.0
    """Weight of the entropy bonus."""
    kl_weight: float = 0.0
    """Weight of KL(π ‖ π_pretrained) at the handover; 0 leaves the pretrained policy behind."""
    kl_until: float = 0.5
    """Share of the online phase over which that weight falls to 0."""
    max_gradient_norm: float = 0.5
    """Gradients of each network are scaled down to this norm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("value_learning_rate", self.value_learning_rate > 0, "above 0")
        self.require("rollout_steps", self.rollout_steps >= self.batch_size, "at least batch_size")
        self.require("epochs", self.epochs >= 1, "at least 1")
        self.require("value_fit_epochs", self.value_fit_epochs >= 0, "at least 0")
        self.require("gae_lambda", 0 <= self.gae_lambda <= 1, "between 0 and 1")
        self.require("clip", self.clip > 0, "above 0")
        self.require("entropy_weight", self.entropy_weight >= 0, "at least 0")
        self.require("kl_weight", self.kl_weight >= 0, "at least 0")
        self.require("kl_until", 0 < self.kl_until <= 1, "above 0 and at most 1")
        self.require("max_gradient_norm", self.max_gradient_norm > 0, "above 0")

    def init(self, key: Key, spaces: Spaces) -> Nets:
        """Actor and V; and the frozen actor of the KL term, if it has a weight."""
        actor = super().init(key, spaces).actor
        value = MLP.init(
            rng.named(key, "value"),
            spaces.observation_size,
            self.hidden_sizes,
            1,
            activation=self.activation,
            orthogonal=self.orthogonal_init,
            image=spaces.image,
        )
        return Nets(actor=actor, value=value, frozen_actor=copy_arrays(actor) if self.kl_weight else None)

    def steps(self) -> tuple[AnyStep, ...]:
        """V, policy; on every minibatch of every pass."""

        def adam(rate: float | jax.Array) -> optax.GradientTransformation:
            return optax.chain(optax.clip_by_global_norm(self.max_gradient_norm), optax.adam(rate, eps=1e-5))

        return (
            Step("value", self.value_loss, adam(self.value_learning_rate)),
            PolicyStep("actor", self.actor_loss, adam(self.actor_learning_rate)),
        )

    def at(self, progress: Progress) -> Self:
        """The algorithm at this point of its phase: step sizes and the weight of the KL term."""
        weight = optax.linear_schedule(self.kl_weight, 0.0, 1)
        now = super().at(progress).scheduled("value", progress)
        return now.adjusted(kl_weight=weight(progress / self.kl_until))

    def advantages(
        self, rollout: Transition, done: Bool[Array, "steps envs"], value: MLP, gae_lambda: float | jax.Array
    ) -> Transition:
        """The rollout with A_t = Σ_k (γλ)^k δ_{t+k}, δ = r + γ V(s′) − V(s), and the λ-return A_t + V(s_t) (eq. 11).

        A true terminal has V(s′) = 0 (its discount is 0); a time-out bootstraps. Both end the sum, and so does the end
        of the rollout.
        """
        here, then = value(rollout.observation)[..., 0], value(rollout.next_observation)[..., 0]
        delta = rollout.reward + rollout.discount * then - here

        def back(after: Any, step: Any) -> tuple[jax.Array, jax.Array]:
            delta_t, carries = step
            advantage = delta_t + carries * after
            return advantage, advantage

        carries = gae_lambda * rollout.discount * ~done
        _, advantage = jax.lax.scan(back, jnp.zeros_like(delta[0]), (delta, carries), reverse=True)
        return rollout._replace(advantage=advantage, return_to_go=advantage + here)

    def value_loss(
        self, value: Any, nets: Nets, batch: Transition, key: Key, aux: Aux
    ) -> tuple[Float[jax.Array, ""], Aux]:
        """E[(V(s) − λ-return)²]."""
        v = value(batch.observation)[..., 0]
        loss = ((v - batch.return_to_go) ** 2).mean()
        return loss, {"value_loss": loss, "value": v}

    def actor_loss(self, actor: Any, nets: Nets, batch: Transition, key: Key) -> tuple[Float[jax.Array, " batch"], Aux]:
        """−min(ρ Â, clip(ρ, 1 ± ε) Â) − w_H H(π) + w_KL KL(π ‖ π_pretrained) (eq. 7), ρ = π(a|s) / π_old(a|s).

        Â is normalised within the minibatch. The entropy of a discrete policy is exact, −Σ_a π(a|s) log π(a|s). That of
        a continuous one is estimated from the action: its gradient is that of ρ log π(a|s).
        """
        assert batch.advantage is not None
        assert batch.log_prob is not None
        log_prob = log_prob_of(actor, batch, batch.action)
        ratio = jnp.exp(jnp.clip(log_prob - batch.log_prob, -MAX_LOG_RATIO, MAX_LOG_RATIO))
        advantage = (batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)
        clipped = jnp.clip(ratio, 1 - self.clip, 1 + self.clip)
        loss = -jnp.minimum(ratio * advantage, clipped * advantage)
        if isinstance(actor, CategoricalActor):
            log_policy = actor(batch.observation, batch.allowed)
            negative_entropy = (jnp.exp(log_policy) * log_policy).sum(-1)
        else:
            negative_entropy = ratio * jax.lax.stop_gradient(log_prob)
        loss = loss + self.entropy_weight * negative_entropy
        aux = {"ratio_clipped": jnp.abs(ratio - 1) > self.clip, "log_prob": log_prob}
        if "frozen_actor" in nets:
            kl = actor.kl(nets.frozen_actor, batch.observation)
            loss, aux = loss + self.kl_weight * kl, {**aux, "kl_to_pretrained": kl}
        return loss, aux
