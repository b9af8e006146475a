"""Promotion: one policy stays the one that counts until live episodes show a better one.

That *incumbent* is at first what was handed over; or a clone of the dataset's best episodes (`clone_steps`). Then what
was handed over is the first candidate: a policy that learnt values offline is deployed only where it proves better.

The learner explores, and may fall. While no candidate is tried it acts in most episodes. When one of them is better
than what the incumbent earns, the Polyak average of its policies becomes a candidate: it is frozen, and acts unchanged
until its own episodes decide. A candidate that wins replaces the incumbent, which is what evaluations show and exports
contain.

The test ranks the returns of both. Each new return is drawn into a ranking from the best downwards. By the alternative,
an episode of the candidate is eight times as likely to come next as one of the incumbent (Lehmann; Savage 1956). The
evidence is the likelihood of the ranking by that, over the one where both are alike. If the candidate's returns are
distributed like the incumbent's, the evidence is a martingale, and ever reaches 1/α with probability α at most (Ville's
inequality). Later candidates need more of it (e-LOND, Xu & Ramdas 2024). The combination of the parts is ours. That a
candidate is made where the incumbent's returns are low breaks the martingale a little: studies/evidence measures it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from segue import rng
from segue.acting import Acted
from segue.algorithms.base import Algorithm, Aux, copy_arrays
from segue.bridges.base import Bridge, CostLimited, Handover, Report, Review, acting_nets, shapes_of
from segue.core import Array, Key, Learner, Nets, Normaliser, Spaces, Transition
from segue.describe import Panel, Remedy
from segue.evidence import ranking_evidence, required_evidence
from segue.imitation import imitate
from segue.replay.base import ReplayStrategy
from segue.student_t import student_t

#: A candidate is dropped when the evidence has fallen below this.
HOPELESS = 0.5
#: Returns of the incumbent that a candidate is compared with: at least so many, at most the last so many.
FEWEST, RECENT = 5, 20
#: Updates of the clone per dispatch.
DISPATCH = 1_000
#: Who acts in an episode.
NOBODY, INCUMBENT, LEARNER, CANDIDATE = -1, 0, 1, 2


class State(NamedTuple):
    """The policies, and the returns that decide between them."""

    incumbent: Nets
    candidate: Nets
    average: Nets
    """Polyak average of the learner."""
    earned: Array
    """Last returns of the incumbent, [RECENT], oldest first; NaN where there are not as many."""
    tried: Array
    """Returns of the candidate in the order in which its episodes began, [RECENT]; NaN where there are none yet."""
    cost: Array
    """Costs of the same episodes; NaN where there are none yet."""
    evidence: Array
    """For the candidate; 0 while there is none."""
    promotions: Array
    candidates: Array
    clone_loss: Array
    """Imitation loss of the clone, over its last updates; NaN without one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Promotion(CostLimited):
    """Deploys a learnt policy only after live episodes have shown that it is better than the one deployed before."""

    name: ClassVar[str] = "promotion"
    needs_pretrained: ClassVar[bool] = True
    single_actions: ClassVar[bool] = True
    attach_order: ClassVar[int] = 1
    remedies: ClassVar[tuple[Remedy, ...]] = (
        Remedy("fall", "the policy deployed changes only when live episodes show a better one"),
    )

    alpha: float = 0.1
    """Expected share of candidates that are no better than the incumbent among those promoted, at most."""
    average: float = 0.005
    """τ of the average that candidates are made of: average ← τ·policy + (1 − τ)·average; 1: the policy itself."""
    cost_limit: float | None = None
    """Mean cost of an episode that a candidate must keep, where the recipe records a cost: it is promoted only if the
    upper bound of its mean cost, by Student's t at 1 − α, is at most this; by default the recipe's cost_limit."""
    clone_steps: int = 0
    """Updates of a clone of the dataset's best episodes, which is the incumbent at first, while what was handed over is
    the first candidate; 0: what was handed over is the incumbent."""
    clone_share: float = 0.1
    """Share of the dataset's episodes that the clone imitates, those with the highest return."""
    share: float = 0.9
    """Share of the training episodes in which the learner or its candidate acts; the incumbent acts in the others."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("alpha", 0 < self.alpha < 1, "between 0 and 1, both excluded")
        self.require("average", 0 < self.average <= 1, "above 0 and at most 1")
        self.require("clone_steps", self.clone_steps >= 0, "at least 0")
        self.require("clone_share", 0 < self.clone_share <= 1, "above 0 and at most 1")
        self.require("share", 0 < self.share <= 1, "above 0 and at most 1")

    def instead(self) -> str | None:
        """The clone."""
        return "a clone of the dataset's best episodes" if self.clone_steps else None

    def wants_dataset(self) -> bool:
        """To clone its best episodes."""
        return self.clone_steps > 0

    def refusal(self, online: Algorithm, replay: ReplayStrategy, others: Iterable[Bridge]) -> str | None:
        """Each decides who acts, or what the returns of what acts mean; and a critic cannot be a clone."""
        if self.clone_steps and online.policy_step is None:
            return f"{online.name} acts by its critic alone, which imitates nothing; expected clone_steps 0"
        for other in others:
            if other.name in ("guard", "jump-start", "policy-expansion"):
                return f"{other.name} decides who acts, too; leave one of them out"
        return None

    def inherits(self, online: Algorithm) -> tuple[str, ...]:
        """What acts."""
        return (online.policy_role,)

    def attach(self, learner: Learner, handover: Handover, key: Key) -> tuple[Learner, State]:
        """The incumbent is what was handed over; or a clone, and what was handed over is the first candidate."""
        state = self.state(acting_nets(learner.nets))
        if self.clone_steps:
            clone, loss = self.clone(learner.normaliser, handover, key)
            incumbent = state.incumbent.replace(**{handover.algorithm.policy_role: clone})
            evidence, candidates = jnp.ones_like(state.evidence), jnp.ones_like(state.candidates)
            state = state._replace(incumbent=incumbent, clone_loss=loss, evidence=evidence, candidates=candidates)
        return learner, state

    def clone(self, normaliser: Normaliser, handover: Handover, key: Key) -> tuple[Any, Float[Array, ""]]:
        """A fresh policy that was fitted to the dataset's best episodes, and its last losses' mean."""
        assert handover.dataset is not None
        algorithm, role = handover.algorithm, handover.algorithm.policy_role
        best = handover.dataset.best_episodes(self.clone_share).excerpt()
        observation, action = jnp.asarray(normaliser(best.observations)), jnp.asarray(best.actions)
        fresh = algorithm.init(rng.named(key, "init"), handover.spaces)
        policy, optimiser = getattr(fresh, role), algorithm.optimisers()[role]
        state, losses = optimiser.init(policy), jnp.zeros(0)
        for step in range(0, self.clone_steps, DISPATCH):
            handover.tell(step, self.clone_steps)
            steps, own = min(DISPATCH, self.clone_steps - step), rng.named(key, "clone", step)
            policy, state, losses = imitate(policy, state, algorithm, observation, action, own, steps)
        return policy, losses.mean()

    def state(self, nets: Nets) -> State:
        """The state at the handover."""
        return State(
            copy_arrays(nets),
            copy_arrays(nets),
            copy_arrays(nets),
            jnp.full(RECENT, jnp.nan, jnp.float32),
            jnp.full(RECENT, jnp.nan, jnp.float32),
            jnp.full(RECENT, jnp.nan, jnp.float32),
            jnp.zeros((), jnp.float32),
            jnp.zeros((), jnp.int32),
            jnp.zeros((), jnp.int32),
            jnp.full((), jnp.nan, jnp.float32),
        )

    def skeleton(self, algorithm: Algorithm, spaces: Spaces) -> Any:
        """Two policies and a few numbers."""
        return shapes_of(lambda: self.state(acting_nets(algorithm.init(jax.random.key(0), spaces))))

    def describe(self, state: State) -> tuple[str, ...]:
        """Who acts first."""
        who, then = "the policy that was handed over", ""
        if self.clone_steps:
            loss = f"last imitation loss {float(state.clone_loss):.3g}"
            who = f"a clone of the best {self.clone_share:.0%} of the episodes learnt from ({loss})"
            then = "; what was handed over is the first candidate"
        counts = f"acts for {FEWEST} episodes at least, and counts until a candidate's episodes are better"
        return (f"promotion: {who} {counts}{then}",)

    def panels(self) -> tuple[Panel, ...]:
        """The evidence for the last candidate, and what the incumbent and the learner earn."""
        return (
            Panel(
                "promotion_log_evidence",
                "Promotion: evidence for the candidate",
                "log e-value",
            ),
            Panel("promotions", "Promotion: candidates promoted", "so far", "candidates promoted", counts=True),
            Panel(
                "incumbent_return",
                "Promotion: returns",
                "mean per training episode",
                name="incumbent",
                beside=("learner_return", "learner"),
            ),
        )

    def threshold(self, candidates: int, promotions: int) -> float:
        """The evidence that promotes the candidate with this number, after so many promotions."""
        return required_evidence(self.alpha, candidates, promotions)

    def update(
        self, state: State, algorithm: Algorithm, nets: Nets, batch: Transition, aux: Aux, key: Key
    ) -> tuple[State, Aux]:
        """The average moves."""
        return state._replace(average=optax.incremental_update(acting_nets(nets), state.average, self.average)), {}

    def review(self, state: State, report: Report) -> Review:
        """Counts whole episodes by who acted in them, in the order in which they began."""
        if report.arms is None or not len(report.returns):
            return Review(state)
        columns = state.earned, state.tried, state.cost
        earned, tried, cost = (np.asarray(column)[~np.isnan(column)] for column in columns)
        spent = np.full(len(report.returns), np.nan) if report.costs is None else report.costs
        value, promotions, candidates = float(state.evidence), int(state.promotions), int(state.candidates)
        incumbent, candidate = state.incumbent, state.candidate
        event: str | None = None
        renewed = False
        shown = (column[report.whole].tolist() for column in (report.arms, report.returns, spent))
        for arm, one, own_cost in zip(*shown, strict=True):
            if arm == INCUMBENT and (value == 0 or len(earned) < RECENT):
                earned = np.append(earned, one)[-RECENT:]
            if arm == LEARNER and value == 0 and len(earned) >= FEWEST and one >= np.median(earned):
                candidate, tried, cost = copy_arrays(state.average), np.zeros(0), np.zeros(0)
                value, candidates, renewed = 1.0, candidates + 1, True
                break
            if value == 0 or arm == LEARNER:
                continue
            if arm == CANDIDATE:
                tried, cost = np.append(tried, one), np.append(cost, own_cost)
            value = ranking_evidence(earned, tried)
            proven = value >= self.threshold(candidates, promotions)
            better = proven and tried.mean() > earned.mean()
            if better and self.cheap(cost):
                event = self._told(candidates, "promoted", report.step, earned, tried)
                # In buffers of its own: the next dispatch takes over those of the candidate, too.
                incumbent, earned, promotions = copy_arrays(candidate), tried, promotions + 1
            elif value >= HOPELESS and (better or not proven) and len(tried) < RECENT:
                continue
            else:
                event = self._told(candidates, "dropped", report.step, earned, tried)
                if better:
                    event += f"; its cost ({cost.mean():.4g}) may be above cost_limit {self.cost_limit:g}"
                elif proven:
                    high = int((tried > np.median(earned)).sum())
                    event += f"; {high} of these earned more than the incumbent's median, but not more on average"
                elif value >= HOPELESS:
                    event += f"; {RECENT} episodes did not prove it better"
                elif tried.mean() > earned.mean():
                    low = int((tried < np.median(earned)).sum())
                    event += f"; the test goes by ranks, and {low} of these earned less than the incumbent's median"
            value, renewed = 0.0, True
            break
        metrics = {
            "promotions": float(promotions),
            "candidates": float(candidates),
            "promotion_log_evidence": math.log(value) if value else 0.0,
        }
        if len(earned):
            metrics["incumbent_return"] = float(earned.mean())
        for arm, who in ((LEARNER, "learner"), (CANDIDATE, "candidate")):
            if (acted := report.whole & (report.arms == arm)).any():
                metrics[f"{who}_return"] = float(report.returns[acted].mean())
        state = State(
            incumbent,
            candidate,
            state.average,
            _filled(earned),
            _filled(tried),
            _filled(cost),
            np.asarray(value, np.float32),
            np.asarray(promotions, np.int32),
            np.asarray(candidates, np.int32),
            state.clone_loss,
        )
        return Review(state, metrics=metrics, event=event, renewed=renewed)

    def cheap(self, costs: Float[np.ndarray, " episodes"]) -> bool:
        """Whether the mean cost is below the limit, as far as these episodes show; True without a limit."""
        if self.cost_limit is None:
            return True
        if len(costs) < 2:
            return False
        error = costs.std(ddof=1) / math.sqrt(len(costs))
        return bool(costs.mean() + student_t(1 - self.alpha, len(costs) - 1) * error <= self.cost_limit)

    def _told(self, number: int, what: str, step: int, earned: np.ndarray, tried: np.ndarray) -> str:
        which = " (what was handed over)" if self.clone_steps and number == 1 else ""
        episodes = f"{len(tried)} episode{'s' * (len(tried) > 1)}"
        return (
            f"candidate {number}{which} {what} at step {step}: {tried.mean():.4g} on average of {episodes}, where the "
            f"incumbent earned {earned.mean():.4g}"
        )

    def deployed(self, state: State, nets: Nets) -> Nets:
        """The incumbent's: exported, it explores as it is, and the learner stays out."""
        return nets.replace(**state.incumbent.roles())

    def start(self, batch: int) -> Int[np.ndarray, " batch"]:
        """Who acts in an episode is drawn with its first step."""
        return np.full(batch, NOBODY, np.int64)

    def arms(self, carry: Int[np.ndarray, " batch"]) -> Int[np.ndarray, " batch"]:
        """Who acts."""
        return carry

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
        """The incumbent, unless exploring; then who was drawn for the episode.

        Incumbent and candidate never explore: what is tried is what would be deployed.
        """
        xp = observation.__array_namespace__()

        def act(nets: Nets, who: str) -> Acted:
            own = algorithm.start(nets, 1)
            own = jax.tree.map(lambda leaf: xp.broadcast_to(leaf, (*carry.shape, *leaf.shape[1:])), own)
            return algorithm.act(nets, observation, own, rng.named(source, who), False)

        if not explore:
            return act(state.incumbent, "incumbent")._replace(carry=xp.full_like(carry, INCUMBENT))
        on_trial = float(state.evidence) > 0
        challenger = CANDIDATE if on_trial else LEARNER
        if np.isnan(state.earned).sum() > RECENT - FEWEST:
            challenger = INCUMBENT
        drawn = rng.uniform(rng.named(source, "who"), carry.shape, 0.0, 1.0) < self.share
        carry = xp.where(carry == NOBODY, xp.where(drawn, challenger, INCUMBENT), carry)
        chosen = acted
        for arm, theirs, who in (
            (INCUMBENT, state.incumbent, "incumbent"),
            (CANDIDATE, state.candidate, "candidate"),
        ):
            acts = (carry == arm) & (on_trial or arm != CANDIDATE)
            if xp is not np or acts.any():
                chosen = _where(acts, act(theirs, who), chosen, xp)
        return chosen._replace(carry=carry)


def _where(mask: Any, one: Acted, other: Acted, xp: Any) -> Acted:
    rows = mask if one.action.ndim == 1 else mask[:, None]
    action = xp.where(rows, one.action, other.action)
    return Acted(action, lambda: xp.where(mask, one.log_prob(), other.log_prob()), other.carry)


def _filled(values: Float[np.ndarray, " episodes"]) -> Float[np.ndarray, " recent"]:
    return np.append(np.full(RECENT - len(values), np.nan), values).astype(np.float32)
