"""Behaviour cloning: imitate the log's actions."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import jax
from jaxtyping import Float

from segue import random
from segue.algorithms.base import Algorithm, Aux
from segue.types import Array, Key, Nets, Transition


@dataclasses.dataclass(frozen=True, kw_only=True)
class BC(Algorithm):
    """Behaviour cloning with a deterministic (squared error) or a stochastic (likelihood) policy."""

    name: ClassVar[str] = "bc"
    phases: ClassVar[tuple[str, ...]] = ("offline",)

    loss: Literal["mse", "nll"] = "mse"
    """`mse`: squared error of the mean action; `nll`: −log π(a|s) of the tanh-Gaussian."""

    def actor_loss(self, actor: Any, nets: Nets, batch: Transition, key: Key) -> tuple[Float[jax.Array, " batch"], Aux]:
        """‖π(s) − a‖² averaged over action dimensions, or −log π(a|s)."""
        if self.loss == "nll":
            loss = -actor.log_prob(batch.observation, batch.action)
        else:
            loss = ((actor.mode(batch.observation) - batch.action) ** 2).mean(-1)
        return loss, {"bc_loss": loss}

    def act(
        self,
        nets: Nets,
        observation: Float[Array, "*batch observation"],
        source: random.Source,
        explore: bool,
    ) -> Float[Array, "*batch action"]:
        """The mean action; a draw of the policy when exploring with the stochastic form."""
        if explore and self.loss == "nll":
            mean, _ = nets.actor(observation)
            return nets.actor.sample(observation, random.normal(source, mean.shape))
        return nets.actor.mode(observation)
