"""Episode boundaries follow from what a dataset shows; columns that contradict it are refused with the row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.data import load
from segue.errors import DataError


def walks(count=6, length=50, seed=0, **changes):
    """Random walks from different places, each cut after `length` steps."""
    rng = np.random.default_rng(seed)
    paths = [10 * rng.normal(size=4) + np.cumsum(rng.normal(size=(length + 1, 4)), 0) for _ in range(count)]
    rows = count * length
    log = {
        "observations": np.concatenate([path[:-1] for path in paths]),
        "next_observations": np.concatenate([path[1:] for path in paths]),
        "actions": rng.uniform(-1, 1, (rows, 2)),
        "rewards": rng.normal(size=rows),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.arange(rows) % length == length - 1,
    } | changes
    return {name: value for name, value in log.items() if value is not None}


def said(log, words):
    return any(words in note for note in load(log).notes)


@given(st.lists(st.integers(1, 5), max_size=4, unique=True), st.booleans())
def test_next_observations_give_away_every_end_that_was_not_flagged(forgotten, named):
    log = walks(length=20)
    timeouts = log["timeouts"].copy()
    timeouts[[20 * episode - 1 for episode in forgotten]] = False
    dataset = load(log | {"timeouts": timeouts} if named else walks(length=20, timeouts=None))
    assert dataset.episode_starts.tolist() == [0, 20, 40, 60, 80, 100]
    wanted = len(forgotten) if named else 5
    assert not wanted or any(f"{wanted} " in note for note in dataset.notes)


def test_a_healthy_dataset_has_no_note():
    assert load(walks()).notes == ()


def test_rows_out_of_order_are_refused_naming_where_the_next_observation_is():
    order = np.random.default_rng(1).permutation(300)
    with pytest.raises(DataError, match=r"not in order of time: 'next_observations' of row \d+ is the observation"):
        load({name: value[order] for name, value in walks().items()})
    swapped = np.arange(300)
    swapped[[70, 71]] = [71, 70]
    with pytest.raises(DataError, match="'next_observations' of row 69 is the observation of row 71"):
        load({name: value[swapped] for name, value in walks().items()})


def test_transitions_of_their_own_with_few_states_are_not_called_shuffled():
    rng = np.random.default_rng(0)
    states, following = rng.integers(0, 4, (2, 200))
    log = walks(count=4, observations=np.eye(4)[states], next_observations=np.eye(4)[following])
    assert len(load(log).episode_starts) > 100


def test_next_observations_that_copy_the_observations_are_refused():
    with pytest.raises(DataError, match=r"'next_observations' is equal to 'observations' \(first: row 0"):
        load(walks(next_observations=walks()["observations"]))


def test_rounded_next_observations_do_not_end_episodes():
    log = walks(next_observations=walks()["next_observations"] + 1e-5)
    assert len(load(log).episode_starts) == 6
    assert said(log, "by rounding")


@pytest.mark.parametrize("smooth", [True, False])
def test_the_step_before_a_reset_is_left_out_where_only_the_reset_was_recorded(smooth):
    observations = walks()["observations"] if smooth else np.random.default_rng(0).normal(size=(300, 4))
    log = walks(observations=observations, next_observations=np.roll(observations, -1, axis=0))
    dataset = load(log)
    assert len(dataset) == 300 - 5
    assert said(log, "first observation of the next episode at 5 of 6 episode ends (first: row 49)")


def test_a_long_run_cut_into_parts_keeps_every_step():
    path = np.cumsum(np.random.default_rng(0).normal(size=(301, 4)), 0)
    assert len(load(walks(observations=path[:-1], next_observations=path[1:]))) == 300


@pytest.mark.parametrize("with_next", [True, False])
def test_first_rows_given_as_ends_are_refused(with_next):
    log = walks(timeouts=np.arange(300) % 50 == 0)
    if not with_next:
        del log["next_observations"]
    with pytest.raises(DataError, match=r"mark the first rows of episodes .*row 0 is marked, row 299 is not"):
        load(log)


@pytest.mark.parametrize("with_next", [True, False])
def test_inverted_terminals_are_refused(with_next):
    log = walks(terminals=np.arange(300) % 50 != 49, timeouts=None)
    if not with_next:
        del log["next_observations"]
    with pytest.raises(DataError, match=r"'terminals' is inverted: it is set in 98.0% of the rows"):
        load(log)


def test_one_step_episodes_are_neither_inverted_nor_shuffled_nor_copies():
    contexts = np.random.default_rng(0).normal(size=(300, 4))
    for following in (contexts, np.roll(contexts, -1, axis=0), None):
        log = walks(observations=contexts, next_observations=following, terminals=np.ones(300, bool), timeouts=None)
        assert len(load(log).episode_starts) == 300


@given(offset=st.sampled_from([1e8, 1.7e9, -5e9]), column=st.integers(0, 3))
def test_a_column_that_32_bit_floats_cannot_tell_apart_is_refused_by_its_number(offset, column):
    observations = walks()["observations"]
    observations[:, column] += offset
    with pytest.raises(DataError, match=rf"loses its variation in 32-bit floats in column {column}: .*subtract"):
        load(walks(observations=observations, next_observations=None))
