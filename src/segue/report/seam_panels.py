"""What the picture of the seam shows, one panel a question: which quantities, as which lines, against which level."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from segue.bridges import ConservativeUpdate, Guard
from segue.report.seam import SeamArm


@dataclass(frozen=True)
class Line:
    """A quantity and what the legend calls it."""

    quantity: str
    name: str
    dots: bool = False
    """Single observations: no line, no mean."""


@dataclass(frozen=True)
class Panel:
    """One row of the picture. The first line takes the arm's colour, the second is the reference beside it."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    gap: tuple[str, str] | None = None
    """What the area between the two lines is called where the first lies above, and where it lies below."""
    level: Callable[[SeamArm], tuple[float, str]] | None = None
    """A level to compare with, and its name; NaN if the arm has none."""
    height: float = 1.5
    """In inches."""
    logarithmic: bool = False
    """Whether its scale is."""

    limits: tuple[float, float] | None = None
    """Of its scale, where they are known beforehand."""
    events: bool = False
    """Whether its legend explains the marks of events."""

    def level_of(self, arm: SeamArm) -> tuple[float, str]:
        """The level to compare this arm with, and its name; NaN if there is none."""
        return (math.nan, "") if self.level is None else self.level(arm)

    @property
    def legend(self) -> bool:
        """Whether there are lines to tell apart."""
        return self.level is not None or any(line.name for line in self.lines)

    def shown(self, arm: SeamArm) -> bool:
        """Whether the arm has anything to draw here."""
        return any(arm.tracks[line.quantity] for line in self.lines)


def _offline_score(arm: SeamArm) -> tuple[float, str]:
    return arm.offline_score, "offline score"


def _alarm(arm: SeamArm) -> tuple[float, str]:
    guard = arm.bridge(Guard)
    return (math.nan, "") if guard is None else (math.log(guard.threshold), f"alarm, log {guard.threshold:g}")


def _epsilon(arm: SeamArm) -> tuple[float, str]:
    update = arm.bridge(ConservativeUpdate)
    return (math.nan, "") if update is None else (update.epsilon, "bound ε")


def _alone(
    title: str,
    unit: str,
    quantity: str,
    level: Callable[[SeamArm], tuple[float, str]] | None = None,
    **scale: Any,
) -> Panel:
    return Panel(title, unit, (Line(quantity, ""),), level=level, height=0.95, **scale)


QUESTIONS = (
    Panel(
        "Return",
        "mean per episode",
        (Line("return", "evaluations"), Line("training_return", "training", dots=True)),
        level=_offline_score,
        height=2.1,
        events=True,
    ),
    Panel(
        "Critic against reality",
        "discounted return from the start",
        (Line("value_at_start", "critic's estimate"), Line("return_from_start", "what followed")),
        gap=("over-estimated", "under-estimated"),
    ),
    Panel(
        "Policy's actions and the log's",
        "Q on the log's states",
        (Line("q_of_policy_actions", "policy's"), Line("q_of_log_actions", "logged")),
        height=1.2,
    ),
    _alone("Critic's preference", "Q(policy's) − Q(logged)", "preference"),
    _alone("Distance to the log", "of actions: RMS, or share if discrete", "distance_to_log"),
)
"""What every arm with a probe can answer."""

BRIDGE_PANELS = (
    _alone("SAMG: offline critic's share", "of the bootstrapped value", "samg_coefficient", limits=(0, 1)),
    _alone("SAMG: intrinsic reward", "per step", "samg_intrinsic_reward"),
    _alone("Conservative update: distance", "to the policy's slow average", "constraint", _epsilon, logarithmic=True),
    _alone("Conservative update: multiplier", "λ", "constraint_multiplier", logarithmic=True),
    _alone("Q-filter: samples kept", "share", "q_filter_kept", limits=(0, 1)),
    _alone("Jump start: horizon", "steps", "jump_start_horizon"),
    _alone("Guard: evidence of a fall", "log e-value", "guard_log_evidence", _alarm),
    _alone("Guard: alarms", "so far", "guard_alarms"),
    _alone("Guard: distance", "to the kept policy", "guard_distance"),
    _alone("Entropy temperature", "", "temperature"),
    _alone("Conservative gap", "in the critic's loss", "conservative_gap"),
)
"""What there is to see only where that bridge, or that algorithm, is in the recipe."""


def panels_of(arm: SeamArm) -> list[Panel]:
    """The bridges' panels of one arm; a guard that never rang has no panel of alarms."""
    shown = [panel for panel in BRIDGE_PANELS if panel.shown(arm)]
    alarms = any((values > 0).any() for _, values in arm.tracks["guard_alarms"].online)
    return [panel for panel in shown if alarms or panel.lines[0].quantity != "guard_alarms"]


def questions(arms: Sequence[SeamArm]) -> list[Panel]:
    """The common panels that at least one of the arms can fill."""
    return [panel for panel in QUESTIONS if any(panel.shown(arm) for arm in arms)]
