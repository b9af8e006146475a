"""How much of one core's matrix-product rate the counted operations of an update reach."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.operations import PER_UPDATE
from benchmarks.rows import Row
from benchmarks.settings import Settings
from benchmarks.turns import Contestant, interleaved, rate


def rows(settings: Settings) -> Iterator[Row]:
    """One row per algorithm; the limit is measured in turn with them, on the same core."""
    core = settings.cores[-1:]
    commands = [("matmul",), *(("updates", name, settings.scaled(200)) for name in PER_UPDATE)]
    limit, *updates = interleaved([Contestant(*command, cores=core) for command in commands], settings.turns)
    for (name, operations), turns in zip(PER_UPDATE.items(), updates, strict=True):
        ours, peer = rate(turns) * operations / 1e9, rate(limit) / 1e9
        by_cpu = rate(turns, "cpu") * operations / rate(limit, "cpu")
        yield Row(
            name=f"{name}/matmul rate of a core",
            unit="GFLOP/s",
            ours=ours,
            peer=peer,
            ratio=ours / peer,
            target=0.8,
            note=f"{operations / 1e6:.0f} MFLOP an update; by processor time {by_cpu:.0%}",
        )
