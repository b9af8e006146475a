"""NumPy archives: `npz:FILE`, by D4RL's names; also the format of the bundled datasets.

An archive holds the columns of `segue.data.arrays`. Next observations may be there as `next_observations`,
or, at half the size, as `final_observations`: one row per episode, the observation after its last step. All
others are the observations one row further down.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from segue.data import arrays, files
from segue.data.dataset import Columns, Dataset
from segue.errors import DataError
from segue.files import write_atomically


def read(name: str) -> Columns:
    """Columns of one archive; nothing in it is ever unpickled.

    Raises:
        DataError: the file is missing, empty, truncated, damaged or not an archive, or a column is missing,
            unknown, or not plain numbers.
    """
    source = f"npz:{name}"
    path = files.existing(source, name)
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"{source}: not a complete .npz archive: truncated, damaged or of another kind; copy it again, "
            "or write one with numpy.savez"
        )
    try:
        with zipfile.ZipFile(path) as members:
            files.require_room(source, sum(member.file_size for member in members.infolist()))
            if len(members.infolist()) != (promised := _members(path)):
                raise DataError(
                    f"{source}: damaged: its list of columns has {len(members.infolist())} of {promised}; copy it again"
                )
            for member in members.infolist():
                members.open(member).close()  # its name is there twice: a damaged one is no other column
        with np.load(path, allow_pickle=False) as archive:
            named = _Named(source, archive)
            if "final_observations" in archive.files:
                arrays.names(source, set(archive.files) - {"final_observations"})
                whole = dict(named)
                whole["next_observations"] = _next_observations(source, whole)
                del whole["final_observations"]
                return arrays.read(whole, source)
            return arrays.read(named, source)
    except DataError:
        raise
    except Exception as error:  # zipfile and zlib raise many kinds
        raise DataError(f"{source}: cannot be read ({files.reason(error)}); copy or write the file again") from error


class _Named(Mapping[str, np.ndarray]):
    """The columns of an archive, read when they are asked for: one that nobody wants may be pickled or damaged."""

    def __init__(self, source: str, archive: Any) -> None:
        self.source, self.archive = source, archive

    def __iter__(self) -> Iterator[str]:
        return iter(self.archive.files)

    def __len__(self) -> int:
        return len(self.archive.files)

    def __getitem__(self, column: str) -> np.ndarray:
        try:
            return self.archive[column]
        except Exception as error:  # zipfile, zlib and two parsers of headers raise many kinds
            raise DataError(
                f"{self.source}: '{column}' cannot be read ({files.reason(error)}); expected an array of numbers: "
                "copy or write the file again"
            ) from error


def write(path: str | os.PathLike[str], columns: Columns) -> None:
    """Write a dataset that `read` gives back exactly, at 32-bit precision; the file appears whole or not at all.

    Raises:
        DataError: the columns are not a valid log (actions may exceed their bounds).
    """
    Dataset.from_columns(columns, f"npz:{path}", out_of_range="clip")
    save(path, columns)


def save(path: str | os.PathLike[str], columns: Columns) -> None:
    """The same for the columns of a Dataset, which are valid."""
    entries = {name: _narrow(getattr(columns, name)) for name in arrays.REQUIRED}
    for name in ("rewards", "timeouts", "behaviour_log_prob", "cost", "allowed_actions"):
        if getattr(columns, name) is not None:
            entries[name] = _narrow(getattr(columns, name))
    if columns.next_observations is not None:
        entries |= _next_entry(entries, _narrow(columns.next_observations))
    if columns.env_id is not None:
        entries["env_id"] = np.asarray(columns.env_id)
    if columns.env_spec is not None:
        entries["env_spec"] = np.asarray(columns.env_spec)
    if columns.action_bounds is not None:
        entries["action_low"], entries["action_high"] = columns.action_bounds
    if columns.discrete_actions is not None:
        entries["discrete_actions"] = np.asarray(columns.discrete_actions)
    if columns.encoding is not None:
        entries["encoding"] = np.asarray(columns.encoding.to_json())
    archive = io.BytesIO()
    np.savez_compressed(archive, allow_pickle=False, **entries)
    write_atomically(Path(path), archive.getvalue())


def _members(path: Path) -> int:
    """The number of members that the end of an archive promises: zipfile itself stops where a list reads as shorter."""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 22 + 2**16), os.SEEK_END)
        tail = file.read()
    end = tail[tail.rindex(b"PK\5\6") :]
    return int.from_bytes(end[10:12], "little")


def require_free(path: str | os.PathLike[str]) -> None:
    """Make sure that a new archive can be written here.

    Raises:
        DataError: if a file is there already, or the folder is not.
    """
    files.require_free(f"npz:{path}", path)


def _narrow(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _next_entry(entries: Mapping[str, np.ndarray], next_observations: np.ndarray) -> dict[str, np.ndarray]:
    final = next_observations[_ends(entries)]
    shifted = _shift(entries, final)
    # Compared as bytes: -0.0 equals 0.0, and what is read must be what was written.
    same = shifted.dtype == next_observations.dtype and shifted.tobytes() == next_observations.tobytes()
    return {"final_observations": final} if same else {"next_observations": next_observations}


def _next_observations(source: str, named: Mapping[str, np.ndarray]) -> np.ndarray:
    if "next_observations" in named:
        raise DataError(f"{source}: both 'next_observations' and 'final_observations' are there; expected one")
    observations, final = named["observations"], named["final_observations"]
    if observations.ndim == 0 or observations.dtype.kind not in "fiub":
        raise DataError(f"{source}: 'observations' holds {observations.dtype}; expected rows of numbers")
    rows = len(observations)
    for name in ("rewards", "terminals", "timeouts"):
        array = named.get(name, np.zeros(rows, bool))
        if array.dtype.kind not in "fiub" or array.shape not in ((rows,), (rows, 1)):
            raise DataError(
                f"{source}: '{name}' holds {array.dtype} of shape {array.shape}, 'observations' has shape "
                f"{observations.shape}; expected one number per step, one row per step in every column"
            )
    expected = (int(_ends(named).sum()), *observations.shape[1:])
    if final.dtype.kind not in "fiub" or final.shape != expected:
        raise DataError(
            f"{source}: 'final_observations' holds {final.dtype} of shape {final.shape}; expected "
            f"numbers of shape {expected}, one row per episode"
        )
    return _shift(named, final)


def _shift(named: Mapping[str, np.ndarray], final: np.ndarray) -> np.ndarray:
    observations = named["observations"]
    shifted = np.roll(observations, -1, axis=0).astype(np.result_type(observations, final))
    shifted[_ends(named)] = final
    return shifted


def _ends(named: Mapping[str, np.ndarray]) -> np.ndarray:
    """Last rows of the episodes; the last row of the dataset always is one."""
    rows = len(named["observations"])
    ends = named["terminals"].reshape(rows).astype(bool)
    if "timeouts" in named:
        ends = ends | named["timeouts"].reshape(rows).astype(bool)
    return ends | (np.arange(rows) == rows - 1)
