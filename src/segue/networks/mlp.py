"""Multi-layer perceptrons whose forward pass runs on device and host arrays alike.

Weights are stored `[..., in, out]` so that a batch is `x @ w + b`; an ensemble adds a leading member axis to every
leaf. Leaves are arrays only: what is not learnt is static, so a network can be donated, hashed and saved as it is.
"""

from __future__ import annotations

import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float

from segue import rng
from segue.core import Array, Key
from segue.networks.functions import ACTIVATIONS, layer_norm

#: Where the hidden layers have LayerNorm: RLPD has it before the activation, ReBRAC after it.
NormPlace = Literal["none", "before", "after"]
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


class MLP(eqx.Module):
    """Linear and activation, with LayerNorm before or after the latter or without; repeated; then a linear head."""

    layers: tuple[Linear, ...]
    norms: tuple[LayerNorm, ...]
    activation: str = eqx.field(static=True)
    norm_after: bool = eqx.field(static=True, default=False)
    """Whether the norms follow the activation instead of preceding it."""

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        """Apply to any leading axes."""
        activation = ACTIVATIONS[self.activation]
        *hidden, head = self.layers
        for i, layer in enumerate(hidden):
            x = layer(x)
            if self.norms and not self.norm_after:
                x = self.norms[i](x)
            x = activation(x)
            if self.norms and self.norm_after:
                x = self.norms[i](x)
        return head(x)

    @classmethod
    def init(
        cls,
        key: Key,
        inputs: int,
        hidden: tuple[int, ...],
        outputs: int,
        *,
        activation: str = "relu",
        layer_norm: NormPlace = "none",
        orthogonal: bool = False,
        head_scale: float = 1.0,
    ) -> MLP:
        """A network of these widths; `head_scale` shrinks the output layer's initial weights."""
        sizes = (inputs, *hidden, outputs)
        gains = (*[math.sqrt(2) if orthogonal else 1.0] * len(hidden), head_scale)
        layers = tuple(
            Linear.init(rng.named(key, "layer", i), a, b, scale=gain, orthogonal=orthogonal)
            for i, (a, b, gain) in enumerate(zip(sizes[:-1], sizes[1:], gains, strict=True))
        )
        norms = tuple(LayerNorm(jnp.ones(width), jnp.zeros(width)) for width in hidden) if layer_norm != "none" else ()
        return cls(layers, norms, activation, layer_norm == "after")
