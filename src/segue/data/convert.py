"""Writing a dataset in another format: `npz:FILE`, `parquet:FILE`, `csv:FILE`, `minari:ID` or `mapped:FOLDER`."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from gymnasium import spaces

from segue.data import files, mapped, minari, npz
from segue.data.dataset import Columns, Dataset
from segue.data.table import Table, scheme_of
from segue.data.tabular import LOG_PROPENSITY, PARQUET_ENCODING, PARQUET_OPTIONS
from segue.errors import DataError
from segue.files import write_atomically

if TYPE_CHECKING:
    import pyarrow as pa

WRITERS = ("npz", "parquet", "csv", "minari", "mapped")


def target(to: str) -> tuple[str, str]:
    """Scheme and place of a dataset to be written, once it is known that nothing is there.

    Raises:
        DataError: the scheme cannot be written, something is there already, or the folder is missing.
    """
    scheme, colon, place = to.partition(":")
    if not colon:
        scheme, place = scheme_of(to) or Path(to).suffix.removeprefix("."), to
    if scheme not in WRITERS or not place:
        raise DataError(f"{to}: cannot be written; expected {', '.join(f'{name}:…' for name in WRITERS)}")
    if scheme == "minari":
        minari.require_free(place)
    else:
        files.require_free(f"{scheme}:{place}", place)
    return scheme, place


def convert(dataset: Dataset, to: str) -> tuple[str, str | None]:
    """Write a dataset, and return the URI that reads it, and what could not be kept.

    Continuous actions are written in the unit that they were logged in; a unit of its own costs them up to a digit of
    float32.

    Raises:
        DataError: the format cannot be written, something is there already, or the dataset does not fit it.
    """
    scheme, place = target(to)
    if scheme == "mapped":
        mapped.write(place, [dataset.in_memory()])
        return f"mapped:{place}", None
    dataset = dataset.in_memory()
    columns = dataset.in_units()
    if scheme == "npz":
        npz.save(place, columns)
        return f"npz:{place}", None
    lost = None if dataset.encoding is None else "the names and categories of the columns; Parquet and npz keep them"
    if scheme == "minari":
        _write_minari(dataset, columns, place)
        return f"minari:{place}", lost
    content, table = io.BytesIO(), _table(dataset, columns)
    options = Table(
        [place],
        discrete=dataset.spaces.action_size if dataset.spaces.discrete else "no",
        action_low=None if columns.action_bounds is None else _plain(columns.action_bounds[0]),
        action_high=None if columns.action_bounds is None else _plain(columns.action_bounds[1]),
        env_id=dataset.env_id,
    )
    if scheme == "parquet":
        import pyarrow.parquet

        metadata = {PARQUET_OPTIONS: options.place.partition("?")[2]}
        if dataset.encoding is not None:
            metadata[PARQUET_ENCODING] = dataset.encoding.to_json()
        pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), content)
        lost, uri = None, f"parquet:{place}"
    else:
        import pyarrow.csv

        pyarrow.csv.write_csv(table, content)
        uri = f"csv:{options.place}"
    whole = content.getvalue()
    write_atomically(Path(place), gzip.compress(whole, mtime=0) if place.endswith(".gz") else whole)
    return uri, lost


def _plain(bounds: np.ndarray) -> float | list[float]:
    """One bound where all are the same."""
    return bounds.tolist() if np.ptp(bounds) else float(bounds[0])


def _table(dataset: Dataset, columns: Columns) -> pa.Table:
    """One row per step, under the names that are found without being named."""
    import pyarrow as pa

    rows = np.arange(len(dataset))
    episode = np.searchsorted(dataset.episode_starts, rows, side="right") - 1
    named = {"episode": episode, "step": rows - dataset.episode_starts[episode]}
    for name in ("observations", "actions", "next_observations", "allowed_actions"):
        array = getattr(columns, name)
        if array is None:
            continue
        if array.ndim == 1:
            named[name] = array
        else:
            named |= {f"{name}_{i}": array[:, i] for i in range(array.shape[1])}
    for name in ("rewards", "terminals", "timeouts", "cost"):
        if getattr(columns, name) is not None:
            named[name] = getattr(columns, name)
    if columns.behaviour_log_prob is not None:
        named[LOG_PROPENSITY] = columns.behaviour_log_prob
    return pa.table(named)


def _write_minari(dataset: Dataset, columns: Columns, place: str) -> None:
    stops = [*dataset.episode_starts[1:].tolist(), len(dataset)]
    episodes = []
    for start, stop in zip(dataset.episode_starts.tolist(), stops, strict=True):
        log_probs, costs, allowed = columns.behaviour_log_prob, dataset.cost, dataset.allowed_actions
        episodes.append(
            minari.Episode(
                observations=np.concatenate(
                    [dataset.observations[start:stop], dataset.next_observations[stop - 1 : stop]]
                ),
                actions=columns.actions[start:stop],
                rewards=dataset.rewards[start:stop],
                terminal=bool(dataset.terminals[stop - 1]),
                log_probs=None if log_probs is None else log_probs[start:stop],
                costs=None if costs is None else costs[start:stop],
                allowed=None if allowed is None else allowed[start:stop],
            )
        )
    size, action = dataset.spaces.observation_size, dataset.spaces.action_size
    low, high = columns.action_bounds or (-np.ones(action), np.ones(action))
    minari.write(
        place,
        episodes,
        env_id=dataset.environment,
        description=f"segue convert {dataset.source}",
        algorithm="segue convert",
        observation_space=spaces.Box(-np.inf, np.inf, (size,), np.float32),
        action_space=spaces.Discrete(action)
        if dataset.spaces.discrete
        else spaces.Box(low.astype(np.float32), high.astype(np.float32)),
    )
