"""Images: the encoder, the layouts, the random shifts."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from segue import conformance as suite
from segue.core import Spaces, Transition, is_image
from segue.networks import Critic
from segue.networks.encoder import BLOCK, FEATURES, Encoder, _convolved, _halved, height_and_width, randomly_shifted
from segue.networks.linear import Linear


def images(shape: tuple[int, ...], rows: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, math.prod(shape))).astype(np.float32)


def on_host(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


def batch_of(x: np.ndarray) -> Transition:
    rest = [jnp.zeros(len(x))] * 7
    return Transition(*rest)._replace(observation=jnp.asarray(x), next_observation=jnp.asarray(x))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((32, 20), (0, 1)),
        ((32, 20, 3), (0, 1)),
        ((3, 32, 20), (1, 2)),
        ((4, 32, 20), (1, 2)),
        ((4, 32, 20, 3), (1, 2)),
        ((4, 3, 32, 20), (2, 3)),
    ],
)
def test_the_channels_are_the_smaller_of_the_first_and_the_last_axis(shape: Any, expected: Any) -> None:
    assert is_image(shape, np.uint8)
    assert height_and_width(shape) == expected


@pytest.mark.parametrize(
    ("shape", "dtype"), [((64,), np.uint8), ((8, 8), np.float32), ((8, 8), np.int8), (None, np.uint8)]
)
def test_vectors_and_other_numbers_are_no_images(shape: Any, dtype: Any) -> None:
    assert not is_image(shape, dtype)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3))
def test_a_convolution_and_a_maximum_are_what_they_should_be(height: int, width: int, channels: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, height, width, channels)).astype(np.float32)
    weights = Linear(*(rng.normal(size=shape).astype(np.float32) for shape in ((9 * channels, 4), (4,))))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 2))
    kernel = weights.weight.reshape(3, 3, channels, -1)
    expected = np.einsum("bhwcij,ijco->bhwo", windows, kernel) + weights.bias
    np.testing.assert_allclose(_convolved(x, weights), expected, rtol=1e-4, atol=1e-5)
    pooled = ndimage.maximum_filter(x, (1, 3, 3, 1), mode="constant", cval=-np.inf)[:, ::2, ::2]
    np.testing.assert_array_equal(_halved(x), pooled)


def test_a_host_encodes_as_a_device_does_also_more_images_than_it_takes_at_once() -> None:
    encoder = Encoder.init(jax.random.key(0), (6, 5))
    x = np.concatenate([images((6, 5), BLOCK + 3), np.full((BLOCK + 3, 2), 7, np.float32)], axis=1)
    encoded = on_host(encoder)(x)
    assert encoded.shape == (BLOCK + 3, FEATURES + 2)
    assert (encoded[:, FEATURES:] == 7).all()
    np.testing.assert_allclose(encoded, jax.jit(lambda net, x: net(x))(encoder, x), rtol=1e-4, atol=1e-4)


def test_one_picture_has_the_same_features_in_every_layout() -> None:
    last = on_host(Encoder.init(jax.random.key(0), (8, 7, 3)))
    first = dataclasses.replace(last, shape=(3, 8, 7))
    picture = images((8, 7, 3)).reshape(-1, 8, 7, 3)
    of_last = last(picture.reshape(3, -1))
    of_first = first(picture.transpose(0, 3, 1, 2).reshape(3, -1))
    np.testing.assert_allclose(of_last, of_first, rtol=1e-5, atol=1e-5)


def test_many_actions_of_one_image_have_the_values_that_they_have_one_by_one() -> None:
    critic = on_host(Critic.init(jax.random.key(0), 2, 30, 2, (8,), image=(6, 5)))
    x, actions = images((6, 5)), np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
    together = critic(x, actions)
    assert together.shape == (2, 4, 3)
    for i in range(4):
        np.testing.assert_allclose(together[:, i], critic(x, actions[i]), rtol=1e-4, atol=1e-5)


def test_random_shifts_are_crops_of_the_image_with_its_edges_repeated() -> None:
    shape, rows = (33, 32, 2), 24
    first = images(shape, rows)
    shifted = randomly_shifted(batch_of(first), shape, jax.random.key(0))
    padded = np.pad(first.reshape(rows, *shape), ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    found = []
    for name in ("observation", "next_observation"):
        moved = np.asarray(getattr(shifted, name)).reshape(rows, *shape)
        offsets = [
            [(i, j) for i in range(5) for j in range(5) if (padded[row, i : i + 33, j : j + 32] == moved[row]).all()]
            for row in range(rows)
        ]
        assert all(len(of_row) == 1 for of_row in offsets)
        assert len({offset for (offset,) in offsets}) > 5
        found.append(offsets)
    assert found[0] != found[1]


def test_tiny_images_are_not_shifted() -> None:
    x = images((8, 8))
    np.testing.assert_array_equal(randomly_shifted(batch_of(x), (8, 8), jax.random.key(0)).observation, x)


def test_stored_images_are_bytes_and_a_batch_of_them_is_numbers() -> None:
    spaces = Spaces(30, 2, image=(6, 5))
    replay = suite.replay(spaces)
    assert replay.offline is not None
    assert replay.offline.observation.dtype == np.uint8
    batch = replay.gather(jnp.arange(4))
    assert batch.observation.dtype == batch.next_observation.dtype == np.float32
    np.testing.assert_array_equal(batch.observation, replay.offline.observation[:4])
