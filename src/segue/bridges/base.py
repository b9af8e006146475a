"""What a bridge is: a frozen dataclass that acts at the seam through hooks, each with a neutral default.

A bridge implements only what it changes. Bridges compose: weights multiply, penalties add, the bootstrap and the
acting policy are transformed in the order of the recipe. An empty tuple is bit-identical to the plain algorithm.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue import random
from segue.algorithms.base import Action, Algorithm, Aux
from segue.data.dataset import Dataset
from segue.errors import RecipeError, require_types
from segue.types import Array, Key, Learner, Nets, Spaces, Transition


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bridge:
    """The hooks. `state` is whatever `attach` returned: a pytree that is part of the learner."""

    name: ClassVar[str] = "bridge"
    """What the command line and the recipe call it."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Roles of the online algorithm that it uses."""
    needs_dataset: ClassVar[bool] = False
    """Whether it uses the log."""

    def __post_init__(self) -> None:
        require_types(self, self.name)

    def require(self, field: str, holds: bool, expected: str) -> None:
        """Refuse a hyper-parameter out of its range.

        Raises:
            RecipeError: naming the bridge, the field, its value and the range.
        """
        if not holds:
            raise RecipeError(f"{self.name}: {field} is {getattr(self, field)!r}; expected {expected}")

    def attach(self, learner: Learner, algorithm: Algorithm, dataset: Dataset | None, key: Key) -> Any:
        """The bridge's state at the switch, when the online phase starts."""
        return ()

    def skeleton(self, algorithm: Algorithm, spaces: Spaces) -> Any:
        """The structure of the state, with `jax.ShapeDtypeStruct` leaves, so that a checkpoint can be read back."""
        return ()

    def bootstrap(
        self, state: Any, nets: Nets, batch: Transition, next_value: Float[jax.Array, " batch"], key: Key
    ) -> Float[jax.Array, " batch"]:
        """The value bootstrapped in the Bellman target."""
        return next_value

    def actor_weight(
        self, state: Any, nets: Nets, batch: Transition, key: Key
    ) -> tuple[Float[jax.Array, " batch"] | None, Aux]:
        """Weight of each sample in the policy loss; None means 1."""
        return None, {}

    def actor_penalty(
        self, state: Any, actor: Any, nets: Nets, batch: Transition, key: Key
    ) -> tuple[Float[jax.Array, ""] | None, Aux]:
        """What is added to the policy loss; None means 0."""
        return None, {}

    def update(self, state: Any, nets: Nets, batch: Transition, aux: Aux, key: Key) -> tuple[Any, Aux]:
        """The next state, after the policy and its targets have moved; `aux` holds what the actor losses reported."""
        return state, {}

    def act(
        self,
        state: Any,
        algorithm: Algorithm,
        nets: Nets,
        observation: Float[Array, "*batch observation"],
        action: Action,
        source: random.Source,
        explore: bool,
    ) -> Action:
        """The action taken, given the one the algorithm (and the bridges before) chose; on the host."""
        return action


def weighted_mean(loss: Float[jax.Array, " batch"], weight: Float[jax.Array, " batch"]) -> Float[jax.Array, ""]:
    """Σ w·ℓ / Σ w, and 0 (with zero gradient) when every weight is 0.

    Raises:
        ValueError: if the shapes differ; [B] against [B, 1] would silently become [B, B].
    """
    if loss.shape != weight.shape or loss.ndim != 1:
        raise ValueError(f"per-sample loss {loss.shape} and weight {weight.shape}: expected the same shape [batch]")
    return (weight * loss).sum() / jnp.maximum(weight.sum(), jnp.finfo(jnp.float32).tiny)
