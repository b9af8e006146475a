"""Batch-constrained Q-learning for discrete actions (Fujimoto et al. 2019, arXiv 1910.01708)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import numpy as np
import optax
from jaxtyping import Float, Int

from segue import rng
from segue.algorithms.base import AnyStep, Aux, Step
from segue.algorithms.dqn import DQN
from segue.core import Array, Key, Nets, Spaces, Transition
from segue.networks import CategoricalActor, best


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscreteBCQ(DQN):
    """Double DQN that chooses only among the actions which an imitation of the dataset finds likely enough."""

    name: ClassVar[str] = "discrete-bcq"

    threshold: float = 0.3
    """τ: actions less likely than this share of the likeliest one are never chosen."""
    logit_penalty: float = 0.01
    """Weight of the squared logits in the imitation's loss."""
    behaviour_learning_rate: float = 3e-4
    """Adam step size of the imitation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("threshold", 0 <= self.threshold < 1, "at least 0 and below 1")
        self.require("logit_penalty", self.logit_penalty >= 0, "at least 0")
        self.require("behaviour_learning_rate", self.behaviour_learning_rate > 0, "above 0")

    def init(self, key: Key, spaces: Spaces) -> Nets:
        """Critic, target and the imitation of the dataset."""
        behaviour = CategoricalActor.init(
            rng.named(key, "behaviour"),
            spaces.observation_size,
            spaces.action_size,
            self.hidden_sizes,
            activation=self.activation,
            orthogonal=self.orthogonal_init,
            image=spaces.image,
        )
        return super().init(key, spaces).replace(behaviour=behaviour)

    def steps(self) -> tuple[AnyStep, ...]:
        """The imitation, then the critic and its target."""
        return Step("behaviour", self.behaviour_loss, optax.adam(self.behaviour_learning_rate)), *super().steps()

    def behaviour_loss(
        self, behaviour: CategoricalActor, nets: Nets, batch: Transition, key: Key, aux: Aux
    ) -> tuple[Float[jax.Array, ""], Aux]:
        """E[−log G(a|s)] + penalty · E[logit²]."""
        nll = -behaviour.log_prob(batch.observation, batch.action).mean()
        loss = nll + self.logit_penalty * (behaviour.mlp(batch.observation) ** 2).mean()
        return loss, {"behaviour_loss": loss}

    def greedy(self, nets: Nets, observation: Float[Array, "*batch observation"]) -> Int[Array, "*batch"]:
        """argmax of min_i Q_i over the actions with G(a|s) / max_a G(a|s) > τ (eq. 14)."""
        log_prob = nets.behaviour(observation)
        xp = log_prob.__array_namespace__()
        share = xp.exp(log_prob - log_prob.max(-1, keepdims=True))
        q = nets.critic.all(observation).min(0)
        return best(xp.where(share > self.threshold, q, -np.inf))
