"""What the studies share: a grid of tasks, arms and seeds that is run as far as there is time, and its page.

A study hands in its recipes by task and arm. Every seed of the arms that share an offline phase is a run directory of
its own, named by the recipes in it: what is there is not run again, what has changed is, and a study grows run by run.
All first seeds come before all second ones, so an interrupted study is thin rather than one-sided. `results.json`
(every evaluation of every seed, the recipes and their hashes, version and machine), the tables of README.md and the
pictures are written after every run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import segue
from segue.compiled import visible_cores
from segue.runner.directory import slug
from segue.runner.jobs import OFFLINE_FIELDS
from studies.results import Arms, Study, add, digest, known, write


@dataclasses.dataclass(frozen=True)
class Unit:
    """Arms of one task that share an offline phase, with one seed: one run directory."""

    task: str
    directory: Path
    arms: Arms


def main(study: Study, description: str | None, arguments: Sequence[str] | None = None) -> int:
    """The command of a study; exit code 1 if a run failed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--full", action="store_true", help="the whole grid, for a bigger machine")
    parser.add_argument("--only", action="append", metavar="TASK", help="this task (may be given again)")
    parser.add_argument("--arm", action="append", metavar="ARM", help="this arm (may be given again)")
    parser.add_argument("--workers", type=int, help="processes, one run each at a time; by default one per core")
    parser.add_argument("--out", type=Path, help="where runs go, and with --full the results too")
    parser.add_argument(
        "--missing", action="store_true", help="only what results.json lacks, also without run directories"
    )
    parser.add_argument("--redraw", action="store_true", help="the page from what is there; nothing is run")
    options = parser.parse_args(arguments)
    out = options.out or Path("runs") / (study.folder.name + ("-full" if options.full else ""))
    place = out if options.full else study.folder
    # The studies compare scores of live episodes, as publications do, and judge no policy by its dataset.
    tasks = {
        task: {name: dataclasses.replace(recipe, held_out=0.0) for name, recipe in arms.items()}
        for task, arms in study.tasks(options.full).items()
    }
    for name in options.only or ():
        if name not in tasks:
            parser.error(f"--only {name}: there is {', '.join(tasks)}")
    wanted = {task: arms for task, arms in tasks.items() if task in (options.only or tasks)}
    for name in options.arm or ():
        if not any(name in arms for arms in wanted.values()):
            parser.error(
                f"--arm {name}: there is {', '.join(dict.fromkeys(a for arms in wanted.values() for a in arms))}"
            )
    if options.arm:
        wanted = {task: {a: r for a, r in arms.items() if a in options.arm} for task, arms in wanted.items()}
    results = known(place / "results.json", tasks)
    waiting = []
    for unit in units(wanted, out):
        summary = _finished(unit)
        if summary is not None:
            add(results, unit.task, summary)
        elif not (options.missing and _stored(unit, results)):
            waiting.append(unit)
    write(study, results, place)
    if options.redraw:
        return 0
    print(f"{len(waiting)} runs to do", flush=True)
    failed = False
    for unit, found, seconds in _run(waiting, options.workers or len(visible_cores())):
        label = f"{unit.directory.relative_to(out)} ({len(unit.arms)} arms, {seconds / 60:.1f} min)"
        if isinstance(found, Exception):
            failed = True
            print(f"{label}: {found}", flush=True)
            continue
        failed |= found["status"] != "complete"
        print(f"{label}: {found['status']}", flush=True)
        add(results, unit.task, found)
        write(study, results, place)
    return int(failed)


def units(tasks: Mapping[str, Arms], out: Path) -> Iterator[Unit]:
    """All first seeds, then all second ones, …"""
    most = max(recipe.seeds for arms in tasks.values() for recipe in arms.values())
    for index in range(most):
        for task, arms in tasks.items():
            groups: dict[str, dict[str, segue.Recipe]] = defaultdict(dict)
            for arm, recipe in arms.items():
                if index < recipe.seeds:
                    plain = recipe.to_dict()
                    offline = json.dumps([plain[field] for field in OFFLINE_FIELDS], sort_keys=True)
                    key = offline if plain["offline"] else "none"
                    groups[key][arm] = dataclasses.replace(recipe, seed=recipe.seed + index, seeds=1)
            for group in groups.values():
                seed = next(iter(group.values())).seed
                name = digest({arm: recipe.to_dict() for arm, recipe in group.items()})
                yield Unit(task, out / slug(task) / f"{name[:8]}-seed-{seed}", group)


def _run(waiting: Sequence[Unit], workers: int) -> Iterator[tuple[Unit, dict[str, Any] | Exception, float]]:
    """Each unit with its summary, or with what went wrong, and the seconds it took; in a process of its own cores."""
    context = multiprocessing.get_context("spawn")
    cores = visible_cores()
    share = max(len(cores) // workers, 1)
    slots = context.Queue()
    for i in range(workers):
        slots.put(cores[i * share % len(cores) :][:share])
    # A worker does one unit after the other, so that what is compiled for one serves the next.
    with ProcessPoolExecutor(workers, context, initializer=_pin, initargs=(slots,)) as pool:
        futures = {pool.submit(_do, unit): unit for unit in waiting}
        try:
            for future in as_completed(futures):
                error = future.exception()
                yield (futures[future], *((error, 0.0) if isinstance(error, Exception) else future.result()))
        finally:  # also after an error or an interrupt
            pool.shutdown(cancel_futures=True)


def _pin(slots: Any) -> None:
    """Before JAX starts, as in segue.runner.worker: results depend on the number of cores."""
    cores = slots.get()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def _finished(unit: Unit) -> dict[str, Any] | None:
    file = unit.directory / "summary.json"
    summary = json.loads(file.read_text()) if file.exists() else {}
    return summary if summary.get("status") == "complete" else None


def _stored(unit: Unit, results: Mapping[str, Any]) -> bool:
    """Whether all of it is among the results."""
    return all(
        results["arms"][f"{unit.task}: {arm}"]["seeds"][str(recipe.seed)]["status"] == "complete"
        for arm, recipe in unit.arms.items()
    )


def _do(unit: Unit) -> tuple[dict[str, Any], float]:
    start = time.perf_counter()
    try:
        result = segue.compare(unit.arms, unit.directory, workers=1, command=f"studies: {unit.task}")
    except segue.RunFailed as failed:  # what the other arms came to counts
        result = failed.result
    return dict(result.summary), time.perf_counter() - start
