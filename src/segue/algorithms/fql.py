"""Flow Q-learning, FQL (Park et al. 2025, arXiv 2502.02538); with action chunks, QC-FQL (Li et al. 2025, 2507.07969).

The authors take one step of all networks at once; here each step sees what the steps before it have changed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from segue import rng
from segue.algorithms.base import Activation, ActorCritic, AnyStep, Aux, Follow, Step, copy_arrays
from segue.core import Array, Key, Nets, Spaces, Transition
from segue.networks import NormPlace, distributions
from segue.networks.flow import FlowPolicy, OneStepActor


@dataclasses.dataclass(frozen=True, kw_only=True)
class FQL(ActorCritic):
    """A one-step policy that follows Q and stays near a flow-matching model of the dataset's actions."""

    name: ClassVar[str] = "fql"
    has_density: ClassVar[bool] = False
    conservatism: ClassVar[tuple[str, ...]] = ("bc_weight",)
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "antmaze": {"bc_weight": 10.0, "normalise_q": False, "target_value": "min"},
        "cube": {"bc_weight": 300.0, "normalise_q": False},
        "qc": {"bc_weight": 100.0, "normalise_q": False, "chunk": 5},
    }
    """The authors' code; `qc` is QC-FQL's."""

    hidden_sizes: tuple[int, ...] = (512, 512, 512, 512)
    """Widths of the hidden layers of every network."""
    activation: Activation = "gelu"
    """Non-linearity of the hidden layers."""
    critic_layer_norm: NormPlace = "after"
    """LayerNorm in the critic's hidden layers, before or after the activation."""
    behaviour_learning_rate: float = 3e-4
    """Adam step size of the flow."""
    bc_weight: float = 1.0
    """α, weight of the distance to the flow's actions: 0.03 to 10 with a normalised Q; the authors have 10 to 1e4."""
    normalise_q: bool = True
    """Divide Q by its mean size in the policy's loss, so that α means the same on every task."""
    flow_steps: int = 10
    """Steps of Euler's method from noise to an action of the flow."""
    target_value: Literal["mean", "min"] = "mean"
    """What the Bellman target takes of the ensemble."""
    chunk: int = 1
    """h, actions that are decided on at once and played open loop; the critic learns h-step returns (QC-FQL: 5)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("behaviour_learning_rate", self.behaviour_learning_rate > 0, "above 0")
        self.require("bc_weight", self.bc_weight >= 0, "at least 0")
        self.require("flow_steps", self.flow_steps >= 1, "at least 1")
        self.require("n_step", 1 in (self.n_step, self.chunk), "1 with action chunks, whose length is the target's")
        self.require("chunk", self.chunk >= 1, "at least 1")

    @property
    def chunk_length(self) -> int:
        """Actions per decision."""
        return self.chunk

    def init(self, key: Key, spaces: Spaces) -> Nets:
        """Flow, one-step policy, critic and its target, all over chunks of actions."""
        size = self.chunk * spaces.action_size
        critic = self.init_critic(rng.named(key, "critic"), dataclasses.replace(spaces, action_size=size))
        shape = (spaces.observation_size, size, self.hidden_sizes)
        build: dict[str, Any] = {
            "activation": self.activation,
            "layer_norm": self.actor_layer_norm,
            "orthogonal": self.orthogonal_init,
            "image": spaces.image,
        }
        actor = OneStepActor.init(rng.named(key, "actor"), *shape, **build)
        behaviour = FlowPolicy.init(rng.named(key, "behaviour"), *shape, **build)
        return Nets(behaviour=behaviour, actor=actor, critic=critic, target_critic=copy_arrays(critic))

    def steps(self) -> tuple[AnyStep, ...]:
        """Critic and its target, flow, policy."""
        return (
            self.critic_step(),
            Follow("target_critic", self.polyak),
            Step("behaviour", self.behaviour_loss, optax.adam(self.behaviour_learning_rate)),
            self.actor_step(),
        )

    def next_value(self, nets: Nets, batch: Transition, key: Key) -> Float[jax.Array, " batch"]:
        """mean_i Q̄_i(s′, μ(s′, z)), or the minimum."""
        q = nets.target_critic(batch.next_observation, nets.actor.draw(batch.next_observation, key))
        return q.mean(0) if self.target_value == "mean" else q.min(0)

    def critic_loss(
        self, critic: Any, nets: Nets, batch: Transition, target: Float[jax.Array, " batch"], key: Key
    ) -> tuple[Float[jax.Array, ""], Aux]:
        """Σ_i mean (Q_i(s, a) − target)², without the chunks that are cut by the end of an episode."""
        q = critic(batch.observation, batch.action)
        if batch.valid is None:
            loss = ((q - target) ** 2).mean(1).sum()
            return loss, {"critic_loss": loss, "q_data": q}
        whole = batch.valid[..., -1]
        loss = (whole * (q - target) ** 2).mean(1).sum()
        return loss, {"critic_loss": loss, "q_data": q, "whole_chunks": whole}

    def behaviour_loss(
        self, behaviour: FlowPolicy, nets: Nets, batch: Transition, key: Key, aux: Aux
    ) -> tuple[Float[jax.Array, ""], Aux]:
        """Flow matching on the actions that belong to the episode."""
        error = jnp.asarray(behaviour.matching_loss(batch.observation, batch.action, key))
        if batch.valid is not None:
            error = error * jnp.repeat(batch.valid, error.shape[-1] // self.chunk, axis=-1)
        return error.mean(), {"behaviour_loss": error.mean()}

    def actor_loss(self, actor: Any, nets: Nets, batch: Transition, key: Key) -> tuple[Float[jax.Array, " batch"], Aux]:
        """α ‖μ(s, z) − flow(s, z)‖² − mean_i Q_i(s, μ(s, z)), the square averaged over action dimensions."""
        noise = rng.normal(key, (*batch.observation.shape[:-1], actor.action_size))
        action = actor(batch.observation, noise)
        flow = jax.lax.stop_gradient(nets.behaviour.generate(batch.observation, noise, self.flow_steps))
        distance = ((action - flow) ** 2).mean(-1)
        q = nets.critic(batch.observation, action.clip(-1, 1)).mean(0)
        scale = 1 / jax.lax.stop_gradient(jnp.abs(q).mean()) if self.normalise_q else 1.0
        return self.bc_weight * distance - scale * q, {"q_policy": q, "bc_loss": distance}

    def action_distribution(
        self, nets: Nets, observation: Float[Array, "*batch observation"], explore: bool
    ) -> distributions.Distribution:
        """μ(s, z) for a random z, exploring or not."""
        return distributions.Implicit(lambda source: nets.actor.draw(observation, source))
