"""How a part of a recipe describes itself to the report: the panels of its metrics, and what it helps against.

An algorithm or a bridge returns these values. The report draws and prints them and knows no part by its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Symptom = Literal["fall", "critic off at the handover", "over-estimation after the handover", "policy left the dataset"]
"""What the report can find around the handover. `fall`: the return fell, for any cause."""


@dataclass(frozen=True)
class Panel:
    """One recorded metric of the online phase, as a panel of the picture and a sentence of the report."""

    metric: str
    """Its column in metrics.csv."""
    title: str
    label: str = ""
    """The y label: what is measured, in which unit."""
    words: str = ""
    """What the sentence calls the metric; empty for no sentence."""
    threshold: float | None = None
    """A level to compare with, from the part's own hyper-parameters."""
    threshold_name: str = ""
    limits: tuple[float, float] | None = None
    """Of the y axis, where they are known beforehand."""
    logarithmic: bool = False
    """Whether the y axis is logarithmic."""
    counts: bool = False
    """Whether the metric counts events. The report gives its last value, and draws it only if it is not 0."""
    name: str = ""
    """What its line is called, where another is beside it."""
    beside: tuple[str, str] | None = None
    """Another metric that is drawn in the same panel, and what its line is called."""

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        """Every metric that is drawn, and what its line is called."""
        return ((self.metric, self.name), *(() if self.beside is None else (self.beside,)))


@dataclass(frozen=True)
class Remedy:
    """A reason to try a bridge when the report finds a symptom."""

    against: Symptom
    why: str
    """Why the bridge helps, after "To try: --bridges …:"."""
    replay: str | None = None
    """The replay strategy to suggest with it if the recipe's own does not go with the bridge."""
