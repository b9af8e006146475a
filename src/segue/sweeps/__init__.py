"""Sweeps: many recipes that differ in hyper-parameters, the best of them, and what it is worth on fresh seeds."""

from __future__ import annotations

from segue.sweeps.space import Range
from segue.sweeps.sweeping import Sweep, sweep

__all__ = ["Range", "Sweep", "sweep"]
