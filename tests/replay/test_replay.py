"""Replay: the ring keeps the newest, and each strategy draws the share of the log that it promises."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import SPACES, few, same_bits, transitions
from segue.errors import RecipeError
from segue.replay import REPLAYS, Annealed, Appended, Mixed, OnlineOnly, Replay, append
from segue.types import Spaces, Transition

EVERY = [Appended(), Mixed(), Mixed(offline_fraction=0.3), Annealed(start=0.8, end=0.1), OnlineOnly()]
every_strategy = pytest.mark.parametrize("strategy", EVERY, ids=lambda s: s.name)


def numbered(*numbers: int) -> Transition:
    """Transitions that carry their number in every column."""
    n = np.array(numbers, np.float32)
    wide = np.repeat(n[:, None], SPACES.observation_size, 1)
    actions = np.repeat(n[:, None], SPACES.action_size, 1)
    return Transition(wide, actions, n, wide, n, n, actions)


def numbers_in(batch: Transition) -> list[int]:
    """Their numbers, the same in every column."""
    columns = [column for column in batch if column is not None]
    assert all((np.asarray(batch.reward) == np.asarray(column).T).all() for column in columns)
    return [int(number) for number in np.asarray(batch.reward)]


@partial(jax.jit, static_argnames=("strategy", "batch", "offline"))
def draw(strategy, seed, batch, offline, online, progress):
    return strategy.rows(jax.random.key(seed), batch, offline, online, progress)


def rows(strategy, seed=0, batch=100, offline=50, online=20, progress=0.0):
    """Row numbers, compiled once per strategy, batch and log."""
    drawn = draw(strategy, seed, batch, offline, jnp.asarray(online), jnp.asarray(progress, jnp.float32))
    assert drawn.shape == (batch,)
    assert jnp.issubdtype(drawn.dtype, jnp.integer)
    return np.asarray(drawn)


@few
@given(capacity=st.sampled_from([1, 3, 8]), sizes=st.lists(st.sampled_from([1, 2, 5, 9]), max_size=6))
def test_the_ring_keeps_the_newest_whatever_the_sizes_of_what_arrives(capacity, sizes):
    """Also when more arrives at once than it holds."""
    replay, sent = Replay.create(None, capacity, SPACES), 0
    for size in sizes:
        replay = append(replay, numbered(*range(sent, sent + size)))
        sent += size
    held = min(sent, capacity)
    assert replay.count == sent
    assert replay.online_size == held
    assert sorted(numbers_in(replay.gather(jnp.arange(held)))) == list(range(sent - held, sent))


def test_a_new_ring_is_empty_and_the_log_is_not_in_it():
    replay = Replay.create(transitions(10), 4, SPACES)
    assert (replay.offline_size, replay.capacity, int(replay.online_size)) == (10, 4, 0)
    assert Replay.create(transitions(10), 0, SPACES).online is None


def test_appending_leaves_the_log_as_it_is():
    replay = Replay.create(transitions(10), 4, SPACES)
    after = append(replay, numbered(1, 2))
    assert after.offline is replay.offline
    assert same_bits(after.offline, jax.tree.map(jnp.asarray, transitions(10)))


@few
@given(asked=st.lists(st.integers(0, 12), min_size=1, max_size=20))
def test_a_row_number_names_a_row_of_the_log_or_of_the_ring_behind_it(asked):
    log = numbered(*range(100, 108))
    both = append(Replay.create(log, 5, SPACES), numbered(*range(200, 205)))
    table = [*range(100, 108), *range(200, 205)]
    asked = np.array(asked + [0] * (20 - len(asked)))
    assert numbers_in(both.gather(jnp.asarray(asked))) == [table[row] for row in asked]


def test_either_block_alone_is_gathered_too():
    assert numbers_in(Replay.create(numbered(5, 6, 7), 0, SPACES).gather(jnp.asarray([2, 0]))) == [7, 5]
    assert numbers_in(append(Replay.create(None, 3, SPACES), numbered(5, 6)).gather(jnp.asarray([1, 0]))) == [6, 5]


def test_a_ring_for_discrete_actions_holds_integers():
    ring = Replay.create(None, 3, Spaces(2, 4, discrete=True)).online
    assert ring.action.shape == (3,)
    assert ring.action.dtype == jnp.int32


@every_strategy
@few
@given(seed=st.integers(0, 2**31 - 1), online=st.integers(1, 20), progress=st.floats(0, 1, width=32))
def test_rows_lie_in_the_log_or_in_the_filled_part_of_the_ring(strategy, seed, online, progress):
    drawn = rows(strategy, seed, online=online, progress=progress)
    assert drawn.min() >= (0 if strategy.needs_dataset else 50)
    assert drawn.max() < 50 + online


@pytest.mark.parametrize("strategy", [s for s in EVERY if s.needs_dataset], ids=lambda s: s.name)
@few
@given(seed=st.integers(0, 2**31 - 1), progress=st.floats(0, 1, width=32))
def test_while_nothing_is_live_every_row_is_of_the_log(strategy, seed, progress):
    drawn = rows(strategy, seed, online=0, progress=progress)
    assert drawn.min() >= 0
    assert drawn.max() < 50


@pytest.mark.parametrize(("fraction", "batch"), [(0, 100), (0.25, 100), (0.5, 256), (0.5, 7), (0.9, 33), (1, 100)])
def test_mixed_draws_exactly_its_fraction_from_the_log(fraction, batch):
    drawn = rows(Mixed(offline_fraction=fraction), batch=batch)
    assert abs((drawn < 50).sum() - fraction * batch) <= 0.5


@pytest.mark.parametrize(
    ("progress", "share"), [(0, 0.8), (0.1, 0.66), (0.25, 0.45), (0.5, 0.1), (0.75, 0.1), (1, 0.1)]
)
def test_annealed_moves_linearly_from_its_start_to_its_end_and_stays_there(progress, share):
    strategy = Annealed(start=0.8, end=0.1, until=0.5)
    assert (rows(strategy, progress=progress) < 50).sum() == round(100 * share)


def test_annealed_may_also_rise_and_may_take_the_whole_phase():
    strategy = Annealed(start=0.0, end=1.0, until=1.0)
    shares = [(rows(strategy, progress=progress) < 50).sum() for progress in (0, 0.3, 1)]
    assert shares == [0, 30, 100]


def test_appended_draws_the_log_in_proportion_to_its_size():
    drawn = rows(Appended(), batch=100_000, offline=300, online=100)
    assert (drawn < 300).mean() == pytest.approx(0.75, abs=0.007)  # five standard deviations


def test_online_only_never_draws_the_log():
    assert rows(OnlineOnly(), batch=1000).min() == 50


@every_strategy
def test_within_a_block_every_row_is_equally_likely(strategy):
    """Pearson's χ² over the rows of each block; far beyond the 99.99th percentile means a bias."""
    drawn = rows(strategy, batch=100_000, offline=30, online=20, progress=0.3)
    blocks = [drawn[drawn >= 30] - 30, drawn[drawn < 30]] if strategy.needs_dataset else [drawn - 30]
    for block, size in zip(blocks, (20, 30), strict=False):
        counts = np.bincount(block, minlength=size)
        expected = len(block) / size
        assert expected > 100
        assert ((counts - expected) ** 2 / expected).sum() < size + 4 * np.sqrt(2 * size)


@every_strategy
def test_the_key_decides(strategy):
    assert np.array_equal(rows(strategy, seed=1), rows(strategy, seed=1))
    assert not np.array_equal(rows(strategy, seed=1), rows(strategy, seed=2))


@pytest.mark.parametrize(
    ("name", "field", "value", "expected"),
    [(name, "capacity", value, "at least 1") for name in REPLAYS for value in (0, -1)]
    + [("mixed", "offline_fraction", value, "between 0 and 1") for value in (-0.1, 1.1, float("nan"))]
    + [("annealed", field, value, "between 0 and 1") for field in ("start", "end") for value in (-0.1, 1.1)]
    + [("annealed", "until", value, "between 1e-06 and 1") for value in (0.0, 1.1)],
)
def test_a_hyper_parameter_out_of_range_names_the_range(name, field, value, expected):
    with pytest.raises(RecipeError, match=f"{name}: {field} is {value}; expected {expected}"):
        REPLAYS[name](**{field: value})
