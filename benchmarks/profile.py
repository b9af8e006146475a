"""Where the time of an update goes: `python -m benchmarks.profile ALGORITHM [UPDATES]`, pinned to the last core.

Each operation of the compiled update, with its shape and where it comes from. A time is the tenth percentile over the
updates, so that what else the machine does counts little.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

LISTED = 40


def main() -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    directory = Path(tempfile.mkdtemp())
    dump = f"--xla_dump_to={directory} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=.*run_updates.*"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {dump}"
    import jax

    from benchmarks.contestants.updates import Updates, transitions
    from segue.algorithms import ALGORITHMS

    name, amount = sys.argv[1], int(sys.argv[2] if len(sys.argv) > 2 else 100)
    updates = Updates(ALGORITHMS[name](), amount, transitions(100_000))
    updates.run()
    with jax.profiler.trace(str(directory / "trace")):
        updates.run()
    (trace,) = directory.glob("trace/**/*.xplane.pb")
    durations: dict[str, list[float]] = defaultdict(list)
    for plane in jax.profiler.ProfileData.from_file(str(trace)).planes:
        for event in (event for line in plane.lines for event in line.events):
            if "hlo_op" in dict(event.stats):
                durations[event.name].append(event.duration_ns / 1e3)
    # The scan over the updates is an operation too, and holds all others.
    costs = {
        operation: sorted(times)[len(times) // 10] * len(times) / updates.updates
        for operation, times in durations.items()
        if len(times) > 1
    }
    kinds = {"matrix products": ("ynn_fusion", "dot"), "random numbers": ("while",)}
    for kind, prefixes in kinds.items():
        print(f"{sum(cost for operation, cost in costs.items() if operation.startswith(prefixes)):9.1f} µs  {kind}")
    print(f"{sum(costs.values()):9.1f} µs  in all, {len(costs)} operations an update\n")
    source = origins(max(directory.glob("*after_optimizations.txt"), key=lambda path: path.stat().st_size).read_text())
    for operation, cost in sorted(costs.items(), key=lambda item: -item[1])[:LISTED]:
        print(f"{cost:9.1f} µs  {operation:<32}{source.get(operation, '')}")


def origins(program: str) -> dict[str, str]:
    """Shape and place in the source of each operation."""
    pattern = re.compile(r'%?([\w.\-]+) = (\S+?)[{ ].*op_name="([^"]*)"')
    return {match[1]: f"{match[2]:<16}{match[3][-60:]}" for match in pattern.finditer(program)}


if __name__ == "__main__":
    main()
