"""How long to measure, and what there is to compare with."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Settings:
    """The choices of the command line."""

    turns: int
    """Turns of each contestant."""
    quick: bool
    """A smoke test: everything runs, nothing is measured well."""
    full: bool
    """Whole runs in full length."""
    peers: Path | None
    """The interpreter that has the peers; None where they are not installed."""

    @property
    def cores(self) -> list[int]:
        """The cores there are."""
        return sorted(os.sched_getaffinity(0))

    def scaled(self, amount: int) -> int:
        """So many units, or a few in a smoke test."""
        return max(amount // 20, 1) if self.quick else amount
