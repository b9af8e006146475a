"""Ensemble-diversified actor-critic, EDAC (An et al. 2021, arXiv 2110.01548)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue.algorithms.base import Aux
from segue.algorithms.sac_n import SACN
from segue.core import Key, Nets, Transition


@dataclasses.dataclass(frozen=True, kw_only=True)
class EDAC(SACN):
    """SAC-N whose members are pushed to disagree in ∇_a Q, so that fewer of them are enough; steps in SAC-N's order."""

    name: ClassVar[str] = "edac"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "halfcheetah": {"ensemble_size": 10},
        "halfcheetah-medium-expert": {"ensemble_size": 10, "diversity_weight": 5.0},
        "hopper": {"ensemble_size": 50},
        "walker2d": {"ensemble_size": 10},
        "walker2d-medium-expert": {"ensemble_size": 10, "diversity_weight": 5.0},
        "maze2d": {"ensemble_size": 25, "diversity_weight": 0.1},
        "antmaze": {"ensemble_size": 10},
        "pen": {"ensemble_size": 20, "diversity_weight": 10.0},
        "adroit": {"ensemble_size": 50, "diversity_weight": 200.0},
    }
    """CORL's configurations."""

    diversity_weight: float = 1.0
    """η, weight of the gradients' similarity (1 on locomotion, 5 on medium-expert, 10 and more on Adroit)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("diversity_weight", self.diversity_weight >= 0, "at least 0")
        self.require("ensemble_size", self.ensemble_size >= 2, "at least 2")

    def critic_penalty(
        self, critic: Any, nets: Nets, batch: Transition, q: Float[jax.Array, "members batch"], key: Key
    ) -> tuple[Float[jax.Array, ""], Aux]:
        """η/(N−1) · E Σ_{i≠j} ⟨g_i, g_j⟩, g_i the normalised ∇_a Q_i(s, a) at the dataset's actions (eq. 4)."""
        size = critic.size

        def total(actions: Float[jax.Array, "members batch action"]) -> Float[jax.Array, ""]:
            return critic.each(batch.observation, actions).sum()

        # Each member gets actions of its own, so one backward pass gives every member's own gradient.
        gradient = jax.grad(total)(jnp.broadcast_to(batch.action, (size, *batch.action.shape)))
        gradient = gradient / (_norm(gradient) + 1e-10)
        similarity = jnp.einsum("ibd,jbd->ijb", gradient, gradient).mean(-1)
        off_diagonal = similarity.sum() - jnp.trace(similarity)
        return self.diversity_weight * off_diagonal / (size - 1), {"gradient_similarity": off_diagonal}


def _norm(x: Float[jax.Array, "*batch n"]) -> Float[jax.Array, "*batch 1"]:
    """Euclidean norm with derivative 0 at 0, where the square root has none: a ReLU network can be flat in a."""
    square = (x**2).sum(-1, keepdims=True)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
