"""`python -m benchmarks.against CHECKOUT`: this version against another one, in turns, with the same libraries.

CHECKOUT is a folder with another version (`git worktree add ../before 1e621ef`). Ratios are of processor time, this
version's speed over the other's: 0.97 is 3 % slower. Each version runs its own contestants (`benchmarks/contestants`).
What cannot be measured is a row that says why.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.rows import HEADER, Row, faster, line, sooner
from benchmarks.turns import ROOT, Contestant, Failed, interleaved, race, rate

#: Algorithm, updates per turn.
UPDATES = (
    *(("bc", 400), ("bcq", 40), ("td3-bc", 200), ("rebrac", 100), ("iql", 200), ("awac", 200), ("cql", 20)),
    *(("cal-ql", 20), ("sac-n", 20), ("edac", 20), ("sac", 200), ("td3", 200), ("redq", 40), ("rlpd", 40)),
)
GROUPS = ("start", "updates", "runs")
LAP, STEPS = 500, 4_000
RUNS: dict[str, dict[str, object]] = {
    "online TD3+BC": {"dataset": "segue:hopper-mixed", "offline": {"name": "td3-bc"}, "offline_steps": LAP}
    | {"online": {"name": "td3-bc"}},
    "online SAC": {"online": {"name": "sac"}},
    "online PPO": {"online": {"name": "ppo"}},
}


def rows(other: Path, turns: int, groups: Sequence[str]) -> Iterator[Row]:
    """The rows of these groups."""
    if "start" in groups:
        for code in ("import segue", "import segue; segue.run"):
            yield measured(code, partial(imports, code, other, turns))
    for name, amount in UPDATES if "updates" in groups else ():
        yield measured(name, partial(updates, name, amount, other, turns))
    for name, recipe in RUNS.items() if "runs" in groups else ():
        yield measured(name, partial(steps, name, recipe, other))


def measured(name: str, measure: Callable[[], Row]) -> Row:
    """The row, or one that says why there is none."""
    try:
        return measure()
    except (Failed, subprocess.CalledProcessError) as error:
        return Row(name=name, note=str(error))
    except (KeyError, statistics.StatisticsError):
        return Row(name=name, note="the other version does not report its processor time, or no whole turn")


def imports(code: str, other: Path, turns: int) -> Row:
    """Processor seconds of a fresh process, after one that reads the files."""
    both = ROOT, other
    with tempfile.TemporaryDirectory() as compiled:
        for checkout in both:
            spent(code, checkout, compiled)
        seconds = [[spent(code, checkout, compiled) for checkout in both] for _ in range(turns)]
    ours, theirs = (statistics.median(column) for column in zip(*seconds, strict=True))
    return sooner(code, ours, theirs, "s", None)


def spent(code: str, checkout: Path, compiled: str) -> float:
    """Processor seconds of a Python process that runs this; `compiled` keeps bytecode, so nothing is written there."""
    before = sum(os.times()[2:4])
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "PYTHONPYCACHEPREFIX": compiled}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=checkout, env=environment)
    return sum(os.times()[2:4]) - before


def updates(name: str, amount: int, other: Path, turns: int) -> Row:
    """Updates per second of processor time."""
    pair = [Contestant("updates", name, amount, checkout=checkout) for checkout in (ROOT, other)]
    ours, theirs = interleaved(pair, turns)
    return faster(name, rate(ours, "cpu"), rate(theirs, "cpu"), "updates/s", None)


def steps(name: str, recipe: dict[str, object], other: Path) -> Row:
    """Live steps with their updates, per second of processor time; without evaluations and the warm-up."""
    whole = {"env": "Hopper-v5", "online_steps": STEPS, "warmup_steps": LAP, "eval_every": 10**9, "eval_episodes": 1}
    pair = [Contestant("runs", LAP, json.dumps({**whole, **recipe}), checkout=checkout) for checkout in (ROOT, other)]
    ours, theirs = ([turn for turn in turns if turn.get("phase") == "online"][2:] for turns in race(pair))
    return faster(name, rate(ours, "cpu"), rate(theirs, "cpu"), "steps/s", None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="a folder with the other version")
    parser.add_argument("groups", nargs="*", default=list(GROUPS), help=", ".join(GROUPS))
    parser.add_argument("--turns", type=int, default=7, help="turns of each version in start and updates (7)")
    flags = parser.parse_args()
    other = flags.checkout.resolve()
    if unknown := set(flags.groups) - set(GROUPS):
        parser.error(f"unknown group {', '.join(unknown)}; expected {', '.join(GROUPS)}")
    if flags.turns < 1:
        parser.error(f"--turns is {flags.turns}; expected at least 1")
    for folder in ("benchmarks/contestants", "src/segue"):
        if not (other / folder).is_dir():
            parser.error(f"{flags.checkout} is no checkout of Segue: it has no folder {folder}")
    print(HEADER.replace("ours", "this").replace("peer", "other"))
    for row in rows(other, flags.turns, flags.groups):
        print(line(row), flush=True)


if __name__ == "__main__":
    main()
