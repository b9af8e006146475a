"""Batch-constrained Q-learning for discrete actions (Fujimoto et al. 2019, arXiv 1910.01708)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import optax
from jaxtyping import Float

from segue import rng
from segue.algorithms.base import AnyStep, Aux, Step
from segue.algorithms.dqn import DQN
from segue.core import Array, Key, Nets, Spaces, Transition
from segue.networks import CategoricalActor


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
        nll = -behaviour.log_prob(batch.observation, batch.action, batch.allowed).mean()
        loss = nll + self.logit_penalty * (behaviour.mlp(batch.observation) ** 2).mean()
        return loss, {"behaviour_loss": loss}

    def scores(self, nets: Nets, observation: Float[Array, "*batch observation"]) -> Float[Array, "*batch actions"]:
        """Actions with G(a|s) / max_a G(a|s) > τ by min_i Q_i (eq. 14), all others below them by log G.

        The others only matter where none of the former is allowed. The filter does not depend on what is allowed:
        otherwise forbidding one action would let in another that the dataset hardly has.
        """
        log_prob = nets.behaviour(observation)
        xp = log_prob.__array_namespace__()
        log_share = log_prob - log_prob.max(-1, keepdims=True)
        q = super().scores(nets, observation)
        # At least 0 for the former, below 0 for the others.
        return xp.where(xp.exp(log_share) > self.threshold, q - q.min(-1, keepdims=True), log_share)
