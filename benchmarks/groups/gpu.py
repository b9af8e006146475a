"""On a GPU: updates per second of each algorithm, and of many seeds in one program against one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

from benchmarks.rows import Row, faster
from benchmarks.settings import Settings
from benchmarks.turns import Contestant, interleaved, rate

SEEDS = (8, 32, 128)
#: What 32 seeds must reach, as a multiple of one seed's throughput.
TARGETS = {32: 16.0}


def rows(settings: Settings) -> Iterator[Row]:
    """One row that says so where there is no GPU."""
    name = device()
    if name is None:
        yield Row(name="GPU", note="there is none (nvidia-smi does not answer)")
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    amount = settings.scaled(2000)
    for algorithm in ("sac", "td3-bc", "iql", "cql", "redq"):
        contestant = Contestant("updates", algorithm, amount, CUDA_VISIBLE_DEVICES=visible)
        (turns,) = interleaved([contestant], settings.turns)
        yield faster(f"{algorithm} on a GPU", rate(turns), None, "updates/s", None, name)
    contestants = [Contestant("seeds", number, amount, CUDA_VISIBLE_DEVICES=visible) for number in (1, *SEEDS)]
    one, *many = interleaved(contestants, settings.turns)
    for number, turns in zip(SEEDS, many, strict=True):
        target = TARGETS.get(number)
        yield faster(f"{number} seeds/one on a GPU", rate(turns), rate(one), "updates/s", target, name)


def device() -> str | None:
    """The GPU's name, if one answers."""
    if shutil.which("nvidia-smi") is None:
        return None
    asked = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    return asked.stdout.strip().splitlines()[0] if asked.returncode == 0 and asked.stdout.strip() else None
