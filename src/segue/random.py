"""Random draws that work in both worlds: a JAX key on the device, a NumPy generator on the host.

Every draw of a run comes from a stream named by (seed, phase, index), so nothing depends on what ran before it.
"""

from __future__ import annotations

import math
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt32

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


def uniform_at_once(key: Key, shape: tuple[int, ...], low: float, high: float) -> Float[jax.Array, "..."]:
    """What `uniform` draws, to the bit, without compiling a program for each shape: for fresh networks.

    A third of a second each, and a network has many shapes. While it is traced this is `uniform`.
    """
    as_usual = jax.random.key_impl(key) == "threefry2x32" and jax.config.jax_threefry_partitionable  # type: ignore[attr-defined]
    if isinstance(key, jax.core.Tracer) or not as_usual:
        return jax.random.uniform(key, shape, minval=low, maxval=high)
    bits = _threefry2x32(np.asarray(jax.random.key_data(key)), math.prod(shape))
    # In [1, 2): the upper 23 bits are the mantissa.
    fraction = (bits >> np.uint32(9) | np.uint32(0x3F800000)).view(np.float32) - np.float32(1)
    lowest, width = np.float32(low), np.float32(high) - np.float32(low)
    # XLA multiplies and adds with one rounding; in float64 the product of two float32 is exact.
    values = (fraction.astype(np.float64) * np.float64(width) + np.float64(lowest)).astype(np.float32)
    return jnp.asarray(np.maximum(values, lowest).reshape(shape))


def _threefry2x32(key: UInt32[np.ndarray, " 2"], count: int) -> UInt32[np.ndarray, " count"]:
    """The random bits of a key, as JAX makes them (Salmon et al. 2011, Threefry-2x32 with 20 rounds)."""
    keys = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    a, b = np.full(count, keys[0]), np.arange(count, dtype=np.uint32) + keys[1]
    for i in range(5):
        for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[i % 2]:
            a += b
            b = b << np.uint32(turn) | b >> np.uint32(32 - turn)
            b ^= a
        a += keys[(i + 1) % 3]
        b += keys[(i + 2) % 3]
        b += np.uint32(i + 1)
    return a ^ b


def gumbel(source: Source, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Standard Gumbel numbers, float32: adding them to logits and taking the argmax draws from the softmax."""
    if isinstance(source, np.random.Generator):
        return source.gumbel(size=shape).astype(np.float32)
    return jax.random.gumbel(source, shape)
