"""What the traffic of a simulated world is like."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Traffic:
    """How many clients there are, and how they behave."""

    clients: int = 100
    """Episodes that go on at the same time."""
    episodes: int | None = None
    """Episodes after which the traffic ends; by default it ends with the service."""
    think: float = 0.1
    """Mean seconds between the steps of an episode (exponential)."""
    delay: float = 0.5
    """Mean seconds until a reward is known (exponential), so that later ones overtake it."""
    drop: float = 0.01
    """Share of outcomes that are never sent."""
    duplicate: float = 0.02
    """Share of outcomes that are sent twice."""
    retry: float = 0.02
    """Share of decisions whose answer is lost on the way and asked for again."""
    units: int = 1_000
    """Units that there are at a time, each of which comes again and again."""
    drift: float = 0.0
    """By how many units their numbers move on with each episode: in worlds that know their units, traffic changes."""
    seed: int = 0
    """Of worlds, units and faults. Answers of the service come when they come, so runs are alike and not the same."""
