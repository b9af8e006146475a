"""Which actions could be taken, in every format: written, read back, named by hand, and refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import segue
from segue.data.convert import convert
from segue.data.dataset import Columns, Dataset
from segue.errors import DataError

ROWS, ACTIONS = 12, 3


def log() -> Dataset:
    """Two episodes; every third mask forbids one action that was not taken."""
    rng = np.random.default_rng(0)
    actions, masks = rng.integers(ACTIONS, size=ROWS), np.ones((ROWS, ACTIONS), bool)
    masks[np.arange(0, ROWS, 3), (actions[::3] + 1) % ACTIONS] = False
    ends = np.arange(ROWS) % 6 == 5
    return Dataset.from_columns(
        Columns(
            observations=rng.normal(size=(ROWS, 2)).astype(np.float32),
            actions=actions,
            rewards=rng.normal(size=ROWS).astype(np.float32),
            terminals=ends,
            next_observations=rng.normal(size=(ROWS, 2)).astype(np.float32),
            allowed_actions=masks,
        ),
        "doors",
    )


@pytest.mark.parametrize("place", ["npz:x.npz", "parquet:x.parquet", "csv:x.csv", "minari:doors/masks-v0"])
def test_converted_to_any_format_and_read_back_the_same_actions_are_allowed(place, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    data = log()
    uri, _ = convert(data, place)
    back = segue.load(uri)
    assert back.spaces == data.spaces
    assert (back.allowed_actions == data.allowed_actions).all()
    assert (back.next_allowed_actions() == data.next_allowed_actions()).all()


def test_an_hdf5_file_has_them_among_its_infos(tmp_path: Path) -> None:
    data = log()
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        for name in ("observations", "actions", "rewards", "terminals"):
            file[name] = getattr(data, name)
        file["infos/action_mask"] = data.allowed_actions
    assert (segue.load(f"d4rl:{tmp_path / 'x.hdf5'}").allowed_actions == data.allowed_actions).all()


TABLE = "s,a,r,end,may_0,may_1,may_2,{extra}\n0.5,0,1,0,1,0,1,{value}\n0.1,1,0,1,1,1,0,{value}\n"
NAMED = {"observation": "*", "action": "a", "reward": "r", "terminal": "end"}


def table(folder: Path, extra: str = "x", value: str = "0.3") -> segue.Table:
    (folder / "x.csv").write_text(TABLE.format(extra=extra, value=value))
    return segue.Table(str(folder / "x.csv"), **NAMED, allowed_actions="may_*")


def test_columns_of_a_table_are_named_by_a_pattern_and_are_no_observations(tmp_path: Path) -> None:
    data = segue.load(table(tmp_path))
    assert data.allowed_actions.tolist() == [[True, False, True], [True, True, False]]
    assert data.spaces.action_size == 3, "the last action was never taken, and has a column"
    assert data.spaces.observation_size == 2


def test_a_mask_that_is_not_0_or_1_is_named_by_row_and_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.csv, row 0 \(line 2\): column 'may_3' holds other numbers than 0 and 1"):
        segue.load(table(tmp_path, "may_3", "2"))
