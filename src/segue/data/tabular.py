"""Tables as datasets: `csv:FILE`, `parquet:FILE`, `ndjson:FILE` (also globs, and several with commas), DataFrames."""

from __future__ import annotations

import difflib
import fnmatch
import glob
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from segue.data import files
from segue.data.arrays import EITHER, FOREIGN
from segue.data.dataset import Columns
from segue.data.encoding import Encoding
from segue.data.table import Table, completed
from segue.errors import DataError, unknown
from segue.plugins import import_module

if TYPE_CHECKING:
    import pyarrow as pa

#: Columns that are found without being named, the likeliest first, in lower case with `_` for other signs. Those of
#: several numbers may also be numbered: obs_0, obs_1, …
USUAL: Mapping[str, tuple[str, ...]] = {
    "episode": ("episode", "episode_id", "episode_index", "episode_number", "traj_id", "trajectory", "trajectory_id"),
    "step": ("step", "steps", "t", "timestep", "time_step", "step_id", "frame_index", "timestamp"),
    "observation": ("observations", *FOREIGN["observations"]),
    "action": ("actions", *FOREIGN["actions"]),
    "reward": ("rewards", *FOREIGN["rewards"]),
    "propensity": ("propensity", "propensity_score", "pscore", "action_prob"),
    "cost_column": ("cost", *FOREIGN["cost"]),
    "allowed_actions": ("allowed_actions", *FOREIGN["allowed_actions"]),
    "terminal": ("terminals", *FOREIGN["terminals"], *EITHER),
    "timeout": ("timeouts", *FOREIGN["timeouts"]),
    "next_observation": ("next_observations", *FOREIGN["next_observations"]),
}
#: Options that may name several columns.
SEVERAL = ("observation", "action", "next_observation", "allowed_actions")
#: The column in which `segue convert` keeps log b(a|s).
LOG_PROPENSITY = "behaviour_log_prob"
#: Where a Parquet file that `segue convert` wrote keeps what no column says.
PARQUET_OPTIONS, PARQUET_ENCODING = b"segue.options", b"segue.encoding"
#: More different texts than this in a column of observations are an identifier.
MOST_CATEGORIES = 256
#: Whole numbers as actions are numbered anew if less than one in this many of 0 … their maximum occurs.
SPARSE = 10
SUCCESS, NONE, END, EACH_ROW, OF_THE_DATA = "success", "none", "end", "row", "data"
#: Rows of a Parquet file that are read at once where it is read in parts.
PART_ROWS = 2**18
#: What to do with a file in a code page of Windows.
_TO_UTF_8 = "save the file as UTF-8 (iconv -f latin1 -t utf-8 OLD > NEW; in Excel: CSV UTF-8)"
_FUNCTION = re.compile(r"[\w.]+:\w+")


def read_csv(place: str) -> Columns:
    """CSV files with a header, one row per step; gzip and other separators are noticed.

    Raises:
        DataError: naming file, row and column.
    """
    return read(Table.parse(place), "csv")


def read_parquet(place: str) -> Columns:
    """Parquet files, one row per step.

    Raises:
        DataError: naming file, row and column.
    """
    return read(Table.parse(place), "parquet")


def read_ndjson(place: str) -> Columns:
    """Files with one JSON object per line, one line per step.

    Raises:
        DataError: naming file, row and column.
    """
    return read(Table.parse(place), "ndjson")


def read(table: Table, scheme: str | None = None) -> Columns:
    """Columns of a table; a scheme goes before the suffixes of its files.

    Raises:
        DataError: naming file, row and column.
    """
    if table.paths is None:
        return Reading(table, *_in_memory(table.data)).columns()
    scheme = scheme or table.scheme
    return Reading(table, *from_files(scheme, table.paths), scheme).columns()


def parquet_parts(place: str) -> Iterator[tuple[int, Columns]]:
    """Parquet files in parts of whole episodes, for those that are larger than memory.

    Every episode is in one file, its rows next to each other.

    Returns:
        The first row of each part in its file, and its columns.

    Raises:
        DataError: naming file, row and column; also if the rows of an episode are apart, or nothing ends an episode.
    """
    import pyarrow as pa
    import pyarrow.parquet

    table = Table.parse(place)
    for path in _found("parquet", table.paths or ()):
        first, kept, seen = 0, None, set[Any]()
        try:
            with pa.parquet.ParquetFile(path) as file:
                _no_twins(f"parquet:{path}", file.schema_arrow.names)
                for batch in file.iter_batches(PART_ROWS):
                    part = pa.Table.from_batches([batch]).replace_schema_metadata(file.schema_arrow.metadata)
                    kept = part if kept is None else pa.concat_tables([kept, part])
                    stop = Reading(table, kept, [path], [len(kept)], "parquet", first=first).last_start()
                    if stop:
                        yield first, _part(table, kept.slice(0, stop), path, first, seen)
                        first, kept = first + stop, kept.slice(stop)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"parquet:{path}: cannot be read as Parquet ({files.reason(error)})") from error
        if kept is None:
            raise DataError(f"parquet:{path}: the file has no rows")
        if len(kept):
            yield first, _part(table, kept, path, first, seen)


def _part(table: Table, rows: pa.Table, path: str, first: int, seen: set[Any]) -> Columns:
    """The columns of whole episodes, none of which were `seen` before."""
    reading = Reading(table, rows, [path], [len(rows)], "parquet", first=first)
    if reading.names_episodes:
        episodes = set(rows[reading.one("episode")].unique().to_pylist())
        if again := episodes & seen:
            raise DataError(
                f"{reading.at(0)}: rows of the episode {min(again, key=str)!r} stand here and further up; expected the "
                "rows of an episode next to each other: sort the file by episode and step"
            )
        seen |= episodes
    return reading.columns()


def from_files(scheme: str, named: Sequence[str]) -> tuple[pa.Table, list[str], list[int]]:
    """The rows of paths and globs as one table, the files, and how many rows each has.

    Raises:
        DataError: if one is missing or damaged, or they do not fit together.
    """
    found = _found(scheme, named)
    parts = [_file(scheme, path) for path in found]
    return _joined(scheme, found, parts), found, [len(part) for part in parts]


def _in_memory(data: Any) -> tuple[pa.Table, list[str], list[int]]:
    import pyarrow as pa
    import pyarrow.interchange as interchange

    name = type(data).__name__
    try:
        whole = pa.table(data) if hasattr(data, "__arrow_c_stream__") else interchange.from_dataframe(data)
    except Exception as error:  # each library of frames raises kinds of its own
        raise DataError(f"{name}: cannot be read as a table ({files.reason(error)})") from error
    _check(name, whole, "table")
    return whole, [name], [len(whole)]


def _found(scheme: str, named: Sequence[str]) -> list[str]:
    """The files behind paths and globs, those of a glob sorted."""
    found: list[str] = []
    for name in named:
        path = str(Path(name).expanduser())
        if Path(path).exists() or not glob.has_magic(path):
            found.append(str(files.existing(f"{scheme}:{name}", name)))
        else:
            matches = sorted(glob.glob(path, recursive=True))
            if not matches:
                raise DataError(f"{scheme}:{name}: no file matches; looked from {Path.cwd()}")
            found += [str(files.existing(f"{scheme}:{match}", match)) for match in matches]
    return list(dict.fromkeys(found))


def _file(scheme: str, path: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet

    source = f"{scheme}:{path}"
    try:
        if scheme == "parquet":
            part = pa.parquet.read_table(path)
        elif scheme == "ndjson":
            part = pa.json.read_json(path)
        else:
            with pa.input_stream(path, compression="detect") as stream:
                header = (stream.read(2**16).splitlines() or [b""])[0]
            separator = max(",;\t|", key=lambda sign: header.count(sign.encode()))
            part = pa.csv.read_csv(
                path,
                parse_options=pa.csv.ParseOptions(delimiter=separator),
                convert_options=pa.csv.ConvertOptions(strings_can_be_null=True),
            )
        _check(source, part, "file")
        binary = [field.name for field in part.schema if pa.types.is_binary(field.type)]
        if binary and scheme == "csv":
            raise DataError(f"{source}: column {binary[0]!r} is not UTF-8 text; {_TO_UTF_8}")
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: the names of the columns are not UTF-8 text; {_TO_UTF_8}") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        kind = {"csv": "CSV with a header", "ndjson": "one JSON object per line", "parquet": "Parquet"}[scheme]
        said = "".join(sign for sign in files.reason(error) if sign.isprintable())  # it quotes the file
        raise DataError(f"{source}: cannot be read as {kind} ({said:.150})") from error
    return part


def _check(source: str, part: pa.Table, kind: str) -> None:
    if not len(part):
        raise DataError(f"{source}: the {kind} has no rows")
    _no_twins(source, part.column_names)


def _no_twins(source: str, names: Sequence[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"{source}: two columns are named {twice[0]!r}; rename one")


def _joined(scheme: str, paths: Sequence[str], parts: Sequence[pa.Table]) -> pa.Table:
    import pyarrow as pa

    for path, part in zip(paths, parts, strict=True):
        other = set(part.column_names) ^ set(parts[0].column_names)
        if other:
            raise DataError(
                f"{scheme}:{path}: its columns are not those of {paths[0]}: only one of them has {sorted(other)[0]!r}"
            )
    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(f"{scheme}:{paths[0]} …: the files do not fit together ({files.reason(error)})") from error


class Reading:
    """A table being made into columns."""

    def __init__(
        self,
        table: Table,
        whole: pa.Table,
        paths: Sequence[str],
        lengths: Sequence[int],
        scheme: str = "",
        entries: Mapping[str, Sequence[str]] | None = None,
        first: int = 0,
    ) -> None:
        """`entries` are the names of what the lists of a column hold; rows of a part of a file count from `first`."""
        self.first = first
        self.whole, self.paths, self.lengths, self.scheme = whole, paths, lengths, scheme
        self.entries = entries or {}
        self.rows, self.names = len(whole), list(whole.column_names)
        self.source = f"{scheme}:{paths[0]}" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
        self.source = self.source.removeprefix(":")
        self.categories = {column: tuple(map(str, values)) for column, values in table.categories.items()}
        self.notes: list[str] = []
        self.table = self._completed(self._with_stored(table))

    def fail(self, message: str) -> DataError:
        """An error about the table as a whole."""
        return DataError(f"{self.source}: {message}")

    def at(self, row: int) -> str:
        """Where a row of the joined table lies."""
        starts = np.cumsum([0, *self.lengths])
        number = int(np.searchsorted(starts, row, side="right")) - 1
        place = row - int(starts[number]) + self.first
        line = f" (line {place + 2})" if self.scheme == "csv" else f" (line {place + 1})" * (self.scheme == "ndjson")
        return f"{self.paths[number]}, row {place}{line}"

    def columns(self) -> Columns:
        """Every column that a dataset has, its rows in order."""
        table = self.table
        observations, observation_names = self.matrix(self.select("observation"))
        allowed = self.allowed()
        actions, action_names, discrete_actions = self.actions(0 if allowed is None else allowed.shape[1])
        order, ends = self.order()
        terminals, timeouts = self.ends(order, ends)
        rewards = self.rewards(order, terminals | timeouts)
        next_observations = None
        if table.next_observation is not None:
            names = self.select("next_observation")
            next_observations, following = self.matrix(
                names, dict(zip(names, self.select("observation"), strict=False))
            )
            if len(following) != len(observation_names):
                raise self.fail(
                    f"next observations have {len(following)} numbers, observations {len(observation_names)}; "
                    "expected the same columns in the same order"
                )
        return Columns(
            observations=observations[order],
            actions=actions[order],
            rewards=rewards,
            terminals=terminals,
            timeouts=timeouts,
            next_observations=None if next_observations is None else next_observations[order],
            env_id=table.env_id,
            action_bounds=None if discrete_actions is not None else self.bounds(actions),
            discrete_actions=discrete_actions,
            behaviour_log_prob=self.log_propensities(order, discrete_actions is not None),
            cost=None
            if table.cost_column is None
            else self.per_row(self.one("cost_column"), "one cost per row")[order],
            allowed_actions=None if allowed is None else allowed[order],
            encoding=self.encoding(observation_names, action_names),
            notes=tuple(self.notes),
        )

    def encoding(self, observations: Sequence[str], actions: Sequence[str]) -> Encoding:
        """What the numbers mean: by the columns, or as a Parquet file that Segue wrote says itself."""
        stored = (self.whole.schema.metadata or {}).get(PARQUET_ENCODING)
        if stored is None:
            return Encoding(tuple(observations), tuple(actions), self.categories)
        return Encoding.from_json(self.source, stored.decode())

    def _with_stored(self, table: Table) -> Table:
        """With what a Parquet file that Segue wrote says itself."""
        stored = (self.whole.schema.metadata or {}).get(PARQUET_OPTIONS)
        if stored is None:
            return table
        return completed(table, Table.parse(f"?{stored.decode()}"))

    def _completed(self, table: Table) -> Table:
        """With the columns that have the usual names."""
        found: dict[str, Any] = {}
        given = {getattr(table, option) for option in USUAL if isinstance(getattr(table, option), str)}
        for option, usual in USUAL.items():
            if getattr(table, option) is None:
                names = self._usual(usual, several=option in SEVERAL)
                if option == "cost_column" and names and not self._numeric(names[0]):
                    self.notes.append(f"column {names[0]!r} is left out: it is no cost, which is a number in every row")
                elif names and not given.intersection(names):  # a column means one thing
                    found[option] = names if len(names) > 1 else names[0]
        if found and PARQUET_OPTIONS not in (self.whole.schema.metadata or {}):
            words = (f"{option} = {_span(names)}" for option, names in found.items())
            self.notes.append(f"columns found by their names: {', '.join(words)}")
        ends = found.get("terminal")
        self.ends_of_either_kind = ends is not None and _plain(ends) in EITHER
        if self.ends_of_either_kind and table.timeout is None and "timeout" not in found:
            raise self.fail(
                f"column {ends!r} does not tell terminal states from time limits; give --terminal {ends} if every 1 is "
                f"a true terminal state, where nothing follows, or --timeout {ends} if a limit cut the episode"
            )
        table = completed(table, Table(None, **found))
        for option in ("observation", "action", "reward"):
            if getattr(table, option) is None:
                flag = option.replace("_", "-")
                rule = ", or --reward success, none or module:function" if option == "reward" else ""
                raise self.fail(f"which columns are the {option}? Give --{flag} NAME{rule}; there is {self._listed()}")
        return table

    def _numeric(self, name: str) -> bool:
        try:
            return self.numbers(name).size == self.rows
        except DataError:
            return False

    def _usual(self, usual: Sequence[str], several: bool) -> list[str]:
        plain = {_plain(name): name for name in self.names}
        for name in usual:
            if name in plain:
                return [plain[name]]
            numbered = [own for key, own in plain.items() if re.fullmatch(rf"{name}_+\d+_*", key)]
            if several and numbered:
                return _in_order(numbered)
        return []

    def _listed(self) -> str:
        shown = ", ".join(self.names[:30])
        return shown + (f" and {len(self.names) - 30} more columns" if len(self.names) > 30 else "")

    def one(self, option: str) -> str:
        """The one column that an option names."""
        name = getattr(self.table, option)
        if name not in self.names:
            raise self.fail(f"--{option.replace('_', '-')}: {self._unknown(str(name))}")
        return name

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.names, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"no column {name!r}: {hint}there is {self._listed()}"

    def select(self, option: str) -> list[str]:
        """The columns that an option's names and patterns stand for; a pattern passes over those of other options."""
        given = getattr(self.table, option)
        taken = {name for other in USUAL if other != option for name in _listed(getattr(self.table, other))}
        if option in ("observation", "next_observation") and any(map(glob.has_magic, _listed(given))):
            taken.update(*(self.select(other) for other in ("action", "allowed_actions")))
        found: list[str] = []
        for pattern in _listed(given):
            for name in [pattern] if pattern in self.names else pattern.split(","):
                if name in self.names:
                    found.append(name)
                    continue
                matches = fnmatch.filter(self.names, name)
                free = [own for own in matches if own not in taken]
                if not free:
                    why = f"every column of {name!r} has another meaning" if matches else self._unknown(name)
                    raise self.fail(f"--{option.replace('_', '-')}: {why}")
                found += _in_order(free)
        return list(dict.fromkeys(found))

    def _whole(self, name: str) -> Any:
        """A column without missing values, as one Arrow array."""
        import pyarrow as pa
        import pyarrow.compute as pc

        column = self.whole[name].combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_string_view(column.type):  # Polars' texts, which Arrow cannot rank
            column = column.cast(pa.large_string())
        missing = column.is_null(nan_is_null=True)
        if pc.any(missing).as_py():
            row = pc.index(missing, True).as_py()
            count = pc.sum(missing).as_py()
            raise DataError(
                f"{self.at(row)}: column {name!r} has no value ({count:,} such rows); fill it in, or leave out those "
                "episodes"
            )
        return column

    def _texts(self, name: str) -> list[str] | None:
        """A column of text (or one whose categories are given); None for any other."""
        import pyarrow as pa

        kind = self.whole.schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        text = any(of(kind) for of in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))
        if name not in self.categories and not text:
            return None
        if name not in self.categories:
            self._refuse_decimal_commas(name)
        return [str(value) for value in self._whole(name).to_pylist()]

    def _refuse_decimal_commas(self, name: str) -> None:
        """Numbers such as 3,14 would be categories."""
        import pyarrow as pa
        import pyarrow.compute as pc

        column = self._whole(name)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            return
        numbers = pc.match_substring_regex(column, r"^\s*[+-]?[0-9]*(,[0-9]+)?([eE][+-]?[0-9]+)?\s*$")
        commas = pc.match_substring(column, ",")
        if pc.all(numbers).as_py() and pc.any(commas).as_py():
            row = pc.index(commas, True).as_py()
            raise DataError(
                f"{self.at(row)}: column {name!r} is {column[row].as_py()!r}, a number with a comma; expected decimal "
                f"points: save the file with them, or give segue.Table(pandas.read_csv(FILE, sep=…, decimal=','), …)"
            )

    def _numbered(self, name: str, texts: Sequence[str], known: str) -> Int[np.ndarray, " rows"]:
        """Each text by its place among the categories of the column `known`."""
        values = self.categories.setdefault(known, tuple(sorted(set(texts))))
        number = {value: i for i, value in enumerate(values)}
        for row, text in enumerate(texts):
            if text not in number:
                raise DataError(f"{self.at(row)}: column {name!r} is {text!r}; {unknown('category', text, values)}")
        return np.array([number[text] for text in texts])

    def numbers(self, name: str) -> np.ndarray:
        """A column as numbers, [rows] or [rows, size]."""
        import pyarrow as pa

        column, shape = self._whole(name), [self.rows]
        while (
            pa.types.is_list(column.type)
            or pa.types.is_large_list(column.type)
            or pa.types.is_fixed_size_list(column.type)
        ):
            size = len(column[0])
            lengths = column.value_lengths().to_numpy() if not pa.types.is_fixed_size_list(column.type) else [size]
            other = np.flatnonzero(np.asarray(lengths) != size)
            if other.size:
                row = int(other[0]) * self.rows // len(column)
                raise DataError(f"{self.at(row)}: the list in column {name!r} has another length than in the first row")
            column = column.flatten()
            shape.append(size)
        self._refuse_decimal_commas(name)
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.float64())
        if not (
            pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)
        ):
            raise self.fail(f"column {name!r} holds {column.type}; expected numbers (or, for observations, text)")
        array = column.to_numpy(zero_copy_only=False)
        if array.dtype.kind == "O" or (array.dtype.kind == "f" and not np.isfinite(array).all()):
            finite = np.isfinite(array.astype(np.float64))  # None becomes NaN
            row = int(np.argmin(finite)) * self.rows // len(array)
            raise DataError(
                f"{self.at(row)}: column {name!r} is missing or not finite; fill it in, or leave out the episode"
            )
        return array.reshape(shape)

    def per_row(self, name: str, expected: str) -> np.ndarray:
        """A column of one number per row."""
        array = self.numbers(name)
        if array.size != self.rows:
            raise self.fail(f"column {name!r} holds lists; expected {expected}")
        return array.reshape(self.rows)

    def matrix(
        self, names: Sequence[str], categories_of: Mapping[str, str] | None = None
    ) -> tuple[Float[np.ndarray, "rows size"], list[str]]:
        """Columns side by side, text one-hot encoded, and what each number is called."""
        parts, called = [], []
        for name in names:
            texts = self._texts(name)
            if texts is not None:
                known = (categories_of or {}).get(name, name)
                codes = self._numbered(name, texts, known)
                values = self.categories[known]
                if len(values) > MOST_CATEGORIES:
                    raise self.fail(
                        f"column {name!r} has {len(values):,} different texts, more than {MOST_CATEGORIES:,}: that is "
                        "an identifier; leave it out of the observation"
                    )
                if categories_of is None:
                    self.notes.append(f"{name!r} was one-hot encoded: {len(values)} categories")
                parts.append(np.eye(len(values), dtype=np.float32)[codes])
                called += [f"{name}={value}" for value in values]
                continue
            array = self.numbers(name)
            flat = array.reshape(self.rows, -1).astype(np.float64 if array.dtype.itemsize > 4 else np.float32)
            parts.append(flat)
            called += self.called(name, array.shape)
        return np.concatenate(parts, axis=1), called

    def called(self, name: str, shape: Sequence[int]) -> list[str]:
        """What the numbers of a column are called."""
        if len(shape) == 1:
            return [name]
        size, entries = int(np.prod(shape[1:])), self.entries.get(name, ())
        return [f"{name}[{entry}]" for entry in (entries if len(entries) == size else range(size))]

    def allowed(self) -> Bool[np.ndarray, "rows actions"] | None:
        """Which actions could be taken, if columns say so."""
        if self.table.allowed_actions is None:
            return None
        names = self.select("allowed_actions")
        parts = [self.numbers(name).reshape(self.rows, -1) for name in names]
        for name, part in zip(names, parts, strict=True):
            bad = ((part != 0) & (part != 1)).any(1)
            if bad.any():
                raise DataError(f"{self.at(int(np.argmax(bad)))}: column {name!r} holds other numbers than 0 and 1")
        return np.concatenate(parts, axis=1).astype(bool)

    def actions(self, least: int) -> tuple[np.ndarray, list[str], int | None]:
        """Actions, what each number is called or stands for, and the number of discrete ones (None: continuous).

        There are `least` discrete ones at the least.
        """
        names, said = self.select("action"), self._discrete(self.table.discrete)
        texts = self._texts(names[0])
        if len(names) > 1 or said is False or (texts is None and self.numbers(names[0]).size != self.rows):
            if said:
                there = ", ".join(names) if len(names) > 1 else f"{names[0]!r}, which holds lists"
                raise self.fail(f"discrete actions are one column of one value per row; there is {there}")
            for name in names:
                if self._texts(name) is not None:
                    raise self.fail(
                        f"column {name!r} holds text; continuous actions, and those of several columns, are numbers"
                    )
            return *self.matrix(names), None
        array = self.numbers(names[0]).reshape(self.rows) if texts is None else np.empty(0)
        if texts is None and array.dtype.kind == "f":
            if not said:
                return *self.matrix(names), None
            if (array != np.round(array)).any():
                row = int(np.argmax(array != np.round(array)))
                raise DataError(f"{self.at(row)}: column {names[0]!r} is {array[row]:g}; expected a whole number")
        if texts is None:
            array = array.astype(np.int64)
            highest, different = int(array.max()), len(np.unique(array))
            if array.min() >= 0 and highest < SPARSE * max(different, 10):
                count = max(highest + 1, least, said if type(said) is int else 0)
                return array, [str(i) for i in range(count)], count
            self.categories[names[0]] = tuple(map(str, np.unique(array).tolist()))
            texts = [str(value) for value in array.tolist()]
        codes = self._numbered(names[0], texts, names[0])
        values = self.categories[names[0]]
        self.notes.append(f"{names[0]!r} was numbered: {len(values):,} discrete actions, {_span(values)}")
        return codes, list(values), len(values)

    def _discrete(self, given: str | int | bool | None) -> bool | int | None:
        """None: the column tells; otherwise whether actions are discrete, or how many there are."""
        words = {"yes": True, "true": True, "no": False, "false": False}
        if given is None or isinstance(given, bool):
            return given
        if isinstance(given, str) and given.lower() in words:
            return words[given.lower()]
        if not str(given).isdecimal() or int(given) < 1:
            raise self.fail(f"--discrete is {given!r}; expected yes, no, or the number of actions")
        return int(given)

    def bounds(self, actions: Float[np.ndarray, "rows size"]) -> tuple[np.ndarray, np.ndarray] | None:
        """Low and high of continuous actions, if they are given."""
        given = (self.table.action_low, self.table.action_high)
        if given == (None, None):
            return None
        if None in given:
            raise self.fail("one bound of the actions is given; expected --action-low and --action-high")
        of_data = (actions.min(0), actions.max(0))
        same = of_data[0] == of_data[1]  # any bounds will do
        of_data = (of_data[0] - same, of_data[1] + same)
        low, high = (
            own if bound == OF_THE_DATA else self._bound(bound, actions.shape[1])
            for bound, own in zip(given, of_data, strict=True)
        )
        if OF_THE_DATA in given:
            self.notes.append("the bounds of the actions are the least and greatest logged ones")
        return low, high

    def _bound(self, bound: Any, size: int) -> np.ndarray:
        try:
            values = np.array(
                [float(value) for value in (bound.split(",") if isinstance(bound, str) else np.ravel(bound))]
            )
        except ValueError:
            raise self.fail(f"the bound {bound!r} of the actions is not a number, or one per dimension") from None
        if len(values) not in (1, size):
            raise self.fail(f"actions have {size} dimensions, a bound has {len(values)}; expected one or {size}")
        return np.broadcast_to(values, size)

    def order(self) -> tuple[Int[np.ndarray, " rows"], Bool[np.ndarray, " rows"]]:
        """Rows by episode (the first that occurs first) and step, and where an episode's last row is in that order."""
        table, every = self.table, np.arange(self.rows)
        if table.episode is not None and not self.names_episodes:
            return every, np.ones(self.rows, bool)
        file = np.repeat(np.arange(len(self.lengths)), self.lengths)
        if table.episode is None:
            return every, self._unnamed_ends(file)
        episode = self._ranks(self.one("episode"))
        step = None if table.step is None else self._ranks(self.one("step"))
        if len(self.lengths) > 1 and (step is None or _repeated(np.stack([episode, step]))):
            # The same numbers in another file are other episodes.
            episode = np.unique(np.stack([file, episode]), axis=1, return_inverse=True)[1].reshape(-1)
        _, first, code = np.unique(episode, return_index=True, return_inverse=True)
        order = np.lexsort((every if step is None else step, first[code]))
        moved = int((order != every).sum())
        if moved:
            by = "episode" if step is None else "episode and step"
            self.notes.append(f"rows were sorted by {by}: {moved:,} of {self.rows:,} were elsewhere")
        sorted_code = code[order]
        if step is not None:
            twice = np.flatnonzero((np.diff(sorted_code) == 0) & (np.diff(step[order]) == 0))
            if twice.size:
                one, other = sorted(order[twice[0] : twice[0] + 2])
                raise DataError(
                    f"{self.at(other)}: the same {table.episode!r} and {table.step!r} as {self.at(one)}; expected one "
                    "row per step"
                )
        return order, np.append(np.diff(sorted_code) != 0, True)

    @property
    def names_episodes(self) -> bool:
        """Whether a column tells episodes apart."""
        return self.table.episode is not None and not (self.table.episode == EACH_ROW and EACH_ROW not in self.names)

    def last_start(self) -> int:
        """The row where the last episode begins, which may go on beyond the table: all rows before are whole episodes.

        Raises:
            DataError: if no column says where episodes end.
        """
        if self.names_episodes:
            starts = np.flatnonzero(np.diff(self._ranks(self.one("episode")))) + 1
        elif self.table.episode is not None:
            return self.rows
        else:
            flags = [self.flags(option) for option in ("terminal", "timeout") if self._has_column(option)]
            if not flags:
                raise self.fail(
                    "to be read in parts it needs a column that tells episodes apart: --episode COLUMN, or --terminal "
                    f"or --timeout COLUMN; there is {self._listed()}"
                )
            starts = np.flatnonzero(np.logical_or.reduce(flags)) + 1
        return int(starts[-1]) if starts.size else 0

    def _unnamed_ends(self, file: Int[np.ndarray, " rows"]) -> Bool[np.ndarray, " rows"]:
        """Without a column of episodes: the ends of files, terminals and time-outs, or where the steps start again."""
        ends = np.append(np.diff(file) != 0, True)
        flags = [self.flags(option) for option in ("terminal", "timeout") if self._has_column(option)]
        if flags:
            return np.logical_or.reduce([ends, *flags])
        if self.table.step is not None:
            again = np.append(np.diff(self._ranks(self.one("step"))) <= 0, True)
            if (again > ends).any():
                self.notes.append(f"no column tells episodes apart: one ends where {self.table.step!r} starts again")
                return ends | again
        if len(self.lengths) == 1:
            raise self.fail(
                "where does an episode end? Give --episode COLUMN, or --terminal or --timeout COLUMN, or --episode row "
                f"if every row is an episode of its own; there is {self._listed()}"
            )
        self.notes.append("every file is one episode")
        return ends

    def _has_column(self, option: str) -> bool:
        name = getattr(self.table, option)
        return name is not None and not (name == END and END not in self.names)

    def _ranks(self, name: str) -> Int[np.ndarray, " rows"]:
        """Numbers that are ordered as a column's values are."""
        import pyarrow as pa
        import pyarrow.compute as pc

        column = self._whole(name)
        try:
            return pc.rank(column, tiebreaker="dense").to_numpy().astype(np.int64)
        except pa.ArrowException:
            raise self.fail(f"column {name!r} holds {column.type}; expected numbers, times or text") from None

    def flags(self, option: str) -> Bool[np.ndarray, " rows"]:
        """A column of 0 and 1."""
        name = self.one(option)
        array = self.per_row(name, "0 or 1")
        bad = (array != 0) & (array != 1)
        if bad.any():
            row = int(np.argmax(bad))
            raise DataError(f"{self.at(row)}: column {name!r} is {array[row]:g}; expected 0 or 1")
        return array.astype(bool)

    def ends(self, order: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Terminals and time-outs, in order."""
        timeouts = self.flags("timeout")[order] if self._has_column("timeout") else np.zeros(self.rows, bool)
        if self._has_column("terminal"):
            terminals = self.flags("terminal")[order] & ~(timeouts & self.ends_of_either_kind)
        elif self.table.terminal == END or self.table.reward == SUCCESS:
            terminals = ends & ~timeouts
        elif ends.all():
            terminals = ends
            self.notes.append("every episode has one step, and ends in a terminal")
        else:
            terminals = np.zeros(self.rows, bool)
            self.notes.append(
                "no column says where an episode ended in a terminal: every end is taken as a time-out (--terminal end "
                "makes it a terminal)"
            )
        return terminals, (timeouts | ends) & ~terminals

    def rewards(self, order: np.ndarray, ends: np.ndarray) -> Float[np.ndarray, " rows"]:
        """Rewards in order: a column, or by a rule."""
        rule = self.table.reward
        assert rule is not None
        if rule in self.names:
            return self.per_row(rule, "one reward per row")[order]
        if rule == SUCCESS:
            self.notes.append("reward 1 in the last step of every episode, otherwise 0")
            return ends.astype(np.float32)
        if rule == NONE:
            self.notes.append(
                "no rewards: all are 0, so that only imitation (bc) learns; --reward COLUMN, success or module:function"
            )
            return np.zeros(self.rows, np.float32)
        if not _FUNCTION.fullmatch(rule):
            raise self.fail(f"--reward: {self._unknown(rule)}; or success, none, module:function")
        return self._rewards_of(rule, order, ends)

    def _rewards_of(self, rule: str, order: np.ndarray, ends: np.ndarray) -> np.ndarray:
        module, _, name = rule.partition(":")
        import_module(module, f"--reward {rule}: ")
        function: Callable[[dict[str, np.ndarray]], Any] | None = getattr(sys.modules[module], name, None)
        if not callable(function):
            raise self.fail(f"--reward {rule}: module {module!r} has no function {name!r}")
        columns = {own: self._raw(own)[order] for own in self.names}
        found = []
        stops = np.flatnonzero(ends) + 1
        for episode, (start, stop) in enumerate(zip([0, *stops], stops, strict=False)):
            try:
                part = np.asarray(function({own: column[start:stop] for own, column in columns.items()}), np.float32)
            except Exception as error:  # the user's code may raise anything
                raise self.fail(f"{rule} raised {type(error).__name__} in episode {episode}: {error}") from error
            if part.shape != (stop - start,):
                raise self.fail(f"{rule} returned shape {part.shape} for episode {episode}; expected ({stop - start},)")
            found.append(part)
        return np.concatenate(found)

    def _raw(self, name: str) -> np.ndarray:
        """A column as it is, for a function of the user's: numbers where it has them, otherwise Python objects."""
        try:
            return self.numbers(name)
        except DataError:
            return np.array([*self.whole[name].to_pylist(), None], object)[:-1]

    def log_propensities(self, order: np.ndarray, discrete: bool) -> np.ndarray | None:
        """log b(a|s) in order, if a column has the probabilities."""
        if self.table.propensity is None:
            return self.numbers(LOG_PROPENSITY)[order] if LOG_PROPENSITY in self.names else None
        name = self.one("propensity")
        array = self.per_row(name, "one probability per row").astype(np.float64)
        bad = (array <= 0) | ((array > 1) & discrete)
        if bad.any():
            row = int(np.argmax(bad))
            raise DataError(
                f"{self.at(row)}: column {name!r} is {array[row]:g} ({int(bad.sum()):,} such rows); expected a "
                "probability, above 0 and at most 1"
            )
        return np.log(array)[order]


def _plain(name: str) -> str:
    """A column's name as `USUAL` has it."""
    return re.sub(r"\W", "_", name.lower())


def _listed(given: Any) -> list[str]:
    return [given] if isinstance(given, str) else [str(name) for name in given or ()]


def _in_order(names: Sequence[str]) -> list[str]:
    """Names that differ in their last number by that number; others as they are."""
    parts = [re.fullmatch(r"(.*?)(\d+)(\D*)", name, re.DOTALL) for name in names]
    if None in parts or len({(part[1], part[3]) for part in parts if part}) > 1:
        return list(names)
    return sorted(names, key=lambda name: int(re.findall(r"\d+", name)[-1]))


def _span(names: Any) -> str:
    names = _listed(names)
    return ", ".join(names) if len(names) <= 4 else f"{names[0]} … {names[-1]}"


def _repeated(pairs: Int[np.ndarray, "2 rows"]) -> bool:
    return np.unique(pairs, axis=1).shape[1] < pairs.shape[1]
