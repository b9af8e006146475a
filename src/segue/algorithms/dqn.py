"""Double deep Q-learning, DQN (Mnih et al. 2015; van Hasselt et al. 2016, arXiv 1509.06461), for discrete actions."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from segue.algorithms.base import AnyStep, CriticBased, Follow, Progress
from segue.core import Array, Key, Nets, Transition
from segue.networks import best, distributions, pick


@dataclasses.dataclass(frozen=True, kw_only=True)
class DQN(CriticBased):
    """Double Q-learning without an actor: greedy, and ε-greedy while collecting data.

    The target follows by Polyak averaging instead of being copied now and then. An ensemble counts by its minimum; one
    member is the published algorithm. Two, the default, are what the other discrete algorithms have, so that critics
    carry over between them.
    """

    name: ClassVar[str] = "dqn"
    actions: ClassVar[tuple[str, ...]] = ("discrete",)

    loss: Literal["huber", "mse"] = "huber"
    """Of the Bellman error: Huber's with threshold 1, or the square, with which rare large costs count in full."""
    initial_epsilon: float = 0.1
    """Share of random actions when the online phase starts; 1 is usual from scratch and would drown a pretrained
    policy."""
    final_epsilon: float = 0.05
    """Share of random actions later."""
    epsilon_until: float = 0.5
    """Share of the online phase over which ε moves from the one to the other."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("initial_epsilon", "final_epsilon"):
            self.require(field, 0 <= getattr(self, field) <= 1, "between 0 and 1")
        self.require("epsilon_until", 0 < self.epsilon_until <= 1, "above 0 and at most 1")

    def steps(self) -> tuple[AnyStep, ...]:
        """Critic and target."""
        return self.critic_step(), Follow("target_critic", self.polyak)

    def at(self, progress: Progress) -> Self:
        """The algorithm at this point of its phase: ε and step size."""
        epsilon = optax.linear_schedule(self.initial_epsilon, self.final_epsilon, 1)
        return super().at(progress).adjusted(initial_epsilon=epsilon(progress / self.epsilon_until))

    def bellman_loss(self, error: Float[jax.Array, "members batch"]) -> Float[jax.Array, "members batch"]:
        """Huber's function of Q minus its target (half the square near 0), or its square."""
        return optax.losses.huber_loss(error) if self.loss == "huber" else error**2

    def next_value(self, nets: Nets, batch: Transition, key: Key) -> Float[jax.Array, " batch"]:
        """min_i Q̄_i(s′, argmax_a min_i Q_i(s′, a)): chosen by the one among the allowed, judged by the other."""
        chosen = best(distributions.within(batch.next_allowed, self.scores(nets, batch.next_observation)))
        return jnp.asarray(pick(nets.target_critic.all(batch.next_observation).min(0), chosen))

    def scores(self, nets: Nets, observation: Float[Array, "*batch observation"]) -> Float[Array, "*batch actions"]:
        """What ranks the actions: min_i Q_i(s, ·)."""
        return nets.critic.all(observation).min(0)

    def action_distribution(
        self, nets: Nets, observation: Float[Array, "*batch observation"], explore: bool
    ) -> distributions.Distribution:
        """Greedy; a uniform action with probability ε when exploring."""
        scores = self.scores(nets, observation)
        return distributions.EpsilonGreedy(scores, self.initial_epsilon) if explore else distributions.Greedy(scores)
