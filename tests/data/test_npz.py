"""npz: exact round trips, small files, nothing unpickled, nothing half written."""

import dataclasses
import io
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from made_logs import as_columns, as_dict, episodes, has_a_successor, make_episodes, same_log

from segue.data import Columns, load, npz
from segue.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("npz")


@given(made=episodes(), next_observations=st.booleans())
def test_what_is_written_is_read_back_exactly(folder, made, next_observations):
    assume(next_observations or has_a_successor(made))
    columns = as_columns(made, next_observations=next_observations)
    npz.write(folder / "log.npz", columns)
    back = npz.read(str(folder / "log.npz"))
    assert back.notes == ()
    for field in dataclasses.fields(columns)[:-1]:
        left, right = getattr(columns, field.name), getattr(back, field.name)
        assert (left is None) == (right is None)
        assert not isinstance(left, np.ndarray) or (left.dtype == right.dtype and np.array_equal(left, right))


@given(made=episodes(), row=st.integers(0, 5))
def test_next_observations_that_are_no_shift_survive_too(folder, made, row):
    log = as_dict(made)
    log["next_observations"][row % len(log["rewards"])] = 7.5
    npz.write(folder / "log.npz", Columns(**log))
    assert same_log(load(f"npz:{folder / 'log.npz'}"), load(log))


def test_next_observations_are_stored_once_per_episode(tmp_path):
    columns = as_columns(make_episodes([(50, True), (50, False), (50, True)]))
    npz.write(tmp_path / "log.npz", columns)
    with np.load(tmp_path / "log.npz") as archive:
        assert "next_observations" not in archive.files
        assert archive["final_observations"].shape == (3, 3)


def test_a_cut_last_episode_keeps_its_final_observation(tmp_path):
    log = as_dict(make_episodes([(3, True), (4, False)]))
    log["timeouts"][:] = False
    columns = as_columns(make_episodes([(3, True), (4, False)]))
    npz.write(tmp_path / "log.npz", dataclasses.replace(columns, timeouts=log["timeouts"]))
    assert same_log(load(f"npz:{tmp_path / 'log.npz'}"), load(log))
    with np.load(tmp_path / "log.npz") as archive:
        assert len(archive["final_observations"]) == 2


def test_a_hundred_thousand_steps_the_size_of_hopper_fit_in_six_megabytes(tmp_path):
    made = make_episodes([(500, True)] * 200, observation_size=11, action_size=3)
    npz.write(tmp_path / "log.npz", as_columns(made))
    assert (tmp_path / "log.npz").stat().st_size <= 6 * 10**6


def test_metadata_travels_with_the_dataset(tmp_path):
    bounds = (np.array([-1.0, -2.0]), np.array([1.0, 2.0]))
    columns = dataclasses.replace(as_columns(make_episodes([(3, True)])), env_id="Hopper-v5", action_bounds=bounds)
    npz.write(tmp_path / "log.npz", columns)
    back = npz.read(str(tmp_path / "log.npz"))
    assert back.env_id == "Hopper-v5"
    np.testing.assert_array_equal(back.action_bounds, bounds)


def test_the_number_of_discrete_actions_travels_with_the_dataset(tmp_path):
    columns = as_columns(make_episodes([(3, True)]))
    npz.write(tmp_path / "log.npz", dataclasses.replace(columns, actions=np.arange(3), discrete_actions=5))
    assert load(f"npz:{tmp_path / 'log.npz'}").spaces.action_size == 5


def test_the_same_dataset_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        npz.write(tmp_path / name, as_columns(make_episodes([(3, True)])))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "log.npz"
    npz.write(path, as_columns(make_episodes([(3, True)])))
    before = path.read_bytes()

    def full(file, **entries):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="no space"):
        npz.write(path, as_columns(make_episodes([(5, True)])))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.npz"]


def test_a_dataset_that_could_not_be_loaded_is_not_written(tmp_path):
    columns = as_columns(make_episodes([(3, True)]))
    with pytest.raises(DataError, match="'rewards' is nan at row 0"):
        npz.write(tmp_path / "log.npz", dataclasses.replace(columns, rewards=np.full(3, np.nan)))
    assert not (tmp_path / "log.npz").exists()


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the archive was unpickled",))


def test_nothing_is_ever_unpickled(tmp_path):
    path = tmp_path / "log.npz"
    log = as_dict(make_episodes([(3, True)]))
    np.savez(path, **{**log, "rewards": np.array([Bomb()] * 3, dtype=object)})
    with pytest.raises(DataError, match="'rewards' cannot be read"):
        load(f"npz:{path}")
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match=r"not a complete \.npz archive"):
        load(f"npz:{path}")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rewards": np.full(3, np.nan)}, "'rewards' is nan at row 0"),
        ({"rewards": np.zeros(2)}, "'observations' has 3 rows, 'rewards' has 2"),
        ({"timeouts": None, "timouts": np.zeros(3)}, "unknown column 'timouts': did you mean 'timeouts'"),
        ({"final_observations": np.zeros((1, 3))}, "both 'next_observations' and 'final_observations'"),
        (
            {"final_observations": np.zeros((2, 3)), "next_observations": None},
            r"expected numbers of shape \(1, 3\)",
        ),
        (
            {"final_observations": np.zeros((1, 3)), "next_observations": None, "terminals": np.zeros(2)},
            "'terminals'",
        ),
        ({"final_observations": np.array([["a"] * 3]), "next_observations": None}, "holds <U1"),
        (
            {"final_observations": np.zeros((1, 3)), "next_observations": None, "observations": np.str_("a")},
            "<U1",
        ),
        (
            {"final_observations": np.zeros((1, 3)), "terminals": None, "next_observations": None},
            "missing 'terminals'",
        ),
        ({"observations": None}, "missing 'observations'"),
    ],
)
def test_a_bad_archive_is_refused_naming_file_and_column(tmp_path, changes, words):
    log = as_dict(make_episodes([(3, True)])) | changes
    np.savez(tmp_path / "log.npz", **{name: value for name, value in log.items() if value is not None})
    with pytest.raises(DataError, match=words) as caught:
        load(f"npz:{tmp_path / 'log.npz'}")
    assert "log.npz: " in str(caught.value)


def an_archive():
    file = io.BytesIO()
    np.savez_compressed(file, **as_dict(make_episodes([(3, True), (4, False)])))
    return file.getvalue()


ARCHIVE = an_archive()


@given(share=st.floats(0, 1, exclude_max=True))
def test_an_archive_cut_anywhere_is_refused(folder, share):
    path = folder / "cut.npz"
    path.write_bytes(ARCHIVE[: int(share * len(ARCHIVE))])
    with pytest.raises(DataError, match=r"cut\.npz: (the file is empty|not a complete)"):
        load(f"npz:{path}")


@given(position=st.integers(0, len(ARCHIVE) - 1), value=st.integers(0, 255))
@example(position=ARCHIVE.rindex(b"terminals.npy") - 13, value=1)  # its comment then swallows the columns that follow
def test_a_damaged_byte_never_shows_as_anything_but_a_data_error_or_the_dataset(folder, position, value):
    path = folder / "damaged.npz"
    path.write_bytes(ARCHIVE[:position] + bytes([value]) + ARCHIVE[position + 1 :])
    try:
        dataset = load(f"npz:{path}")
    except DataError:
        return
    path.write_bytes(ARCHIVE)
    assert same_log(dataset, load(f"npz:{path}"))


def test_a_claimed_shape_far_beyond_the_file_is_refused(tmp_path):
    path = tmp_path / "claims.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**50, 11)})
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("observations", "actions", "terminals"):
            archive.writestr(f"{name}.npy", header.getvalue())
    with pytest.raises(DataError, match="'observations' cannot be read"):
        load(f"npz:{path}")
