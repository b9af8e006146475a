"""What every replay strategy must keep to."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segue import conformance as suite
from segue.recipe import decode, encode
from segue.replay import REPLAYS, Replay, append


def test_a_recipe_brings_it_back(strategy: str) -> None:
    """From plain data."""
    own = REPLAYS[strategy]()
    assert own.name == strategy
    assert decode("replay", encode(own), REPLAYS) == own


@pytest.mark.parametrize("arrived", [16, 200])
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_it_draws_rows_that_are_there(strategy: str, arrived: int, progress: float) -> None:
    """Also when the ring has been overwritten."""
    own, spaces = REPLAYS[strategy](), suite.CONTINUOUS
    logged = suite.transitions(spaces, 64) if own.needs_dataset else None
    replay = append(Replay.create(logged, 100, spaces, costs=True), suite.transitions(spaces, arrived, seed=1))
    state = own.init(replay, spaces, jax.random.key(0))
    rows = own.rows(state, jax.random.key(1), 500, replay, jnp.asarray(progress))
    assert rows.shape == (500,)
    assert jnp.issubdtype(rows.dtype, jnp.integer)
    assert int(rows.min()) >= 0
    assert int(rows.max()) < replay.offline_size + min(arrived, 100)
    after = own.update(state, rows[:16], replay.gather(rows[:16]), replay, jax.random.key(2))
    assert suite.structure(after) == suite.structure(state)
    assert np.array_equal(rows, own.rows(state, jax.random.key(1), 500, replay, jnp.asarray(progress)))
