"""BridgeReviews of the online phase: what the bridges make of live returns, between dispatches, on the host."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from segue.acting import Carry
from segue.bridges.base import Bridge, Report
from segue.core import Learner
from segue.training.checkpointing import Position
from segue.training.recorder import Recorder
from segue.training.update import replace

#: Episodes of the handed-over policy that later returns are compared with.
REFERENCE_EPISODES = 20
#: Learners that may be returned to, and are saved with the run.
KEPT = ("handed_over", "good", "marked")


class Ended(NamedTuple):
    """An episode that has ended."""

    number: int
    """In the order in which they began."""
    value: float
    """Its return."""
    whole: bool
    arms: tuple[int | None, ...]
    """Which of each bridge's policies acted; None where the bridge has only one."""
    cost: float | None
    """The sum of its costs; None if the run records none."""


class BridgeReviews:
    """Counts training returns, lets bridges review them, and keeps the learner to return to."""

    def __init__(
        self,
        bridges: tuple[Bridge, ...],
        learner: Learner,
        reference: Float[np.ndarray, " episodes"],
        recorder: Recorder,
        slots: int,
        reference_costs: Float[np.ndarray, " episodes"] | None = None,
    ) -> None:
        self.bridges, self.reference, self.recorder = bridges, reference, recorder
        self.reference_costs = reference_costs
        self.running, self.running_cost = np.zeros(slots), np.zeros(slots)
        self.counted = np.ones(slots, bool)
        self.length = np.zeros(slots, np.int64)
        self.whole = np.ones(slots, bool)
        self.numbers = np.zeros(slots, np.int64)
        self.begun = 0
        self.ended: list[Ended] = []
        self.handed_over = self.good = self.marked = _clone(learner)
        self.pace = 1.0

    def watch(
        self,
        reward: Float[np.ndarray, " rows"],
        done: Bool[np.ndarray, " rows"],
        slots: Int[np.ndarray, " rows"] | None = None,
        carry: Carry = None,
        cost: Float[np.ndarray, " rows"] | None = None,
    ) -> None:
        """A step of the episode in each of these slots, by default in all; `carry` and `cost` as in `Agent.tell`."""
        slots = np.arange(len(done)) if slots is None else slots
        new = slots[self.length[slots] == 0]
        self.numbers[new] = self.begun + np.arange(len(new))
        self.begun += len(new)
        self.running[slots] += reward
        self.running_cost[slots] += 0.0 if cost is None else cost
        self.length[slots] += 1
        if not done.any():
            return
        carries = [None] * len(self.bridges) if carry is None else carry[1]
        arms = [None if one is None else bridge.arms(one) for bridge, one in zip(self.bridges, carries, strict=True)]
        for row in np.flatnonzero(done & self.counted[slots]):
            slot, theirs = slots[row], tuple(None if arm is None else int(arm[row]) for arm in arms)
            total = None if cost is None else float(self.running_cost[slot])
            value, whole = float(self.running[slot]), bool(self.whole[slot])
            self.ended.append(Ended(int(self.numbers[slot]), value, whole, theirs, total))
        over = slots[done]
        self.running[over], self.running_cost[over], self.length[over] = 0.0, 0.0, 0
        self.counted[over] = self.whole[over] = True

    def add_slots(self, count: int) -> None:
        """So many more."""
        sums = (("running", 0.0), ("running_cost", 0.0))
        for name, fresh in (*sums, ("counted", True), ("length", 0), ("whole", True), ("numbers", 0)):
            setattr(self, name, np.pad(getattr(self, name), (0, count), constant_values=fresh))

    def abandon(self, environments: Bool[np.ndarray, " envs"]) -> None:
        """The episodes that ran there will never end; others begin with the next step."""
        self.running[environments], self.running_cost[environments], self.length[environments] = 0.0, 0.0, 0
        self.counted[environments] = self.whole[environments] = True

    def disregard(self, environments: Bool[np.ndarray, " envs"]) -> None:
        """The episodes that run there say nothing: another policy took them over."""
        self.counted[environments & (self.length > 0)] = False

    def start_again(self, step: int) -> None:
        """A learner was gone back to, because the last one has diverged: no episode so far says anything of it."""
        self._record(step, self.ended)
        self.ended = []
        self.disregard(np.ones_like(self.counted))

    def review(self, learner: Learner, step: int) -> Learner:
        """The learner to go on with: with the bridges' next states, or the one that was kept last.

        Episodes are reviewed in the order in which they began: those that end early are not like the others.
        """
        oldest = int(self.numbers[self.length > 0].min(initial=self.begun))
        ended = sorted(one for one in self.ended if one.number < oldest)
        self.ended = [one for one in self.ended if one.number >= oldest]
        returns, whole = np.array([one.value for one in ended]), np.array([one.whole for one in ended], bool)
        costs = None if self.reference_costs is None else np.array([one.cost for one in ended], float)
        report = Report(
            step, returns, whole, self.reference, learner, costs=costs, reference_costs=self.reference_costs
        )
        self._record(step, ended)
        reviews = []
        for i, (bridge, state) in enumerate(zip(self.bridges, learner.bridges, strict=True)):
            theirs = [one.arms[i] for one in ended]
            arms = None if None in theirs else np.array(theirs, np.int64)
            reviews.append(bridge.review(state, dataclasses.replace(report, arms=arms)))
        verdicts = [review.verdict for review in reviews]
        back = {"roll back", "start over"}.intersection(verdicts)
        for bridge, review in zip(self.bridges, reviews, strict=True):
            if review.metrics:
                self.recorder.metrics("online", step, review.metrics)
            undone = back and review.verdict not in back
            if review.event is not None and not undone:
                self.recorder.event("online", step, f"{bridge.name}: {review.event}")
        if back:
            # What the others had learnt since is undone too; who asked for it keeps what it knows now.
            self.good = self.marked = self.handed_over if "start over" in back else self.good
            kept = _clone(self.good)
            states = tuple(
                jax.tree.map(jnp.asarray, review.state) if review.verdict in back else old
                for review, old in zip(reviews, kept.bridges, strict=True)
            )
            learner = replace(kept, bridges=states, step=learner.step)
            self.ended = []
            self.disregard(np.ones_like(self.counted))
        else:
            states = tuple(jax.tree.map(jnp.asarray, review.state) for review in reviews)
            learner = replace(learner, bridges=states)
            if "keep" in verdicts:
                self.good = self.marked
            if "keep" in verdicts or "mark" in verdicts:
                self.marked = _clone(learner)
            if "keep" in verdicts or "mark" in verdicts or any(review.renewed for review in reviews):
                self.whole = self.length == 0
                self.ended = [one._replace(whole=False) for one in self.ended]
        self.pace = math.prod(bridge.pace(state) for bridge, state in zip(self.bridges, learner.bridges, strict=True))
        return learner

    def _record(self, step: int, ended: Sequence[Ended]) -> None:
        if ended:
            found = {"training_return": float(np.mean([one.value for one in ended]))}
            costs = [one.cost for one in ended if one.cost is not None]
            self.recorder.metrics("online", step, found | ({"training_cost": float(np.mean(costs))} if costs else {}))

    def position(self) -> dict[str, Any]:
        """Its counts, as JSON has them."""
        return {
            "reference": self.reference.tolist(),
            "reference_costs": None if self.reference_costs is None else self.reference_costs.tolist(),
            "running": self.running.tolist(),
            "running_cost": self.running_cost.tolist(),
            "length": self.length.tolist(),
            "counted": self.counted.tolist(),
            "whole": self.whole.tolist(),
            "numbers": self.numbers.tolist(),
            "begun": self.begun,
            "ended": self.ended,
            "pace": self.pace,
        }

    def learners(self, learner: Learner) -> dict[str, Learner]:
        """The learner, and those that it may be rolled back to."""
        return {"learner": learner, **({name: getattr(self, name) for name in KEPT} if self.bridges else {})}

    @classmethod
    def restored(cls, bridges: tuple[Bridge, ...], position: Position, recorder: Recorder) -> BridgeReviews:
        """The one that was saved."""
        counts = position.plain["reviews"]
        learner = position.learners["learner"]
        costs = None if counts["reference_costs"] is None else np.array(counts["reference_costs"])
        self = cls(bridges, learner, np.array(counts["reference"]), recorder, len(counts["running"]), costs)
        self.running, self.length = np.array(counts["running"]), np.array(counts["length"])
        self.running_cost = np.array(counts["running_cost"])
        self.counted, self.whole = np.array(counts["counted"], bool), np.array(counts["whole"], bool)
        self.numbers, self.begun = np.array(counts["numbers"], np.int64), counts["begun"]
        self.ended = [
            Ended(number, value, whole, tuple(arms), cost) for number, value, whole, arms, cost in counts["ended"]
        ]
        self.pace = counts["pace"]
        if bridges:
            for name in KEPT:
                setattr(self, name, position.learners[name])
        return self


def _clone(learner: Learner) -> Learner:
    """In buffers of its own: the next dispatch overwrites those of the learner."""
    return jax.tree.map(jnp.copy, learner)
