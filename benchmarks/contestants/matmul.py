"""The machine's limit: a chain of f32 matrix products of the update's own size, [256, 256] by [256, 256]."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from benchmarks.gate import Gate
from benchmarks.shapes import BATCH, HIDDEN

PRODUCTS = 2000


def main() -> None:
    gate = Gate()
    chain = jax.jit(lambda x, w: jax.lax.scan(lambda y, _: (y @ w, None), x, None, length=PRODUCTS)[0])
    x, w = jnp.full((BATCH, HIDDEN), 1e-3), jnp.eye(HIDDEN)

    def turn() -> float:
        chain(x, w).block_until_ready()
        return PRODUCTS * 2.0 * BATCH * HIDDEN * HIDDEN

    gate.forever(turn)


if __name__ == "__main__":
    main()
