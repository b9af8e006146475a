"""What a bigger log costs: memory with a million transitions, and the time of an update with up to ten million; from
disk, both with up to a hundred million (`--full`)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.rows import Row
from benchmarks.settings import Settings
from benchmarks.shapes import columns
from benchmarks.turns import ROOT, Contestant, interleaved, race, rate

GIB = 2**30
#: Of a transition of Hopper's shapes on disk.
BYTES = 62


def rows(settings: Settings) -> Iterator[Row]:
    """Memory, then time."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "log.npz"
        np.savez(file, allow_pickle=False, **columns(settings.scaled(1_000_000)))
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
    yield from from_disk(settings)


def from_disk(settings: Settings) -> Iterator[Row]:
    """A mapped dataset against a million transitions in memory, on the same cores: both clocks, and peak memory."""
    sizes = [1_000_000, 10_000_000, 100_000_000][: 3 if settings.full else 1 if settings.quick else 2]
    amount = settings.scaled(200)
    for size in sizes:
        with tempfile.TemporaryDirectory() as directory:
            folder = Path(directory) / "log"
            if shutil.disk_usage(directory).free < 1.2 * size * BYTES:
                yield Row(name=f"from disk, {size:,} rows", note=f"needs {size * BYTES / GIB:.0f} GiB of disk")
                return
            subprocess.run([sys.executable, "-m", "benchmarks.big_log", folder, str(size)], cwd=ROOT, check=True)
            yield from against_memory(folder, size, amount, settings)


def against_memory(folder: Path, size: int, amount: int, settings: Settings) -> Iterator[Row]:
    """Updates of a mapped dataset against those of a million transitions in memory."""
    for algorithm in ("td3-bc", "sac"):
        contestants = [
            Contestant("updates", algorithm, amount, "--mapped", folder),
            Contestant("updates", algorithm, amount, "--rows", 1_000_000),
        ]
        disk, memory = interleaved(contestants, settings.turns)
        name = f"{algorithm} from disk, {size:,} rows/memory"
        for clock, what in (("seconds", ""), ("cpu", ", processor time")):
            ours, peer = 1e3 / rate(disk, clock), 1e3 / rate(memory, clock)
            yield Row(name=name + what, unit="ms", ours=ours, peer=peer, ratio=ours / peer, target=1.3, bound="at most")
        peak = max(turn["peak"] for turn in disk) / GIB
        yield Row(name=f"peak memory, {name}", unit="GiB", ours=peak, target=4.0, bound="at most")
