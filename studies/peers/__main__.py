"""Other libraries' own code on the same data: `python -m studies.peers`.

It needs the environment of `make peers` and the logs of `make data`. Each unit (an arm on a task with one seed) is a
process of its own on one core, and a JSON file in --out; what is there is not run again. All first seeds come before
all second ones.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segue.compiled import visible_cores
from segue.files import write_atomically
from segue.report import decode, learning_curves
from segue.report.measures import arm_measures
from segue.report.text import number
from segue.runner.directory import slug
from studies.logs import LOGS
from studies.page import put
from studies.peers.contestants import CONTESTANTS
from studies.results import compact, tables

HERE = Path(__file__).parent
TASKS = ("hopper-mixed", "halfcheetah-medium-replay")
COLUMNS = ("offline score", "final", "area", "dip")
#: Share of the best arm's final return that is to be reached.
SHARE = 0.9


class Unit(NamedTuple):
    """An arm on a task with one seed."""

    task: str
    arm: str
    seed: int

    def file(self, out: Path) -> Path:
        return out / self.task / f"{slug(self.arm)}-seed-{self.seed}.json"


def main(arguments: Sequence[str] | None = None, page: Path = HERE) -> int:
    """The command; exit code 1 if a unit failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="seeds of every arm (default 3)")
    parser.add_argument("--only", action="append", metavar="TASK", choices=TASKS, help="this task (may be given again)")
    parser.add_argument(
        "--arm", action="append", metavar="ARM", choices=CONTESTANTS, help="this arm (may be given again)"
    )
    parser.add_argument("--core", type=int, default=visible_cores()[0], help="the core that units run on")
    parser.add_argument("--out", type=Path, default=Path("runs/peers"), help="where the units' files go")
    parser.add_argument("--redraw", action="store_true", help="the page from what is there; nothing is run")
    options = parser.parse_args(arguments)
    results = known(page / "results.json")
    failed, waiting = False, []
    for unit in units(options.seeds):
        file = unit.file(options.out)
        if file.exists():
            add(results, unit, json.loads(file.read_text()))
        elif unit.task in (options.only or TASKS) and unit.arm in (options.arm or CONTESTANTS):
            stored = results["arms"].get(label(unit.task, unit.arm), {"seeds": {}})
            waiting += [] if str(unit.seed) in stored["seeds"] else [unit]
    write(results, page)
    if options.redraw:
        return 0
    print(f"{len(waiting)} units to do", flush=True)
    for unit in waiting:
        started, file = time.monotonic(), unit.file(options.out)
        file.parent.mkdir(parents=True, exist_ok=True)
        code = run(unit, file, options.core)
        minutes = (time.monotonic() - started) / 60
        failed |= code != 0
        said = f"failed, see {file.with_suffix('.log')}" if code else "complete"
        print(f"{unit.task}, {unit.arm}, seed {unit.seed} ({minutes:.1f} min): {said}", flush=True)
        if not code:
            add(results, unit, json.loads(file.read_text()))
            write(results, page)
    return int(failed)


def units(seeds: int) -> Iterator[Unit]:
    """All first seeds, then all second ones, …"""
    for seed in range(seeds):
        for arm in CONTESTANTS:
            for task in TASKS:
                yield Unit(task, arm, seed)


def run(unit: Unit, file: Path, core: int) -> int:
    """Do it on one core with one thread; what it prints goes beside its file. Returns the exit code."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "JAX_PLATFORMS": "cpu",
        # Updates run where they are asked for: none is finished in the time of an evaluation, which does not count.
        "JAX_CPU_ENABLE_ASYNC_DISPATCH": "false",
    }
    command = [sys.executable, "-m", "studies.peers.contestants", str(core), *map(str, unit), str(file)]
    with file.with_suffix(".log").open("w") as log:
        return subprocess.run(command, env=environment, stdout=log, stderr=log).returncode


def label(task: str, arm: str) -> str:
    return f"{task}: {arm}"


def known(file: Path) -> dict[str, Any]:
    """The results so far, with the arms in the order of the contestants."""
    stored: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"arms": {}}
    names = [label(task, arm) for task in TASKS for arm in CONTESTANTS]
    return {**stored, "arms": {name: stored["arms"][name] for name in names if name in stored["arms"]}}


def add(results: dict[str, Any], unit: Unit, found: Mapping[str, Any]) -> None:
    """What reports need of a unit."""
    seed = dict(found)
    machine = seed.pop("machine")
    if machine not in results.setdefault("machines", []):
        results["machines"].append(machine)
    dataset, env_id = LOGS[unit.task]
    pretrained = {"name": "pretraining"} if seed["offline_evaluations"] else None
    recipe = {"env": env_id, "dataset": dataset, "offline": pretrained, "online": {"name": unit.arm}}
    arm = results["arms"].setdefault(label(unit.task, unit.arm), {"seeds": {}})
    arm |= {"method": unit.arm, "run": unit.task, "recipe": recipe}
    arm["seeds"][str(unit.seed)] = seed


def write(results: dict[str, Any], page: Path) -> None:
    """results.json, the tables of README.md, and the picture."""
    ordered = {
        name: results["arms"][name]
        for task in TASKS
        for name in (label(task, arm) for arm in CONTESTANTS)
        if name in results["arms"]
    }
    results["arms"] = ordered
    write_atomically(page / "results.json", compact(results))
    if not ordered:
        return
    put(page / "README.md", "results", tables(results, COLUMNS, more=times(results)) + missing(ordered))
    write_atomically(page / "curves.png", learning_curves(decode(results)))


def missing(arms: Mapping[str, Any]) -> str:
    """A line on what has not run."""
    lacking = [label(task, arm) for task in TASKS for arm in CONTESTANTS if label(task, arm) not in arms]
    return f"\nNot run yet: {', '.join(lacking)}.\n" if lacking else ""


def times(results: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Columns of the table: minutes of processor time to the level of each task, and in all."""
    columns: dict[str, dict[str, str]] = {}
    whole: dict[str, str] = {}
    decoded = decode(results).arms
    for task in TASKS:
        of_task = {name: arm["seeds"].values() for name, arm in results["arms"].items() if arm["run"] == task}
        finals = [np.mean([of["final"] for of in arm_measures(decoded[name]).values()]) for name in of_task]
        level = SHARE * float(max(finals, default=math.nan))
        reached = {name: [seconds_to(seed, level) for seed in seeds] for name, seeds in of_task.items()}
        columns[f"minutes to {number(level)}"] = {name: minutes(seconds) for name, seconds in reached.items()}
        whole |= {name: minutes([seconds_to(seed) for seed in seeds]) for name, seeds in of_task.items()}
    return {**columns, "minutes in all": whole}


def seconds_to(seed: Mapping[str, Any], level: float | None = None) -> float:
    """Processor time to the first evaluation, offline or live, that reaches this return (∞ if none), or to the last."""
    every = [*seed["offline_evaluations"], *seed["online_evaluations"]]
    reached = every[-1:] if level is None else [e for e in every if e["mean_return"] >= level]
    return float(reached[0]["processor_s"]) if reached else math.inf


def minutes(seconds: Sequence[float]) -> str:
    """The median over seeds, and their range."""
    low, middle, high = (
        "never" if math.isinf(value) else f"{value / 60:.1f}"
        for value in (min(seconds), np.median(seconds), max(seconds))
    )
    return middle if low == high else f"{middle} ({low}–{high})"


if __name__ == "__main__":
    sys.exit(main())
