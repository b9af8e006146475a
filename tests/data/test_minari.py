"""Minari: real datasets made with the Minari library in a local root; never the network."""

import minari
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_logs import as_dict, make_episodes, same_log
from minari.data_collector import EpisodeBuffer

from segue.data import load
from segue.data.minari import Episode, write
from segue.envs.spaces import flat_observations
from segue.errors import DataError

# Minari asks for an author and a code link.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")

PENDULUM = {"env_id": "Pendulum-v1", "description": "made up", "algorithm": "none"}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """An empty local root, and no network."""

    def no_network(dataset_id, *_, **__):
        raise ConnectionError("Name or service not known")

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setattr(minari, "download_dataset", no_network)
    return tmp_path


def pendulum_episodes(endings, seed=0):
    made = make_episodes(endings, seed=seed, observation_size=3, action_size=1)
    return [Episode(e.observations, 2 * e.actions, e.rewards, e.terminal, seed=7) for e in made]


def create(dataset_id, buffers, observation_space, action_space):
    minari.create_dataset_from_buffers(
        dataset_id,
        buffers,
        observation_space=observation_space,
        action_space=action_space,
        description="made up",
        algorithm_name="none",
    )


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    endings=st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_what_is_written_is_read_back_exactly(tmp_path_factory, endings, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("root")))
        write("pendulum/test-v0", pendulum_episodes(endings, seed), **PENDULUM)
        dataset = load("minari:pendulum/test-v0")
    expected = load(as_dict(make_episodes(endings, seed=seed, observation_size=3, action_size=1)))
    assert same_log(dataset, expected)


def test_environment_and_action_bounds_come_from_the_dataset():
    write("test-v0", pendulum_episodes([(3, False)]), **PENDULUM)
    dataset = load("minari:test-v0")
    assert dataset.env_id == "Pendulum-v1"
    assert dataset.notes == ()


def test_the_observation_after_the_last_step_is_there_for_time_outs_too():
    made = pendulum_episodes([(3, False), (2, True)])
    write("test-v0", made, **PENDULUM)
    dataset = load("minari:test-v0")
    assert len(dataset) == 5
    np.testing.assert_array_equal(dataset.next_observations[[2, 4]], [e.observations[-1] for e in made])


def test_a_dataset_is_never_overwritten(root):
    folder = write("test-v0", pendulum_episodes([(3, False)]), **PENDULUM)
    assert folder == root / "test-v0"
    with pytest.raises(DataError, match="test-v0: already exists in"):
        write("test-v0", pendulum_episodes([(9, True)]), **PENDULUM)
    assert len(load("minari:test-v0")) == 3


@pytest.mark.parametrize("made", [[], pendulum_episodes([(3, True)])[:1] + pendulum_episodes([(0, True)])])
def test_nothing_is_written_of_nothing(root, made):
    with pytest.raises(DataError, match="nothing to write"):
        write("test-v0", made, **PENDULUM)
    assert not (root / "test-v0").exists()


def test_a_write_that_fails_leaves_nothing_behind(root):
    with pytest.raises(Exception, match="NoSuchEnv"):
        write("test-v0", pendulum_episodes([(3, True)]), **{**PENDULUM, "env_id": "NoSuchEnv-v0"})
    assert not (root / "test-v0").exists()


def test_without_a_network_the_message_gives_the_nearest_local_dataset_and_the_way_out(root):
    for name in ("pendulum/random-v0", "pendulum/expert-v0"):
        write(name, pendulum_episodes([(3, True)]), **PENDULUM)
    with pytest.raises(DataError) as caught:
        load("minari:pendulum/randm-v0")
    message = str(caught.value)
    assert "did you mean 'pendulum/random-v0'?" in message
    assert "the download failed (ConnectionError: Name or service not known)" in message
    assert f"in {root}: " in message
    assert "MINARI_DATASETS_PATH" in message
    assert "\n" not in message


def test_a_missing_dataset_is_downloaded_into_the_local_root(monkeypatch, capsys):
    def download(dataset_id):
        print("Downloading from the remote")
        write(dataset_id, pendulum_episodes([(4, True)]), **PENDULUM)

    monkeypatch.setattr(minari, "download_dataset", download)
    assert len(load("minari:remote/test-v0")) == 4
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["test", "../test-v0", "a b-v0", "/etc/x-v0", "-v0"])
def test_a_malformed_id_is_refused_before_any_download(name):
    with pytest.raises(DataError, match="malformed id"):
        load(f"minari:{name}")


def test_a_local_root_that_cannot_be_used_is_named(root, monkeypatch):
    (root / "file").write_text("")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root / "file"))
    with pytest.raises(
        DataError, match=r"test-v0: the local root cannot be used .*; set MINARI_DATASETS_PATH to a folder"
    ):
        load("minari:test-v0")


def test_a_disk_that_fills_up_while_writing_leaves_nothing_behind(root, monkeypatch):
    whole = minari.create_dataset_from_buffers

    def full(*arguments, **options):
        whole(*arguments, **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(minari, "create_dataset_from_buffers", full)
    with pytest.raises(OSError, match="No space left"):
        write("test-v0", pendulum_episodes([(3, True)]), **PENDULUM)
    assert not (root / "test-v0").exists()


def test_a_dataset_without_a_step_is_refused(root):
    create("empty-v0", [], spaces.Box(-9, 9, (1,)), spaces.Box(-1, 1, (1,)))
    with pytest.raises(DataError, match=f"the dataset is empty: no episode in {root}/empty-v0 has a step"):
        load("minari:empty-v0")


def test_a_damaged_dataset_names_its_folder(root):
    write("test-v0", pendulum_episodes([(3, True)]), **PENDULUM)
    data = root / "test-v0/data/main_data.hdf5"
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"test-v0 cannot be read \(.*delete that folder"):
        load("minari:test-v0")
    (root / "test-v0/data/metadata.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        load("minari:test-v0")


def test_an_interrupted_recording_ends_where_minari_says_its_episodes_end():
    buffers = [
        EpisodeBuffer(
            observations=np.arange(4, dtype=np.float32)[:, None] + 10 * i,
            actions=np.zeros((3, 1), np.float32),
            rewards=np.zeros(3),
            terminations=np.zeros(3, bool),
            truncations=np.zeros(3, bool),
        )
        for i in range(2)
    ]
    create("cut-v0", buffers, spaces.Box(-99, 99, (1,)), spaces.Box(-1, 1, (1,)))
    dataset = load("minari:cut-v0")
    assert list(dataset.episode_lengths) == [3, 3]
    assert dataset.next_observations[2] == 3


def test_discrete_actions_and_observations_are_counted_from_their_start():
    buffer = EpisodeBuffer(
        observations=np.array([5, 6, 7]),
        actions=np.array([-1, 1]),
        rewards=np.ones(2),
        terminations=np.array([False, True]),
        truncations=np.array([False, False]),
    )
    create("discrete-v0", [buffer], spaces.Discrete(3, start=5), spaces.Discrete(4, start=-1))
    dataset = load("minari:discrete-v0")
    np.testing.assert_array_equal(dataset.observations, [[1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(dataset.actions, [0, 2])
    assert (dataset.spaces.discrete, dataset.spaces.action_size) == (True, 4)


def test_dictionary_observations_are_flattened_as_gymnasium_does():
    space = spaces.Dict(
        {
            "observation": spaces.Box(-9, 9, (2, 2)),
            "achieved": spaces.Box(-9, 9, (1,)),
            "mode": spaces.Discrete(3),
        }
    )
    samples = [space.sample() for _ in range(4)]
    buffer = EpisodeBuffer(
        observations={name: np.stack([sample[name] for sample in samples]) for name in space.spaces},
        actions=np.zeros((3, 1), np.float32),
        rewards=np.ones(3),
        terminations=np.zeros(3, bool),
        truncations=np.array([False, False, True]),
    )
    create("goal-v0", [buffer], space, spaces.Box(-1, 1, (1,)))
    dataset = load("minari:goal-v0")
    flat = np.stack([spaces.flatten(space, sample) for sample in samples])
    np.testing.assert_array_equal(dataset.observations, flat[:-1].astype(np.float32))
    np.testing.assert_array_equal(dataset.next_observations, flat[1:].astype(np.float32))


SPACES = st.recursive(
    st.one_of(
        st.builds(lambda shape: spaces.Box(-1, 1, tuple(shape)), st.lists(st.integers(1, 3), max_size=3)),
        st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 4), st.integers(-3, 3)),
        st.builds(spaces.MultiBinary, st.integers(1, 4)),
        st.builds(
            lambda counts: spaces.MultiDiscrete(counts, start=[1] * len(counts)),
            st.lists(st.integers(1, 4), min_size=1),
        ),
    ),
    lambda parts: st.one_of(
        st.dictionaries(st.text("abc", min_size=1, max_size=2), parts, min_size=1, max_size=3).map(spaces.Dict),
        st.lists(parts, min_size=1, max_size=3).map(spaces.Tuple),
    ),
    max_leaves=5,
)


def stacked(space, samples):
    match space:
        case spaces.Dict():
            return {name: stacked(part, [s[name] for s in samples]) for name, part in space.spaces.items()}
        case spaces.Tuple():
            return tuple(stacked(part, [s[i] for s in samples]) for i, part in enumerate(space.spaces))
        case _:
            return np.stack(samples)


@given(space=SPACES, seed=st.integers(0, 99))
def test_flattening_many_rows_is_gymnasiums_flatten_row_by_row(space, seed):
    space.seed(seed)
    samples = [space.sample() for _ in range(3)]
    expected = np.stack([spaces.flatten(space, sample) for sample in samples])
    np.testing.assert_array_equal(flat_observations(space, stacked(space, samples)), expected)


def test_spaces_that_cannot_be_used_are_named():
    steps = {"rewards": np.ones(1), "terminations": np.ones(1, bool), "truncations": np.zeros(1, bool)}
    box = spaces.Box(-1, 1, (2,))
    two, one = np.zeros((2, 2), np.float32), np.zeros((1, 2), np.float32)
    create(
        "a-v0",
        [EpisodeBuffer(observations=two, actions=one.astype(int), **steps)],
        box,
        spaces.MultiDiscrete([99, 99]),
    )
    with pytest.raises(
        DataError, match=r"the action space MultiDiscrete.* has 9,801 combinations; expected at most 4,096"
    ):
        load("minari:a-v0")
    create("b-v0", [EpisodeBuffer(observations=["a", "b"], actions=one, **steps)], spaces.Text(1), box)
    with pytest.raises(DataError, match="b-v0: the observations are a Text"):
        load("minari:b-v0")
    unbounded = spaces.Box(-np.inf, np.inf, (2,))
    create("c-v0", [EpisodeBuffer(observations=two, actions=one, **steps)], box, unbounded)
    with pytest.raises(DataError, match=r"c-v0: the action space Box.* is unbounded; expected finite bounds"):
        load("minari:c-v0")


def test_a_missing_last_observation_names_the_episode():
    buffer = EpisodeBuffer(
        observations=np.zeros((2, 1), np.float32),
        actions=np.zeros((2, 1), np.float32),
        rewards=np.ones(2),
        terminations=np.array([False, True]),
        truncations=np.zeros(2, bool),
    )
    create("short-v0", [buffer], spaces.Box(-1, 1, (1,)), spaces.Box(-1, 1, (1,)))
    with pytest.raises(DataError, match="episode 0 has 2 observations and 2 rewards"):
        load("minari:short-v0")
