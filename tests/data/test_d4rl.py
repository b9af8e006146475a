"""D4RL's HDF5: with and without next observations, and every way a file can be broken."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from made_logs import as_dict, episodes, has_a_successor, make_episodes, same_log

from segue.data import load
from segue.errors import DataError

ADROIT = Path(__file__).resolve().parents[2].parent / "shared/data/adroit-door-human.hdf5"
needs_adroit = pytest.mark.skipif(not ADROIT.exists(), reason=f"{ADROIT.name} is not in ../shared/data")


def write(path, log, **options):
    with h5py.File(path, "w") as file:
        for name, value in log.items():
            file.create_dataset(name, data=value, **options)
    return f"d4rl:{path}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("d4rl")


@given(made=episodes(), next_observations=st.booleans())
def test_a_file_reads_as_the_same_dataset_as_its_arrays(folder, made, next_observations):
    assume(next_observations or has_a_successor(made))
    log = as_dict(made, next_observations=next_observations)
    assert same_log(load(write(folder / "log.hdf5", log)), load(log))


def test_infos_metadata_and_other_groups_are_ignored(tmp_path):
    log = as_dict(make_episodes([(3, True)]))
    extras = {"infos/qpos": np.zeros((9, 4)), "metadata/algorithm": "SAC", "infos/goal": np.array([b"x"])}
    assert same_log(load(write(tmp_path / "log.hdf5", log | extras)), load(log))


def test_compressed_files_read_the_same(tmp_path):
    log = as_dict(make_episodes([(300, False), (200, True)]))
    assert same_log(load(write(tmp_path / "log.hdf5", log, compression="gzip")), load(log))


@needs_adroit
def test_human_demonstrations_beyond_the_bounds_are_refused_with_the_way_out():
    with pytest.raises(DataError, match=r"'actions' is 1\.011 at row 4, column 4, outside \[-1, 1\].*clip"):
        load(f"d4rl:{ADROIT}")


@needs_adroit
def test_human_demonstrations_load_when_clipped_and_say_so():
    dataset = load(f"d4rl:{ADROIT}", clip_actions=True)
    assert len(dataset) == 6729 - 25  # no next_observations: the last step of each of 25 episodes is lost
    assert (dataset.spaces.observation_size, dataset.spaces.action_size) == (39, 28)
    assert np.abs(dataset.actions).max() == 1
    assert any("clipped" in note for note in dataset.notes)


@needs_adroit
@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.9999])
def test_a_truncated_download_is_refused_naming_the_file(tmp_path, share):
    path = tmp_path / "cut.hdf5"
    shutil.copyfile(ADROIT, path)
    with path.open("r+b") as file:
        file.truncate(int(share * ADROIT.stat().st_size))
    with pytest.raises(DataError, match=r"cut\.hdf5: cannot be read as HDF5.*truncated.*download it again"):
        load(f"d4rl:{path}")


@given(share=st.floats(0.01, 0.999))
def test_a_file_cut_anywhere_is_refused(folder, share):
    path = folder / "cut.hdf5"
    write(path, as_dict(make_episodes([(30, True), (40, False)])))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=r"cut\.hdf5: cannot be read as HDF5"):
        load(f"d4rl:{path}")


def test_a_damaged_chunk_is_refused(tmp_path):
    path = tmp_path / "damaged.hdf5"
    write(path, as_dict(make_episodes([(3000, True)])), compression="gzip")
    with h5py.File(path, "r") as file:
        chunk = file["observations"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged\.hdf5: cannot be read as HDF5"):
        load(f"d4rl:{path}")


def test_a_shape_that_was_claimed_but_never_written_is_refused_before_it_fills_the_memory(tmp_path):
    path = tmp_path / "claims.hdf5"
    write(path, as_dict(make_episodes([(3, True)])))
    with h5py.File(path, "r+") as file:
        del file["observations"]
        file.create_dataset("observations", shape=(10**12, 11), dtype="f4", chunks=(1000, 11))
    with pytest.raises(DataError, match=r"'observations' claims 40,978\.2 GiB.*the file holds 0 bytes"):
        load(f"d4rl:{path}")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rewards": np.array([0, np.inf, 0])}, "'rewards' is inf at row 1"),
        ({"actions": np.zeros((4, 2))}, "'actions' has 4 rows, 'rewards' has 3"),
        ({"terminals": np.zeros(3)}, "row 0 never ends"),
        ({"rewards": np.array([b"a", b"b", b"c"], dtype=object)}, "'rewards' holds object"),
        ({"rewards": h5py.Empty("f4")}, "'rewards' is not an array"),
        ({"rewards": None, "rewards/sum": np.zeros(3)}, "'rewards' is not an array"),
        ({"rewards": None, "actions": None}, "missing 'actions'; there is 'next_observations'"),
        ({"episode_0/rewards": np.zeros(3)}, "this is a Minari file; use minari:ID"),
    ],
)
def test_a_bad_file_is_refused_naming_file_and_column(tmp_path, changes, words):
    log = as_dict(make_episodes([(3, True)])) | changes
    log["timeouts"] = np.zeros(3)
    uri = write(tmp_path / "log.hdf5", {name: value for name, value in log.items() if value is not None})
    with pytest.raises(DataError, match=words) as caught:
        load(uri)
    assert str(caught.value).startswith(f"{uri}: ")
