"""Calibrated Q-learning, Cal-QL (Nakamoto et al. 2023, arXiv 2303.05479)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue.algorithms.cql import CQL
from segue.types import Transition


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalQL(CQL):
    """CQL that does not push the policy's values below the return that the log shows can be had.

    Calibration stays on online; the returns of live episodes are known when they end.
    """

    name: ClassVar[str] = "cal-ql"
    columns: ClassVar[tuple[str, ...]] = ("return_to_go",)

    max_q_backup: bool = True
    """Bootstrap from the best of `sampled_actions` draws of π(s′) instead of from one."""

    def calibrate(
        self, q: Float[jax.Array, "members draws batch"], batch: Transition
    ) -> Float[jax.Array, "members draws batch"]:
        """max(Q(s, a), return-to-go), on the policy's actions only (eq. 5)."""
        return jnp.maximum(q, batch.return_to_go)
