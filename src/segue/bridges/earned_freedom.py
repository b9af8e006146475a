"""Earned freedom: the policy stays within ε of the last one that live episodes have proven, and ε grows with proof.

The learner's episodes are ranked among those of the anchor (`segue.evidence.ranking_evidence`). Enough evidence that
they are better makes the average of the policies since then the anchor, and widens ε. Enough evidence that they are
worse narrows ε, which pulls the policy back to the anchor. The combination is ours; the constraint is that of
`conservative-update`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from segue.algorithms.base import Algorithm, Aux, copy_arrays
from segue.bridges.base import Bridge, Report, Review
from segue.bridges.conservative import ConservativeUpdate
from segue.core import Array, Key, Nets, Transition
from segue.describe import Panel, Remedy
from segue.evidence import ranking_evidence
from segue.replay.base import ReplayStrategy

#: Episodes of a trial: at least so many prove a policy, and after so many it ends undecided.
FEWEST, MOST = 5, 20
#: A trial ends undecided when both kinds of evidence have fallen below this.
HOPELESS = 0.5


class State(NamedTuple):
    """The anchor and how far the policy may go from it; and the returns that decide about both."""

    anchor: Any
    log_multiplier: Float[jax.Array, ""]
    optimiser: optax.OptState
    average: Any
    """Polyak average of the policy, the next anchor."""
    epsilon: Array
    """ε now."""
    earned: Array
    """Returns of the anchor, [MOST]; NaN where there are none."""
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

    epsilon: float = 1e-2
    """ε at the handover: squared, per action dimension of [-1, 1]; or in nats."""
    polyak: float = 0.005
    """τ of the average of the policy that becomes the anchor."""
    factor: float = 4.0
    """What ε is multiplied by when the policy has got better, and divided by when it has got worse."""
    alpha: float = 0.05
    """Probability, at most, that a trial of a policy that is no better widens ε; and that one that is no worse narrows
    it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("factor", self.factor > 1, "above 1")
        self.require("alpha", 0 < self.alpha < 1, "between 0 and 1, both excluded")

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
        """The state at the handover: what was handed over is the anchor."""
        held = super().state(actor, multiplier)
        return State(
            held.anchor,
            held.log_multiplier,
            held.optimiser,
            average=copy_arrays(actor),
            epsilon=jnp.asarray(self.epsilon, jnp.float32),
            earned=jnp.full(MOST, jnp.nan, jnp.float32),
            tried=jnp.full(MOST, jnp.nan, jnp.float32),
            widened=jnp.zeros((), jnp.int32),
            narrowed=jnp.zeros((), jnp.int32),
        )

    def bound(self, state: State) -> Float[jax.Array, ""]:
        """ε now."""
        return jnp.asarray(state.epsilon)

    def update(
        self, state: State, algorithm: Algorithm, nets: Nets, batch: Transition, aux: Aux, key: Key
    ) -> tuple[State, Aux]:
        """One step of log λ; the average follows the policy, and the anchor stays."""
        moved, reported = super().update(state._replace(anchor=state.average), algorithm, nets, batch, aux, key)
        return moved._replace(anchor=state.anchor, average=moved.anchor), reported

    def review(self, state: State, report: Report) -> Review:
        """Ranks whole episodes of the learner among the anchor's, in the order in which they began."""
        earned, tried = (np.asarray(column)[~np.isnan(column)] for column in (state.earned, state.tried))
        if not len(earned):
            earned = report.reference[-MOST:].astype(np.float32)
        widened, narrowed = int(state.widened), int(state.narrowed)
        anchor, epsilon, event = state.anchor, float(state.epsilon), None
        # Rounded as the state is, so that equal returns stay equal.
        for one in report.returns[report.whole].astype(np.float32):
            tried = np.append(tried, one)
            better, worse = ranking_evidence(earned, tried), ranking_evidence(tried, earned)
            if len(tried) >= FEWEST and tried.mean() > earned.mean() and better >= 1 / self.alpha:
                epsilon *= self.factor
                event = self._told("widened", epsilon, report.step, earned, tried)
                # In buffers of its own: the next dispatch takes over those of the average, too.
                anchor, earned, widened = copy_arrays(state.average), tried, widened + 1
            elif worse >= 1 / self.alpha:
                epsilon /= self.factor
                event = self._told("narrowed", epsilon, report.step, earned, tried)
                narrowed += 1
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
    def _told(what: str, epsilon: float, step: int, earned: np.ndarray, tried: np.ndarray) -> str:
        episodes = f"{len(tried)} episode{'s' * (len(tried) > 1)}"
        return (
            f"{what} to {epsilon:.3g} at step {step}: {tried.mean():.4g} on average of {episodes}, where the "
            f"proven policy earned {earned.mean():.4g}"
        )


def _filled(values: Float[np.ndarray, " episodes"]) -> Float[np.ndarray, " most"]:
    return np.append(values, np.full(MOST - len(values), np.nan)).astype(np.float32)
