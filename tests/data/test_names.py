"""Columns by the names of other libraries: read, ignored with a note, or explained; never mistaken."""

import numpy as np
import pytest
from gymnasium import spaces
from test_boundaries import walks

import segue
from segue.data import load
from segue.errors import DataError

ENDS = walks()["timeouts"]


@pytest.mark.parametrize("name", ["truncations", "truncated", "timeout"])
def test_cuts_by_other_names_are_timeouts(name):
    dataset = load(walks(timeouts=None, next_observations=None, **{name: ENDS}))
    assert len(dataset.episode_starts) == 6
    assert dataset.notes[0] == f"'{name}' is read as 'timeouts'"


@pytest.mark.parametrize("name", ["terminations", "terminated"])
def test_true_ends_by_other_names_are_terminals(name):
    assert load(walks(terminals=None, **{name: ENDS})).episode_terminals.all()


def test_masks_say_which_ends_of_trajectories_are_true_terminals():
    masks = np.ones(300)
    masks[149] = 0
    dataset = load(walks(terminals=ENDS, timeouts=None, masks=masks))
    assert dataset.episode_terminals.tolist() == [False, False, True, False, False, False]
    assert any("'masks' is 1 - terminal" in note for note in dataset.notes)


def test_masks_alone_say_where_terminals_are_and_starts_where_episodes_end():
    masks = np.ones(300)
    masks[149] = 0
    without = {"terminals": None, "timeouts": None, "next_observations": None}
    dataset = load(walks(**without, masks=masks, is_first=np.roll(ENDS, 1)))
    assert dataset.episode_terminals.tolist() == [False, False, True, False, False, False]
    assert any("0 marks true terminals; nothing marks ends of trajectories" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"terminals": None, "masks": np.full(300, 2)},
            r"column of masks holds int64 of shape \(300,\); expected 0 or 1",
        ),
        ({"terminals": None, "masks": np.ones(299)}, "the column of timeouts .* in each of 299 rows"),
        (
            {"allowed_actions": np.ones((300, 2))},
            "'allowed_actions' says which .* the actions are continuous; leave it out",
        ),
        ({"env_spec": "{"}, "'env_spec' is not the JSON of an environment"),
        ({"env_spec": '{"nmae": "A-v0"}'}, "'env_spec' is not the JSON of an environment .*nmae"),
    ],
    ids=["masks of twos", "masks cut", "mask of continuous actions", "spec cut", "spec of another kind"],
)
def test_what_a_dataset_says_of_itself_has_to_make_sense(changes, words):
    with pytest.raises(DataError, match=words):
        load(walks(**changes))


def test_a_cost_that_is_no_column_is_left_out_and_noted():
    dataset = load(walks(cost=[[1.0], [1.0, 2.0]]))
    assert dataset.cost is None
    assert any("left out: 'cost' is not an array" in note for note in dataset.notes)


def test_dones_are_explained_alone_and_read_beside_timeouts():
    with pytest.raises(DataError, match="'dones' does not tell terminal states from time limits"):
        load(walks(terminals=None, timeouts=None, dones=ENDS))
    cut = ENDS & (np.arange(300) > 100)
    dataset = load(walks(terminals=None, timeouts=cut, dones=ENDS))
    assert dataset.episode_terminals.tolist() == [True, True, False, False, False, False]


def test_episode_starts_give_the_ends_before_them():
    dataset = load(walks(timeouts=None, next_observations=None, episode_starts=np.roll(ENDS, 1)))
    assert dataset.notes[0].startswith("'episode_starts' marks first rows")
    assert len(dataset.episode_starts) == 6


def test_other_columns_are_ignored_in_one_note_even_where_they_cannot_be_read(tmp_path):
    np.savez(tmp_path / "log.npz", **walks(), valids=np.ones(3), infos=np.array([{}], dtype=object))
    assert load(f"npz:{tmp_path / 'log.npz'}").notes == ("ignored: 'infos', 'valids'",)


def test_without_rewards_the_dataset_loads_for_imitation():
    dataset = load(walks(rewards=None))
    assert not dataset.rewards_known
    assert np.isnan(dataset.rewards).all()
    assert any("no 'rewards'" in note for note in dataset.notes)


def test_a_dataset_is_a_line():
    assert repr(load(walks())) == (
        "Dataset(dict of arrays: 300 transitions in 6 episodes, 4 observation dimensions and 2 action dimensions)"
    )


@pytest.mark.parametrize("low", [-2, 0])
def test_integers_with_bounds_or_below_zero_are_continuous(low):
    amounts = np.random.default_rng(0).integers(low, 3, (300, 1))
    assert not load(walks(actions=amounts, action_low=[-2], action_high=[2])).spaces.discrete
    assert not load(walks(actions=np.sign(amounts) - (low == 0))).spaces.discrete


def test_whole_floats_and_one_hot_rows_are_explained_and_read_where_the_count_is_known():
    ids = np.random.default_rng(0).integers(0, 3, 300)
    for actions, words in ((ids * 1.0, "they are whole numbers"), (np.eye(3)[ids], "holds one-hot rows")):
        with pytest.raises(DataError, match=words):
            load(walks(actions=actions))
        np.testing.assert_array_equal(load(walks(actions=actions, discrete_actions=3)).actions, ids)


def test_an_environment_settles_what_integer_actions_mean():
    discrete, box = spaces.Discrete, spaces.Box
    seen = load(walks(actions=np.arange(300) % 2 + 1))
    np.testing.assert_array_equal(seen.in_space(discrete(3, start=1)).actions, np.arange(300) % 2)
    assert seen.in_space(discrete(4)).spaces.action_size == 4
    with pytest.raises(segue.SegueError, match="goes from 1 to 2, the environment's from 2 to 4"):
        seen.in_space(discrete(3, start=2))
    with pytest.raises(segue.SegueError, match="add action_low and action_high"):
        seen.in_space(box(-1, 1, (1,)))
    assert not load(walks(actions=np.arange(300) % 2)).in_space(box(-1, 1, (1,))).spaces.discrete
    for other in (load(walks()), load(walks(actions=np.arange(300) % 2, discrete_actions=2))):
        assert other.in_space(discrete(7)) is other, "the dataset says itself what its actions are"
    assert seen.in_space(spaces.MultiDiscrete([2, 2])) is seen
