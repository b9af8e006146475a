"""Logged data: one file per format, every one read into the same validated `Dataset`."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from segue.data import arrays, bundle, d4rl, lerobot, live, mapped, minari, npz, tabular
from segue.data.bundle import bundled
from segue.data.dataset import Columns, Dataset, OutOfRange
from segue.data.mixture import PLUS, Mixture, combined
from segue.data.table import SUFFIXES, Table, completed, scheme_of
from segue.errors import DataError, unknown
from segue.plugins import Registry

__all__ = [
    "FORMATS",
    "Columns",
    "Dataset",
    "Mixture",
    "Source",
    "Table",
    "bundled",
    "load",
    "parts",
    "parts_of",
    "uri_of",
]

#: Reader by the scheme of its URIs. A reader gets what follows the colon and returns the columns, or a Dataset where
#: these were validated when they were written.
FORMATS: Registry[Callable[[str], Columns | Dataset]] = Registry(
    "dataset",
    {
        "segue": bundle.read,
        "minari": minari.read,
        "d4rl": d4rl.read,
        "npz": npz.read,
        "csv": tabular.read_csv,
        "parquet": tabular.read_parquet,
        "ndjson": tabular.read_ndjson,
        "lerobot": lerobot.read,
        "live": live.read,
        "mapped": mapped.read,
    },
)
#: Schemes whose places may name columns: `csv:log.csv?reward=r`.
TABLES = (*dict.fromkeys(SUFFIXES.values()), "lerobot")
#: What `load` takes: a URI or path, a Table, a Mixture or a list of these, a dict of arrays, a DataFrame, a Dataset.
Source = Any


def load(source: Source, *, clip_actions: bool = False) -> Dataset:
    """Read and validate a dataset.

    Args:
        source: `segue:NAME` (bundled), `minari:ID`, `d4rl:FILE.hdf5`, `npz:FILE`, `csv:FILE`, `parquet:FILE`,
            `ndjson:FILE`, `lerobot:FOLDER`, `live:LOG`, `mapped:FOLDER`, or the path of such a file; a `Table` or a
            DataFrame; a `Mixture` or a list of datasets; or a dict of arrays with one row per step: `observations,
            actions, rewards, terminals`, optional `timeouts, next_observations, behaviour_log_prob`, and optional
            metadata `env_id, action_low, action_high, discrete_actions`. A Dataset is returned as it is.
        clip_actions: clip actions outside their bounds, and note it, instead of refusing the dataset.

    Raises:
        DataError: naming the source, the column and the row, what was expected, and what to do.
    """
    out_of_range: OutOfRange = "clip" if clip_actions else "error"
    if isinstance(source, Dataset):
        return source
    if isinstance(source, str) and PLUS in source:
        source = Mixture.parse(source)
    if isinstance(source, list | tuple):
        source = Mixture(parts_of(source))
    if isinstance(source, Mixture):
        parts = [load(part, clip_actions=clip_actions) for part in source.parts]
        return combined(parts, source.weights, source.text([part.source for part in parts]))
    if isinstance(source, Mapping):
        return _validated(lambda: arrays.read(source, "dict of arrays"), "dict of arrays", out_of_range)
    if _is_frame(source):
        source = Table(source)
    if isinstance(source, Table) and source.paths is None:
        return _validated(lambda: tabular.read(source), type(source.data).__name__, out_of_range)
    uri = uri_of(source)
    if uri is None:
        raise DataError(
            f"a dataset is given as a {type(source).__name__}; expected a URI (npz:FILE …), a Table, a DataFrame, a "
            "dict of arrays, a Dataset, or a list of datasets"
        )
    scheme, _, place = uri.partition(":")
    if scheme not in FORMATS:
        raise DataError(f"{uri}: {unknown('dataset scheme', scheme, FORMATS)}")
    if not place:
        raise DataError(f"{uri}: nothing follows the colon; expected {uri}NAME")
    return _validated(lambda: FORMATS[scheme](place), uri, out_of_range)


def parts(source: str, *, clip_actions: bool = False) -> Iterator[Dataset]:
    """A dataset in parts, of which one is in memory at a time: those of a mixture, whole episodes of Parquet files.

    A dataset of another format is one part.

    Raises:
        DataError: as `load` does; also for a mixture with weights, and Parquet files whose episodes are scattered.
    """
    if PLUS in source:
        mixture = Mixture.parse(source)
        if mixture.weights is not None:
            raise DataError(f"{source}: weights are not kept when parts become one dataset; leave them out")
        for part in mixture.parts:
            yield from parts(part, clip_actions=clip_actions)
        return
    uri = str(uri_of(source))
    scheme, _, place = uri.partition(":")
    if scheme != "parquet" or not place:
        yield load(uri, clip_actions=clip_actions)
        return
    for first, columns in tabular.parquet_parts(place):
        yield Dataset.from_columns(columns, f"{uri} (rows from {first:,} on)", "clip" if clip_actions else "error")


def uri_of(source: Source) -> str | None:
    """How files and commands name a dataset: one line of text. None if it is held in memory.

    Raises:
        DataError: for a name from which no scheme follows.
    """
    if isinstance(source, Table):
        return source.uri
    if isinstance(source, mapped.MappedDataset) and source.content is not None:  # as it lies on disk, no part of it
        return source.source
    if isinstance(source, list | tuple) and not any(isinstance(part, Mapping) for part in source):
        source = Mixture(source)
    if isinstance(source, Mixture):
        names = [uri_of(part) for part in source.parts]
        known = [name for name in names if name is not None]
        return source.text(known) if len(known) == len(names) else None
    if not isinstance(source, str | os.PathLike):
        return None
    name = os.fspath(source)
    if isinstance(name, str) and PLUS in name:
        return uri_of(Mixture.parse(name))
    return name if re.match(r"[\w-]{2,}:", name) else _with_scheme(name)


def parts_of(source: Source) -> tuple[Source, ...]:
    """The datasets that a mixture in memory is made of; otherwise the dataset alone, and nothing for None.

    Raises:
        DataError: for a list of trajectories.
    """
    if source is None:
        return ()
    if isinstance(source, Mixture):
        return tuple(source.parts)
    if isinstance(source, list | tuple):
        _refuse_trajectories(source)
        return tuple(source)
    return (source,)


def with_options(uri: str, options: Mapping[str, Any], like: str | None = None) -> str:
    """A dataset's URI that names columns: by these options, then by its own, then as another dataset's URI does.

    Raises:
        DataError: if options are given for a dataset that is no table.
    """
    scheme, _, place = uri.partition(":")
    if scheme not in TABLES:
        if options:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in options)
            raise DataError(
                f"{uri}: {flags}: only for columns of a table ({', '.join(TABLES)}); a {scheme} dataset has its own"
            )
        return uri
    table = dataclasses.replace(Table.parse(place), **options)
    if like is not None and like.partition(":")[0] in TABLES:
        table = completed(table, Table.parse(like.partition(":")[2]))
    return f"{scheme}:{table.place}"


def with_categories(uri: str, dataset: Dataset) -> str:
    """The URI of a dataset, which numbers the texts of a table for good as they were numbered when it was loaded."""
    if dataset.encoding is None or not dataset.encoding.categories:
        return uri
    mixture = Mixture.parse(uri)
    tables = [part.partition(":")[0] in TABLES for part in mixture.parts]
    options = {"categories": dataset.encoding.categories}
    parts = [with_options(part, options) if table else part for part, table in zip(mixture.parts, tables, strict=True)]
    return dataclasses.replace(mixture, parts=parts).text(parts)


def _refuse_trajectories(parts: Sequence[Any]) -> None:
    if parts and all(isinstance(part, Mapping) for part in parts):
        raise DataError(
            f"a list of {len(parts):,} dicts; expected one dict of arrays with one row per step. If each is a "
            "trajectory, concatenate the trajectories, with 'timeouts' 1 where each ends without a terminal. "
            "If each is a dataset, give Mixture([...])"
        )


def _is_frame(source: Any) -> bool:
    return hasattr(source, "__arrow_c_stream__") or hasattr(source, "__dataframe__")


def _validated(read: Callable[[], Columns | Dataset], source: str, out_of_range: OutOfRange) -> Dataset:
    try:
        found = read()
        return found if isinstance(found, Dataset) else Dataset.from_columns(found, source, out_of_range)
    except MemoryError as error:
        raise DataError(
            f"{source}: does not fit into memory ({error}); use a machine with more, or fewer rows"
        ) from None


_LIKELY_SCHEMES = {r"\.(hdf5|h5)$": "d4rl", r"\.npz$": "npz", r"\.db$": "live", r"-v\d+$": "minari"}


def _with_scheme(name: str) -> str:
    """A path with the scheme that its name asks for.

    Raises:
        DataError: with the scheme that a name that is no path probably needs, or all there are.
    """
    scheme = scheme_of((Table.parse(name).paths or ("",))[0])
    if scheme is None and (Path(name).expanduser() / "meta" / "info.json").is_file():
        scheme = "lerobot"
    if scheme is None and (Path(name).expanduser() / mapped.ABOUT).is_file():
        scheme = "mapped"
    likely = [scheme for pattern, scheme in _LIKELY_SCHEMES.items() if re.search(pattern, name)]
    if scheme is None and likely and Path(name).expanduser().is_file():
        scheme = likely[0]
    if scheme is not None:
        return f"{scheme}:{name}"
    if likely and likely[0] != "minari":
        raise DataError(f"{name}: there is no such file")
    if name in bundled():
        likely = ["segue"]
    if likely:
        raise DataError(f"{name}: a dataset needs its scheme; did you mean {likely[0]}:{name}?")
    datasets = ", ".join(f"segue:{dataset}" for dataset in bundled())
    hint = ""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        hint = " If it is a LeRobot dataset, download its folder and write lerobot:FOLDER."
    elif name.endswith((".pkl", ".pickle")):
        hint = " Segue does not unpickle; save its arrays by numpy.savez and write npz:FILE."
    raise DataError(
        f"{name!r}: a dataset needs its scheme, one of {', '.join(FORMATS)}; bundled: {datasets or 'none'}.{hint}"
    )
