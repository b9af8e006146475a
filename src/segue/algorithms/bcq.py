"""Batch-constrained Q-learning, BCQ (Fujimoto et al. 2019, arXiv 1812.02900)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from segue import rng
from segue.algorithms.base import ActorCritic, AnyStep, Aux, Follow, PolicyStep, Step, copy_arrays
from segue.core import Array, Key, Nets, Spaces, Transition
from segue.networks import MLP, VAE, distributions
from segue.networks.vae import LATENT_CLIP


@dataclasses.dataclass(frozen=True, kw_only=True)
class BCQ(ActorCritic):
    """Chooses by Q among actions that a generative model of the dataset proposes, each moved a little by ξ.

    It has no actor; at the handover one is taught to act as it does.
    """

    name: ClassVar[str] = "bcq"
    phases: ClassVar[tuple[str, ...]] = ("offline",)

    batch_size: int = 100
    """Transitions per update."""
    hidden_sizes: tuple[int, ...] = (400, 300)
    """Widths of the hidden layers of the critic and the perturbation."""
    actor_learning_rate: float = 1e-3
    """Adam step size of the perturbation."""
    critic_learning_rate: float = 1e-3
    """Adam step size of the critic."""
    behaviour_hidden_sizes: tuple[int, ...] = (750, 750)
    """Widths of the hidden layers of the generative model."""
    behaviour_learning_rate: float = 1e-3
    """Adam step size of the generative model."""
    kl_weight: float = 0.5
    """Weight of the KL divergence in its loss."""
    perturbation_size: float = 0.05
    """Φ: how far ξ may move an action."""
    minimum_weight: float = 0.75
    """λ: the target weighs the ensemble's minimum with λ and its maximum with 1 − λ."""
    target_samples: int = 10
    """Actions proposed per next state in the target."""
    acting_samples: int = 100
    """Actions proposed per state when acting."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("behaviour_hidden_sizes", all(w >= 1 for w in self.behaviour_hidden_sizes), "positive widths")
        self.require("behaviour_learning_rate", self.behaviour_learning_rate > 0, "above 0")
        self.require("kl_weight", self.kl_weight >= 0, "at least 0")
        self.require("perturbation_size", self.perturbation_size >= 0, "at least 0")
        self.require("minimum_weight", 0 <= self.minimum_weight <= 1, "between 0 and 1")
        self.require("target_samples", self.target_samples >= 1, "at least 1")
        self.require("acting_samples", self.acting_samples >= 1, "at least 1")

    def init(self, key: Key, spaces: Spaces) -> Nets:
        """Critic and perturbation, each with its target, and the generative model."""
        critic = self.init_critic(rng.named(key, "critic"), spaces)
        inputs = spaces.observation_size + spaces.action_size
        perturbation = MLP.init(
            rng.named(key, "perturbation"),
            inputs,
            self.hidden_sizes,
            spaces.action_size,
            activation=self.activation,
            layer_norm=self.actor_layer_norm,
            orthogonal=self.orthogonal_init,
            image=spaces.image,
        )
        behaviour = VAE.init(
            rng.named(key, "behaviour"),
            spaces.observation_size,
            spaces.action_size,
            self.behaviour_hidden_sizes,
            activation=self.activation,
            orthogonal=self.orthogonal_init,
            image=spaces.image,
        )
        return Nets(
            critic=critic,
            behaviour=behaviour,
            perturbation=perturbation,
            target_critic=copy_arrays(critic),
            target_perturbation=copy_arrays(perturbation),
        )

    def steps(self) -> tuple[AnyStep, ...]:
        """Generative model, critic and its target, ξ and its target."""
        d = self.critic_updates_per_actor_update
        return (
            Step("behaviour", self.behaviour_loss, optax.adam(self.behaviour_learning_rate)),
            self.critic_step(),
            Follow("target_critic", self.polyak),
            PolicyStep("perturbation", self.actor_loss, optax.adam(self.actor_learning_rate), d),
            Follow("target_perturbation", self.polyak, d),
        )

    def behaviour_loss(
        self, behaviour: VAE, nets: Nets, batch: Transition, key: Key, aux: Aux
    ) -> tuple[Float[jax.Array, ""], Aux]:
        """E‖decoded − a‖² + ½ KL, each a mean over its dimensions (the authors' code)."""
        noise = rng.normal(key, (len(batch.action), behaviour.latent_size))
        reconstruction, kl = behaviour.loss(batch.observation, batch.action, batch.next_observation, noise)
        loss = (reconstruction + self.kl_weight * kl).mean()
        return loss, {"behaviour_loss": loss, "behaviour_kl": kl}

    def proposed(
        self,
        behaviour: VAE,
        perturbation: MLP,
        observation: Float[Array, "*batch observation"],
        latent: Float[Array, "*batch latent"],
    ) -> Float[Array, "*batch action"]:
        """clip(a + Φ tanh ξ(s, a)) of the decoded actions a; latent codes are clipped to ±0.5."""
        action = behaviour.decode(observation, latent.clip(-LATENT_CLIP, LATENT_CLIP))
        xp = action.__array_namespace__()
        shift = xp.tanh(perturbation(xp.concatenate([observation, action], axis=-1)))
        return (action + self.perturbation_size * shift).clip(-1, 1)

    def next_value(self, nets: Nets, batch: Transition, key: Key) -> Float[jax.Array, " batch"]:
        """max_k [λ min_i Q̄_i + (1 − λ) max_i Q̄_i](s′, a_k), a_k proposed with the target perturbation (eq. 13)."""
        size = (self.target_samples, *batch.next_observation.shape)
        observation = jnp.broadcast_to(batch.next_observation, size)
        latent = rng.normal(key, (*size[:-1], nets.behaviour.latent_size))
        action = self.proposed(nets.behaviour, nets.target_perturbation, observation, latent)
        q = nets.target_critic(batch.next_observation, action)
        return (self.minimum_weight * q.min(0) + (1 - self.minimum_weight) * q.max(0)).max(0)

    def actor_loss(self, actor: Any, nets: Nets, batch: Transition, key: Key) -> tuple[Float[jax.Array, " batch"], Aux]:
        """−Q_1(s, a + Φ tanh ξ(s, a)), a decoded for s."""
        latent = rng.normal(key, (len(batch.action), nets.behaviour.latent_size))
        q = nets.critic.first(batch.observation, self.proposed(nets.behaviour, actor, batch.observation, latent))
        return -q, {"q_policy": q}

    def action_distribution(
        self, nets: Nets, observation: Float[Array, "*batch observation"], explore: bool
    ) -> distributions.Distribution:
        """The best by Q_1 of the proposed actions; every state of the batch gets the same latent codes."""

        def draw(source: rng.Source) -> Float[Array, "*batch action"]:
            xp = observation.__array_namespace__()
            lead = observation.shape[:-1]
            flat = observation.reshape(-1, observation.shape[-1])
            codes = rng.normal(source, (self.acting_samples, 1, nets.behaviour.latent_size))
            repeated = xp.broadcast_to(flat, (self.acting_samples, *flat.shape))
            latent = xp.broadcast_to(codes, (*repeated.shape[:-1], codes.shape[-1]))
            action = self.proposed(nets.behaviour, nets.perturbation, repeated, latent)
            best = nets.critic.first(flat, action).argmax(0)
            chosen = xp.take_along_axis(action, best[None, :, None], axis=0)[0]
            return chosen.reshape(*lead, action.shape[-1])

        return distributions.Implicit(draw)
