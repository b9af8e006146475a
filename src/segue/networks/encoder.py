"""An encoder of images: a small IMPALA network (Espeholt et al. 2018, arXiv 1802.01561), and the random shifts of DrQ
(Kostrikov et al. 2020, arXiv 2004.13649).

A convolution is a matrix product of 3×3 patches. XLA's CPU backend takes ten times as long for the gradient of its own
convolution; and as a product it runs on host arrays and in an exported model too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from segue import rng
from segue.core import Array, Key, Transition
from segue.networks.functions import relu
from segue.networks.linear import LayerNorm, Linear

#: Channels of the stages, each of which halves height and width.
CHANNELS = (16, 32, 32)
#: Length of the feature vector.
FEATURES = 128
#: The largest random shift in pixels, and as a share of the shorter side: DrQ's 4 of 84.
SHIFT, SHIFT_SHARE = 4, 1 / 16
#: Images that a host encodes at a time: their patches are many times as large.
BLOCK = 256


def height_and_width(shape: Sequence[int]) -> tuple[int, int]:
    """Which axes of an image these are: of H×W, H×W×C or C×H×W, or of a stack of the latter two.

    The channels' axis is the smaller one of the first and the last.
    """
    if len(shape) == 2:
        return 0, 1
    first = len(shape) - 3
    return (first, first + 1) if shape[-1] <= shape[first] else (first + 1, first + 2)


class Stage(eqx.Module):
    """Convolution, maximum over 3×3 with stride 2, and a residual block of two convolutions."""

    convolution: Linear
    residual: tuple[Linear, Linear]

    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch h w channels_out"]:
        """Half as high and as wide, rounded up."""
        x = _halved(_convolved(x, self.convolution))
        inner = _convolved(relu(x), self.residual[0])
        return x + _convolved(relu(inner), self.residual[1])


class Encoder(eqx.Module):
    """Features of the image that each row begins with."""

    stages: tuple[Stage, ...]
    head: Linear
    norm: LayerNorm
    shape: tuple[int, ...] = eqx.field(static=True)
    """Of an image before it was flattened."""

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch features"]:
        """[image, others] → [features, others]; the image's numbers are from 0 to 255."""
        size = math.prod(self.shape)
        images, others, xp = x[..., :size].reshape(-1, size), x[..., size:], x.__array_namespace__()
        if isinstance(images, np.ndarray):
            found = [self._features(images[i : i + BLOCK]) for i in range(0, max(len(images), 1), BLOCK)]
            features = xp.concatenate(found)
        else:
            features = self._features(images)
        return xp.concatenate([features.reshape(*x.shape[:-1], features.shape[-1]), others], axis=-1)

    def _features(self, images: Float[Array, "batch image"]) -> Float[Array, "batch features"]:
        x = images.reshape(-1, *self.shape)
        height, width = height_and_width(self.shape)
        channels = [axis for axis in range(len(self.shape)) if axis not in (height, width)]
        x = x.transpose(0, *(axis + 1 for axis in (height, width, *channels)))
        x = x.reshape(-1, self.shape[height], self.shape[width], math.prod(self.shape[axis] for axis in channels))
        x = x / np.float32(255)
        for stage in self.stages:
            x = stage(x)
        return self.norm(self.head(relu(x).reshape(-1, math.prod(x.shape[1:]))))

    @classmethod
    def init(cls, key: Key, shape: tuple[int, ...]) -> Encoder:
        """A fresh encoder of images of this shape."""
        height, width = (shape[axis] for axis in height_and_width(shape))
        inputs, stages = math.prod(shape) // (height * width), []
        for i, channels in enumerate(CHANNELS):
            widths = {"convolution": inputs, "first": channels, "second": channels}
            # √3: activations keep their size.
            convolution, *residual = (
                Linear.init(rng.named(key, name, i), 9 * width, channels, math.sqrt(3))
                for name, width in widths.items()
            )
            stages.append(Stage(convolution, (residual[0], residual[1])))
            inputs, height, width = channels, -(-height // 2), -(-width // 2)
        head = Linear.init(rng.named(key, "head"), height * width * inputs, FEATURES)
        return cls(tuple(stages), head, LayerNorm(jnp.ones(FEATURES), jnp.zeros(FEATURES)), shape)


def image_shape(nets: Any) -> tuple[int, ...] | None:
    """Of the images that these networks see; None if they see none."""
    parts = jax.tree.leaves(nets, is_leaf=lambda part: isinstance(part, Encoder))
    return next((part.shape for part in parts if isinstance(part, Encoder)), None)


def randomly_shifted(batch: Transition, shape: tuple[int, ...], key: Key) -> Transition:
    """The batch with each image moved by a few pixels, its edges repeated."""

    def moved(flat: jax.Array, offset: jax.Array) -> jax.Array:
        image = flat.reshape(shape)
        for axis, by in zip(height_and_width(shape), offset, strict=True):
            image = jnp.take(image, jnp.clip(jnp.arange(shape[axis]) + by, 0, shape[axis] - 1), axis=axis)
        return image.reshape(-1)

    def all_moved(name: str, images: Array) -> jax.Array:
        offsets = jax.random.randint(rng.named(key, name), (len(images), 2), -largest, largest + 1)
        return jax.vmap(moved)(jnp.asarray(images), offsets)

    largest = min(SHIFT, int(SHIFT_SHARE * min(shape[axis] for axis in height_and_width(shape))))
    return batch._replace(
        observation=all_moved("observation", batch.observation),
        next_observation=all_moved("next_observation", batch.next_observation),
    )


def _convolved(
    x: Float[Array, "batch height width channels"], weights: Linear
) -> Float[Array, "batch height width out"]:
    """3×3, with zeros around the image."""
    _, height, width, channels = x.shape
    xp = x.__array_namespace__()
    padded = xp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    patches = xp.concatenate([padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], axis=-1)
    return weights(patches.reshape(-1, 9 * channels)).reshape(-1, height, width, weights.bias.shape[-1])


def _halved(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch h w channels"]:
    """The maximum over 3×3, at every second row and column."""
    xp = x.__array_namespace__()
    padded = xp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-xp.inf)
    for axis in (1, 2):
        size = x.shape[axis]
        first, second, third = (padded[(slice(None),) * axis + (slice(i, i + size, 2),)] for i in range(3))
        padded = xp.maximum(xp.maximum(first, second), third)
    return padded
