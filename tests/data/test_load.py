"""`load` finds the reader; what it cannot find, it says what there is."""

import subprocess
import sys

import numpy as np
import pytest
from made_logs import as_columns, as_dict, make_episodes, same_log

from segue.data import bundle, bundled, load, npz
from segue.errors import DataError


@pytest.fixture
def logs(tmp_path, monkeypatch):
    """Two bundled datasets, whatever the package really holds."""
    monkeypatch.setattr(bundle, "FOLDER", tmp_path)
    for name in ("hopper-mixed", "walker-random"):
        npz.write(tmp_path / f"{name}.npz", as_columns(make_episodes([(3, True)])))


def test_a_bundled_dataset_loads_by_name(logs):
    assert bundled() == ["hopper-mixed", "walker-random"]
    dataset = load("segue:hopper-mixed")
    assert same_log(dataset, load(as_dict(make_episodes([(3, True)]))))
    assert dataset.source == "segue:hopper-mixed"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("segue:hoper-mixed", "unknown bundled dataset 'hoper-mixed': did you mean 'hopper-mixed'"),
        ("hopper-mixed", "did you mean segue:hopper-mixed"),
        ("logs/door.hdf5", "logs/door.hdf5: there is no such file"),
        ("logs/door.npz", "logs/door.npz: there is no such file"),
        ("D4RL/door/human-v2", "did you mean minari:D4RL/door/human-v2"),
        ("door", "one of segue, .*, live, mapped; bundled: segue:hopper-mixed, segue:walker-random"),
        ("", "needs its scheme"),
        ("minar:x-v0", "unknown dataset scheme 'minar': did you mean 'minari'"),
        ("npz:", "nothing follows the colon"),
    ],
)
def test_an_unknown_dataset_is_answered_with_what_exists(logs, uri, words):
    with pytest.raises(DataError, match=words):
        load(uri)


@pytest.mark.parametrize("scheme", ["d4rl", "npz"])
def test_a_file_that_is_not_there_is_answered_with_the_nearest_that_is(tmp_path, scheme):
    (tmp_path / "door-human.log").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no such file; did you mean .*door-human\.log"):
        load(f"{scheme}:{tmp_path / 'dor-human.log'}")


@pytest.mark.parametrize("scheme", ["d4rl", "npz"])
def test_an_empty_file_a_folder_and_a_text_file_are_told_apart(tmp_path, scheme):
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("not a dataset")
    for name, words in {
        "empty": "0 bytes",
        "": "folder",
        "text": "another kind",
        "a\0b": "no such|null",
    }.items():
        with pytest.raises(DataError, match=words):
            load(f"{scheme}:{tmp_path}/{name}")


def test_importing_the_package_does_not_import_the_libraries_of_the_formats():
    code = "import sys, segue.data; assert not {'h5py', 'minari', 'matplotlib', 'pyarrow', 'rich'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_observations_of_any_shape_are_flattened():
    log = as_dict(make_episodes([(4, True)], observation_size=6))
    folded = {name: log[name].reshape(4, 2, 3) for name in ("observations", "next_observations")}
    assert np.array_equal(load(log | folded).observations, log["observations"])
