"""A dataset of any size as one Parquet file: `python -m benchmarks.big_log FILE TRANSITIONS`, a million in memory."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from benchmarks.shapes import ACTION, OBSERVATION

#: Transitions of an episode: it has one row more, whose observation is the next one of the last transition.
LENGTH = 500
PER_GROUP = 1_000_000


def write(path: Path, transitions: int) -> None:
    """Random transitions of Hopper's shapes in episodes of 500, cut by a time limit."""
    import pyarrow as pa
    import pyarrow.parquet

    writer = None
    for first in range(0, transitions, PER_GROUP):
        episodes = min(PER_GROUP, transitions - first) // LENGTH
        rows, rng = episodes * (LENGTH + 1), np.random.default_rng(first)
        observations = rng.standard_normal((OBSERVATION, rows), np.float32)
        actions = np.tanh(rng.standard_normal((ACTION, rows), np.float32))
        table = pa.table(
            {
                "episode": np.repeat(np.arange(episodes, dtype=np.int32) + first // LENGTH, LENGTH + 1),
                "step": np.tile(np.arange(LENGTH + 1, dtype=np.int16), episodes),
                **{f"observations_{i}": column for i, column in enumerate(observations)},
                **{f"actions_{i}": column for i, column in enumerate(actions)},
                "rewards": rng.standard_normal(rows, np.float32),
                "terminals": np.zeros(rows, bool),
            }
        )
        if writer is None:
            writer = pa.parquet.ParquetWriter(
                path, table.schema, compression="none", use_dictionary=["episode", "step"]
            )
        writer.write_table(table)
    if writer is not None:
        writer.close()


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
