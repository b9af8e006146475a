"""Conservatism that lets go: the weights that hold an algorithm near the dataset fade while it learns live."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from segue.algorithms.base import Algorithm, Progress
from segue.bridges.base import Bridge
from segue.replay.base import ReplayStrategy


@dataclasses.dataclass(frozen=True, kw_only=True)
class LetGo(Bridge):
    """Multiplies the weights that an algorithm calls its conservatism.

    They are the penalty of CQL, Cal-QL and discrete CQL, the cloning of TD3+BC and ReBRAC, and FQL's distance to its
    flow. PPO's KL term has its own schedule (`kl_until`).
    """

    name: ClassVar[str] = "let-go"

    end: float = 0.0
    """Factor when the fading is over."""
    until: float = 0.5
    """Share of the online phase after which the fading is over."""
    schedule: Literal["linear", "exponential"] = "linear"
    """How the factor gets there from 1; `exponential` needs an end above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("end", 0 <= self.end <= 1, "between 0 and 1")
        self.require("until", 0 < self.until <= 1, "above 0 and at most 1")
        if self.schedule == "exponential":
            self.require("end", self.end > 0, "above 0 for the exponential schedule")

    def refusal(self, online: Algorithm, replay: ReplayStrategy, others: Iterable[Bridge]) -> str | None:
        """An algorithm without conservatism has nothing to let go of, and a learnt multiplier would make up for it."""
        if getattr(online, "lagrange_threshold", None) is not None:
            return (
                f"{online.name}'s multiplier (lagrange_threshold) grows while the weight fades; leave one of them out"
            )
        return None if online.conservatism else f"{online.name} has no conservative weight to let go of"

    def adjust(self, state: Any, algorithm: Algorithm, progress: Progress) -> Algorithm:
        """The algorithm with every such weight times the factor of now."""
        share = (progress / self.until).clip(0, 1)
        factor = self.end**share if self.schedule == "exponential" else 1 + (self.end - 1) * share
        return algorithm.adjusted(**{name: getattr(algorithm, name) * factor for name in algorithm.conservatism})
