"""A table with one row per step, and which of its columns mean what: the value behind `csv:log.csv?reward=r`."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from segue.errors import Checked, DataError, unknown

#: Scheme by the end of a file's name.
SUFFIXES = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".ndjson.gz": "ndjson",
    ".jsonl.gz": "ndjson",
}
_CATEGORY = "category."
_OPTIONS = re.compile(rf"\?(?=[a-z_]+=|{re.escape(_CATEGORY)})")

Names = str | Sequence[str] | None
Bound = str | int | float | Sequence[float] | None


@dataclasses.dataclass(frozen=True)
class Table(Checked):
    """CSV, Parquet or NDJSON files, or a DataFrame, with one row per step, and what its columns mean.

    What is not named is looked for under the usual names (`episode_id`, `obs_0 …`, `action`, `reward`,
    `terminated`, `truncated` …), and a note says what was found. `segue.load` and `Recipe(dataset=…)` take a Table.

    Args:
        data: a path, a glob (`logs/*.csv`), a list of them, or a DataFrame (pandas, Polars, Arrow).
    """

    data: Any
    _: dataclasses.KW_ONLY
    episode: str | None = None
    """Column that tells episodes apart; `row` makes every row an episode of one step, as in a bandit's log."""
    step: str | None = None
    """Column to sort the rows of an episode by: a number or a time."""
    observation: Names = None
    """Columns of the observation: names or patterns such as `f_*`. Text is one-hot encoded."""
    action: Names = None
    """Columns of the action. One column of whole numbers or text makes discrete actions."""
    reward: str | None = None
    """Column of rewards; or `success` (1 at the end of every episode), `none` (0 everywhere), or `module:function`,
    which gets the columns of one episode as a dict of arrays and returns its rewards."""
    propensity: str | None = None
    """Column with the probability of the logged action under the policy that took it, above 0 and at most 1."""
    cost_column: str | None = None
    """Column with the cost of a step, a safety signal, which sac-lagrangian and cql-lagrangian learn from."""
    allowed_actions: Names = None
    """Columns of 0 and 1, one per discrete action in their order, or one column of lists: whether the action could be
    taken."""
    terminal: str | None = None
    """Column that is 1 where an episode ended in a true terminal state; `end` says that every episode did."""
    timeout: str | None = None
    """Column that is 1 where an episode was cut, for example by a time limit."""
    next_observation: Names = None
    """Columns of the next observation, in the order of `observation`; by default those of the next row."""
    action_low: Bound = None
    """Lower bounds of the action: a number, or one per dimension; `data` takes the least logged values."""
    action_high: Bound = None
    """Upper bounds of the action: a number, or one per dimension; `data` takes the greatest logged values."""
    discrete: str | int | bool | None = None
    """`yes`, `no`, or the number of discrete actions; by default the action's column tells."""
    env_id: str | None = None
    """Gymnasium id of the environment that was logged."""
    categories: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    """By column of text: its values, in the order in which to number them; by default those that occur, sorted."""

    @property
    def paths(self) -> tuple[str, ...] | None:
        """The files and globs; None if the table is held in memory."""
        listed = self.data if isinstance(self.data, list | tuple) else [self.data]
        return tuple(map(os.fspath, listed)) if all(isinstance(one, str | os.PathLike) for one in listed) else None

    @property
    def scheme(self) -> str:
        """`csv`, `parquet` or `ndjson`, by the name of the first file.

        Raises:
            DataError: if its suffix is none of these.
        """
        for path in (self.paths or ())[:1]:
            scheme = scheme_of(path)
            if scheme is not None:
                return scheme
        raise DataError(f"{self.data!r:.200}: expected files whose names end in {', '.join(SUFFIXES)}")

    @property
    def uri(self) -> str | None:
        """The table as one line of text, for recipes and commands; None if it is held in memory.

        Raises:
            DataError: if the files have no known suffix.
        """
        return None if self.paths is None else f"{self.scheme}:{self.place}"

    @property
    def place(self) -> str:
        """What follows the scheme: the files, and what is named, as `log.csv?episode=user_id&reward=r`."""
        pairs = []
        for name in OPTIONS:
            value = getattr(self, name)
            if value is not None:
                values = [value] if isinstance(value, str) or not isinstance(value, Sequence) else value
                pairs.append((name, ",".join(str(one) for one in values)))
        for column, values in self.categories.items():
            pairs += [(_CATEGORY + column, value) for value in values]
        text = urlencode(pairs, quote_via=quote, safe="*,:/[]")
        return ",".join(self.paths or ()) + (f"?{text}" if text else "")

    @classmethod
    def parse(cls, place: str) -> Table:
        """The table of `place`.

        Raises:
            DataError: for an option that does not exist.
        """
        files, *rest = _OPTIONS.split(place, maxsplit=1)
        options: dict[str, str] = {}
        categories: dict[str, list[str]] = {}
        for name, value in parse_qsl(rest[0], keep_blank_values=True) if rest else []:
            if name.startswith(_CATEGORY):
                categories.setdefault(name.removeprefix(_CATEGORY), []).append(value)
            elif name in OPTIONS:
                options[name] = value
            else:
                raise DataError(f"{files}: {unknown('option', name, OPTIONS)}")
        return cls([files] if os.path.exists(files) else files.split(","), **options, categories=categories)


#: What may be said of a table's columns, in the order of the help.
OPTIONS = tuple(field.name for field in dataclasses.fields(Table) if field.name not in ("data", "categories"))


def scheme_of(path: str) -> str | None:
    """The scheme that the end of a file's name asks for."""
    return next((scheme for suffix, scheme in SUFFIXES.items() if path.lower().endswith(suffix)), None)


def completed(table: Table, other: Table) -> Table:
    """The table with the options of another one where it has none of its own."""
    own = {name: getattr(table, name) for name in OPTIONS}
    values = {name: getattr(other, name) if value is None else value for name, value in own.items()}
    return Table(table.data, **values, categories={**other.categories, **table.categories})
