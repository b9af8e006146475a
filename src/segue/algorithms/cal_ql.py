"""Calibrated Q-learning, Cal-QL (Nakamoto et al. 2023, arXiv 2303.05479)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue.algorithms.cql import CQL
from segue.core import Transition


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalQL(CQL):
    """CQL that does not push the policy's values below the return that the dataset shows can be had.

    Calibration stays on online; the returns of live episodes are known when they end.
    """

    name: ClassVar[str] = "cal-ql"
    columns: ClassVar[tuple[str, ...]] = ("return_to_go",)
    dataset_numbers: ClassVar[tuple[str, ...]] = (*CQL.dataset_numbers, "failure_reward")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "locomotion": {},
        "antmaze": {
            "critic_hidden_sizes": (256, 256, 256, 256),
            "lagrange_threshold": 0.8,
            "reward_scale": 10.0,
            "reward_shift": -5.0,
            "failure_reward": -5.0,
        },
        "adroit": {
            "hidden_sizes": (512, 512),
            "critic_hidden_sizes": (512, 512, 512),
            "conservative_weight": 1.0,
            "reward_scale": 10.0,
            "reward_shift": 5.0,
            "failure_reward": -5.0,
        },
    }
    """The authors' scripts (Adroit with its rewards of −1 and 0)."""

    max_q_backup: bool = True
    """Bootstrap from the best of `sampled_actions` draws of π(s′) instead of from one."""

    failure_reward: float | None = None
    """For sparse tasks: the reward (as learnt) of every step of a failed episode, whose return-to-go is then taken as
    that reward for ever, r / (1 − γ), instead of the few steps that were seen."""

    @property
    def sparse_failure_reward(self) -> float | None:
        """The reward of every step of a failed episode."""
        return self.failure_reward

    def calibrate(
        self, q: Float[jax.Array, "members draws batch"], batch: Transition
    ) -> Float[jax.Array, "members draws batch"]:
        """max(Q(s, a), return-to-go), on the policy's actions only (eq. 5)."""
        return jnp.maximum(q, batch.return_to_go)
