"""The layers that networks are made of, on device and host arrays alike.

Weights are stored `[..., in, out]` so that a batch is `x @ w + b`.
"""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue import rng
from segue.core import Array, Key
from segue.networks.functions import layer_norm

#: Columns up to which XLA's CPU backend is faster at the transpose of a weight's gradient: eight times at six.
NARROW = 32


def product(x: Array, weight: Array) -> Array:
    """x @ weight, with a faster gradient on a processor where that has few columns, as in the head of a policy."""
    narrow = weight.ndim == 2 and weight.shape[1] <= NARROW
    if narrow and x.ndim == 2 and isinstance(x, jax.Array) and jax.default_backend() == "cpu":
        return _product(x, weight)
    return x @ weight


@jax.custom_vjp
def _product(x: jax.Array, weight: jax.Array) -> jax.Array:
    return x @ weight


def _gradients(both: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, weight = both
    # Without the barrier XLA would turn this into xᵀ @ gradient.
    return gradient @ weight.T, jax.lax.optimization_barrier(gradient.T @ x).T


_product.defvjp(lambda x, weight: (x @ weight, (x, weight)), _gradients)


class Linear(eqx.Module):
    """x @ weight + bias."""

    weight: Float[Array, "*members inputs outputs"]
    bias: Float[Array, "*members outputs"]

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        """Apply to any leading axes."""
        return product(x, self.weight) + self.bias

    @classmethod
    def init(cls, key: Key, inputs: int, outputs: int, scale: float = 1.0, orthogonal: bool = False) -> Linear:
        """Uniform in ±scale/√inputs (weight and bias), or orthogonal with gain `scale` and zero bias."""
        if orthogonal:
            draw = jax.nn.initializers.orthogonal(scale)
            return cls(draw(rng.named(key, "weight"), (inputs, outputs), jnp.float32), jnp.zeros(outputs))
        bound = scale / math.sqrt(inputs)
        return cls(
            rng.uniform_from_host(rng.named(key, "weight"), (inputs, outputs), -bound, bound),
            rng.uniform_from_host(rng.named(key, "bias"), (outputs,), -bound, bound),
        )


class LayerNorm(eqx.Module):
    """Normalise the last axis, then scale and shift (Ba et al. 2016)."""

    scale: Float[Array, "*members width"]
    shift: Float[Array, "*members width"]

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """Apply to any leading axes."""
        return layer_norm(x, self.scale, self.shift)
