"""Flags that say which dataset is meant, and which columns of a table mean what."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import tyro

from segue.cli.parse import docs_of_fields
from segue.data import Mixture, uri_of, with_options
from segue.data.table import OPTIONS, Table
from segue.errors import SegueError

_DOCS = docs_of_fields(Table)
#: The options of a table, every one a text.
Columns: Any = dataclasses.make_dataclass(
    "Columns", [(name, Annotated[str | None, tyro.conf.arg(help=_DOCS[name])], None) for name in OPTIONS], frozen=True
)
#: The same as a field of a command's flags: --episode, --step, …
NO_COLUMNS = Columns()
ColumnFlags = Annotated[Columns, tyro.conf.arg(name="")]
WEIGHTS = (
    "With several --dataset: the share of the samples from each. By default every transition is drawn equally often."
)


@dataclasses.dataclass(frozen=True)
class _Datasets:
    columns: ColumnFlags
    dataset: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    dataset_weights: tuple[float, ...] = ()


def given(columns: Any) -> dict[str, str]:
    """The options that were named."""
    return {name: value for name, value in vars(columns).items() if value is not None}


def named(dataset: str, options: Mapping[str, str], like: str | None = None) -> str:
    """The URI of a dataset, with these options of its columns.

    Raises:
        SegueError: for a name from which no scheme follows, or options of what is no table.
    """
    return with_options(str(uri_of(dataset)), options, like)


def with_one_dataset(arguments: Sequence[str]) -> list[str]:
    """The arguments with one --dataset, which says all that several of them, and the flags of columns, say.

    Raises:
        SegueError: for weights that do not fit, or columns of what is no table.
    """
    if "--help" in arguments or "-h" in arguments:
        return list(arguments)
    flags, rest = tyro.cli(_Datasets, args=list(arguments), return_unknown_args=True)
    options = given(flags.columns)
    if not options and len(flags.dataset) < 2 and not flags.dataset_weights:
        return list(arguments)
    if flags.dataset == ("None",):  # an arm from scratch, beside others with columns
        return [*rest, "--dataset", "None"]
    if not flags.dataset:
        first = next(iter(options), "dataset_weights").replace("_", "-")
        raise SegueError(f"--{first}: no dataset is named; add --dataset")
    parts = [named(dataset, options) for dataset in flags.dataset]
    uri = parts[0] if len(parts) == 1 else str(uri_of(Mixture(parts, flags.dataset_weights or None)))
    return [*rest, "--dataset", uri]
