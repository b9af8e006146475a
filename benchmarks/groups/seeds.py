"""Two seeds on two cores against one seed on one: what the second costs the first."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benchmarks.rows import Row
from benchmarks.settings import Settings
from benchmarks.turns import Contestant


def rows(settings: Settings) -> Iterator[Row]:
    """The throughput of two pinned processes, as a multiple of one's."""
    if len(settings.cores) < 2:
        yield Row(name="two seeds on two cores", note="there is one core")
        return
    amount = settings.scaled(400)
    first, second = (Contestant("updates", "sac", amount, cores=[core]) for core in settings.cores[:2])
    alone, together = [], []
    try:
        for contestant in (first, second):
            contestant.prepare()
        for _ in range(settings.turns):
            turn = first.turn()
            alone.append(turn["units"] / turn["seconds"])
            for contestant in (first, second):
                contestant.start()
            turns = first.finish(), second.finish()
            together.append(sum(turn["units"] for turn in turns) / max(turn["seconds"] for turn in turns))
    finally:
        for contestant in (first, second):
            contestant.close()
    ours, one = statistics.median(together), statistics.median(alone)
    yield Row(name="two seeds on two cores", unit="updates/s", ours=ours, peer=one, ratio=ours / one, target=1.9)
