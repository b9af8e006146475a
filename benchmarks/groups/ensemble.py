"""Ten critics in one ensemble against ten critics in a loop."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.rows import Row, faster
from benchmarks.settings import Settings
from benchmarks.turns import Contestant, interleaved, rate


def rows(settings: Settings) -> Iterator[Row]:
    """One row per algorithm."""
    core = settings.cores[-1:]
    for name, amount in (("sac", 20), ("redq", 40), ("rlpd", 40)):
        updates = settings.scaled(amount)
        ensemble = Contestant("updates", name, updates, "--set", "ensemble_size=10", cores=core)
        loop = Contestant("separate_critics", name, updates, cores=core)
        ours, theirs = interleaved([ensemble, loop], settings.turns)
        yield faster(f"{name} of ten critics/a loop", rate(ours), rate(theirs), "updates/s", 1.0, "pinned to one core")
