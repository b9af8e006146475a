"""`python -m examples.healthcare`: cautious online updates in ICU-Sepsis; needs the extra `healthcare`.

Repetitions are kept in results.json under --out, and those that it has are not done again. The tables are printed, and
the picture lies beside the results. With --out examples/healthcare the page beside this file is written, too.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

from examples.healthcare.cautious import ARMS, Plan, one, world
from examples.healthcare.page import draw, tables
from studies.command import claim, ended, not_negative, parsed, positive
from studies.page import put
from studies.processes import pool

from segue.files import write_atomically

HERE = Path(__file__).parent
#: Repetitions of the arm that is claimed something of, and of the others, which have at most as many.
CLAIMED, OTHERS = 200, 10


def missing(results: dict[str, Any], first: int, claimed: int, full: bool) -> Iterator[tuple[str, int]]:
    """Arms and seeds that are still to do, from the first seed on."""
    done = {(arm, found["seed"]) for arm, repetitions in results["arms"].items() for found in repetitions}
    for seed in range(first, first + claimed):
        for arm in ARMS:
            if (full or arm == "cautious" or seed < first + OTHERS) and (arm, seed) not in done:
                yield arm, seed


def main(given: Sequence[str] | None = None) -> int:
    """The command, which ends with this exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.healthcare", description=__doc__)
    parser.add_argument("--full", action="store_true", help="every arm as often as the cautious one")
    parser.add_argument(
        "--seed", type=not_negative, default=0, help="of the first repetition; the others count up from it"
    )
    parser.add_argument("--repetitions", type=positive, default=CLAIMED, help="of the cautious arm")
    parser.add_argument("--workers", type=positive, default=min(os.cpu_count() or 1, 2), help="processes")
    parser.add_argument("--out", type=Path, default=Path("runs/healthcare"), help="results.json and picture")
    arguments = parsed(parser, given)
    return ended(lambda: go(arguments))


def go(arguments: argparse.Namespace) -> int:
    """Do what is missing, then write the page."""
    claim(arguments.out, {"seed": arguments.seed, "plan": vars(Plan())})
    out: Path = arguments.out / "results.json"
    results = json.loads(out.read_text()) if out.exists() else {"arms": {}}
    results |= {"clinician": world().clinician_value, "optimal": world().optimal_value, "plan": vars(Plan())}
    jobs, started = list(missing(results, arguments.seed, arguments.repetitions, arguments.full)), time.monotonic()
    there = sum(map(len, results["arms"].values()))
    print(f"{len(jobs)} repetitions to do; {out} has {there}", flush=True)
    with pool(arguments.workers) as workers:
        waiting = {workers.submit(one, job): job for job in jobs}
        for number, done in enumerate(as_completed(waiting), 1):
            arm, seed = waiting[done]
            found = [*results["arms"].get(arm, []), done.result()]
            results["arms"][arm] = sorted(found, key=lambda repetition: repetition["seed"])
            write_atomically(out, json.dumps(results) + "\n")
            print(f"{time.monotonic() - started:.0f} s: {number} of {len(jobs)}: {arm}, seed {seed}", flush=True)
    draw(results, out.with_name("survival.png"))
    for name, text in tables(results).items():
        print(text, end="\n\n")
        if arguments.out.resolve() == HERE:
            put(HERE / "README.md", name, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
