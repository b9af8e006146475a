"""Conservative Q-learning for discrete actions (Kumar et al. 2020, arXiv 2006.04779, section 6)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
from jaxtyping import Float

from segue.algorithms.base import Aux
from segue.algorithms.dqn import DQN
from segue.core import Key, Nets, Transition
from segue.describe import Panel
from segue.networks.distributions import within


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscreteCQL(DQN):
    """Double DQN whose values are pushed down on all actions and up on the dataset's; the sum over actions is exact."""

    name: ClassVar[str] = "discrete-cql"
    conservatism: ClassVar[tuple[str, ...]] = ("conservative_weight",)

    conservative_weight: float = 1.0
    """α, weight of the conservative penalty (d3rlpy: 1; the paper's Atari runs: 0.5 to 4 by the size of the
    dataset)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("conservative_weight", self.conservative_weight >= 0, "at least 0")

    def panels(self) -> tuple[Panel, ...]:
        """The gap that the penalty pushes down."""
        return (*super().panels(), Panel("conservative_gap", "Conservative gap", "in the critic's loss"))

    def critic_penalty(
        self, critic: Any, nets: Nets, batch: Transition, q: Float[jax.Array, "members batch"], key: Key
    ) -> tuple[Float[jax.Array, ""], Aux]:
        """α Σ_i E[ log Σ_a exp Q_i(s, a) − Q_i(s, a_dataset) ] (CQL(H), eq. 4)."""
        among = within(batch.allowed, critic.all(batch.observation))
        gap = (jax.nn.logsumexp(among, axis=-1) - q).mean(1)  # [members]
        return self.conservative_weight * gap.sum(), {"conservative_gap": gap}
