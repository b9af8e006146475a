"""What a process holds of compiled programs."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from segue.runner import machine


def test_compiled_programs_are_kept_until_a_process_holds_many_and_then_dropped():
    traced = []

    @jax.jit
    def double(x):
        traced.append(x)
        return 2 * x

    double(jnp.ones(3))
    machine.release_programs()
    double(jnp.ones(3))
    assert len(traced) == 1
    machine.release_programs(many=0)
    assert double(jnp.ones(3)).tolist() == [2, 2, 2]
    assert len(traced) == 2
