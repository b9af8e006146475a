"""Trials that differ in a number as one program, against one after the other on the same core."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.rows import Row, faster
from benchmarks.settings import Settings
from benchmarks.turns import Contestant, interleaved, rate

TRIALS = 8
#: Algorithm, width of its hidden layers, and updates of a trial in a turn.
CASES = (("td3-bc", 64, 200), ("td3-bc", 256, 40), ("iql", 64, 100), ("iql", 256, 40))


def rows(settings: Settings) -> Iterator[Row]:
    """The updates per second of all trials, by case; what one trial has alone, trials have one after the other."""
    core = settings.cores[:1]
    for name, width, updates in CASES:
        amount, widths = settings.scaled(updates), ("--set", f"hidden_sizes=({width},{width})")
        together = Contestant("updates", name, amount, "--trials", TRIALS, *widths, cores=core)
        alone = Contestant("updates", name, amount * TRIALS, *widths, cores=core)
        ours, peer = map(rate, interleaved([together, alone], settings.turns))
        yield faster(f"{name} {width}-{width}, {TRIALS} trials/one by one", ours, peer, "updates/s", None)
