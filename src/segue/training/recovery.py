"""Recovery: a learner that has diverged goes back, once, to where it was last known to be good.

Nothing is looked at that is not looked at anyway: the metrics of a dispatch, with the norm of every role's parameters,
are fetched for the dataset; the good learner is copied where the policy is evaluated.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from segue.algorithms.base import copy_arrays
from segue.core import Learner, Metrics
from segue.errors import Diverged
from segue.training.checkpointing import Position
from segue.training.recorder import Recorder, fetch
from segue.training.update import replace

#: What the diagnosis shows of the last metrics before a divergence, where they are there.
TELLING = ("critic_loss", "target_q", "q_data", "actor_loss", "value_loss", "critic_norm", "actor_norm")


class Recovery:
    """Keeps the good learner of one phase."""

    def __init__(self, phase: str, recorder: Recorder, learner: Learner, position: Position | None = None) -> None:
        self.phase, self.recorder = phase, recorder
        self.last: dict[str, float] = {}
        self.good, self.good_at, self.first = learner, 0, ""
        if position is None:
            self.good = copy_arrays(learner)
        else:
            self.good = position.learners["recovery"]
            there = position.plain["recovery"]
            self.good_at, self.first, self.last = there["good_at"], there["first"], there["last"]

    def mark(self, learner: Learner, step: int) -> None:
        """This learner is good: its metrics were."""
        if sound(learner):
            self.good, self.good_at = copy_arrays(learner), step

    def lost(self, step: int, metrics: Metrics) -> bool:
        """Whether `fetch` would go back."""
        try:
            fetch(self.phase, step, metrics)
        except Diverged:
            return True
        return False

    def fetch(self, learner: Learner, step: int, metrics: Metrics) -> tuple[Learner, bool]:
        """Writes the metrics of the updates that made this learner, and returns the learner to go on with.

        Returns:
            This learner and True, or the last good one and False if the metrics show that this one is lost.

        Raises:
            Diverged: the second time.
        """
        try:
            values = fetch(self.phase, step, metrics)
        except Diverged as error:
            return self._back(learner, step, error), False
        self.last = {name: values[name] for name in TELLING if name in values}
        self.recorder.metrics(self.phase, step, values)
        return learner, True

    def position(self) -> dict[str, Any]:
        """What it knows, as JSON has it; the good learner goes with the others, as `recovery`."""
        return {"good_at": self.good_at, "first": self.first, "last": self.last}

    def _back(self, learner: Learner, step: int, error: Diverged) -> Learner:
        what, _, advice = str(error).partition(". ")
        if self.first:
            shown = ", ".join(f"{name} {value:.3g}" for name, value in self.last.items()) or "there are none"
            raise Diverged(f"{self.first.format(step)} (last finite metrics: {shown}). {advice}") from error
        self.first = f"{what}, and again at step {{}} after going back to the learner of step {self.good_at}"
        self.recorder.event(
            self.phase,
            step,
            f"{what}; went back to the learner of step {self.good_at}, and on with other batches",
        )
        return replace(copy_arrays(self.good), step=learner.step)  # the step decides which batches are drawn


def sound(learner: Learner) -> bool:
    """Whether all is finite: an optimiser's state can be lost while the parameters still look well."""
    leaves = jax.tree.leaves((learner.nets, learner.optimisers))
    return all(np.isfinite(leaf).all() for leaf in jax.device_get(leaves))
