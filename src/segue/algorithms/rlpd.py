"""RLPD (Ball et al. 2023, arXiv 2302.02948): efficient online learning with offline data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from segue.algorithms.redq import REDQ
from segue.networks import NormPlace


@dataclasses.dataclass(frozen=True, kw_only=True)
class RLPD(REDQ):
    """REDQ with LayerNorm critics, for symmetric sampling from the dataset and the live data.

    Its replay is `mixed` at one half, the default with a dataset.
    """

    name: ClassVar[str] = "rlpd"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "locomotion": {},
        "antmaze": {
            "hidden_sizes": (256, 256, 256),
            "subset_size": 1,
            "backup_entropy": False,
            "reward_shift": -1.0,
        },
        "adroit": {"hidden_sizes": (256, 256, 256), "backup_entropy": False},
    }
    """The authors' code."""
    phases: ClassVar[tuple[str, ...]] = ("online",)

    critic_layer_norm: NormPlace = "before"
    """LayerNorm in the critic's hidden layers, before or after the activation."""
    target_entropy_scale: float = 0.5
    """The target entropy is −scale · |A|; the authors' code uses one half."""
