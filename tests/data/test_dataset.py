"""What a Dataset promises, whatever format it came from."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from made_logs import as_dict, episodes, has_a_successor, make_episodes

from helpers import for_each
from segue.core import Normaliser
from segue.data import Dataset, load
from segue.errors import DataError

DISCOUNT = 0.9


def a_log(**changes):
    log = as_dict(make_episodes([(3, True), (4, False)]))
    log.update(changes)
    return {name: value for name, value in log.items() if value is not None}


def changed(name, row, value):
    array = a_log()[name].astype(np.float64)
    array[row] = value
    return a_log(**{name: array})


@given(episodes())
def test_discount_is_zero_at_true_terminals_and_nowhere_else(made):
    dataset = load(as_dict(made))
    batch = dataset.transitions(DISCOUNT, Normaliser.identity(dataset.spaces.observation_size))
    expected = np.concatenate([[DISCOUNT] * (len(e.rewards) - 1) + [0.0 if e.terminal else DISCOUNT] for e in made])
    np.testing.assert_array_equal(batch.discount, expected.astype(np.float32))


@given(episodes())
def test_a_shift_never_takes_the_next_observation_from_another_episode(made):
    assume(has_a_successor(made))
    dataset = load(as_dict(made, next_observations=False))
    successors = {
        e.observations[t].tobytes(): e.observations[t + 1].tobytes() for e in made for t in range(len(e.rewards))
    }
    for row, next_row, terminal in zip(dataset.observations, dataset.next_observations, dataset.terminals, strict=True):
        expected = row.tobytes() if terminal else successors[row.tobytes()]
        assert next_row.tobytes() == expected


def test_a_dataset_of_nothing_but_cut_single_steps_has_no_transition():
    with pytest.raises(DataError, match="no transition is left"):
        load(as_dict(make_episodes([(1, False), (1, False)]), next_observations=False))


@pytest.mark.parametrize("elsewhere", [False, True])
def test_rewards_that_were_only_in_the_steps_left_out_are_named(elsewhere):
    """Success at the end of an episode that a time-out cuts is lost with its last step."""
    ends = np.arange(20) % 5 == 4
    rewards = (ends | (elsewhere & (np.arange(20) == 7))).astype(float)
    arrays = {"observations": np.arange(20.0)[:, None], "actions": np.zeros((20, 1)), "rewards": rewards}
    notes = load({**arrays, "terminals": np.zeros(20, bool), "timeouts": ends}).notes
    assert any("held every reward that is not 0" in note for note in notes) == (not elsewhere)


@given(episodes())
def test_without_next_observations_only_the_last_step_of_a_cut_episode_is_lost(made):
    assume(has_a_successor(made))
    expected = [e.observations[:-1] if e.terminal else e.observations[:-2] for e in made]
    dataset = load(as_dict(made, next_observations=False))
    np.testing.assert_array_equal(dataset.observations, np.concatenate(expected))
    assert list(dataset.episode_lengths) == [len(kept) for kept in expected if len(kept)]


@given(episodes())
def test_episodes_keep_their_lengths_returns_and_endings(made):
    dataset = load(as_dict(made))
    assert list(dataset.episode_lengths) == [len(e.rewards) for e in made]
    assert list(dataset.episode_terminals) == [e.terminal for e in made]
    np.testing.assert_allclose(dataset.episode_returns, [e.rewards.sum(dtype=np.float64) for e in made])


@given(episodes(), st.floats(0, 1))
def test_returns_to_go_are_the_discounted_sums_of_the_definition(made, discount):
    expected = [
        sum(discount ** (k - t) * float(e.rewards[k]) for k in range(t, len(e.rewards)))
        for e in made
        for t in range(len(e.rewards))
    ]
    np.testing.assert_allclose(load(as_dict(made)).returns_to_go(discount), expected, rtol=1e-5, atol=1e-5)


def test_a_step_that_is_terminal_and_timed_out_is_terminal():
    dataset = load(a_log(timeouts=a_log()["terminals"] | a_log()["timeouts"]))
    assert list(dataset.episode_terminals) == [True, False]


def test_integer_rewards_become_floats():
    assert load(a_log(rewards=np.arange(7))).rewards.dtype == np.float32


def test_arrays_cannot_be_changed_and_are_not_the_callers():
    log = a_log()
    dataset = load(log)
    log["observations"][:] = 0
    assert dataset.observations.any()
    with pytest.raises(ValueError, match="read-only"):
        dataset.observations[0] = 0


def test_actions_are_rescaled_from_the_bounds_that_the_dataset_names():
    actions = np.array([[-2.0, 0.0], [2.0, 10.0], [0.0, 5.0]] * 2 + [[1.0, 2.5]])
    dataset = load(a_log(actions=actions, action_low=[-2, 0], action_high=[2, 10]))
    np.testing.assert_allclose(dataset.actions[[0, 1, 2, 6]], [[-1, -1], [1, 1], [0, 0], [0.5, -0.5]])


def test_integer_actions_are_discrete():
    dataset = load(a_log(actions=np.array([0, 1, 2, 0, 1, 2, 0]), discrete_actions=4))
    assert dataset.spaces.discrete
    assert dataset.spaces.action_size == 4


def test_times_since_1970_lose_their_steps_in_32_bits_which_is_noted():
    rows = 20_000
    times = 1.7e9 + np.arange(rows, dtype=np.float64)[:, None]
    log = {"observations": times, "actions": np.zeros((rows, 1)), "rewards": np.zeros(rows)}
    ends = np.arange(rows) == rows - 1
    noted = [note for note in load({**log, "terminals": ends}).notes if "loses its steps in 32-bit floats" in note]
    assert len(noted) == 1
    assert "Subtract an offset, in the environment too" in noted[0]


def test_a_dataset_without_timeouts_says_what_that_hides():
    notes = load(a_log(timeouts=None, next_observations=None)).notes
    assert any("no 'timeouts'" in note for note in notes)


def test_a_last_episode_without_an_end_is_kept_and_noted():
    dataset = load(a_log(timeouts=np.zeros(7, bool)))
    assert len(dataset.episode_starts) == 2
    assert any("from row 3" in note for note in dataset.notes)


def test_actions_outside_the_bounds_are_refused_or_clipped_with_a_note():
    log = changed("actions", 5, 1.5)
    with pytest.raises(DataError, match=r"'actions' is 1\.5 at row 5, column 0.*clip_actions=True"):
        load(log)
    dataset = load(log, clip_actions=True)
    assert dataset.actions[5, 0] == 1
    assert any("clipped" in note for note in dataset.notes)


@for_each(
    ("log", "words"),
    [
        (changed("observations", (4, 1), np.nan), r"'observations' is nan at row 4, column 1"),
        (changed("rewards", 2, np.inf), r"'rewards' is inf at row 2"),
        (changed("next_observations", (6, 2), -np.inf), r"'next_observations' is -inf at row 6, column 2"),
        (changed("actions", (0, 1), np.nan), r"'actions' is nan at row 0, column 1"),
        (changed("rewards", 3, 1e300), r"'rewards' at row 3 is too large"),
        (changed("terminals", 1, 2), r"'terminals' is 2\.0 at row 1; expected 0 or 1"),
        (a_log(rewards=np.zeros(6)), r"'observations' has 7 rows, 'rewards' has 6"),
        (a_log(rewards=np.zeros((7, 2))), r"'rewards' has shape \(7, 2\)"),
        (a_log(rewards=np.float32(1)), r"'rewards' has shape \(\)"),
        (a_log(actions=np.zeros((8, 2))), r"'actions' has 8 rows"),
        (a_log(terminals=np.zeros(3)), r"'terminals' has 3 rows"),
        (a_log(next_observations=np.zeros((7, 2))), r"'next_observations' has 2 columns"),
        (a_log(observations=np.zeros((7, 0))), r"'observations' has no columns"),
        (a_log(observations=np.array(["a"] * 7)), r"'observations' holds <U1; expected numbers"),
        (a_log(observations=[[1], [2, 3]]), r"'observations' is not an array"),
        ({name: value[:0] for name, value in a_log().items()}, "the dataset is empty"),
        (a_log(terminals=np.zeros(7), timeouts=np.zeros(7), next_observations=None), "row 0 never ends"),
        (a_log(terminals=np.zeros(7), timeouts=None, next_observations=None), "row 0 never ends"),
        (a_log(actions=None), r"missing 'actions'; there is 'observations', 'rewards'"),
        (a_log(timeouts=None, timouts=np.zeros(7)), "unknown column 'timouts': did you mean 'timeouts'"),
        (a_log(action_low=[-1, -1]), "'action_low' alone"),
        (a_log(action_low=[-1], action_high=[1]), "'actions' has 2 columns, its action space has 1"),
        (a_log(action_low=[-1, -1], action_high=[np.inf, 1]), "unbounded"),
        (a_log(action_low=["a", "b"], action_high=[1, 1]), "'action_low' holds"),
        (a_log(env_id=3), "'env_id' holds"),
        (a_log(discrete_actions=0), "'discrete_actions' is 0"),
        (a_log(actions=np.array([0, 1, 5, 0, 0, 0, 0]), discrete_actions=3), "'actions' is 5 at row 2"),
        (a_log(discrete_actions=3), "'actions' holds float32"),
    ],
)
def test_a_bad_dataset_is_refused_naming_its_column_and_row(log, words):
    with pytest.raises(DataError, match=words) as caught:
        load(log)
    assert str(caught.value).startswith("dict of arrays: ")


def test_the_next_action_stays_within_the_episode_and_is_unknown_at_its_end():
    dataset = load(
        {
            "observations": np.zeros((5, 1)),
            "actions": np.arange(5)[:, None] / 10,
            "rewards": np.ones(5),
            "terminals": [0, 1, 0, 0, 1],
            "next_observations": np.zeros((5, 1)),
        }
    )
    np.testing.assert_allclose(dataset.next_actions()[:, 0], [0.1, np.nan, 0.3, 0.4, np.nan], rtol=1e-6)


def test_the_best_episodes_are_those_with_the_highest_return_in_their_order():
    dataset = load(
        {
            "observations": np.arange(6)[:, None],
            "actions": np.zeros((6, 1)),
            "rewards": [1, 1, 0, 5, 3, 0],
            "terminals": [0, 1, 1, 1, 0, 1],
            "next_observations": np.arange(1, 7)[:, None],
        }
    )
    best = dataset.best_episodes(0.5)
    assert best.observations[:, 0].tolist() == [3, 4, 5]
    assert best.episode_returns.tolist() == [5, 3]
    assert best.episode_starts.tolist() == [0, 1]
    assert "only the best 2 of 4 episodes" in best.notes
    assert len(dataset.best_episodes(0.01)) == 1


def some_episodes(count: int = 20) -> Dataset:
    rng = np.random.default_rng(0)
    rows = 3 * count
    return load(
        {
            "observations": rng.normal(size=(rows, 2)),
            "actions": rng.integers(0, 3, rows),
            "rewards": rng.normal(size=rows),
            "terminals": np.arange(rows) % 3 == 2,
            "behaviour_log_prob": -rng.random(rows),
        }
    )


@given(count=st.integers(1, 30), share=st.floats(0, 0.999), seed=st.integers(0, 5))
def test_a_split_has_every_episode_in_one_of_its_parts(count: int, share: float, seed: int) -> None:
    dataset = some_episodes(count)
    kept, held = dataset.split(share, seed)
    parts = [kept] if held is None else [kept, held]
    together = np.concatenate([part.episode_fingerprints() for part in parts])
    assert sorted(together.tolist()) == sorted(dataset.episode_fingerprints().tolist())
    assert len(kept.episode_starts) >= 1
    wanted = min(round(share * count), count - 1)
    assert (0 if held is None else len(held.episode_starts)) == (wanted if wanted >= 2 else 0)


def test_a_split_follows_its_seed_and_keeps_the_order_of_episodes() -> None:
    dataset = some_episodes()
    (first, one), (second, _), (other, _) = (dataset.split(0.3, seed) for seed in (0, 0, 1))
    assert first.fingerprint() == second.fingerprint() != other.fingerprint()
    assert one is not None
    for part in (first, one):
        places = [np.flatnonzero(dataset.rewards == reward)[0] for reward in part.rewards]
        assert places == sorted(places)
        np.testing.assert_array_equal(part.behaviour_log_prob, dataset.behaviour_log_prob[places])
        np.testing.assert_array_equal(part.next_observations, dataset.next_observations[places])


@pytest.mark.parametrize("column", ["observations", "actions", "rewards"])
def test_a_fingerprint_tells_an_episode_by_its_content_alone(column: str) -> None:
    dataset = some_episodes()
    fingerprints = dataset.episode_fingerprints()
    assert len(set(fingerprints.tolist())) == 20
    assert (dataset.episodes(np.array([7, 2])).episode_fingerprints() == fingerprints[[7, 2]]).all()
    changed = getattr(dataset, column).copy()
    changed[4] += 1
    after = dataclasses.replace(dataset, **{column: changed}).episode_fingerprints()
    assert np.flatnonzero(after != fingerprints).tolist() == [1]


def test_normalised_observations_have_mean_0_and_deviation_1():
    rows = 5 + 3 * np.random.default_rng(0).normal(size=(200, 2))
    dataset = load(
        {"observations": rows, "actions": rows, "rewards": rows[:, 0], "terminals": np.arange(200) % 20 == 19}
        | {"action_low": [-20, -20], "action_high": [20, 20]}
    )
    observation = dataset.transitions(0.99, dataset.normaliser()).observation
    np.testing.assert_allclose(observation.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(observation.std(0), 1, atol=1e-3)
