"""Updates per second of one learner with every core, against the peers; of every other algorithm without any."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.rows import Row, faster
from benchmarks.settings import Settings
from benchmarks.turns import Contestant, interleaved, rate

#: Algorithm, peer's name, its contestant, updates per turn, target.
AGAINST = (
    ("sac", "sbx", ("sb_updates", "sbx"), 100, 1.2),
    ("sac", "sb3", ("sb_updates", "sb3"), 100, 2.3),
    ("td3-bc", "d3rlpy", ("d3rlpy_updates", "TD3PlusBC"), 100, 3.0),
    ("iql", "d3rlpy", ("d3rlpy_updates", "IQL"), 100, 2.5),
    ("awac", "d3rlpy", ("d3rlpy_updates", "AWAC"), 100, 2.5),
    ("cql", "d3rlpy", ("d3rlpy_updates", "CQL"), 10, 1.8),
    ("cal-ql", "d3rlpy", ("d3rlpy_updates", "CalQL"), 10, 1.8),
)
ALONE = (("rebrac", 100), ("bc", 200), ("bcq", 20), ("edac", 20), ("sac-n", 20), ("td3", 100), ("redq", 40))
UNIT = "updates/s"


def rows(settings: Settings) -> Iterator[Row]:
    """One row per algorithm and peer."""
    for algorithm in dict.fromkeys(name for name, *_ in AGAINST):
        rivals = [entry for entry in AGAINST if entry[0] == algorithm]
        amount = settings.scaled(rivals[0][3])
        contestants = [Contestant("updates", algorithm, amount)]
        if settings.peers is not None:
            contestants += [Contestant(*command, amount, python=settings.peers) for _, _, command, *_ in rivals]
        ours, *theirs = interleaved(contestants, settings.turns)
        for i, (_, peer, _, _, target) in enumerate(rivals):
            measured = rate(theirs[i]) if theirs else None
            note = "" if theirs else "the peers are not installed (make bench-peers)"
            yield faster(f"{algorithm}/{peer}", rate(ours), measured, UNIT, target, note)
    for algorithm, amount in ALONE:
        (ours,) = interleaved([Contestant("updates", algorithm, settings.scaled(amount))], max(settings.turns // 2, 1))
        yield faster(algorithm, rate(ours), None, UNIT, None)
