"""How much of the matrix-product rate the counted operations of an update reach, on one core and on all together."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.operations import PER_UPDATE
from benchmarks.rows import Row
from benchmarks.settings import Settings
from benchmarks.turns import Contestant, interleaved, rate


def rows(settings: Settings) -> Iterator[Row]:
    """One row per algorithm and number of cores; the limit is one core's rate, measured in turn, times the cores."""
    core, every = settings.cores[-1:], settings.cores
    updates = [("updates", name, settings.scaled(200)) for name in PER_UPDATE]
    limit, *turns = interleaved(
        [
            Contestant("matmul", cores=core),
            *(Contestant(*command, cores=cores) for cores in (core, every) for command in updates),
        ],
        settings.turns,
    )
    for cores, of, target in ((core, "a core", 0.8), (every, "all cores", 0.82)):
        for name, operations in PER_UPDATE.items():
            taken = turns.pop(0)
            ours, peer = rate(taken) * operations / 1e9, rate(limit) * len(cores) / 1e9
            yield Row(
                name=f"{name}/matmul rate of {of}",
                unit="GFLOP/s",
                ours=ours,
                peer=peer,
                ratio=ours / peer,
                target=target,
                note=f"{operations / 1e6:.0f} MFLOP an update",
            )
