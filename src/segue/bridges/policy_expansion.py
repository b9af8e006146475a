"""Policy expansion, PEX (Zhang et al. 2023, arXiv 2302.00935): the offline policy and a fresh one, chosen by Q."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar

import jax
from jaxtyping import Float

from segue import rng
from segue.acting import Acted, Carry, unknown
from segue.algorithms.base import Algorithm, copy_arrays
from segue.bridges.base import Bridge, Handover, shapes_of
from segue.core import Array, Key, Learner, Nets, Spaces
from segue.replay.base import ReplayStrategy


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyExpansion(Bridge):
    """Acts with the frozen offline policy or with a fresh online one, drawn from a softmax over their actions' Q.

    The online policy learns as its algorithm says, from the actions that were taken. (In the authors' code the online
    policy's update also uses actions of the mixture; here the algorithm's loss is left as it is.)
    """

    name: ClassVar[str] = "policy-expansion"
    single_actions: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("actor", "critic")
    needs_pretrained: ClassVar[bool] = True
    attach_order: ClassVar[int] = 2

    inverse_temperature: float = 10.0
    """β of softmax(β · Q)."""
    greedy: float = 0.9
    """When not exploring: the probability of taking the better action instead of drawing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("inverse_temperature", self.inverse_temperature >= 0, "at least 0")
        self.require("greedy", 0 <= self.greedy <= 1, "between 0 and 1")

    def inherits(self, online: Algorithm) -> tuple[str, ...]:
        """The policy that it freezes."""
        return ("actor",)

    def refusal(self, online: Algorithm, replay: ReplayStrategy, others: Iterable[Bridge]) -> str | None:
        """Bridges that hold on to the actor that was handed over would hold on to the fresh one."""
        for other in others:
            if other.name in ("guard", "conservative-update"):
                return f"it learns with a fresh actor, which {other.name} would hold on to; leave one of them out"
        return None

    def attach(self, learner: Learner, handover: Handover, key: Key) -> tuple[Learner, Any]:
        """The offline policy becomes the state; the learner gets a fresh one (and a fresh optimiser for it)."""
        frozen, nets = copy_arrays(learner.nets.actor), learner.nets
        fresh = handover.algorithm.init(key, handover.spaces).actor
        copies = {"target_actor": copy_arrays(fresh)} if "target_actor" in nets else {}
        optimiser = handover.algorithm.optimisers()["actor"].init(fresh)
        learner = dataclasses.replace(
            learner,
            nets=nets.replace(actor=fresh, **copies),
            optimisers={**learner.optimisers, "actor": optimiser},
        )
        return learner, frozen

    def skeleton(self, algorithm: Algorithm, spaces: Spaces) -> Any:
        """An actor."""
        return shapes_of(lambda: algorithm.init(jax.random.key(0), spaces).actor)

    def describe(self, state: Any) -> tuple[str, ...]:
        """What became of the actor."""
        return ("policy-expansion: the offline policy is frozen beside a fresh actor; each step takes one by its Q",)

    def act(
        self,
        state: Any,
        algorithm: Algorithm,
        nets: Nets,
        observation: Float[Array, "batch observation"],
        acted: Acted,
        carry: Carry,
        source: rng.Source,
        explore: bool,
    ) -> Acted:
        """The offline policy's mode or the given action, by softmax(β · min_i Q_i)."""
        action, offline = acted.action, state.mode(observation)
        xp = observation.__array_namespace__()
        advantage = nets.critic(observation, action).min(0) - nets.critic(observation, offline).min(0)
        probability = 1 / (1 + xp.exp(-xp.clip(self.inverse_temperature * advantage, -50, 50)))
        by_softmax, by_greed = (
            rng.uniform(rng.named(source, of), advantage.shape, 0.0, 1.0) for of in ("softmax", "greedy")
        )
        online = by_softmax < probability
        if not explore:
            online = xp.where(by_greed < self.greedy, advantage >= 0, online)
        # The probability of an action of the mixture depends on every action that might have been drawn beside it.
        chosen = xp.where(online if action.ndim == 1 else online[:, None], action, offline)
        return Acted(chosen, unknown(chosen, online.shape), carry)
