"""What a bigger log costs: memory with a million transitions, and the time of an update with up to ten million."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.rows import Row
from benchmarks.settings import Settings
from benchmarks.shapes import columns
from benchmarks.turns import Contestant, interleaved, race, rate

GIB = 2**30


def rows(settings: Settings) -> Iterator[Row]:
    """Memory, then time."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "log.npz"
        np.savez(file, **columns(settings.scaled(1_000_000)))
        recipe = {"dataset": f"npz:{file}", "offline": {"name": "sac"}, "offline_steps": 200}
        ((*_, last),) = race([Contestant("runs", 100, json.dumps(recipe))])
    yield Row(name="peak memory, 1M transitions", unit="GiB", ours=last["peak"] / GIB, target=1.5, bound="at most")

    sizes = [10_000, 1_000_000] if settings.quick else [10_000, 1_000_000, 10_000_000]
    core, amount = settings.cores[-1:], settings.scaled(200)
    small, *bigger = interleaved(
        [Contestant("updates", "td3-bc", amount, "--rows", size, cores=core) for size in sizes], settings.turns
    )
    for size, turns in zip(sizes[1:], bigger, strict=True):
        ours, peer = 1e3 / rate(turns), 1e3 / rate(small)
        name = f"td3-bc, {size:,} rows/10,000 rows"
        yield Row(name=name, unit="ms", ours=ours, peer=peer, ratio=ours / peer, target=1.1, bound="at most")
