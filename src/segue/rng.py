"""Random draws from a JAX key on the device, a NumPy generator on the host, or a tape of numbers drawn before.

Every draw of a run comes from a stream named by (seed, phase, index), so nothing depends on what ran before it. Within
a stream every purpose has a key of its own, by name (`named`). `jax.random.split` is only for keys of one purpose, such
as those of the steps of a scan.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from segue.core import Array, Key
from segue.noise import DRAW, Distribution

#: Dimensions: numbers, or JAX's symbolic ones while a policy is exported.
Shape = tuple[Any, ...]


class Tape:
    """A source that hands out given numbers in order, and notes what was asked for: how an export traces a policy.

    Args:
        numbers: one array per draw, of the distributions and shapes that a first pass has noted; by default zeros.
    """

    def __init__(self, numbers: Iterable[Array] | None = None) -> None:
        self.noted: list[tuple[Distribution, Shape]] = []
        self._numbers = None if numbers is None else iter(numbers)

    def draw(self, distribution: Distribution, shape: Shape) -> Array:
        """The next numbers."""
        self.noted.append((distribution, shape))
        return jnp.zeros(shape) if self._numbers is None else next(self._numbers)


Source = Key | np.random.Generator | Tape
S = TypeVar("S", bound=Source)


def named(source: S, *names: str | int | Int[Array, ""]) -> S:
    """The child of a key for the purpose with this name; a number, such as a step, follows the name of what it counts.

    A parent gives keys to its children or is drawn from, never both: its draws are made of its children's keys. A
    generator or a tape goes on as it is, since each of its draws is independent of those before.
    """
    if isinstance(source, np.random.Generator | Tape):
        return source
    key: Any = source
    for name in names:
        key = jax.random.fold_in(key, _number(name) if isinstance(name, str) else name)
    return key


def stream(seed: int, *names: str | int) -> Key:
    """JAX key of the stream (seed, names…)."""
    return named(jax.random.key(seed), *names)


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """NumPy generator of the stream (seed, names…)."""
    # The last 1 is an end: NumPy pads with zeros, so that (seed, name) and (seed, name, 0) would be one stream.
    return np.random.default_rng([seed, *(_number(n) if isinstance(n, str) else n for n in names), 1])


def environment_seed(seed: int, role: str, environment: int, episode: int) -> int:
    """Seed for the reset of episode `episode` of environment `environment`; `role` parts training from evaluation."""
    return int(generator(seed, role, environment, episode).integers(2**31 - 1))


def _number(name: str) -> int:
    """At least 2³¹, so that it is neither a count nor the index of a key from `jax.random.split`."""
    return zlib.crc32(name.encode()) | 1 << 31


def normal(source: Source, shape: Shape) -> Float[Array, "..."]:
    """Standard normal numbers, float32."""
    if isinstance(source, np.random.Generator | Tape):
        return _off_device(source, "normal", shape)
    return jax.random.normal(source, shape)


def uniform(source: Source, shape: Shape, low: float, high: float) -> Float[Array, "..."]:
    """Uniform numbers in [low, high), float32."""
    if not isinstance(source, np.random.Generator | Tape):
        return jax.random.uniform(source, shape, minval=low, maxval=high)
    lowest, highest = np.float32(low), np.float32(high)
    drawn = lowest + (highest - lowest) * _off_device(source, "uniform", shape)
    xp = drawn.__array_namespace__()
    # The sum may be rounded up to `high`.
    return xp.asarray(xp.minimum(drawn, np.nextafter(highest, lowest)))


def _off_device(source: np.random.Generator | Tape, distribution: Distribution, shape: Shape) -> Array:
    if isinstance(source, Tape):
        return source.draw(distribution, shape)
    return np.asarray(DRAW[distribution](source, shape))


def uniform_from_host(key: Key, shape: tuple[int, ...], low: float, high: float) -> Float[jax.Array, "..."]:
    """Uniform numbers in [low, high), float32, by a NumPy generator that the key seeds: for fresh networks.

    JAX would compile a program for each shape, at a third of a second each, and a network has many shapes.
    """

    def draw(data: Array) -> Array:
        return uniform(np.random.default_rng(np.asarray(data)), shape, low, high)

    data = jax.random.key_data(key)
    if isinstance(data, jax.core.Tracer):
        return jax.pure_callback(draw, jax.ShapeDtypeStruct(shape, jnp.float32), data)
    return jnp.asarray(draw(data))


def gumbel(source: Source, shape: Shape) -> Float[Array, "..."]:
    """Standard Gumbel numbers, float32: adding them to logits and taking the argmax draws from the softmax."""
    if isinstance(source, np.random.Generator | Tape):
        return _off_device(source, "gumbel", shape)
    return jax.random.gumbel(source, shape)
