"""Multi-layer perceptrons whose forward pass runs on device and host arrays alike.

An ensemble adds a leading member axis to every leaf. Leaves are arrays only: what is not learnt is static, so a
network can be donated, hashed and saved as it is.
"""

from __future__ import annotations

import math
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Float

from segue import rng
from segue.core import Array, Key
from segue.networks.encoder import FEATURES, Encoder
from segue.networks.functions import ACTIVATIONS
from segue.networks.linear import LayerNorm, Linear

#: Where the hidden layers have LayerNorm: RLPD has it before the activation, ReBRAC after it.
NormPlace = Literal["none", "before", "after"]


class MLP(eqx.Module):
    """Linear and activation, with LayerNorm before or after the latter or without; repeated; then a linear head."""

    layers: tuple[Linear, ...]
    norms: tuple[LayerNorm, ...]
    activation: str = eqx.field(static=True)
    norm_after: bool = eqx.field(static=True, default=False)
    """Whether the norms follow the activation instead of preceding it."""
    encoder: Encoder | None = None
    """Of the image that the inputs begin with, if they do."""

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        """Apply to any leading axes."""
        activation = ACTIVATIONS[self.activation]
        *hidden, head = self.layers
        x = x if self.encoder is None else self.encoder(x)
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
        image: tuple[int, ...] | None = None,
    ) -> MLP:
        """A network of these widths; `head_scale` shrinks the output layer's initial weights.

        The first of the `inputs` are an image of shape `image`, if that is given.
        """
        encoder = None if image is None else Encoder.init(rng.named(key, "encoder"), image)
        if image is not None:
            inputs += FEATURES - math.prod(image)
        sizes = (inputs, *hidden, outputs)
        gains = (*[math.sqrt(2) if orthogonal else 1.0] * len(hidden), head_scale)
        layers = tuple(
            Linear.init(rng.named(key, "layer", i), a, b, scale=gain, orthogonal=orthogonal)
            for i, (a, b, gain) in enumerate(zip(sizes[:-1], sizes[1:], gains, strict=True))
        )
        norms = tuple(LayerNorm(jnp.ones(width), jnp.zeros(width)) for width in hidden) if layer_norm != "none" else ()
        return cls(layers, norms, activation, layer_norm == "after", encoder)
