"""Each JAX primitive that an export knows gives in onnxruntime what it gives in JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from jax.export import symbolic_shape

from segue.deployment.translate import onnx_model
from segue.errors import SegueError

TABLE = np.arange(15, dtype=np.float32).reshape(5, 3)
WEIGHT = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)

#: Of x, float32 [batch, 3], and i, int32 [batch] in 0…2.
FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "arithmetic": lambda x, i: (x + 1) * x - x / (2 + x**2) + x**3 - abs(-x),
    "functions": lambda x, i: jnp.exp(x) + jnp.sin(x) * jnp.tanh(x) + jnp.log1p(x**2) + jnp.expm1(x) + jnp.sqrt(x**2),
    "inverses": lambda x, i: jnp.arctanh(x / 9) + jnp.arcsin(x / 9) + jax.lax.rsqrt(x**2 + 1),
    "activations": lambda x, i: jax.nn.gelu(x) + jax.nn.silu(x) + jax.nn.elu(x) + jax.nn.softplus(x) + jax.nn.relu(x),
    "error functions": lambda x, i: jnp.stack([jax.lax.erf(x), jax.lax.erfc(x), jnp.log(jax.lax.erfc(2 * x + 1))]),
    "log of a normal probability": lambda x, i: jax.scipy.special.log_ndtr(8 * x),
    "whole numbers": lambda x, i: (i * 3 + 7) % 4 - i // 2,
    "remainders": lambda x, i: jax.lax.rem(x, np.float32(2)) + jnp.floor(x) + jnp.ceil(x) + jnp.sign(x),
    "truth": lambda x, i: ((x > 0) & (x < 1) | ~(x >= -1) ^ (i[:, None] != 1)) == jnp.isfinite(x),
    "all and any": lambda x, i: jnp.where((x > -1).all(-1) | (x > 2).any(-1), i, -1),
    "choice between truths": lambda x, i: jnp.where(x > 0, x > 1, x < -1),
    "bounds": lambda x, i: x.clip(-1, 1) + jax.lax.clamp(np.float32(0), x, np.float32(0.5)) + jnp.maximum(x, 2 * x),
    "reductions": lambda x, i: x.sum(-1) + x.mean(-1) + x.max(-1) + x.min(-1) + x.prod(-1),
    "softmax": lambda x, i: jax.nn.softmax(x) + jax.nn.log_softmax(x) + jax.nn.logsumexp(x, axis=-1, keepdims=True),
    "best and worst": lambda x, i: x.argmax(-1) * 10 + x.argmin(-1),
    "parts": lambda x, i: jnp.concatenate([x[:, 1:], x[:, :1], x[:, ::2], *jnp.split(x, 3, axis=-1)], axis=-1),
    "ranges": lambda x, i: jax.lax.slice_in_dim(x, 1, 3, axis=1) + jax.lax.slice_in_dim(x, 0, 3, 2, axis=1),
    "all of it": lambda x, i: jax.lax.slice_in_dim(x, 0, 3, axis=1),
    "one": lambda x, i: x[..., 0] + x[:, -1],
    "shapes": lambda x, i: x.reshape(-1, 3, 1).swapaxes(1, 2).squeeze(1) + jnp.broadcast_to(x, (2, *x.shape)),
    "one number per row": lambda x, i: jnp.take_along_axis(x, i[:, None], axis=-1)[:, 0],
    "one row per episode": lambda x, i: jnp.take_along_axis(jnp.stack([x, -x, 2 * x]), i[None, :, None], axis=0)[0],
    "rows of a table": lambda x, i: jnp.take(TABLE, i, axis=0) + jnp.asarray(TABLE)[i],
    "one-hot": lambda x, i: jax.nn.one_hot(i, 4) @ np.eye(4, dtype=np.float32)[::-1],
    "products": lambda x, i: jnp.stack([x] * 2) @ WEIGHT + jnp.einsum("bi,mij->mbj", x, WEIGHT),
    "vectors": lambda x, i: x @ TABLE[0] + jnp.einsum("bi,bi->b", x, x),
    "how many": lambda x, i: x / x.shape[0],
    "nothing": lambda x, i: (x, i, np.ones((2, 2), np.float32)),
}


def both(function: Callable[..., Any], x: np.ndarray, i: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    def flat(x: Any, i: Any) -> tuple[Any, ...]:
        return tuple(jax.tree.leaves(function(x, i)))

    (batch,) = symbolic_shape("batch")
    inputs = {"x": jax.ShapeDtypeStruct((batch, 3), np.float32), "i": jax.ShapeDtypeStruct((batch,), np.int32)}
    expected = flat(jnp.asarray(x), jnp.asarray(i))
    model = onnx_model(flat, inputs, [f"y_{n}" for n in range(len(expected))], batch=batch)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return list(zip(session.run(None, {"x": x, "i": i}), map(np.asarray, expected), strict=True))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_translated_gives_the_same_numbers_for_any_batch(name: str) -> None:
    for rows in (7, 1):
        x = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
        for ours, expected in both(FUNCTIONS[name], x, np.arange(rows, dtype=np.int32) % 3):
            assert ours.dtype == expected.dtype
            np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "primitive"),
    [
        (lambda x, i: jnp.sort(x), "sort"),
        (lambda x, i: i & 1, "and"),
        (lambda x, i: jnp.asarray(TABLE)[i, i], "gather"),
        (lambda x, i: jax.lax.fori_loop(0, 3, lambda _, y: y * 2, x), "scan"),
    ],
)
def test_what_is_not_is_named(function: Callable[..., Any], primitive: str) -> None:
    with pytest.raises(SegueError, match=f"the JAX primitive {primitive} of .* has no translation to ONNX"):
        both(function, np.zeros((2, 3), np.float32), np.zeros(2, np.int32))
