"""The averaged actor: what is evaluated, deployed and exported is the Polyak average of the policies learnt live.

Much of what evaluations swing by is the last few gradient steps. The learner still acts in training episodes, so that
its critic sees its mistakes. Averaging the iterates of a stochastic approximation is Polyak and Juditsky's (1992).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar

import jax
import optax
from jaxtyping import Float

from segue import rng
from segue.acting import Acted, Carry
from segue.algorithms.base import Algorithm, Aux, copy_arrays
from segue.bridges.base import Bridge, Handover, shapes_of
from segue.core import Array, Key, Learner, Nets, Spaces, Transition
from segue.replay.base import ReplayStrategy


@dataclasses.dataclass(frozen=True, kw_only=True)
class AveragedActor(Bridge):
    """Evaluates and deploys an average of the policies since the handover, which begins with the one handed over.

    What is averaged is the actor; the critic for an algorithm that acts by it alone.
    """

    name: ClassVar[str] = "averaged-actor"
    single_actions: ClassVar[bool] = True
    attach_order: ClassVar[int] = 4

    average: float = 0.005
    """τ of average ← τ·policy + (1 − τ)·average, after every step of the policy: it looks back over about 1/τ steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("average", 0 < self.average <= 1, "above 0 and at most 1")

    def refusal(self, online: Algorithm, replay: ReplayStrategy, others: Iterable[Bridge]) -> str | None:
        """Others decide what is deployed, too."""
        for other in others:
            if other.name in ("promotion", "policy-expansion"):
                return f"{other.name} decides what is deployed, too; leave one of them out"
        return None

    def attach(self, learner: Learner, handover: Handover, key: Key) -> tuple[Learner, Nets]:
        """The average begins with what was handed over."""
        return learner, copy_arrays(_policy_of(handover.algorithm, learner.nets))

    def skeleton(self, algorithm: Algorithm, spaces: Spaces) -> Any:
        """One more actor."""
        return shapes_of(lambda: _policy_of(algorithm, algorithm.init(jax.random.key(0), spaces)))

    def update(
        self, state: Nets, algorithm: Algorithm, nets: Nets, batch: Transition, aux: Aux, key: Key
    ) -> tuple[Nets, Aux]:
        """The average moves."""
        return optax.incremental_update(_policy_of(algorithm, nets), state, self.average), {}

    def deployed(self, state: Nets, nets: Nets) -> Nets:
        """The average's."""
        return nets.replace(**state.roles())

    def act(
        self,
        state: Nets,
        algorithm: Algorithm,
        nets: Nets,
        observation: Float[Array, "batch observation"],
        acted: Acted,
        carry: Carry,
        source: rng.Source,
        explore: bool,
    ) -> Acted:
        """The average, unless exploring."""
        if not explore:
            nets = self.deployed(state, nets)
            own = algorithm.start(nets, observation.shape[0])
            acted = algorithm.act(nets, observation, own, rng.named(source, "average"), False)
        return acted._replace(carry=carry)


def _policy_of(algorithm: Algorithm, nets: Nets) -> Nets:
    """The network that the policy's step moves, alone."""
    return Nets(**{algorithm.policy_role: getattr(nets, algorithm.policy_role)})
