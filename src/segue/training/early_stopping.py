"""When a phase of updates ends before its budget: the fit to held-out episodes no longer improves."""

from __future__ import annotations

from typing import Any

import numpy as np

from segue.algorithms.base import Algorithm
from segue.core import Nets
from segue.evaluation.held_out import Fit, HeldOut
from segue.training.checkpointing import Position


class EarlyStopping:
    """Ends a phase once `patience` evaluations in a row fit no better than the best one before, beyond noise.

    Evaluations count from the first that shows that anything is learnt.
    """

    def __init__(self, held_out: HeldOut, patience: int, position: Position | None = None) -> None:
        self.held_out, self.patience = held_out, patience
        self.best: Fit | None = None
        self.last: Fit | None = None
        self.best_at, self.waited = 0, 0
        if position is not None and "best_parts" in position.arrays:
            there = position.plain["stopping"]
            self.best = Fit(there["measure"], there["value"], position.arrays["best_parts"])
            self.best_at, self.waited = there["best_at"], there["waited"]

    def look(self, algorithm: Algorithm, nets: Nets, step: int) -> dict[str, float]:
        """Count an evaluation, and return what was measured by name."""
        fit = self.last = self.held_out.fit(algorithm, nets)
        if fit.tells if self.best is None else fit.better_than(self.best):
            self.best, self.best_at, self.waited = fit, step, 0
        elif self.best is not None:
            self.waited += 1
        return {fit.measure: fit.shown}

    def reason(self) -> str | None:
        """Why the phase ends here; None if it goes on."""
        if self.best is None or self.waited < self.patience:
            return None
        return (
            f"pretraining ends here: {self.best.measure} was {self.best.shown:.3g} at update {self.best_at:,}, and "
            f"{self.waited:,} evaluation{'s' * (self.waited != 1)} since did not improve it beyond noise"
        )

    def never(self, step: int) -> str:
        """That the phase was not ended, after its last evaluation."""
        assert self.last is not None
        at = "never above 0 beyond noise" if self.best is None else f"best at update {self.best_at:,}"
        return (
            f"patience did not end pretraining: all {step:,} updates were made. {self.last.measure} is "
            f"{self.last.shown:.3g} at the end, and was {at}"
        )

    def position(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What it remembers, as JSON has it and as arrays."""
        if self.best is None:
            return {}, {}
        plain = {"measure": self.best.measure, "value": self.best.value}
        return {"stopping": {**plain, "best_at": self.best_at, "waited": self.waited}}, {"best_parts": self.best.parts}
