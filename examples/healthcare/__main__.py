"""`python -m examples.healthcare`: cautious online updates in ICU-Sepsis; needs the extra `healthcare`.

Repetitions are kept in results.json, and those that it has are not done again. It then writes the table and the picture
of README.md.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from examples.healthcare.cautious import ARMS, Plan, repeat
from examples.healthcare.page import draw, write
from examples.healthcare.world import World
from segue.files import write_atomically

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
#: Repetitions of the arm that is claimed something of, and of the others.
CLAIMED, OTHERS = 200, 40


@functools.cache
def world() -> World:
    """Of this process."""
    return World()


def one(job: tuple[str, int]) -> dict[str, Any]:
    """A repetition."""
    return repeat(world(), *job, Plan())


def missing(results: dict[str, Any], full: bool) -> Iterator[tuple[str, int]]:
    """Arms and seeds that are still to do."""
    for arm in ARMS:
        done = {found["seed"] for found in results["arms"].get(arm, [])}
        for seed in range(CLAIMED if full or arm == "cautious" else OTHERS):
            if seed not in done:
                yield arm, seed


def main() -> None:
    """Do what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help=f"{CLAIMED} repetitions of every arm")
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 2), help="processes")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where results are kept, and the page beside them")
    arguments = parser.parse_args()
    out: Path = arguments.out
    results = json.loads(out.read_text()) if out.exists() else {"arms": {}}
    results |= {"clinician": world().clinician_value, "optimal": world().optimal_value, "plan": vars(Plan())}
    jobs, started = list(missing(results, arguments.full)), time.monotonic()
    with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:
        for number, ((arm, seed), found) in enumerate(zip(jobs, pool.map(one, jobs), strict=True), 1):
            results["arms"].setdefault(arm, []).append(found)
            print(f"{time.monotonic() - started:.0f} s: {number} of {len(jobs)}: {arm}, seed {seed}", flush=True)
            if number % 10 == 0 or number == len(jobs):
                write_atomically(out, json.dumps(results) + "\n")
    draw(results, out.with_name("survival.png"))
    if out == RESULTS:
        write(results, HERE / "README.md")


if __name__ == "__main__":
    main()
