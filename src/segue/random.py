"""Random draws that work in both worlds: a JAX key on the device, a NumPy generator on the host.

Every draw of a run comes from a stream named by (seed, phase, index), so nothing depends on what ran before it.
"""

from __future__ import annotations

import zlib

import jax
import numpy as np
from jaxtyping import Float

from segue.types import Array, Key

Source = Key | np.random.Generator


def stream(seed: int, *names: str | int) -> Key:
    """JAX key of the stream (seed, names…)."""
    key = jax.random.key(seed)
    for name in names:
        key = jax.random.fold_in(key, _number(name))
    return key


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """NumPy generator of the stream (seed, names…)."""
    return np.random.default_rng([seed, *map(_number, names)])


def environment_seed(seed: int, role: str, environment: int, episode: int) -> int:
    """Seed for the reset of episode `episode` of environment `environment`; `role` parts training from evaluation."""
    return int(generator(seed, role, environment, episode).integers(2**31 - 1))


def _number(name: str | int) -> int:
    return name if isinstance(name, int) else zlib.crc32(name.encode())


def split(source: Source, count: int) -> list[Source]:
    """Sources for `count` draws that do not depend on each other."""
    return [source] * count if isinstance(source, np.random.Generator) else list(jax.random.split(source, count))


def normal(source: Source, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Standard normal numbers, float32."""
    if isinstance(source, np.random.Generator):
        return source.standard_normal(shape, np.float32)
    return jax.random.normal(source, shape)


def uniform(source: Source, shape: tuple[int, ...], low: float, high: float) -> Float[Array, "..."]:
    """Uniform numbers in [low, high), float32."""
    if isinstance(source, np.random.Generator):
        return source.uniform(low, high, shape).astype(np.float32)
    return jax.random.uniform(source, shape, minval=low, maxval=high)


def gumbel(source: Source, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Standard Gumbel numbers, float32: adding them to logits and taking the argmax draws from the softmax."""
    if isinstance(source, np.random.Generator):
        return source.gumbel(size=shape).astype(np.float32)
    return jax.random.gumbel(source, shape)
