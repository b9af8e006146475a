"""A dataset of any size, a million transitions in memory: `python -m benchmarks.big_log FOLDER TRANSITIONS`.

A name that ends in `.parquet` makes one Parquet file, any other the folder of a mapped dataset.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shapes import ACTION, OBSERVATION

#: Transitions of an episode: it has one row more, whose observation is the next one of the last transition.
LENGTH = 500
PER_GROUP = 1_000_000


def columns(transitions: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Random rows of Hopper's shapes, a million at a time, and the number of their first episode."""
    for first in range(0, transitions, PER_GROUP):
        rows, rng = min(PER_GROUP, transitions - first) // LENGTH * (LENGTH + 1), np.random.default_rng(first)
        yield (
            first // LENGTH,
            {
                "observations": rng.standard_normal((rows, OBSERVATION), np.float32),
                "actions": np.tanh(rng.standard_normal((rows, ACTION), np.float32)),
                "rewards": rng.standard_normal(rows, np.float32),
                "terminals": np.zeros(rows, bool),
            },
        )


def parts(transitions: int) -> Iterator[Any]:
    """The same as datasets."""
    from segue.data import load

    for _, part in columns(transitions):
        yield load({**part, "timeouts": np.arange(len(part["rewards"])) % (LENGTH + 1) == LENGTH})


def write_parquet(path: Path, transitions: int) -> None:
    """The same as one Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet

    writer = None
    for episode, part in columns(transitions):
        number = np.arange(len(part["rewards"]), dtype=np.int32)
        named = {"episode": number // (LENGTH + 1) + episode, "step": number % (LENGTH + 1)}
        for name, column in part.items():
            named |= {name: column} if column.ndim == 1 else {f"{name}_{i}": one for i, one in enumerate(column.T)}
        table = pa.table(named)
        writer = writer or pa.parquet.ParquetWriter(path, table.schema, compression="none", use_dictionary=["episode"])
        writer.write_table(table)
    if writer is not None:
        writer.close()


def main() -> None:
    from segue.data import mapped

    path, transitions = Path(sys.argv[1]), int(sys.argv[2])
    if path.suffix == ".parquet":
        write_parquet(path, transitions)
    else:
        mapped.write(path, parts(transitions))


if __name__ == "__main__":
    main()
