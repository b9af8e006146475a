"""RLPD (Ball et al. 2023, arXiv 2302.02948): efficient online learning with offline data."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from segue.algorithms.redq import REDQ


@dataclasses.dataclass(frozen=True, kw_only=True)
class RLPD(REDQ):
    """REDQ with LayerNorm critics, for symmetric sampling from the log and the live data.

    Run it with `replay` mixed at one half (the default with a log) and updates_per_step = 20.
    """

    name: ClassVar[str] = "rlpd"
    phases: ClassVar[tuple[str, ...]] = ("online",)

    critic_layer_norm: bool = True
    """LayerNorm in the critic's hidden layers."""
    target_entropy_scale: float = 0.5
    """The target entropy is −scale · |A|; the authors' code uses one half."""
