"""Earned freedom: the policy stays within ε of the last one that live episodes have proven, and ε grows with proof.

The learner's episodes are ranked among those of the anchor (`segue.evidence.ranking_evidence`). Enough evidence that
they are better makes the average of the policies since then the anchor, and widens ε. The learner's next episodes are
then what later ones are ranked among. Enough evidence that they are worse narrows ε, which pulls the policy back to the
anchor. The combination is ours; the constraint is that of `conservative-update`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar, Literal, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from segue.algorithms.base import Algorithm, Aux, copy_arrays
from segue.bridges.base import Bridge, Handover, Report, Review
from segue.bridges.conservative import ConservativeUpdate
from segue.core import Array, Key, Learner, Nets, Spaces, Transition
from segue.describe import Panel, Remedy
from segue.evidence import ranking_evidence
from segue.replay.base import ReplayStrategy

#: Episodes of a trial: at least so many prove a policy, and after so many it ends undecided. A reference has `MOST`.
FEWEST, MOST = 5, 20
#: A trial ends undecided when both kinds of evidence have fallen below this.
HOPELESS = 0.5
#: Episodes count up to so many times ε from the anchor: the distance is that of one batch, and hovers at its bound.
NEAR = 1.5


class Distance(eqx.Module):
    """Which distance bounds the policy: part of the state's structure, since only the algorithm decides it."""

    name: Literal["squared", "kl"] = eqx.field(static=True)


class State(NamedTuple):
    """The anchor and how far the policy may go from it; and the returns that decide about both."""

    anchor: Any
    log_multiplier: Float[jax.Array, ""]
    optimiser: optax.OptState
    average: Any
    """Polyak average of the policy, the next anchor."""
    epsilon: Array
    """ε now."""
    smallest: Array
    """The least that ε may become."""
    distance: Distance
    away: Array
    """The policy's distance to the anchor, of the last batch."""
    earned: Array
    """Returns of the reference, [MOST]; NaN where there are none yet."""
    tried: Array
    """Returns of the learner's episodes in this trial, [MOST]; NaN where there are none yet."""
    widened: Array
    narrowed: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarnedFreedom(ConservativeUpdate):
    """max_θ Q(s, π_θ(s)) subject to E[distance(π_θ, π_anchor)] ≤ ε, where live episodes decide about anchor and ε."""

    name: ClassVar[str] = "earned-freedom"
    needs_pretrained: ClassVar[bool] = True
    needs_reference: ClassVar[bool] = True
    remedies: ClassVar[tuple[Remedy, ...]] = (
        Remedy("fall", "the policy goes further only after live episodes have shown that it got better"),
    )

    epsilon: float | None = None  # type: ignore[assignment]
    """ε at the handover: in nats for `kl`, by default 0.05; per action dimension of [-1, 1] for `squared`, by default
    0.01."""
    distance: Literal["squared", "kl"] | None = None  # type: ignore[assignment]
    """`squared`: of the mean actions; `kl`: KL(π ‖ anchor) of the distributions. By default `kl` for a policy that
    learns a density, since `squared` does not bound how far it explores. Discrete actions: always `kl`."""
    polyak: float = 0.005
    """τ of the average of the policy that becomes the anchor."""
    factor: float = 4.0
    """What ε is multiplied by when the policy has got better, and divided by when it has got worse. It is never less
    than ε at the handover / factor²."""
    alpha: float = 0.05
    """Probability, at most, that a trial of a policy that is no better widens ε; and that one that is no worse narrows
    it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("factor", self.factor > 1, "above 1")
        self.require("alpha", 0 < self.alpha < 1, "between 0 and 1, both excluded")

    def settled(self, algorithm: Algorithm) -> Self:
        """The bridge with the distance and the ε that suit the algorithm, where none is given."""
        distance = self.distance or ("kl" if algorithm.has_density else "squared")
        epsilon = (0.05 if distance == "kl" else 1e-2) if self.epsilon is None else self.epsilon
        return self.adjusted(distance=distance, epsilon=epsilon)

    def attach(self, learner: Learner, handover: Handover, key: Key) -> tuple[Learner, Any]:
        """The anchor is the policy that was handed over."""
        return ConservativeUpdate.attach(self.settled(handover.algorithm), learner, handover, key)

    def skeleton(self, algorithm: Algorithm, spaces: Spaces) -> Any:
        """Two actors, scalars, an optimiser, and returns."""
        return ConservativeUpdate.skeleton(self.settled(algorithm), algorithm, spaces)

    def describe(self, state: State) -> tuple[str, ...]:
        """The distance and ε, and λ at the handover."""
        bound = f"{self.name}: the distance is {state.distance.name}, and ε starts at {float(state.epsilon):.3g}"
        return bound, *super().describe(state)

    def inherits(self, online: Algorithm) -> tuple[str, ...]:
        """The first anchor."""
        return ("actor",)

    def panels(self) -> tuple[Panel, ...]:
        """The distance, how far it may go, and what was decided."""
        return (
            Panel(
                "constraint",
                "Earned freedom: distance",
                "to the proven policy",
                "distance to the policy that was last proven",
                logarithmic=True,
            ),
            Panel("freedom_epsilon", "Earned freedom: bound", "ε", "bound on that distance", logarithmic=True),
            Panel("freedom_widened", "Earned freedom: widened", "so far", "times the bound was widened", counts=True),
            Panel("freedom_narrowed", "Earned freedom: narrowed", "so far", "times it was narrowed", counts=True),
        )

    def refusal(self, online: Algorithm, replay: ReplayStrategy, others: Iterable[Bridge]) -> str | None:
        """Others decide who acts, or how far the policy may go."""
        for other in others:
            if other.name in ("promotion", "jump-start", "policy-expansion"):
                return f"{other.name} decides who acts, so returns do not show what the learner earns; leave one out"
            if other.name in ("conservative-update", "guard"):
                return f"{other.name} decides how far the policy may go, too; leave one of them out"
        return super().refusal(online, replay, others)

    def state(self, actor: Any, multiplier: Float[jax.Array, ""]) -> State:
        """The state at the handover, of a settled bridge: what was handed over is the anchor."""
        assert self.distance is not None
        assert self.epsilon is not None
        held = super().state(actor, multiplier)
        return State(
            held.anchor,
            held.log_multiplier,
            held.optimiser,
            average=copy_arrays(actor),
            epsilon=jnp.asarray(self.epsilon, jnp.float32),
            smallest=jnp.asarray(self.epsilon / self.factor**2, jnp.float32),
            distance=Distance(self.distance),
            away=jnp.zeros((), jnp.float32),
            earned=jnp.full(MOST, jnp.nan, jnp.float32),
            tried=jnp.full(MOST, jnp.nan, jnp.float32),
            widened=jnp.zeros((), jnp.int32),
            narrowed=jnp.zeros((), jnp.int32),
        )

    def bound(self, state: State) -> Float[jax.Array, ""]:
        """ε now."""
        return jnp.asarray(state.epsilon)

    def actor_penalty(
        self, state: State, actor: Any, nets: Nets, batch: Transition, loss: Float[jax.Array, " batch"], key: Key
    ) -> tuple[Float[jax.Array, ""], Aux]:
        """λ · E[distance(π_θ, anchor)], the distance settled at the handover."""
        settled = self.adjusted(distance=state.distance.name)
        return ConservativeUpdate.actor_penalty(settled, state, actor, nets, batch, loss, key)

    def update(
        self, state: State, algorithm: Algorithm, nets: Nets, batch: Transition, aux: Aux, key: Key
    ) -> tuple[State, Aux]:
        """One step of log λ; the average follows the policy, and the anchor stays."""
        moved, reported = super().update(state._replace(anchor=state.average), algorithm, nets, batch, aux, key)
        away = jax.lax.stop_gradient(aux["constraint"]).astype(jnp.float32)
        return moved._replace(anchor=state.anchor, average=moved.anchor, away=away), reported

    def review(self, state: State, report: Report) -> Review:
        """Ranks whole episodes of the learner among the reference's, in the order in which they began."""
        earned, tried = (np.asarray(column)[~np.isnan(column)] for column in (state.earned, state.tried))
        widened, narrowed = int(state.widened), int(state.narrowed)
        if handed_over := not widened and len(report.reference) > 0:
            earned = report.reference[-MOST:].astype(np.float32)
        anchor, epsilon, event = state.anchor, float(state.epsilon), None
        near = float(state.away) <= NEAR * epsilon
        # Rounded as the state is, so that equal returns stay equal.
        for one in report.returns[report.whole & near].astype(np.float32):
            if len(earned) < MOST and not handed_over:
                earned = np.append(earned, one)
                continue
            tried = np.append(tried, one)
            better, worse = ranking_evidence(earned, tried), ranking_evidence(tried, earned)
            if len(tried) >= FEWEST and tried.mean() > earned.mean() and better >= 1 / self.alpha:
                epsilon *= self.factor
                event = self._told(f"widened to {epsilon:.3g}", report.step, earned, tried)
                # In buffers of its own: the next dispatch takes over those of the average, too.
                anchor, widened = copy_arrays(state.average), widened + 1
                # Those that won were chosen for being high: what is to be compared with has to be unselected.
                earned = np.zeros(0)
            elif worse >= 1 / self.alpha:
                narrower = max(epsilon / self.factor, float(state.smallest))
                what = "narrowed to" if narrower < epsilon else "worse, but the bound is at its smallest,"
                narrowed, epsilon = narrowed + (narrower < epsilon), narrower
                event = self._told(f"{what} {epsilon:.3g}", report.step, earned, tried)
            elif len(tried) < MOST and max(better, worse) >= HOPELESS:
                continue
            tried = np.zeros(0)
            if event is not None:
                break
        metrics = {
            "freedom_epsilon": epsilon,
            "freedom_widened": float(widened),
            "freedom_narrowed": float(narrowed),
        }
        state = state._replace(
            anchor=anchor,
            epsilon=np.asarray(epsilon, np.float32),
            earned=_filled(earned),
            tried=_filled(tried),
            widened=np.asarray(widened, np.int32),
            narrowed=np.asarray(narrowed, np.int32),
        )
        return Review(state, metrics=metrics, event=event, renewed=event is not None)

    @staticmethod
    def _told(what: str, step: int, earned: np.ndarray, tried: np.ndarray) -> str:
        episodes = f"{len(tried)} episode{'s' * (len(tried) > 1)}"
        return (
            f"{what} at step {step}: {tried.mean():.4g} on average of {episodes}, where the "
            f"reference earned {earned.mean():.4g}"
        )


def _filled(values: Float[np.ndarray, " episodes"]) -> Float[np.ndarray, " most"]:
    return np.append(values, np.full(MOST - len(values), np.nan)).astype(np.float32)
