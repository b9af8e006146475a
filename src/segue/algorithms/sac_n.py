"""SAC-N (An et al. 2021, arXiv 2110.01548): SAC with the minimum over a large ensemble."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from segue.algorithms.sac import SAC


@dataclasses.dataclass(frozen=True, kw_only=True)
class SACN(SAC):
    """Pessimism by numbers: the minimum over N critics, in the target and in the policy's loss (eq. 2).

    Each update steps the critics, then the policy, as in the paper's algorithm 1, then α. The authors' code takes all
    gradients at the same networks; CORL steps α, then the policy, then the critics.
    """

    name: ClassVar[str] = "sac-n"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "halfcheetah": {"ensemble_size": 10},
        "hopper": {"ensemble_size": 200},
        "hopper-medium": {"ensemble_size": 500},
        "walker2d": {"ensemble_size": 20},
        "maze2d": {"ensemble_size": 25},
        "antmaze": {"ensemble_size": 25},
        "adroit": {"ensemble_size": 100},
    }
    """CORL's configurations."""

    hidden_sizes: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of every network."""
    ensemble_size: int = 10
    """N: 10 on HalfCheetah, 20 on Walker2d, 200 to 500 on Hopper."""
    critic_learning_rate: float = 3e-4
    """Adam step size of the critic."""
