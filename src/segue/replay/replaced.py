"""Replaced: the log is taken out of the pool, bit by bit or at once, while live data comes in."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from segue.errors import RecipeError
from segue.replay.base import Replay, ReplayStrategy
from segue.types import Key

#: Rows of the log leave in the order of multiples of about this share of its size, so that what stays is spread evenly.
GOLDEN = (5**0.5 - 1) / 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replaced(ReplayStrategy):
    """Uniform over what is left of the log and the live transitions together.

    The part of the log that is left falls linearly from `start` to `end`; equal ones keep that fraction for good.
    """

    name: ClassVar[str] = "replaced"

    start: float = 1.0
    """Share of the log in the pool when the online phase starts."""
    end: float = 0.0
    """Share of the log in the pool when the replacement is over."""
    until: float = 0.5
    """Share of the online phase after which it stays at `end`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, low in (("start", 0.0), ("end", 0.0), ("until", 1e-6)):
            if not low <= getattr(self, field) <= 1:
                raise RecipeError(f"replaced: {field} is {getattr(self, field)}; expected between {low:g} and 1")

    def rows(
        self, state: Any, key: Key, batch_size: int, replay: Replay, progress: Float[jax.Array, ""]
    ) -> Int[jax.Array, " batch"]:
        """Uniform over the first rows of a fixed shuffle of the log, and the ring."""
        share = self.start + (self.end - self.start) * jnp.minimum(progress / self.until, 1.0)
        left = jnp.round(share * replay.offline_size).astype(jnp.int32)
        left = jnp.where(replay.online_size > 0, left, jnp.maximum(left, 1))
        drawn = jax.random.randint(key, (batch_size,), 0, left + replay.online_size)
        logged = _shuffled(jnp.minimum(drawn, replay.offline_size - 1), replay.offline_size)
        return jnp.where(drawn < left, logged, replay.offline_size + drawn - left)


def _shuffled(index: Int[jax.Array, " batch"], size: int) -> Int[jax.Array, " batch"]:
    """index · stride mod size, a permutation of 0…size−1, without leaving 32 bits."""
    power = _stride(size) % size
    result = jnp.zeros_like(index)
    for bit in range(size.bit_length()):
        result = jnp.where((index >> bit) & 1, (result + power) % size, result)
        power = 2 * power % size
    return result


@functools.cache
def _stride(size: int) -> int:
    """Of the numbers near the golden section of `size`, the one whose multiples are spread best."""
    first = max(round(GOLDEN * size), 1)
    return min(range(first, first + 64), key=lambda stride: _unevenness(stride, size))


def _unevenness(stride: int, size: int) -> int:
    """The largest quotient of Euclid's algorithm, which bounds the gaps between multiples of the stride mod size; the
    worst, if they have a common divisor.
    """
    a, b, largest = size, stride % size, 0
    while b:
        largest = max(largest, a // b)
        a, b = b, a % b
    return largest if a == 1 else size + 1
