"""A dataset larger than memory: `mapped:FOLDER`, which `segue convert` writes, and of which rows are read on demand.

    dataset.json    what the dataset says about itself, with a checksum of all that; written last
    index.npz       the first transition of each episode, and of each run; a checksum of each block of records
    rows.bin        one record of fixed width per transition, and one more after each run

A run is a part of an episode in which the next observation of each transition is the observation of the next one. It
ends with a record of what followed its last transition. So a transition is two neighbouring records, and no
observation is stored twice.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import mmap
import os
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt32, UInt64

from segue import rng
from segue.core import Normaliser, Spaces
from segue.data import files
from segue.data.dataset import STD_EPSILON, Dataset
from segue.data.encoding import Encoding
from segue.errors import DataError
from segue.files import sync
from segue.seen import Observed

VERSION = 1
ABOUT, INDEX, ROWS = "dataset.json", "index.npz", "rows.bin"
#: Fields of a record by the column of a dataset that they hold.
FIELDS: Mapping[str, str] = {
    "observations": "observation",
    "actions": "action",
    "rewards": "reward",
    "terminals": "terminal",
    "behaviour_log_prob": "log_prob",
    "cost": "cost",
    "allowed_actions": "allowed",
}
#: Rows that a pass over a dataset holds in memory at once.
BLOCK = 2**18
#: Bytes of a dataset that are read into memory as a whole.
MOST_IN_MEMORY = 2**30
#: Bytes of a block of records, which has a checksum.
BLOCK_BYTES = 2**18
#: Bytes of records whose checksums are compared when they are opened; those of more, when a block is read in its order.
MOST_VERIFIED = 2**26
#: Transitions that are looked at where all would be too many.
EXCERPT = 1_000_000
#: Random rows between two releases of their pages: the kernel maps up to 64 KiB around each.
ROWS_PER_RELEASE = 4096
#: Threads that read at random, so that a disk is asked for several pages at a time.
READERS = 8


class Records:
    """The file of records.

    Raises:
        DataError: if a block is read in its order, for the first time, and is not what was written.
    """

    def __init__(
        self,
        path: Path,
        kind: np.dtype,
        checksums: UInt32[np.ndarray, " blocks"],
        episodes: Int[np.ndarray, " episodes"],
    ) -> None:
        self.path, self.kind, self.checksums = path, kind, checksums
        self.episodes = episodes  # the place of each one's first record
        self.verified = np.zeros(len(checksums), bool)
        with path.open("rb") as file:
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._advise("MADV_RANDOM")
        # Overlapping pairs, so that a transition is one read.
        count, pair = len(self.map) // kind.itemsize - 1, np.dtype([("first", kind), ("second", kind)])
        self.pairs = np.ndarray((count,), pair, self.map, strides=(kind.itemsize,))
        self.readers = ThreadPoolExecutor(READERS)

    def at(self, places: Int[np.ndarray, " n"]) -> np.ndarray:
        """Pairs of records by the place of the first, which ascend."""
        found = np.empty(len(places), self.pairs.dtype)
        for start in range(0, len(places), ROWS_PER_RELEASE):
            part = slice(start, start + ROWS_PER_RELEASE)
            pieces = np.array_split(places[part], READERS)
            found[part] = np.concatenate(list(self.readers.map(self.pairs.__getitem__, pieces)))
            self._advise("MADV_DONTNEED")  # they stay in the system's cache, and count for this process no more
        return found

    def between(self, start: int, stop: int) -> np.ndarray:
        """Pairs of records by the place of the first, from start to stop."""
        size = _per_block(self.kind)
        first, beyond = start // size, stop // size + 1
        read = np.fromfile(self.path, self.kind, (beyond - first) * size, offset=first * size * self.kind.itemsize)
        for block in first + np.flatnonzero(~self.verified[first:beyond]):
            self._verify(int(block), read[(block - first) * size :][:size])
        records = read[start - first * size :]
        return np.ndarray((stop - start,), self.pairs.dtype, records.data, strides=(self.kind.itemsize,))

    def _verify(self, block: int, records: np.ndarray) -> None:
        if zlib.crc32(records.data) != self.checksums[block]:
            start = block * _per_block(self.kind)
            places = np.array([start, start + len(records) - 1])
            first, last = np.searchsorted(self.episodes, places, side="right") - 1
            among = f"episode {first}" if first == last else f"the episodes {first} to {last}"
            offset = start * self.kind.itemsize
            raise DataError(
                f"mapped:{self.path.parent}: {ROWS} has changed since it was written, in {among} (counted from 0; "
                f"bytes {offset:,} to {offset + records.nbytes - 1:,}); copy or convert it again"
            )
        self.verified[block] = True

    def _advise(self, advice: str) -> None:
        if hasattr(mmap, advice):  # Windows has none
            self.map.madvise(getattr(mmap, advice))


def _per_block(kind: np.dtype) -> int:
    """Records of a block."""
    return max(BLOCK_BYTES // kind.itemsize, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """Runs of a file of records, one after the other, as rows."""

    records: Records
    bounds: Int[np.ndarray, " runs+1"]
    """The first row of each run, and the number of rows."""
    places: Int[np.ndarray, " runs"]
    """Where the first record of each run is."""

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def place(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Where the records of these rows are."""
        run = np.searchsorted(self.bounds, rows, side="right") - 1
        return self.places[run] + rows - self.bounds[run]

    def take(self, rows: Int[np.ndarray, " n"]) -> np.ndarray:
        """The records of these rows, each with the one after it."""
        places, back = np.unique(self.place(rows), return_inverse=True)
        return self.records.at(places)[back]

    def span(self, start: int, stop: int) -> np.ndarray:
        """The same of consecutive rows."""
        places = self.place(np.arange(start, stop))
        low, high = (places.min(), places.max()) if len(places) else (0, 0)
        if high - low > 4 * len(places) or not len(places):
            return self.records.at(places)
        return self.records.between(int(low), int(high) + 1)[places - low]

    def runs(self, starts: Int[np.ndarray, " parts"], stops: Int[np.ndarray, " parts"]) -> View:
        """Of the runs between these rows, which are those of whole runs."""
        first, beyond = (np.searchsorted(self.bounds, rows) for rows in (starts, stops))
        counts = beyond - first
        chosen = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        lengths = self.bounds[chosen + 1] - self.bounds[chosen]
        return View(self.records, np.concatenate([[0], np.cumsum(lengths)]), self.places[chosen])


class Column:
    """A column that is read where it is needed: `column[rows]` is an array.

    As a whole it becomes an array too where that is of a size for memory.
    """

    def __init__(self, view: View, field: str, source: str, after: bool = False) -> None:
        self.view, self.field, self.source, self.side = view, field, source, "second" if after else "first"
        base = view.records.kind[field]
        self.dtype, self.shape = base.base, (len(view), *base.shape)
        self.ndim, self.nbytes = len(self.shape), len(view) * base.itemsize

    def __len__(self) -> int:
        return len(self.view)

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, int | np.integer):
            return self[np.array([range(len(self))[key]])][0]
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            found = (
                self.view.span(start, max(stop, start))
                if step == 1
                else self.view.take(np.arange(*key.indices(len(self))))
            )
        else:
            rows = np.asarray(key)
            found = self.view.take(np.flatnonzero(rows) if rows.dtype == bool else rows % len(self))
        return np.ascontiguousarray(found[self.side][self.field])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        require_small(self.source, self.nbytes)
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)


def require_small(source: str, size: int) -> None:
    """Refuse to read so many bytes into memory at once.

    Raises:
        DataError: naming both sizes.
    """
    if size > MOST_IN_MEMORY:
        raise DataError(
            f"{source}: this needs {size / 2**30:,.1f} GiB of the dataset in memory at once, and of a mapped dataset "
            f"at most {MOST_IN_MEMORY / 2**30:g} GiB are read so; give the dataset in its original format, or a part"
        )


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class MappedDataset(Dataset):
    """A dataset on disk. Its columns are `Column`s, and whole passes over it go by blocks of episodes."""

    view: View = dataclasses.field(kw_only=True)
    has_rewards: bool = dataclasses.field(kw_only=True)
    content: str | None = dataclasses.field(default=None, kw_only=True)
    """The fingerprint, where it was written down."""

    @property
    def rewards_known(self) -> bool:
        """Whether the dataset has rewards."""
        return self.has_rewards

    @functools.cached_property
    def _bounds(self) -> Int[np.ndarray, " episodes+1"]:
        return np.append(self.episode_starts, len(self))

    def episodes(self, chosen: Int[np.ndarray, " chosen"]) -> MappedDataset:
        """The episodes with these numbers, in this order; nothing is read."""
        starts, stops = self._bounds[chosen], self._bounds[chosen + 1]
        view, lengths = self.view.runs(starts, stops), stops - starts
        return dataclasses.replace(
            self,
            **_columns(view, self.source),
            view=view,
            content=None,
            episode_starts=np.cumsum(lengths) - lengths,
            part_of_episode=None if self.part_of_episode is None else self.part_of_episode[chosen],
        )

    def in_memory(self) -> Dataset:
        """The same dataset as arrays.

        Raises:
            DataError: if it is too large for that.
        """
        require_small(self.source, 2 * len(self) * self.view.records.kind.itemsize)
        own: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(Dataset)}
        for name, value in own.items():
            if isinstance(value, Column):
                own[name] = value[:]
        return Dataset(**own)

    def blocks(self) -> Iterator[Dataset]:
        """The dataset in parts of whole episodes, each in memory."""
        first, stops = 0, self._bounds[1:]
        while first < len(stops):
            beyond = max(int(np.searchsorted(stops, self._bounds[first] + BLOCK, side="right")), first + 1)
            yield self.episodes(np.arange(first, beyond)).in_memory()
            first = beyond

    def excerpt(self) -> Dataset:
        """Random episodes of about a million transitions, in their order, in memory; all where there are no more."""
        if len(self) <= EXCERPT:
            return self.in_memory()
        order = rng.generator(0, "excerpt").permutation(len(self.episode_starts))
        count = max(int(np.searchsorted(np.cumsum(self.episode_lengths[order]), EXCERPT)), 1)
        return self.episodes(np.sort(order[:count])).in_memory()

    @functools.cached_property
    def _sums(self) -> tuple[np.ndarray, np.ndarray | None]:
        returns, costs = [], []
        for block in self.blocks():
            returns.append(block.episode_returns)
            costs.append(block.episode_costs)
        return np.concatenate(returns), None if self.cost is None else np.concatenate(costs)  # type: ignore[arg-type]

    @property
    def episode_returns(self) -> Float[np.ndarray, " episodes"]:
        """Undiscounted sum of rewards per episode."""
        return self._sums[0]

    @property
    def episode_costs(self) -> Float[np.ndarray, " episodes"] | None:
        """Sum of costs per episode; None if they are unknown."""
        return self._sums[1]

    def normaliser(self) -> Normaliser:
        """Mean and standard deviation of the observations; the identity for images."""
        return Normaliser.identity(self.spaces.observation_size) if self.spaces.image is not None else self._normaliser

    @functools.cached_property
    def _normaliser(self) -> Normaliser:
        # Around the mean of the first block, so that squares lose no digits.
        centre = next(self.blocks()).observations.mean(0, dtype=np.float64)
        total, squares = np.zeros_like(centre), np.zeros_like(centre)
        for block in self.blocks():
            moved = block.observations - centre
            total, squares = total + moved.sum(0), squares + (moved**2).sum(0)
        shift = total / len(self)
        std = np.sqrt(np.maximum(squares / len(self) - shift**2, 0)) + STD_EPSILON
        return Normaliser((centre + shift).astype(np.float32), std.astype(np.float32))

    def observed(self) -> Observed | None:
        """The range of each number of an observation; None for images."""
        if self.spaces.image is not None:
            return None
        blocks = (Observed.of(block.observations, len(block.episode_starts)) for block in self.blocks())
        return functools.reduce(Observed.wider, blocks)

    def fingerprint(self) -> str:
        """A short hash of every transition, the same as in any other format."""
        return self.content or super().fingerprint()

    def episode_fingerprints(self) -> UInt64[np.ndarray, " episodes"]:
        """A hash of each episode's observations, actions and rewards."""
        return np.concatenate([block.episode_fingerprints() for block in self.blocks()])


def _columns(view: View, source: str) -> dict[str, Any]:
    """The columns of a dataset: those that the records have."""
    there = view.records.kind.names or ()
    found: dict[str, Any] = {
        name: Column(view, field, source) if field in there else None for name, field in FIELDS.items()
    }
    return {**found, "next_observations": Column(view, "observation", source, after=True)}


def read(place: str) -> Dataset:
    """A folder that `segue convert` wrote. It is read row by row while training, and may be larger than memory.

    Raises:
        DataError: if it is not there, not whole, or of another version.
    """
    source, path = f"mapped:{place}", Path(place).expanduser()
    if not path.is_dir():
        raise DataError(f"{source}: no such folder; expected one that segue convert wrote (looked from {Path.cwd()})")
    try:
        about = json.loads((path / ABOUT).read_bytes())
        if about["version"] != VERSION:
            raise DataError(f"{source}: of version {about['version']}, this Segue reads {VERSION}; convert it again")
        if _checksum(about) != about["checksum"]:
            raise DataError(f"{source}: {ABOUT} has changed since it was written; copy or convert it again")
        kind = np.dtype([(name, code, tuple(shape)) for name, code, shape in about["record"]])
        if zlib.crc32((path / INDEX).read_bytes()) != about["index_checksum"]:
            raise DataError(f"{source}: {INDEX} has changed since it was written; copy or convert it again")
        with np.load(path / INDEX, allow_pickle=False) as index:
            starts, runs, checksums = index["episode_starts"], index["run_starts"], index["checksums"]
        rows, size = about["rows"], (path / ROWS).stat().st_size
        if size != (rows + len(runs)) * kind.itemsize or len(starts) != about["episodes"]:
            raise DataError(f"{source}: {ROWS} has {size:,} bytes, not what {ABOUT} says; copy or convert it again")
        episodes = starts + np.searchsorted(runs, starts, side="right") - 1
        records = Records(path / ROWS, kind, checksums, episodes)
        if size <= MOST_VERIFIED:
            records.between(0, len(records.pairs))
        view = View(records, np.append(runs, rows), runs + np.arange(len(runs)))
        bounds = about["action_bounds"]
        return MappedDataset(
            **_columns(view, source),
            view=view,
            has_rewards=about["has_rewards"],
            content=about["fingerprint"],
            episode_starts=starts,
            spaces=Spaces(**{**about["spaces"], "image": about["spaces"]["image"] and tuple(about["spaces"]["image"])}),
            source=source,
            env_id=about["env_id"],
            env_spec=about["env_spec"],
            bounds_known=about["bounds_known"],
            action_bounds=None if bounds is None else (np.array(bounds[0]), np.array(bounds[1])),
            notes=tuple(about["notes"]),
            encoding=None if about["encoding"] is None else Encoding.from_json(source, about["encoding"]),
        )
    except DataError:
        raise
    except Exception as error:  # JSON, NumPy and the system raise many kinds
        raise DataError(
            f"{source}: cannot be read ({files.reason(error)}); expected what segue convert wrote, {ABOUT}, {INDEX} "
            f"and {ROWS}: convert it again"
        ) from error


def write(folder: str | os.PathLike[str], parts: Iterable[Dataset]) -> Dataset:
    """Write datasets one after the other as one; each is in memory alone. The folder appears whole or not at all.

    Args:
        folder: where; nothing may be there.
        parts: validated datasets with the same spaces, bounds and environment.

    Returns:
        The dataset as it is read.

    Raises:
        DataError: if something is there, the parts do not fit together, or the disk is full.
    """
    source, path = f"mapped:{folder}", Path(folder).expanduser()
    files.require_free(source, path)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        about = _write_parts(source, partial, parts)
        _write_about(partial, about)
        # A hash over one column after the other, as of a dataset in memory.
        about["fingerprint"] = read(os.fspath(partial)).fingerprint()
        _write_about(partial, about)
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)
    except OSError as error:
        raise DataError(f"{source}: cannot be written ({error.strerror}); nothing was kept") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return read(os.fspath(folder))


def _write_about(path: Path, about: dict[str, Any]) -> None:
    (path / ABOUT).write_text(json.dumps({**about, "checksum": _checksum(about)}, indent=1))


def _checksum(about: Mapping[str, Any]) -> int:
    """Of everything that `dataset.json` says but the checksum itself."""
    rest = {name: value for name, value in about.items() if name != "checksum"}
    return zlib.crc32(json.dumps(rest, sort_keys=True).encode())


def _write_parts(source: str, path: Path, parts: Iterable[Dataset]) -> dict[str, Any]:
    first: Dataset | None = None
    starts, runs, rows = [], [], 0
    notes: dict[str, list[str]] = {}
    with (path / ROWS).open("wb") as file:
        for part in parts:
            first = first or part
            _require_alike(source, first, part)
            records, run_starts = _records(part)
            file.write(records.data)
            starts.append(part.episode_starts + rows)
            runs.append(run_starts + rows)
            rows += len(part)
            said = part.notes
            if part.spaces.discrete and not part.bounds_known:
                said += (f"the number of discrete actions is taken from the greatest: {part.spaces.action_size}",)
            for note in said:
                notes.setdefault(re.sub(r"[\d,.]+", "#", note), []).append(note)
        file.flush()
        os.fsync(file.fileno())
    if first is None:
        raise DataError(f"{source}: there is nothing to write; expected at least one dataset")
    episode_starts = np.concatenate(starts)
    checksums = _checksums(path / ROWS, np.dtype(_kinds(first)))
    np.savez(path / INDEX, episode_starts=episode_starts, run_starts=np.concatenate(runs), checksums=checksums)
    return {
        "version": VERSION,
        "rows": rows,
        "episodes": len(episode_starts),
        "record": [[name, kind.base.str, kind.shape] for name, kind in _kinds(first)],
        "spaces": dataclasses.asdict(first.spaces),
        "has_rewards": first.rewards_known,
        "env_id": first.env_id,
        "env_spec": first.env_spec,
        "bounds_known": first.bounds_known or first.spaces.discrete,
        "action_bounds": first.action_bounds and [bound.tolist() for bound in first.action_bounds],
        "encoding": first.encoding and first.encoding.to_json(),
        "notes": [
            alike[0] + (f" (so, or alike, in {len(alike)} parts)" if alike[1:] else "") for alike in notes.values()
        ],
        "index_checksum": zlib.crc32((path / INDEX).read_bytes()),
        "fingerprint": None,
    }


def _checksums(path: Path, kind: np.dtype) -> UInt32[np.ndarray, " blocks"]:
    """Of each block of a file of records."""
    size = _per_block(kind) * kind.itemsize
    with path.open("rb") as file:
        return np.array([zlib.crc32(block) for block in iter(lambda: file.read(size), b"")], np.uint32)


def _require_alike(source: str, first: Dataset, part: Dataset) -> None:
    """Parts of one dataset agree in what it says once."""
    for what, ours, theirs in (
        ("spaces", first.spaces.describe(), part.spaces.describe()),
        ("columns", _kinds(first), _kinds(part)),
        ("environments", (first.env_id, first.env_spec), (part.env_id, part.env_spec)),
        ("action bounds", *([b.tolist() for b in one.action_bounds or ()] for one in (first, part))),
        ("names or categories", *(one.encoding and one.encoding.to_json() for one in (first, part))),
        ("rewards (some have none)", first.rewards_known, part.rewards_known),
    ):
        if ours != theirs:
            raise DataError(
                f"{source}: {first.source} and {part.source} have different {what}: {ours} and {theirs}; expected the "
                "same in every part: give what is found by looking (bounds, categories, number of actions) as options"
            )


def _kinds(part: Dataset) -> list[tuple[str, np.dtype]]:
    """The fields of a record of this dataset, and their types."""
    columns = {field: getattr(part, name) for name, field in FIELDS.items()}
    return [
        (field, np.dtype((column.dtype, column.shape[1:]))) for field, column in columns.items() if column is not None
    ]


def _records(part: Dataset) -> tuple[np.ndarray, Int[np.ndarray, " runs"]]:
    """The dataset as records, and the first row of each run."""
    ends = np.zeros(len(part), bool)
    ends[np.append(part.episode_starts[1:], len(part)) - 1] = True
    # Compared as bytes: -0.0 equals 0.0, and what is read must be what was written.
    observed, following = (
        np.ascontiguousarray(array).view(np.uint8) for array in (part.observations[1:], part.next_observations[:-1])
    )
    closing = ends | np.append((observed != following).any(1), True)
    places = np.arange(len(part)) + np.cumsum(closing) - closing
    records = np.zeros(len(part) + int(closing.sum()), _kinds(part))
    for name, field in FIELDS.items():
        if field in (records.dtype.names or ()):
            records[field][places] = getattr(part, name)
    after = {
        "observation": part.next_observations,
        "action": part.next_actions(),
        "allowed": part.next_allowed_actions(),
    }
    for field, column in after.items():
        if column is not None:
            records[field][places[closing] + 1] = column[closing]
    return records, np.flatnonzero(np.append(True, closing[:-1]))
