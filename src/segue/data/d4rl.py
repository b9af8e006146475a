"""D4RL's HDF5 layout: `d4rl:FILE.hdf5`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from segue.data import arrays, files
from segue.data.dataset import Columns
from segue.errors import DataError

if TYPE_CHECKING:
    import h5py

#: The columns that are looked for below the top.
BELOW = ("infos/cost", "infos/action_mask")
#: Deflate cannot shrink data further than this, so a column that claims more was never written.
MAX_COMPRESSION = 1100
#: Columns up to this size are read without asking how much of them the file holds (bytes).
ALWAYS_READ = 64 * 2**20


def read(name: str) -> Columns:
    """Columns of one HDF5 file, with `timeouts`, `next_observations` and bounds of actions where it has them.

    d3rlpy's `episode_terminals` that are no terminals are time-outs.

    `infos/cost` and `infos/action_mask` are the cost of a step and which discrete actions could be taken.

    Everything else in the file (`infos/…` but for these two, `metadata/…`) is ignored with a note.

    Raises:
        DataError: the file is missing, empty, truncated, damaged or not HDF5, or a column is missing or not
            numbers.
    """
    import h5py

    source = f"d4rl:{name}"
    path = files.existing(source, name)
    try:
        with h5py.File(path, "r") as file:
            if "episode_0" in file:
                raise DataError(
                    f"{source}: this is a Minari file; use minari:ID, with MINARI_DATASETS_PATH set to the "
                    "folder that the id starts from"
                )
            return arrays.read(_Named(source, file), source)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise DataError(
            f"{source}: cannot be read as HDF5 ({files.reason(error)}): the file is truncated, damaged or of "
            "another kind; copy or download it again"
        ) from error


class _Named(Mapping[str, np.ndarray]):
    """The columns of a file, read when they are asked for."""

    def __init__(self, source: str, file: h5py.File) -> None:
        self.source, self.file = source, file

    def __iter__(self) -> Iterator[str]:
        yield from self.file
        yield from (name for name in BELOW if name in self.file)

    def __len__(self) -> int:
        return len(list(self))

    def __getitem__(self, name: str) -> np.ndarray:
        return _column(self.source, name, self.file[name])


def _column(source: str, name: str, item: h5py.Dataset | h5py.Group) -> np.ndarray:
    import h5py

    if not isinstance(item, h5py.Dataset) or item.shape is None:
        raise DataError(f"{source}: '{name}' is not an array; expected one row of numbers per step")
    if item.dtype.kind not in "fiub":
        raise DataError(f"{source}: '{name}' holds {item.dtype}; expected numbers")
    stored = item.id.get_storage_size()
    if item.nbytes > ALWAYS_READ and item.nbytes > MAX_COMPRESSION * stored:
        raise DataError(
            f"{source}: '{name}' claims {item.nbytes / 2**30:,.1f} GiB (shape {item.shape}), the file holds "
            f"{stored:,} bytes of it; it was never written completely: record or download it again"
        )
    files.require_room(f"{source}: '{name}'", item.nbytes)
    return item[()]
