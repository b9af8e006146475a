"""Jump start (Uchendu et al. 2022, arXiv 2204.02372): the offline policy acts first, and hands over ever earlier."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from segue import rng
from segue.acting import Acted
from segue.algorithms.base import Algorithm, copy_arrays
from segue.bridges.base import Bridge, Handover, Report, Review, acting_nets, shapes_of
from segue.core import Array, Key, Learner, Nets, Spaces
from segue.describe import Panel
from segue.replay.base import ReplayStrategy
from segue.student_t import student_t

#: Windows without a step down after which an event says so.
PATIENCE = 10


class State(NamedTuple):
    """The guide's networks, the horizon, and the returns that the next decision rests on."""

    guide: Nets
    horizon: Array
    """h: the guide acts in the first h steps of an episode."""
    longest: Array
    """h at the start."""
    best: Array
    """Highest mean return of a window so far; at first the reference's."""
    recent: Array
    """The last `window` training returns at this horizon; NaN where there are not yet as many."""
    refused: Array
    """Windows at this horizon that did not let it shrink."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class JumpStart(Bridge):
    """The policy that was handed over, frozen, acts for the first h steps of each episode; h shrinks as returns allow.

    Evaluations show the two together, as they act live.
    """

    name: ClassVar[str] = "jump-start"
    needs_dataset: ClassVar[bool] = True
    needs_pretrained: ClassVar[bool] = True
    needs_reference: ClassVar[bool] = True
    attach_order: ClassVar[int] = 1

    rule: Literal["curriculum", "conservative"] = "curriculum"
    """`curriculum`: h shrinks when the mean return of a window is within the tolerance of the best so far (a lucky
    window can hold it for long: an event says so);
    `conservative`: only when a lower bound of it is within the tolerance of the handed-over policy's (after Wang, White
    & White 2025, arXiv 2505.00913; the rule is our reconstruction)."""
    stages: int = 10
    """Steps in which h goes from the longest to 0."""
    longest: int | None = None
    """h at the start; by default the mean episode length of the dataset's better half."""
    window: int = 5
    """Training episodes that each decision rests on."""
    tolerance: float = 0.1
    """Share of the return that may be lost."""
    confidence: float = 0.9
    """One-sided confidence of the conservative rule's lower bound (Student's t)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("stages", self.stages >= 1, "at least 1")
        self.require("longest", self.longest is None or self.longest >= 1, "at least 1")
        self.require("window", self.window >= 2, "at least 2")
        self.require("tolerance", 0 <= self.tolerance < 1, "at least 0 and below 1")
        self.require("confidence", 0.5 <= self.confidence < 1, "at least 0.5 and below 1")

    def panels(self) -> tuple[Panel, ...]:
        """The horizon of the guide."""
        words = "steps of each episode that the offline policy acts"
        return (Panel("jump_start_horizon", "Jump start: horizon", "steps", words),)

    def refusal(self, online: Algorithm, replay: ReplayStrategy, others: Iterable[Bridge]) -> str | None:
        """A chunk that the guide has begun cannot be handed to the learner in its middle."""
        if online.chunk_length > 1:
            return f"{online.name} decides on {online.chunk_length} actions at once; set chunk to 1, or leave it out"
        return None

    def inherits(self, online: Algorithm) -> tuple[str, ...]:
        """What acts."""
        return (online.policy_role,)

    def attach(self, learner: Learner, handover: Handover, key: Key) -> tuple[Learner, State]:
        """The guide is what was handed over."""
        longest = self.longest
        if longest is None:
            assert handover.dataset is not None
            better = handover.dataset.episode_returns >= np.median(handover.dataset.episode_returns)
            longest = max(int(handover.dataset.episode_lengths[better].mean()), 1)
        return learner, self.state(acting_nets(learner.nets), longest)

    def state(self, guide: Nets, longest: int) -> State:
        """The state at the handover."""
        return State(
            copy_arrays(guide),
            jnp.asarray(longest, jnp.int32),
            jnp.asarray(longest, jnp.int32),
            jnp.asarray(-jnp.inf, jnp.float32),
            jnp.full(self.window, jnp.nan, jnp.float32),
            jnp.zeros((), jnp.int32),
        )

    def skeleton(self, algorithm: Algorithm, spaces: Spaces) -> Any:
        """Networks and a few numbers."""
        return shapes_of(lambda: self.state(acting_nets(algorithm.init(jax.random.key(0), spaces)), 1))

    def describe(self, state: State) -> tuple[str, ...]:
        """The horizon."""
        return (f"jump-start: the offline policy acts for the first {int(state.longest)} steps of each episode",)

    def review(self, state: State, report: Report) -> Review:
        """Shrinks h by a stage when a full window of returns, of whole episodes, allows it; the next starts empty."""
        horizon, metrics = int(state.horizon), {"jump_start_horizon": float(state.horizon)}
        if horizon == 0 or not len(report.returns):
            return Review(state, metrics=metrics)
        best = max(float(state.best), float(report.reference.mean()))
        returns = report.returns[report.whole]
        recent = np.concatenate([np.asarray(state.recent), returns])[-self.window :].astype(np.float32)
        refused, event, enough = int(state.refused), None, False
        if not np.isnan(recent).any():
            mean = float(recent.mean())
            if self.rule == "conservative":
                spread = float(recent.std(ddof=1)) / math.sqrt(len(recent))
                bound, bar = mean - student_t(self.confidence, len(recent) - 1) * spread, float(report.reference.mean())
            else:
                bound, bar = mean, best
            enough = bound >= bar - self.tolerance * abs(bar)
            best, refused = max(best, mean), 0 if enough else refused + 1
            if enough:
                horizon = max(horizon - math.ceil(int(state.longest) / self.stages), 0)
                event = f"the guide's horizon shrinks to {horizon} (mean return {mean:.4g} at step {report.step})"
            elif refused == PATIENCE:
                event = (
                    f"the guide's horizon has stayed at {horizon} for {refused} windows of {self.window} episodes: "
                    f"{bound:.4g} is not within {self.tolerance:.0%} of {bar:.4g} at step {report.step}"
                )
            recent = np.full(self.window, np.nan, np.float32)
        state = state._replace(
            horizon=np.asarray(horizon, np.int32),
            best=np.asarray(best, np.float32),
            recent=recent,
            refused=np.asarray(refused, np.int32),
        )
        return Review(state, metrics=metrics, event=event, renewed=enough)

    def start(self, batch: int) -> Int[np.ndarray, " batch"]:
        """Steps since the episode began."""
        return np.zeros(batch, np.int64)

    def act(
        self,
        state: State,
        algorithm: Algorithm,
        nets: Nets,
        observation: Float[Array, "batch observation"],
        acted: Acted,
        carry: Int[Array, " batch"],
        source: rng.Source,
        explore: bool,
    ) -> Acted:
        """The guide's action, without exploration, in the first h steps of the episode."""
        xp, horizon = observation.__array_namespace__(), int(state.horizon)
        guided = carry < horizon
        if horizon == 0 or (xp is np and not guided.any()):
            return acted._replace(carry=carry + 1)
        # The start of one episode, for as many as there are: an export does not know how many.
        start = jax.tree.map(
            lambda leaf: xp.broadcast_to(leaf, (*carry.shape, *leaf.shape[1:])), algorithm.start(state.guide, 1)
        )
        guide = algorithm.act(state.guide, observation, start, source, False)
        chosen = guided if acted.action.ndim == 1 else guided[:, None]
        return Acted(
            xp.where(chosen, guide.action, acted.action),
            lambda: xp.where(guided, guide.log_prob(), acted.log_prob()),
            carry + 1,
        )
