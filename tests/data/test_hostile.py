"""Files that are damaged or made to harm: read, or refused in a sentence; never unpickled, never a crash."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

import segue
from segue.data import files
from segue.errors import DataError, RecipeError, SegueError
from segue.recipe import read_recipes

ON_DISK = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def log(rows: int = 12) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "observations": rng.normal(size=(rows, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": np.arange(rows) % 6 == 5,
    }


def as_npz() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **log())
    return buffer.getvalue()


def as_hdf5() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, column in log().items():
            file[name] = column
    return buffer.getvalue()


WHOLE = {"npz": as_npz(), "d4rl": as_hdf5()}


@contextlib.contextmanager
def allowed(kind: type[SegueError], naming: str) -> Iterator[None]:
    """It may be refused, if that is said of what it is."""
    try:
        yield
    except kind as error:
        if naming not in str(error):
            raise AssertionError(f"{naming!r} is not named") from error


def read_or_refused(place: Path, scheme: str, content: bytes) -> None:
    """Anything but these two is an error that the test does not expect."""
    file = place / "log"
    file.write_bytes(content)
    with allowed(DataError, str(file)):
        assert len(segue.load(f"{scheme}:{file}")) > 0


@ON_DISK
@given(data=st.data(), scheme=st.sampled_from(sorted(WHOLE)))
def test_damaged_bytes(tmp_path: Path, data: Any, scheme: str):
    content = bytearray(WHOLE[scheme])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        new = data.draw(st.one_of(st.binary(max_size=8), st.sampled_from([b"\xff" * 8, b"\0" * 8])))
        content[at : at + data.draw(st.integers(0, 8))] = new
    read_or_refused(tmp_path, scheme, bytes(content))


@ON_DISK
@given(share=st.floats(0, 1, exclude_max=True), scheme=st.sampled_from(sorted(WHOLE)))
def test_truncated_files(tmp_path: Path, share: float, scheme: str):
    read_or_refused(tmp_path, scheme, WHOLE[scheme][: int(share * len(WHOLE[scheme]))])


@ON_DISK
@given(content=st.binary(max_size=400), scheme=st.sampled_from(sorted(WHOLE)))
def test_files_of_anything(tmp_path: Path, content: bytes, scheme: str):
    read_or_refused(tmp_path, scheme, content)


@settings(max_examples=150)
@given(
    column=st.sampled_from([*log(), "timeouts", "next_observations", "behaviour_log_prob", "action_low"]),
    value=st.one_of(
        arrays_of.arrays(
            st.one_of(arrays_of.scalar_dtypes(), st.just(np.dtype(object))),
            arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=12),
        ),
        st.lists(st.lists(st.integers(), max_size=3), max_size=3),
        st.sampled_from([None, {}, "left", 1e300, np.nan]),
    ),
)
def test_columns_of_any_type_and_shape(column: str, value: Any):
    with allowed(DataError, "dict of arrays: "):
        segue.load(log() | {column: value})


class Exploding:
    def __reduce__(self) -> Any:
        return pytest.fail, ("it was unpickled",)


def test_a_pickle_in_an_archive_is_never_run_and_ignored_unless_its_column_is_needed(tmp_path: Path):
    pickled = np.array([Exploding()], dtype=object)
    np.savez(tmp_path / "extra.npz", allow_pickle=True, **log(), infos=pickled)
    assert "ignored: 'infos'" in segue.load(f"npz:{tmp_path / 'extra.npz'}").notes
    np.savez(tmp_path / "needed.npz", allow_pickle=True, **log() | {"rewards": pickled})
    with pytest.raises(DataError, match=r"'rewards' cannot be read.*Object arrays cannot be loaded"):
        segue.load(f"npz:{tmp_path / 'needed.npz'}")


def with_header(header: str) -> bytes:
    padded = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode()


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 1000), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': ('a',), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,",
        "{'descr': '|O', 'fortran_order': False, 'shape': (12,), }",
        "",
    ],
)
def test_a_column_that_lies_about_itself_is_refused(tmp_path: Path, header: str):
    with zipfile.ZipFile(tmp_path / "log.npz", "w") as archive:
        for name in log():
            archive.writestr(f"{name}.npy", with_header(header) + b"\0" * 48)
    with pytest.raises(DataError, match="cannot be read"):
        segue.load(f"npz:{tmp_path / 'log.npz'}")


def test_an_archive_that_unpacks_to_more_than_there_is_memory_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "log.npz").write_bytes(as_npz())
    monkeypatch.setattr(files.os, "sysconf", lambda name: 16)  # a machine with 256 bytes
    with pytest.raises(DataError, match=r"claims 0.0 GiB unpacked, this machine has 0.0 GiB"):
        segue.load(f"npz:{tmp_path / 'log.npz'}")


def test_columns_beyond_all_memory_are_refused_in_a_sentence():
    endless = np.broadcast_to(np.float32(0), (2**45,))
    with pytest.raises(DataError, match=r"dict of arrays: (does not fit into memory|.*2\*\*45|.*rows)"):
        segue.load(log() | {"rewards": endless, "terminals": endless})


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    document=st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["arms", "online", "bridges", "name", "online_steps", "x"]), inner, max_size=4
            ),
        ),
        max_leaves=8,
    )
)
def test_any_json_in_the_place_of_a_recipe(tmp_path: Path, document: Any):
    (tmp_path / "recipe.json").write_text(json.dumps(document))
    with allowed(RecipeError, "recipe.json"):
        read_recipes(tmp_path / "recipe.json")


@pytest.mark.parametrize(
    "part",
    [{"ensemble_size": 2**63}, {"hidden_sizes": [2**70]}, {"batch_size": -1}, {"hidden_sizes": []}],
    ids=str,
)
def test_absurd_sizes_in_a_recipe_are_refused_at_once(tmp_path: Path, part: dict[str, Any]):
    recipe = {"env": "Pendulum-v1", "online": {"name": "sac", **part}, "online_steps": 2000}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(SegueError, match=r"recipe\.json"):
        read_recipes(tmp_path / "recipe.json")
