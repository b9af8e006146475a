"""Guard: sequential tests on the live returns and costs, and a way back when returns fall or costs rise.

The test is a betting e-process (Waudby-Smith & Ramdas 2023, arXiv 2010.09686; Shin et al. 2022, arXiv 2203.03532): a
gambler stakes on the returns being lower than the handed-over policy's, at odds that are fair if they are not; when the
stake has grown enough, that can be believed. It may look after every episode: the probability that it *ever* raises a
false alarm is at most α, as far as Student's t bounds the mean of the reference. It does not where disasters are so
rare that the reference has missed them; the tolerance has to cover what those cost.

A run may record costs (a safety signal, such as a crash). Then a second test of the same kind bets on episodes that
cost more than the handed-over policy's, or more than a stated limit. Accidents are rare: its reference is bounded by
Clopper & Pearson 1934 instead, whose bound on a rate is above 0 also if no accident was seen.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from segue.algorithms.base import Algorithm, Aux, copy_arrays
from segue.bridges.base import CostLimited, Handover, Report, Review, shapes_of
from segue.core import Array, Key, Learner, Nets, Spaces, Transition
from segue.describe import Panel, Remedy
from segue.networks import CategoricalActor
from segue.student_t import student_t

#: Shares of the largest admissible stake; the gambler splits his money between them.
BETS = np.array([0.1, 0.25, 0.5, 0.9])
#: Episodes at which a gambler may have begun, so that a late fall is seen too; older ones are given up.
STARTS = 256


class State(NamedTuple):
    """The stakes, what they are measured against, and what was done about alarms."""

    log_wealth: Array
    """log of each gambler's wealth, [STARTS, bets]; −inf where none has begun."""
    episodes: Array
    """Episodes seen since the last alarm."""
    floor: Array
    """m: the mean that returns must not fall below; NaN until the reference is known."""
    ceiling: Array
    """B: returns count up to this value."""
    alarms: Array
    """Alarms so far."""
    cost_log_wealth: Array
    """log of the wealth of each gambler who bets on costs, [STARTS, bets]; −inf where none has begun."""
    limit: Array
    """What the mean cost must not exceed; NaN until the reference is known, ∞ until an episode has cost anything."""
    since: Array
    """Sums of returns and of costs, and count, of the episodes begun since the learner was last marked."""
    marked: Any
    """The policy that will be kept if the returns since are good; None for an algorithm that has no actor."""
    anchor: Any
    """The policy that was last kept."""
    handed_over: Any
    """The policy at the handover."""
    proved: Array
    """Whether what was rolled back to at the last alarm has been good since; a lucky learner may have been kept."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guard(CostLimited):
    """Rolls the learner back to its last good state when returns have fallen significantly, and goes on more carefully.

    It does the same when costs have risen, where the recipe records a cost. Good is a learner that was followed by half
    as many episodes as the reference has, with at least its mean return and at most its mean cost (or the limit); if
    none was between two alarms, the learner goes back to the handover. After each alarm the policy is kept nearer to
    the one rolled back to, and takes smaller steps. An algorithm that acts by its critic alone makes fewer updates.
    """

    name: ClassVar[str] = "guard"
    needs_pretrained: ClassVar[bool] = True
    needs_reference: ClassVar[bool] = True
    on_policy: ClassVar[bool] = True
    remedies: ClassVar[tuple[Remedy, ...]] = (Remedy("fall", "it rolls back when live returns fall, for any cause"),)

    alpha: float = 0.05
    """Probability of ever raising a false alarm (from the start, or from a roll-back, to the next one): about returns,
    and as much again about costs."""
    tolerance: float = 0.1
    """Share of the handed-over policy's return that may be lost, and of its cost be added, without an alarm."""
    cost_limit: float | None = None
    """Mean cost of an episode that must not be exceeded, where the recipe records a cost; by default the recipe's
    `cost_limit`, and where there is none, what the handed-over policy costs."""
    slow_down: float = 0.5
    """Factor of the policy's step size with each alarm; of the updates per step for an algorithm without an actor."""
    pull: float = 1.0
    """Weight, after the first alarm, of the squared distance (KL for discrete actions) to the policy rolled back to, in
    units of the policy's mean absolute loss (|Q|, where the loss is −Q); it doubles with each alarm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("alpha", 0 < self.alpha < 1, "between 0 and 1, both excluded")
        self.require("tolerance", 0 <= self.tolerance < 1, "at least 0 and below 1")
        self.require("slow_down", 0 < self.slow_down <= 1, "above 0 and at most 1")
        self.require("pull", self.pull >= 0, "at least 0")

    def inherits(self, online: Algorithm) -> tuple[str, ...]:
        """What acts."""
        return (online.policy_role,)

    def attach(self, learner: Learner, handover: Handover, key: Key) -> tuple[Learner, State]:
        """No gambler has begun."""
        return learner, self.state(learner.nets.get("actor"))

    def state(self, actor: Any) -> State:
        """The state at the handover."""
        return State(
            jnp.full((STARTS, len(BETS)), -jnp.inf, jnp.float32),
            jnp.zeros((), jnp.int32),
            jnp.asarray(jnp.nan, jnp.float32),
            jnp.asarray(jnp.nan, jnp.float32),
            jnp.zeros((), jnp.int32),
            jnp.full((STARTS, len(BETS)), -jnp.inf, jnp.float32),
            jnp.asarray(jnp.nan, jnp.float32),
            jnp.zeros(3),
            copy_arrays(actor),
            copy_arrays(actor),
            copy_arrays(actor),
            jnp.ones((), bool),
        )

    def skeleton(self, algorithm: Algorithm, spaces: Spaces) -> Any:
        """Numbers and an actor."""
        return shapes_of(lambda: self.state(algorithm.init(jax.random.key(0), spaces).get("actor")))

    def panels(self) -> tuple[Panel, ...]:
        """The evidence against its alarm, the alarms, and the distance that it penalises."""
        alarm = f"alarm, log {self.threshold:g}"
        evidence = (
            ("guard_log_evidence", "Guard: evidence of a fall"),
            ("guard_log_cost_evidence", "Guard: evidence of more cost"),
        )
        return (
            *(
                Panel(metric, title, "log e-value", threshold=math.log(self.threshold), threshold_name=alarm)
                for metric, title in evidence
            ),
            Panel("guard_alarms", "Guard: alarms", "so far", "alarms of the guard", counts=True),
            Panel(
                "guard_distance",
                "Guard: distance",
                "to the kept policy",
                "distance to the policy that the guard keeps",
            ),
        )

    @property
    def threshold(self) -> float:
        """The e-value of an alarm, 2/α: by Ville's inequality it is ever reached with probability at most α/2; the
        other half of α is for a reference that was lucky.
        """
        return 2 / self.alpha

    def bounds(self, reference: Float[np.ndarray, " episodes"]) -> tuple[float, float]:
        """(m, B) from the handed-over policy's returns, which count up to B, their largest.

        m is a lower confidence bound of their mean (Student's, at α/2), less the tolerance: what that policy may be
        expected to earn, whatever luck it had. A single return says nothing of its spread: m is then −∞.
        """
        ceiling = float(reference.max())
        if len(reference) < 2:
            return -math.inf, ceiling
        mean, error = float(reference.mean()), float(reference.std(ddof=1)) / math.sqrt(len(reference))
        floor = mean - student_t(1 - self.alpha / 2, len(reference) - 1) * error - self.tolerance * abs(mean)
        # Below B also where all returns are equal, by more than the rounding of the state's float32.
        return min(floor, ceiling - 1e-6 * max(abs(ceiling), 1.0)), ceiling

    def bound(self, costs: Float[np.ndarray, " episodes"], worst: float) -> float:
        """What the mean cost must not exceed, from the handed-over policy's costs.

        An upper confidence bound of their mean (at α/2), plus the tolerance: Clopper's and Pearson's, as if k of n
        episodes had cost `worst` and the others nothing, where k need not be whole. So it is above 0 also if no episode
        has cost anything, by how much the worst one known does.
        """
        from scipy.special import betaincinv  # imported here, as its import takes a while

        lowest = _lowest(costs)
        if worst <= lowest:
            return math.inf  # nothing is known to rise above
        many = float((costs - lowest).sum()) / (worst - lowest)
        few = len(costs) - many
        rate = float(betaincinv(many + 1, few, 1 - self.alpha / 2)) if few > 0 else 1.0
        expected = lowest + (worst - lowest) * rate
        return expected + self.tolerance * abs(expected)

    def bet(self, log_wealth: np.ndarray, episodes: int, value: float, floor: float, ceiling: float) -> np.ndarray:
        """Every gambler's wealth after one return: times 1 + λ (m − min(x, B)), λ = share / (B − m).

        If E[min(x, B)] ≥ m, no factor is above 1 in expectation. A new gambler begins with each episode.
        """
        wealth = log_wealth.copy()
        wealth[episodes % STARTS] = 0.0
        if floor == -math.inf:
            return wealth  # nothing is known to fall below
        stakes = BETS / (ceiling - floor)
        return wealth + np.log1p(stakes * (floor - min(value, ceiling)))

    def evidence(self, log_wealth: np.ndarray, episodes: int) -> float:
        """The e-value: Σ_s w_s · mean over bets of wealth, w_s = 1 / (s (s + 1)) for the gambler of episode s."""
        # The gambler of episode s sits in row (s − 1) mod STARTS.
        rows = np.arange(STARTS)
        last = episodes - 1
        began = last - (last - rows) % STARTS + 1
        weights = np.where(began >= 1, 1.0 / (np.maximum(began, 1) * (np.maximum(began, 1) + 1.0)), 0.0)
        with np.errstate(over="ignore"):
            return float((weights * np.exp(np.minimum(log_wealth, 700.0)).mean(1)).sum())

    def review(self, state: State, report: Report) -> Review:
        """Bets on every new return and cost; an alarm when an e-value reaches the threshold."""
        if not len(report.returns):
            return Review(state)
        floor, ceiling, limit = float(state.floor), float(state.ceiling), float(state.limit)
        before, event = report.reference_costs, None
        if math.isnan(floor):
            floor, ceiling = self.bounds(report.reference)
            if before is not None:
                limit = self.bound(before, float(before.max())) if self.cost_limit is None else self.cost_limit
                if self.cost_limit is not None and before.mean() > self.cost_limit:
                    event = (
                        f"the handed-over policy costs {before.mean():.4g} an episode, above cost_limit "
                        f"{self.cost_limit:g}: rolling back to it will not keep the limit"
                    )
        wealth, episodes, alarms = np.asarray(state.log_wealth), int(state.episodes), int(state.alarms)
        cost_wealth, value, cost_value, alarm = np.asarray(state.cost_log_wealth), 0.0, 0.0, False
        for i, one in enumerate(report.returns):
            wealth = self.bet(wealth, episodes, float(one), floor, ceiling)
            if before is not None:
                assert report.costs is not None
                cost, lowest = float(report.costs[i]), _lowest(before)
                # A cost counts as a return of its negative. Below the lowest also for a limit of 0.
                cost_wealth = self.bet(cost_wealth, episodes, -cost, min(-limit, -lowest - 1e-6), -lowest)
                cost_value = self.evidence(cost_wealth, episodes + 1)
                if limit == math.inf:  # from here on the first cost says what one is like
                    limit = self.bound(before, cost)
            episodes += 1
            value = self.evidence(wealth, episodes)
            if max(value, cost_value) >= self.threshold:
                alarm = True
                break
        whole = report.whole
        spent = 0.0 if report.costs is None else report.costs[whole].sum()
        since = np.asarray(state.since) + np.array([report.returns[whole].sum(), spent, whole.sum()])
        metrics = {"guard_log_evidence": math.log(max(value, 1e-30)), "guard_alarms": float(alarms + alarm)}
        if before is not None:
            metrics["guard_log_cost_evidence"] = math.log(max(cost_value, 1e-30))
        known = {
            "floor": np.asarray(floor, np.float32),
            "ceiling": np.asarray(ceiling, np.float32),
            "limit": np.asarray(limit, np.float32),
        }
        if alarm:
            proved = bool(state.proved)
            state = self.state(state.anchor if proved else state.handed_over)._replace(
                handed_over=state.handed_over,
                proved=np.zeros((), bool),
                alarms=np.asarray(alarms + 1, np.int32),
                **known,
            )
            if value >= self.threshold:
                what = f"returns ({report.returns.mean():.4g} on average since the last look) are below {floor:.4g}"
            else:
                assert report.costs is not None
                what = f"costs ({report.costs.mean():.4g} on average since the last look) are above {limit:.4g}"
            back = "last good learner" if proved else "learner handed over, as none was good since the last alarm"
            alarmed = (
                f"alarm {alarms + 1} at step {report.step}: {what} with evidence {max(value, cost_value):.0f} ≥ "
                f"{self.threshold:.0f}; rolled back to the {back}"
            )
            event = alarmed if event is None else f"{event}; {alarmed}"
            return Review(state, "roll back" if proved else "start over", metrics, event)
        state = state._replace(
            log_wealth=wealth.astype(np.float32),
            cost_log_wealth=cost_wealth.astype(np.float32),
            episodes=np.asarray(episodes, np.int32),
            since=since.astype(np.float32),
            **known,
        )
        if since[2] < len(report.reference) / 2:
            return Review(state, metrics=metrics, event=event)
        # What followed the marked learner shows whether to come back to it; the returns before a learner do not: one
        # update may have broken it.
        good = since[0] / since[2] >= report.reference.mean()
        if before is not None:
            good &= since[1] / since[2] <= (before.mean() if self.cost_limit is None else self.cost_limit)
        anchor = state.marked if good else state.anchor
        state = state._replace(
            since=np.zeros(3, np.float32),
            anchor=anchor,
            marked=copy_arrays(report.learner.nets.get("actor")),
            proved=np.asarray(bool(state.proved) or good),
        )
        return Review(state, "keep" if good else "mark", metrics, event)

    def actor_rate(self, state: State) -> Float[jax.Array, ""] | None:
        """slow_down to the power of the alarms.

        Not fewer updates: the critic has to learn from what went wrong, and a policy that moves rarely, but in whole
        steps, stays for long where a bad step has led it.
        """
        return None if state.anchor is None else jnp.asarray(self.slow_down) ** state.alarms

    def pace(self, state: State) -> float:
        """slow_down to the power of the alarms where there is no policy whose step size could be smaller."""
        return self.slow_down ** int(state.alarms) if state.anchor is None else 1.0

    def actor_penalty(
        self, state: State, actor: Any, nets: Nets, batch: Transition, loss: Float[jax.Array, " batch"], key: Key
    ) -> tuple[Float[jax.Array, ""], Aux]:
        """Nothing before the first alarm; then pull · 2^(alarms − 1) · mean |loss| · E[distance to the kept policy]."""
        anchor = jax.lax.stop_gradient(state.anchor)
        if isinstance(actor, CategoricalActor):
            distance = actor.kl(anchor, batch.observation).mean()
        else:
            distance = ((actor.mode(batch.observation) - anchor.mode(batch.observation)) ** 2).mean()
        weight = jnp.where(state.alarms > 0, self.pull * 2.0 ** (state.alarms - 1), 0.0)
        return weight * jnp.abs(loss).mean() * distance, {"guard_distance": distance}


def _lowest(costs: Float[np.ndarray, " episodes"]) -> float:
    """What costs count down to: nothing, unless the reference knows negative ones."""
    return min(float(costs.min()), 0.0)
