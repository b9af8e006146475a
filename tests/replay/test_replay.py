"""Replay: the ring keeps the newest, and each strategy draws the share of the dataset that it promises."""

from __future__ import annotations

import itertools
import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import KINDS, SPACES, few, for_each, same_bits, transitions
from segue.core import Spaces, Transition
from segue.errors import RecipeError
from segue.replay import REPLAYS, Annealed, Appended, Balanced, Mixed, OnlineOnly, Replaced, Replay, append
from segue.replay.base import empty

EVERY = [
    Appended(),
    Mixed(),
    Mixed(offline_fraction=0.3),
    Annealed(start=0.8, end=0.1),
    OnlineOnly(),
    Replaced(start=0.9, end=0.2),
    Balanced(first_online_steps=20, hidden_sizes=(8,)),
]
BALANCED = EVERY[-1]
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


@partial(jax.jit, static_argnames=("strategy", "batch", "offline", "capacity"))
def draw(strategy, seed, batch, offline, capacity, online, progress):
    replay = Replay(empty(offline, SPACES), empty(capacity, SPACES), online)
    state = strategy.init(replay, SPACES, jax.random.key(0))
    return strategy.rows(state, jax.random.key(seed), batch, replay, progress)


def rows(strategy, seed=0, batch=100, offline=50, online=20, progress=0.0, capacity=None):
    """Row numbers, compiled once per strategy, batch and log; the ring holds 20 (or all that is live, if more)."""
    capacity = capacity or max(online, 20)
    drawn = draw(strategy, seed, batch, offline, capacity, jnp.asarray(online), jnp.asarray(progress, jnp.float32))
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


def test_a_new_ring_is_empty_and_the_dataset_is_not_in_it():
    replay = Replay.create(transitions(10), 4, SPACES)
    assert (replay.offline_size, replay.capacity, int(replay.online_size)) == (10, 4, 0)
    assert Replay.create(transitions(10), 0, SPACES).online is None


def test_appending_leaves_the_dataset_as_it_is():
    replay = Replay.create(transitions(10), 4, SPACES)
    after = append(replay, numbered(1, 2))
    assert after.offline is replay.offline
    assert same_bits(after.offline, jax.tree.map(jnp.asarray, transitions(10)))


@few
@given(asked=st.lists(st.integers(0, 12), min_size=1, max_size=20))
def test_a_row_number_names_a_row_of_the_dataset_or_of_the_ring_behind_it(asked):
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
def test_rows_lie_in_the_dataset_or_in_the_filled_part_of_the_ring(strategy, seed, online, progress):
    drawn = rows(strategy, seed, online=online, progress=progress)
    assert drawn.min() >= (0 if strategy.needs_dataset else 50)
    assert drawn.max() < 50 + online


@pytest.mark.parametrize("strategy", [s for s in EVERY if s.needs_dataset], ids=lambda s: s.name)
@few
@given(seed=st.integers(0, 2**31 - 1), progress=st.floats(0, 1, width=32))
def test_while_nothing_is_live_every_row_is_of_the_dataset(strategy, seed, progress):
    drawn = rows(strategy, seed, online=0, progress=progress)
    assert drawn.min() >= 0
    assert drawn.max() < 50


@for_each(("fraction", "batch"), [(0, 100), (0.25, 100), (0.5, 256), (0.5, 7), (0.9, 33), (1, 100)])
def test_mixed_draws_exactly_its_fraction_from_the_dataset(fraction, batch):
    drawn = rows(Mixed(offline_fraction=fraction), batch=batch)
    assert abs((drawn < 50).sum() - fraction * batch) <= 0.5


@for_each(("progress", "share"), [(0, 0.8), (0.1, 0.66), (0.25, 0.45), (0.5, 0.1), (0.75, 0.1), (1, 0.1)])
def test_annealed_moves_linearly_from_its_start_to_its_end_and_stays_there(progress, share):
    strategy = Annealed(start=0.8, end=0.1, until=0.5)
    assert (rows(strategy, progress=progress) < 50).sum() == round(100 * share)


def test_annealed_may_also_rise_and_may_take_the_whole_phase():
    strategy = Annealed(start=0.0, end=1.0, until=1.0)
    shares = [(rows(strategy, progress=progress) < 50).sum() for progress in (0, 0.3, 1)]
    assert shares == [0, 30, 100]


def test_appended_draws_the_dataset_in_proportion_to_its_size():
    drawn = rows(Appended(), batch=100_000, offline=300, online=100)
    assert (drawn < 300).mean() == pytest.approx(0.75, abs=0.007)  # five standard deviations


def test_online_only_never_draws_the_dataset():
    assert rows(OnlineOnly(), batch=1000).min() == 50


@every_strategy
def test_within_a_block_every_row_is_equally_likely(strategy):
    """Pearson's χ² over the rows of each block that can come up; far beyond the 99.99th percentile means a bias."""
    drawn = rows(strategy, batch=100_000, offline=30, online=20, progress=0.3)
    left = 14 if strategy.name == "replaced" else 30  # 0.9 − 0.7 · 0.3 / 0.5 = 0.48 of 30 rows
    blocks = [drawn[drawn >= 30] - 30, drawn[drawn < 30]] if strategy.needs_dataset else [drawn - 30]
    for block, size in zip(blocks, (20, left), strict=False):
        counts = np.unique(block, return_counts=True)[1]
        assert len(counts) == size
        expected = len(block) / size
        assert expected > 100
        assert ((counts - expected) ** 2 / expected).sum() < size + 4 * np.sqrt(2 * size)


@every_strategy
def test_the_key_decides(strategy):
    assert np.array_equal(rows(strategy, seed=1), rows(strategy, seed=1))
    assert not np.array_equal(rows(strategy, seed=1), rows(strategy, seed=2))


@for_each(("progress", "left"), [(0.0, 40), (0.1, 34), (0.25, 25), (0.4, 16), (0.5, 10), (0.7, 10), (1.0, 10)])
def test_replaced_leaves_exactly_its_share_of_the_dataset_in_the_pool(progress, left):
    """0.8 to 0.2 of 50 rows; in 20,000 draws from at most 60 rows none is missed (e^−300)."""
    strategy = Replaced(start=0.8, end=0.2, until=0.5)
    drawn = rows(strategy, batch=20_000, progress=progress)
    assert len(np.unique(drawn[drawn < 50])) == left
    assert set(drawn[drawn >= 50]) == set(range(50, 70))
    assert (drawn < 50).mean() == pytest.approx(left / (left + 20), abs=0.018)  # five standard deviations


def test_rows_that_have_left_do_not_come_back():
    strategy = Replaced()
    pools = [set(rows(strategy, batch=20_000, progress=p / 20)) for p in range(12)]
    for before, after in itertools.pairwise(pools):
        assert after <= before
    assert pools[0] == set(range(70))
    assert pools[-1] == set(range(50, 70))


def test_equal_shares_stay_for_good():
    strategy = Replaced(start=0.3, end=0.3)
    first, last = (set(rows(strategy, batch=20_000, progress=p)) for p in (0.0, 1.0))
    assert first == last
    assert len(first) == 15 + 20


def test_a_dataset_that_has_left_is_not_drawn_even_once():
    assert rows(Replaced(end=0.0), batch=20_000, progress=1.0, online=1).min() == 50


def live_in(log: Transition, live: Transition, capacity: int) -> Replay:
    return append(Replay.create(log, capacity, SPACES, costs=live.cost is not None), live)


def with_priorities(strategy, replay, priorities):
    """The strategy's state after these priorities were written."""
    state = strategy.init(replay, SPACES, jax.random.key(0))
    written = jnp.asarray(priorities, jnp.float32), jnp.copy(replay.count)
    return eqx.tree_at(lambda s: (s.priorities, s.seen), state, written)


def test_balanced_draws_in_proportion_to_the_priorities():
    """Pearson's χ² of 200,000 draws, far below what a bias of a few per cent would give."""
    strategy, replay = Balanced(hidden_sizes=(8,)), live_in(transitions(6), transitions(3), 4)
    priorities = np.array([1, 0.001, 2, 5, 10, 0.5, 3, 100, 7, 1000])  # the last: a row of the ring that is not there
    state = with_priorities(strategy, replay, priorities)
    drawn = np.asarray(strategy.rows(state, jax.random.key(1), 200_000, replay, jnp.zeros(())))
    counts = np.bincount(drawn, minlength=10)
    assert counts[9] == 0
    expected = 200_000 * priorities[:9] / priorities[:9].sum()
    assert ((counts[:9] - expected) ** 2 / expected).sum() < 30  # 8 degrees: 99.98 %


@few
@given(seed=st.integers(0, 2**31 - 1), online=st.integers(0, 9))
def test_balanced_never_draws_a_row_that_is_not_there(seed, online):
    """600 rows of the dataset, so that a block of 256 ends within it, and another behind the ring."""
    drawn = rows(BALANCED, seed, batch=64, offline=600, online=online, capacity=9)
    assert drawn.min() >= 0
    assert drawn.max() < 600 + online


def test_rows_of_little_weight_behind_many_of_much_are_each_as_likely():
    """A million rows, the first half of weight 1000, the second of 10. A running sum in float32 would stand at 5e8 and
    move in steps of 32: of every 16 small rows 11 could never be drawn.
    """
    strategy, half = Balanced(hidden_sizes=(8,)), 500_000
    replay = Replay.create(empty(2 * half, SPACES), 1, SPACES)
    state = with_priorities(strategy, replay, np.repeat([1e3, 10.0, 1.0], [half, half, 1]))
    take = jax.jit(lambda key: strategy.rows(state, key, 4096, replay, jnp.zeros(())))
    drawn = np.concatenate([np.asarray(take(jax.random.key(i))) for i in range(50)])
    small = drawn[drawn >= half]
    expected = len(drawn) / 101
    assert len(small) == pytest.approx(expected, abs=5 * math.sqrt(expected))
    places = np.bincount(small % 16, minlength=16)
    assert ((places - places.mean()) ** 2 / places.mean()).sum() < 45  # 15 degrees: 99.99 %


@pytest.mark.parametrize("fraction", [0.5, 0.75, 0.1])
def test_the_batch_is_live_by_the_stated_share_when_the_stated_steps_have_come_in(fraction):
    strategy = Balanced(first_online_fraction=fraction, first_online_steps=30, hidden_sizes=(8,))
    drawn = rows(strategy, batch=40_000, offline=70, online=30, capacity=50)
    assert (drawn >= 70).mean() == pytest.approx(fraction, abs=5 * math.sqrt(0.25 / 40_000))


def test_a_live_row_that_overwrites_an_older_one_comes_in_fresh():
    """A ring of 4 behind a dataset of 6: numbers 0…3 are seen and rated, then 4 and 5 overwrite 0 and 1."""
    strategy = Balanced(first_online_fraction=0.5, first_online_steps=3, hidden_sizes=(8,))
    replay = live_in(numbered(*range(6)), numbered(*range(4)), 4)
    state = with_priorities(strategy, replay, [1, 2, 3, 4, 5, 6, 0.1, 0.2, 0.3, 0.4])
    assert np.allclose(strategy.priorities(state, replay), state.priorities)
    later = append(replay, numbered(4, 5))
    assert numbers_in(later.gather(jnp.arange(6, 10))) == [4, 5, 2, 3]
    assert np.allclose(strategy.priorities(state, later), [1, 2, 3, 4, 5, 6, 2, 2, 0.3, 0.4])
    batch_rows = jnp.asarray([7, 0])
    after = strategy.update(state, batch_rows, later.gather(batch_rows), later, jax.random.key(0))
    untouched = [1, 2, 3, 4, 5, 6, 8, 9]
    written = np.asarray(strategy.priorities(after, later))
    assert np.allclose(written[untouched], np.array([1, 2, 3, 4, 5, 6, 2, 2, 0.3, 0.4])[untouched])
    assert written[7] != 2


@few
@given(capacity=st.sampled_from([1, 3, 5]), before=st.integers(0, 12), more=st.integers(0, 12))
def test_exactly_the_rows_that_came_in_since_are_fresh(capacity, before, more):
    """Also when more than the ring holds came in at once, and in a ring that is not full."""
    expected = np.zeros(capacity)
    for number in range(before + more):
        expected[number % capacity] = 0.5 if number < before else 7.0
    assert np.allclose(priorities_later(capacity, before, before + more), np.append(np.full(7, 0.5), expected))


@partial(jax.jit, static_argnames="capacity")
def priorities_later(capacity, before, after):
    """Priorities at the second count, of rows that all had ½ at the first; 7 is fresh."""
    strategy = Balanced(first_online_fraction=0.5, first_online_steps=1, hidden_sizes=(8,))
    log, ring = empty(7, SPACES), empty(capacity, SPACES)
    state = with_priorities(strategy, Replay(log, ring, jnp.asarray(before)), np.full(7 + capacity, 0.5))
    return strategy.priorities(state, Replay(log, ring, jnp.asarray(after)))


def js_loss(live: np.ndarray, logged: np.ndarray) -> float:
    """E_log[−log 2/(w + 1)] − E_live[log 2w/(w + 1)], in float64."""
    return -np.log(2 / (logged + 1)).mean() - np.log(2 * live / (live + 1)).mean()


def separable(kind: str) -> tuple[Replay, np.ndarray]:
    """A dataset of which the first half is like the live data, and which rows those are."""
    spaces, alike = KINDS[kind], np.arange(80) < 40
    log, live = transitions(80, seed=1, kind=kind), transitions(60, seed=2, kind=kind)
    near, far = np.float32([2, 0, 0]), np.float32([-2, 0, 0])
    if spaces.discrete:  # only the action tells them apart
        log = log._replace(action=np.where(alike, 1, 2).astype(np.int32))
        live = live._replace(action=np.ones(60, np.int32))
    else:
        log = log._replace(observation=log.observation + np.where(alike[:, None], near, far))
        live = live._replace(observation=live.observation + near)
    return append(Replay.create(log, 60, spaces, costs=True), live), alike


@pytest.mark.parametrize("kind", KINDS)
def test_the_density_ratio_learns_which_of_the_dataset_looks_live(kind):
    """Its loss falls below that of no difference (0, at w = 1) and lies where NumPy puts it; what looks live gains."""
    strategy = Balanced(hidden_sizes=(16,), learning_rate=3e-3)
    replay, alike = separable(kind)
    state = strategy.init(replay, KINDS[kind], jax.random.key(0))

    @jax.jit
    def steps(state):
        def step(carry, i):
            key = jax.random.fold_in(jax.random.key(3), i)
            drawn = strategy.rows(carry, key, 64, replay, jnp.zeros(()))
            return strategy.update(carry, drawn, replay.gather(drawn), replay, key), None

        return jax.lax.scan(step, state, jnp.arange(400))[0]

    after = steps(state)
    w = np.asarray(after(replay.gather(jnp.arange(140))), np.float64)
    assert js_loss(w[80:], w[:80]) < -0.1
    assert np.median(w[:80][alike]) > 2 * np.median(w[:80][~alike])
    priorities = np.asarray(after.priorities)[:80]
    assert np.median(priorities[alike]) > 1.1 * np.median(priorities[~alike])
    drawn = np.asarray(strategy.rows(after, jax.random.key(9), 20_000, replay, jnp.zeros(())))
    logged = drawn[drawn < 80]
    assert alike[logged].mean() > 0.55


def test_one_step_of_the_ratio_and_the_priorities_are_those_of_the_equations():
    """SGD's direction shows in Adam's first step: −lr · sign(gradient), the gradient by differences of the NumPy loss.
    The dataset and the ring hold one row each, so the batches drawn are known.
    """
    strategy = Balanced(hidden_sizes=(4,), learning_rate=1e-3, temperature=5.0)
    replay = live_in(transitions(1, seed=1), transitions(1, seed=2), 1)
    state = strategy.init(replay, SPACES, jax.random.key(0))
    drawn = jnp.asarray([1, 0])
    after = strategy.update(state, drawn, replay.gather(drawn), replay, jax.random.key(0))

    def ratio(layers, rows_of):
        batch = replay.gather(jnp.asarray(rows_of))
        x = np.concatenate([batch.observation, batch.action], 1).astype(np.float64)
        x = np.maximum(x @ layers[0] + layers[1], 0)
        return np.maximum(x @ layers[2] + layers[3], 0)[:, 0]

    def loss(layers):
        return js_loss(ratio(layers, [1]), ratio(layers, [0]))

    def flat(net):
        return [np.asarray(leaf, np.float64) for layer in net.layers for leaf in (layer.weight, layer.bias)]

    old, new = flat(state.net), flat(after.net)
    compared = 0
    for i, leaf in enumerate(old):
        for place in np.ndindex(leaf.shape):
            up, down = ([x.copy() for x in old] for _ in range(2))
            up[i][place] += 1e-5
            down[i][place] -= 1e-5
            slope = (loss(up) - loss(down)) / 2e-5
            if abs(slope) > 1e-3:
                assert new[i][place] - leaf[place] == pytest.approx(-1e-3 * np.sign(slope), rel=0.02)
                compared += 1
    assert compared > 10
    w = ratio(new, [1, 0])
    assert np.allclose(np.asarray(after.priorities)[[1, 0]], w**0.2 / w[1] ** 0.2, rtol=1e-4)


@pytest.mark.parametrize(("bias", "expected"), [(1e30, 1e3), (-1e30, 1e-3)])
def test_priorities_stay_between_a_thousandth_and_a_thousand(bias, expected):
    """The ratio is huge, or 0, on every row drawn and about 1 on the dataset."""
    strategy = Balanced(hidden_sizes=(4,))
    replay = live_in(transitions(4, seed=1), transitions(2, seed=2), 2)
    state = strategy.init(replay, SPACES, jax.random.key(0))
    strange = replay.gather(jnp.asarray([4, 5]))
    net = eqx.tree_at(lambda n: n.layers[-1].weight, state.net, jnp.ones_like(state.net.layers[-1].weight))
    state = eqx.tree_at(lambda s: s.net, state, net)
    strange = strange._replace(observation=jnp.full_like(strange.observation, 1e20))
    sign = jnp.sign(jnp.asarray(bias))
    state = eqx.tree_at(lambda s: s.net.layers[0].weight, state, jnp.abs(net.layers[0].weight))
    state = eqx.tree_at(lambda s: s.net.layers[-1].weight, state, sign * jnp.ones_like(net.layers[-1].weight))
    after = strategy.update(state, jnp.asarray([4, 5]), strange, replay, jax.random.key(0))
    assert np.allclose(after.priorities[4:], expected)


@for_each(
    ("name", "field", "value", "expected"),
    [(name, "capacity", value, "at least 1") for name in REPLAYS for value in (0, -1)]
    + [("mixed", "offline_fraction", value, "between 0 and 1") for value in (-0.1, 1.1)]
    + [("mixed", "offline_fraction", float("nan"), "a finite number")]
    + [("annealed", field, value, "between 0 and 1") for field in ("start", "end") for value in (-0.1, 1.1)]
    + [("annealed", "until", value, "between 1e-06 and 1") for value in (0.0, 1.1)]
    + [("replaced", field, value, "between 0 and 1") for field in ("start", "end") for value in (-0.1, 1.1)]
    + [("replaced", "until", value, "between 1e-06 and 1") for value in (0.0, 1.1)]
    + [("balanced", "first_online_fraction", value, "between 0 and 1") for value in (0.0, 1.0)]
    + [("balanced", "first_online_steps", 0, "at least 1"), ("balanced", "temperature", 0.0, "above 0")]
    + [("balanced", "learning_rate", 0.0, "above 0")],
)
def test_a_hyper_parameter_out_of_range_names_the_range(name, field, value, expected):
    with pytest.raises(RecipeError, match=f"{name}: {field} is {value}; expected {expected}"):
        REPLAYS[name](**{field: value})
