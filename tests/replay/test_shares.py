"""A mixture's weights are the shares of the samples from each part; a single dataset is drawn as ever."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segue.core import Spaces
from segue.replay import REPLAYS, Annealed, Appended, Mixed
from segue.replay.base import Replay, append, empty

SPACES = Spaces(1, 1)
PARTS = (np.array([5, 95]), np.array([0.75, 0.25]))
DRAWS = 20_000


def replay(parts=PARTS) -> Replay:
    return append(Replay.create(empty(100, SPACES), 50, SPACES, part_rows=parts), empty(50, SPACES))


@pytest.mark.parametrize("strategy", [None, Mixed(), Annealed(start=0.5), Appended()])
def test_each_part_has_its_share_and_every_row_of_it_comes_up(strategy) -> None:
    key, progress = jax.random.key(0), jnp.zeros(())
    rows = replay().draw_dataset(key, DRAWS) if strategy is None else strategy.rows((), key, DRAWS, replay(), progress)
    logged = np.asarray(rows)[np.asarray(rows) < 100]
    # Five standard deviations of a share of at least 10,000 draws.
    assert np.mean(logged < 5) == pytest.approx(0.75, abs=5 * np.sqrt(0.75 * 0.25 / 10_000))
    assert set(logged.tolist()) == set(range(100))


def test_a_single_dataset_is_drawn_from_the_same_random_numbers_as_ever() -> None:
    key = jax.random.key(3)
    expected = jax.random.randint(key, (64,), 0, 100)
    assert np.array_equal(replay(None).draw_dataset(key, 64), expected)


def test_strategies_that_choose_rows_themselves_take_no_weights() -> None:
    assert {name for name, cls in REPLAYS.items() if cls.needs_dataset and not cls.mixtures} == {"replaced", "balanced"}
