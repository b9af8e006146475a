"""What takes turns: each module is a process of its own (`python -m benchmarks.contestants.NAME ARGUMENTS`).

It is pinned here, before any library counts the cores.
"""

import json
import os

if cores := os.environ.get("BENCHMARK_CORES"):
    os.sched_setaffinity(0, json.loads(cores))
