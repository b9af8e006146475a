"""Kills runs at random instants and compares what they come to with runs that nothing disturbed.

Three kinds of instant: any (a clock in another process), inside the writing of a state, checkpoint or result (at one of
its file operations), and at a phase boundary (an operation of the end of one phase or the start of the next). A run is
killed several times, and then left to end. The killed process is a fork of this one, so that each attempt begins
without the seconds that imports take; nothing of a run is in memory before the fork.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from studies.reliability.scenarios import NAMES, essence, scenarios

HERE = Path(__file__).parent
KINDS = ("any instant", "inside a save", "phase boundary")
#: File operations of which one may be the last.
OPERATIONS = ("replace", "fsync", "mkdir", "rmdir", "unlink")
#: Names in paths that are written at the end of a phase or the start of the next.
BOUNDARY = ("final", "result.json", "summary.json", "recipe.json", "provenance.json", "latest", "metrics.csv")


def attempt(name: str, out: Path, every: float, prepare: Callable[[], None] = lambda: None) -> int:
    """The process id of a fork that does the run of this scenario, or goes on with it."""
    child = os.fork()
    if child:
        return child
    code = 1
    with (out.parent / "child.log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            code = _run(name, out, every, prepare)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
    os._exit(code)


def _run(name: str, out: Path, every: float, prepare: Callable[[], None]) -> int:
    import jax

    import segue.runner

    jax.config.update("jax_compilation_cache_dir", str(out.parent / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    segue.runner.write_report = lambda directory: directory / "report.html"  # takes longer than the run
    recipe = scenarios()[name]  # here and not before the fork, which JAX's threads would not survive
    prepare()
    result = segue.runner.run(recipe, out, workers=1, checkpoint_every=every)
    print(result.status, [seed["error"] for seed in result.summary["arms"]["run"]["seeds"].values()], flush=True)
    return 0 if result.status == "complete" else 3


def at_operation(number: int, only_boundary: bool) -> Callable[[], None]:
    """In the fork: the process kills itself at this file operation, counted from the start."""

    def prepare() -> None:
        counted = [0]

        def fatal(call: Any) -> Any:
            def operation(*given: Any, **options: Any) -> Any:
                text = " ".join(map(str, given))
                if not only_boundary or any(name in text for name in BOUNDARY):
                    counted[0] += 1
                if counted[0] == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*given, **options)

            return operation

        for name in OPERATIONS:
            setattr(os, name, fatal(getattr(os, name)))

    return prepare


def ended(child: int, within: float | None = None) -> int | None:
    """The exit status of the fork, once it has ended; None if it still runs after so many seconds."""
    deadline = None if within is None else time.monotonic() + within
    while True:
        done, status = os.waitpid(child, os.WNOHANG if deadline else 0)
        if done:
            return status
        if deadline is not None and time.monotonic() >= deadline:
            return None
        time.sleep(0.002)


def outcome(out: Path) -> dict[str, Any]:
    """What must be the same."""
    summary = json.loads((out / "summary.json").read_text())
    return {
        **essence(summary),
        "metrics": hashlib.sha256((out / "metrics.csv").read_bytes()).hexdigest(),
        "transitions": transitions(out),
    }


def transitions(out: Path) -> dict[str, Any]:
    """How many live transitions the states hold, and a hash of all their numbers in their order."""
    from segue.runner.state_store import StateStore

    found: dict[str, Any] = {}
    for place in sorted(out.glob("states/run/seed-*")):
        state, notes = StateStore(place).newest(lambda plain: None) if not _ring(place) else (None, [])
        assert not notes, notes
        if state is not None and state.rows:
            digest = hashlib.sha256()
            for name, column in sorted(state.rows.items()):
                digest.update(name.encode() + column.tobytes())
            found[place.name] = {"count": len(state.rows["reward"]), "sha256": digest.hexdigest()}
    return found


def _ring(place: Path) -> bool:
    """Whether older transitions have been dropped, as the ring did."""
    first = sorted((place / "rows").glob("*.safetensors"))
    return bool(first) and not first[0].name.startswith("000000000000-")


def kill_again_and_again(
    name: str, out: Path, times: int, span: float, operations: dict[str, int], draw: random.Random
) -> Iterator[str]:
    """Runs, killing it so many times; yields the kind of each kill."""
    for _ in range(times):
        kind = draw.choice(KINDS)
        every = draw.choice((0.0, 0.05, 0.5))
        if kind == "any instant":
            child = attempt(name, out, every)
            status = ended(child, draw.uniform(0.0, span))
            if status is None:
                os.kill(child, signal.SIGKILL)
                status = ended(child)
        else:
            number = draw.randint(1, operations[kind])
            child = attempt(name, out, every, at_operation(number, kind == "phase boundary"))
            status = ended(child)
        assert status is not None
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            yield kind
        elif status != 0:
            raise AssertionError(f"{out}: ended with {status}\n{(out.parent / 'child.log').read_text()[-2000:]}")
        else:
            return  # it was done before its time had come
    status = ended(attempt(name, out, 0.5))
    if status != 0:
        raise AssertionError(f"{out}: ended with {status}\n{(out.parent / 'child.log').read_text()[-2000:]}")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m studies.reliability kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="how many in all")
    parser.add_argument("--per-run", type=int, default=4, help="kills of one run before it is left to end")
    parser.add_argument("--only", nargs="*", help="names of scenarios")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--results", type=Path, default=HERE / "kill.json")
    flags = parser.parse_args(arguments)
    chosen = flags.only or NAMES
    draw = random.Random(flags.seed)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="segue-kill-") as scratch:
        for number, name in enumerate(chosen):
            wanted = flags.kills // len(chosen) + (number < flags.kills % len(chosen))
            place = Path(scratch) / name
            place.mkdir()
            start = time.monotonic()
            for at in ("warm", "whole"):  # the first one fills the cache of compiled programs
                assert ended(attempt(name, place / at, 0.5)) == 0, (place / "child.log").read_text()
                span, start = time.monotonic() - start, time.monotonic()
            expected = outcome(place / "whole")
            operations = {"inside a save": 120, "phase boundary": 12}
            kinds: Counter[str] = Counter()
            identical = different = 0
            while sum(kinds.values()) < wanted:
                out = place / "x"
                shutil.rmtree(out, ignore_errors=True)
                times = min(flags.per_run, wanted - sum(kinds.values()))
                kinds.update(kill_again_and_again(name, out, times, span, operations, draw))
                same = outcome(out) == expected
                identical, different = identical + same, different + (not same)
                if not same:
                    shutil.copytree(out, HERE / f"different-{name}-{different}", dirs_exist_ok=True)
            counted = expected["transitions"].get("seed-0", {}).get("count")
            results[name] = {
                "kills": dict(kinds),
                "runs": identical + different,
                "identical": identical,
                "different": different,
                "transitions": counted,
                "seconds": round(span, 1),
            }
            print(name, results[name], flush=True)
            total = {
                "kills": sum(sum(result["kills"].values()) for result in results.values()),
                "runs": sum(result["runs"] for result in results.values()),
                "different": sum(result["different"] for result in results.values()),
            }
            whole = {"seed": flags.seed, "total": total, "scenarios": results}
            flags.results.write_text(json.dumps(whole, indent=1) + "\n")
    print(total)
