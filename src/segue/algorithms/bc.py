"""Behaviour cloning: imitate the dataset's actions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import optax
from jaxtyping import Float

from segue.algorithms.base import ActorBased, AnyStep, Aux, Distribution, PolicyStep, log_prob_of
from segue.core import Array, Key, Nets, Transition
from segue.data.dataset import Dataset
from segue.networks import Actor, CategoricalActor, GaussianActor, distributions


@dataclasses.dataclass(frozen=True, kw_only=True)
class BC(ActorBased):
    """Behaviour cloning with a deterministic (squared error) or a stochastic (likelihood) policy."""

    name: ClassVar[str] = "bc"
    actions: ClassVar[tuple[str, ...]] = ("continuous", "discrete")
    phases: ClassVar[tuple[str, ...]] = ("offline",)
    dataset_numbers: ClassVar[tuple[str, ...]] = (*ActorBased.dataset_numbers, "top_fraction")

    loss: Literal["mse", "nll"] = "mse"
    """`mse`: squared error of the mean action; `nll`: −log π(a|s), and always of discrete ones."""
    distribution: Distribution = "gaussian"
    """Of continuous actions, for `nll`. `gaussian`: around tanh(mean), one σ per dimension; `squashed`: tanh of a
    Gaussian with a σ per state, which runs after actions at their bounds."""
    top_fraction: float = 1.0
    """Share of the dataset's episodes to imitate, those with the highest return."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("top_fraction", 0 < self.top_fraction <= 1, "above 0 and at most 1")

    @property
    def uses_rewards(self) -> bool:
        """Only to choose the best episodes."""
        return self.top_fraction < 1

    def continuous_actor(self) -> Callable[..., Actor | GaussianActor]:
        """What makes a fresh actor of the chosen distribution; by squared error, the usual one."""
        gaussian = self.loss == "nll" and self.distribution == "gaussian"
        return GaussianActor.init if gaussian else Actor.init

    def steps(self) -> tuple[AnyStep, ...]:
        """The policy."""
        return (PolicyStep("actor", self.actor_loss, optax.adam(self.actor_learning_rate)),)

    def select(self, dataset: Dataset) -> Dataset:
        """The best episodes (%BC)."""
        return dataset if self.top_fraction == 1 else dataset.best_episodes(self.top_fraction)

    def actor_loss(self, actor: Any, nets: Nets, batch: Transition, key: Key) -> tuple[Float[jax.Array, " batch"], Aux]:
        """‖π(s) − a‖² averaged over action dimensions, or −log π(a|s)."""
        if self.loss == "nll" or isinstance(actor, CategoricalActor):
            loss = -log_prob_of(actor, batch, batch.action)
        else:
            loss = ((actor.mode(batch.observation) - batch.action) ** 2).mean(-1)
        return loss, {"bc_loss": loss}

    def action_distribution(
        self, nets: Nets, observation: Float[Array, "*batch observation"], explore: bool
    ) -> distributions.Distribution:
        """The mode; the policy's own distribution when exploring with the stochastic form."""
        stochastic = self.loss == "nll" or isinstance(nets.actor, CategoricalActor)
        return super().action_distribution(nets, observation, explore and stochastic)
