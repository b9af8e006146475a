"""What a bridge is: a frozen dataclass that acts at the handover through hooks, each with a neutral default.

A bridge implements only what it changes. Bridges compose: weights multiply, penalties add, the bootstrap, the acting
policy and the algorithm's hyper-parameters are transformed in the order of the recipe. An empty tuple is bit-identical
to the plain algorithm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from segue import rng
from segue.acting import Acted, Carry
from segue.algorithms.base import Algorithm, Aux, Progress
from segue.core import Array, Key, Learner, Nets, Spaces, Transition, origin
from segue.data.dataset import Dataset
from segue.describe import Panel, Remedy
from segue.hyper import HyperParameters
from segue.replay.base import ReplayStrategy

Verdict = Literal["go on", "mark", "keep", "roll back", "start over"]


@dataclasses.dataclass(frozen=True)
class Handover:
    """What a bridge may look at when it attaches."""

    algorithm: Algorithm
    """The online algorithm."""
    spaces: Spaces
    dataset: Dataset | None
    """The dataset as it is."""
    logged: Transition | None
    """The dataset as the online algorithm learns from it: normalised observations, its discount and rewards."""
    tell: Callable[[int, int], None] = lambda step, total: None
    """Progress of a long fit: steps done, and of how many."""
    fit_critic: Callable[[Learner, int], Learner] = lambda learner, steps: learner
    """So many critic updates on the dataset, with the algorithm's own target but without its conservatism. The
    policy takes no step."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What happened live since the last report."""

    step: int
    """Environment steps so far."""
    returns: Float[np.ndarray, " episodes"]
    """Undiscounted returns of the training episodes that have ended since."""
    whole: Bool[np.ndarray, " episodes"]
    """Which of them began after the last `mark`, `keep` or `renewed` review, so that they show what followed it."""
    reference: Float[np.ndarray, " references"]
    """Returns of the policy that was handed over, with its exploration, before it learnt anything live."""
    learner: Learner
    """As it is now."""
    arms: Int[np.ndarray, " episodes"] | None = None
    """Which of the bridge's policies acted in each episode, by its `arms`; None for a bridge that has only one."""
    costs: Float[np.ndarray, " episodes"] | None = None
    """Costs of the same episodes, summed over their steps; None if the run records none."""
    reference_costs: Float[np.ndarray, " references"] | None = None
    """Costs of the reference episodes; None if the run records none."""


@dataclasses.dataclass(frozen=True)
class Review:
    """What a bridge makes of a report."""

    state: Any
    """Its next state."""
    verdict: Verdict = "go on"
    """`mark`: remember the learner, it may prove good. `keep`: the one last marked has, so it is the one to return to;
    and mark this one. `roll back`: return to the one last kept. `start over`: return to the one handed over."""
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    event: str | None = None
    """A sentence for the log and the report, when something happened."""
    renewed: bool = False
    """Whether this review changed how the policy acts: the episodes under way then mix two policies."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bridge(HyperParameters):
    """The hooks. `state` is what `attach` returned: a pytree that is part of the learner."""

    name: ClassVar[str] = "bridge"
    needs: ClassVar[tuple[str, ...]] = ()
    """Roles of the online algorithm that it uses."""
    needs_dataset: ClassVar[bool] = False
    """Whether it uses the dataset."""
    needs_pretrained: ClassVar[bool] = False
    """Whether it makes sense only after an offline phase."""
    provides: ClassVar[tuple[str, ...]] = ()
    """Roles that attaching it fits to the handed-over policy, whether or not the offline phase learnt them."""
    needs_reference: ClassVar[bool] = False
    """Whether its reviews compare with the policy that was handed over, which is then tried out first."""
    attach_order: ClassVar[int] = 3
    """Lower ones attach first: a critic is fitted to the policy, and a guide copied, before the policy is exchanged."""
    remedies: ClassVar[tuple[Remedy, ...]] = ()
    """The symptoms that are a reason to suggest it. The report suggests it only where the recipe accepts it."""
    single_actions: ClassVar[bool] = False
    """Whether it needs the critic to rate single actions, which an algorithm with action chunks does not."""
    images: ClassVar[bool] = True
    """Whether it can do with observations that are images."""
    on_policy: ClassVar[bool] = False
    """Whether it can act on an on-policy algorithm, which has no critic, no replay and whose policy acts alone."""

    def inherits(self, online: Algorithm) -> tuple[str, ...]:
        """Roles, of those that the online algorithm has, that must have been learnt offline for it to mean anything."""
        return ()

    def instead(self) -> str | None:
        """What is deployed at the handover instead of the policy that was handed over; None: that policy."""
        return None

    def wants_dataset(self) -> bool:
        """Whether it uses the dataset as it is configured."""
        return self.needs_dataset

    def wants_cost(self) -> bool:
        """Whether it needs the cost of each step as it is configured."""
        return False

    def with_cost_limit(self, limit: float | None) -> Self:
        """The bridge that keeps to the recipe's limit on the cost of an episode, if it keeps to any."""
        return self

    def refusal(self, online: Algorithm, replay: ReplayStrategy, others: Iterable[Bridge]) -> str | None:
        """Why it makes no sense with these, beyond what the class variables say; None if it does."""
        return None

    def attach(self, learner: Learner, handover: Handover, key: Key) -> tuple[Learner, Any]:
        """The learner to start the online phase from, and the bridge's state."""
        return learner, ()

    def skeleton(self, algorithm: Algorithm, spaces: Spaces) -> Any:
        """The structure of the state, with `jax.ShapeDtypeStruct` leaves, so that a checkpoint can be read back."""
        return ()

    def describe(self, state: Any) -> tuple[str, ...]:
        """Sentences on what attaching found, for the log and the report."""
        return ()

    def panels(self) -> tuple[Panel, ...]:
        """The metrics that it records and wants shown in the report."""
        return ()

    def adjust(self, state: Any, algorithm: Algorithm, progress: Progress) -> Algorithm:
        """The algorithm with the hyper-parameters it has at this point of the online phase."""
        return algorithm

    def bootstrap(
        self,
        state: Any,
        algorithm: Algorithm,
        nets: Nets,
        batch: Transition,
        next_value: Float[jax.Array, " batch"],
        value_key: Key,
        key: Key,
    ) -> tuple[Float[jax.Array, " batch"], Aux]:
        """The value bootstrapped in the Bellman target; `value_key` is what `algorithm.next_value` was called with."""
        return next_value, {}

    def actor_weight(
        self, state: Any, nets: Nets, batch: Transition, key: Key
    ) -> tuple[Float[jax.Array, " batch"] | None, Aux]:
        """Weight of each sample in the policy loss; None means 1."""
        return None, {}

    def actor_penalty(
        self, state: Any, actor: Any, nets: Nets, batch: Transition, loss: Float[jax.Array, " batch"], key: Key
    ) -> tuple[Float[jax.Array, ""] | None, Aux]:
        """What is added to the policy loss, whose values per sample, detached, are given for its size; None means 0."""
        return None, {}

    def actor_rate(self, state: Any) -> Float[jax.Array, ""] | None:
        """Factor of the length of the policy's steps; None means 1."""
        return None

    def update(
        self, state: Any, algorithm: Algorithm, nets: Nets, batch: Transition, aux: Aux, key: Key
    ) -> tuple[Any, Aux]:
        """The next state, after the policy and its targets have moved; `aux` holds what the actor losses reported."""
        return state, {}

    def review(self, state: Any, report: Report) -> Review:
        """What to do about what happened live; on the host, between dispatches."""
        return Review(state)

    def pace(self, state: Any) -> float:
        """Factor of the number of updates per environment step; on the host, after a review."""
        return 1.0

    def start(self, batch: int) -> Carry:
        """What the bridge carries into the first step of so many episodes (segue.acting)."""
        return ()

    def deployed(self, state: Any, nets: Nets) -> Nets | None:
        """The networks of the policy that is deployed, without the bridge; None if the bridge goes on acting there."""
        return None

    def arms(self, carry: Carry) -> Int[np.ndarray, " batch"] | None:
        """Which of its policies act, by what it carries in these episodes; None if there is only one."""
        return None

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
        """The action taken, given the one the algorithm (and the bridges before) chose; on the host, or traced.

        It runs on the host, and is traced by an export. `carry` is this bridge's own, and so is the one returned.
        """
        return acted._replace(carry=carry)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostLimited(Bridge):
    """A bridge that limits the mean cost of an episode."""

    cost_limit: float | None = None
    """Mean cost of an episode at most; by default the recipe's `cost_limit`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("cost_limit", self.cost_limit is None or self.cost_limit >= 0, "at least 0")

    def wants_cost(self) -> bool:
        """To keep a limit on it."""
        return self.cost_limit is not None

    def with_cost_limit(self, limit: float | None) -> Self:
        """Its own limit goes before the recipe's."""
        return dataclasses.replace(self, cost_limit=limit) if self.cost_limit is None else self


def acting_nets(nets: Nets) -> Nets:
    """Without what only learning needs."""
    needed = {role: net for role, net in nets.roles().items() if origin(role) is None}
    return Nets(**{role: net for role, net in needed.items() if role not in ("temperature", "multiplier")})


def shapes_of(build: Callable[[], Any]) -> Any:
    """The structure of what this would build, without building it: for `skeleton`."""
    return eqx.filter_eval_shape(build)


def weighted_mean(loss: Float[jax.Array, " batch"], weight: Float[jax.Array, " batch"]) -> Float[jax.Array, ""]:
    """Σ w·ℓ / Σ w, and 0 (with zero gradient) when every weight is 0.

    Raises:
        ValueError: if the shapes differ; [B] against [B, 1] would silently become [B, B].
    """
    if loss.shape != weight.shape or loss.ndim != 1:
        raise ValueError(f"per-sample loss {loss.shape} and weight {weight.shape}: expected the same shape [batch]")
    return (weight * loss).sum() / jnp.maximum(weight.sum(), jnp.finfo(jnp.float32).tiny)
