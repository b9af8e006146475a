"""By what trials are ranked: the measures of docs/measures.md that are a number for every seed."""

from __future__ import annotations

#: Objective by name, and whether more of it is better.
OBJECTIVES = {
    **dict.fromkeys(("final", "area", "normalised", "offline", "live", "stability", "plasticity"), True),
    **dict.fromkeys(("dip", "swing", "regret", "cost", "share-below"), False),
}
#: Objectives that are measured after the handover.
LIVE = ("area", "live", "stability", "plasticity", "dip", "swing", "regret", "share-below")


def measure_of(objective: str) -> str:
    """What reports call it."""
    return {"offline": "offline score", "share-below": "share below"}.get(objective, objective)
