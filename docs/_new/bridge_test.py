"""NewPart: what it does to an update."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from helpers import random_learner, small, transitions
from segue.bridges import NewPart


def test_half_of_the_batch_has_the_low_weight():
    batch = jax.tree.map(jnp.asarray, transitions())
    nets = random_learner(small("td3")).nets
    weight, _ = NewPart(low_weight=0.25).actor_weight((), nets, batch, jax.random.key(0))
    assert np.isclose((np.asarray(weight) == 0.25).mean(), 0.5, atol=0.1)
