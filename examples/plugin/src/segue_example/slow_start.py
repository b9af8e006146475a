"""A slow start: the policy's first live steps are short, and grow to their full length."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from segue.algorithms.base import Algorithm, Aux
from segue.bridges.base import Bridge, Handover
from segue.core import Key, Learner, Nets, Spaces, Transition


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlowStart(Bridge):
    """Multiplies the length of the policy's steps by a factor that grows in a line from `first` to 1."""

    name: ClassVar[str] = "slow-start"
    needs: ClassVar[tuple[str, ...]] = ("actor",)

    first: float = 0.1
    """The factor at the handover."""
    over: float = 1000.0
    """Policy updates until it is 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("first", 0 < self.first <= 1, "above 0 and at most 1")
        self.require("over", self.over > 0, "above 0")

    def attach(self, learner: Learner, handover: Handover, key: Key) -> tuple[Learner, Int[jax.Array, ""]]:
        """The state counts policy updates."""
        return learner, jnp.zeros((), jnp.int32)

    def skeleton(self, algorithm: Algorithm, spaces: Spaces) -> Any:
        """A number."""
        return jax.ShapeDtypeStruct((), jnp.int32)

    def actor_rate(self, state: Int[jax.Array, ""]) -> Float[jax.Array, ""]:
        """first + (1 − first) · updates / over, at most 1."""
        return jnp.minimum(self.first + (1 - self.first) * state / self.over, 1.0)

    def update(
        self, state: Any, algorithm: Algorithm, nets: Nets, batch: Transition, aux: Aux, key: Key
    ) -> tuple[Any, Aux]:
        """Counts."""
        return state + 1, {"slow_start_rate": self.actor_rate(state)}
