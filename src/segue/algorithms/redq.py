"""Randomised ensembled double Q-learning, REDQ (Chen et al. 2021, arXiv 2101.05982)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from segue.algorithms.sac import SAC


@dataclasses.dataclass(frozen=True, kw_only=True)
class REDQ(SAC):
    """SAC with ten critics, the minimum of two random ones in the target, and many critic updates per step."""

    name: ClassVar[str] = "redq"
    updates_per_step: ClassVar[float] = 20.0

    ensemble_size: int = 10
    """N, number of Q functions."""
    critic_learning_rate: float = 3e-4
    """Adam step size of the critic."""
    subset_size: int | None = 2
    """M, critics drawn without replacement for the minimum in each target; all of them if not given."""
    actor_value: Literal["min", "mean"] = "mean"
    """What the policy's loss takes of the ensemble: its minimum, or its mean."""
    critic_updates_per_actor_update: int = 20
    """Critic updates between two actor updates: one per environment step."""
