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


class BridgeReviews:
    """Counts training returns, lets bridges review them, and keeps the learner to return to."""

    def __init__(
        self,
        bridges: tuple[Bridge, ...],
        learner: Learner,
        reference: Float[np.ndarray, " episodes"],
        recorder: Recorder,
        slots: int,
    ) -> None:
        self.bridges, self.reference, self.recorder = bridges, reference, recorder
        self.running = np.zeros(slots)
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
    ) -> None:
        """A step of the episode in each of these slots, by default in all; `carry` as in `Agent.tell`."""
        slots = np.arange(len(done)) if slots is None else slots
        new = slots[self.length[slots] == 0]
        self.numbers[new] = self.begun + np.arange(len(new))
        self.begun += len(new)
        self.running[slots] += reward
        self.length[slots] += 1
        if not done.any():
            return
        carries = [None] * len(self.bridges) if carry is None else carry[1]
        arms = [None if one is None else bridge.arms(one) for bridge, one in zip(self.bridges, carries, strict=True)]
        for row in np.flatnonzero(done & self.counted[slots]):
            slot, theirs = slots[row], tuple(None if arm is None else int(arm[row]) for arm in arms)
            self.ended.append(Ended(int(self.numbers[slot]), float(self.running[slot]), bool(self.whole[slot]), theirs))
        over = slots[done]
        self.running[over], self.length[over] = 0.0, 0
        self.counted[over] = self.whole[over] = True

    def add_slots(self, count: int) -> None:
        """So many more."""
        for name, fresh in (("running", 0.0), ("counted", True), ("length", 0), ("whole", True), ("numbers", 0)):
            setattr(self, name, np.pad(getattr(self, name), (0, count), constant_values=fresh))

    def abandon(self, environments: Bool[np.ndarray, " envs"]) -> None:
        """The episodes that ran there will never end; others begin with the next step."""
        self.running[environments], self.length[environments] = 0.0, 0
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
        report = Report(step, returns, whole, self.reference, learner)
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
            self.recorder.metrics("online", step, {"training_return": float(np.mean([one.value for one in ended]))})

    def position(self) -> dict[str, Any]:
        """Its counts, as JSON has them."""
        return {
            "reference": self.reference.tolist(),
            "running": self.running.tolist(),
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
        self = cls(bridges, learner, np.array(counts["reference"]), recorder, len(counts["running"]))
        self.running, self.length = np.array(counts["running"]), np.array(counts["length"])
        self.counted, self.whole = np.array(counts["counted"], bool), np.array(counts["whole"], bool)
        self.numbers, self.begun = np.array(counts["numbers"], np.int64), counts["begun"]
        self.ended = [Ended(number, value, whole, tuple(arms)) for number, value, whole, arms in counts["ended"]]
        self.pace = counts["pace"]
        if bridges:
            for name in KEPT:
                setattr(self, name, position.learners[name])
        return self


def _clone(learner: Learner) -> Learner:
    """In buffers of its own: the next dispatch overwrites those of the learner."""
    return jax.tree.map(jnp.copy, learner)
