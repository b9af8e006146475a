"""What the studies share: a grid of tasks, arms and seeds that is run as far as there is time, and its page.

A study hands in its recipes by task and arm. Every seed of the arms that share an offline phase is a run directory of
its own, named by the recipes in it: what is there is not run again, what has changed is, and a study grows run by run.
All first seeds come before all second ones, so an interrupted study is thin rather than one-sided. `results.json`
(every evaluation of every seed, the recipes and their hashes, version and machine), the tables of README.md and the
pictures are written after every run.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import multiprocessing
import os
import signal
import time
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import segue
from segue.compiled import visible_cores
from segue.errors import unknown
from segue.runner.directory import slug
from segue.runner.jobs import OFFLINE_FIELDS
from segue.runner.stopping import Stopped, raising
from studies.processes import follow_driver
from studies.results import Arms, Study, add, commit, digest, known, superseded, write


@dataclasses.dataclass(frozen=True)
class Unit:
    """Arms of one task that share an offline phase, with one seed: one run directory."""

    task: str
    directory: Path
    arms: Arms


def main(study: Study, description: str | None, arguments: Sequence[str] | None = None) -> int:
    """The command of a study; exit code 1 if a run failed, 130 or 143 if it was stopped by Ctrl-C or SIGTERM."""
    program = f"python -m {study.folder.parent.name}.{study.folder.name}"
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--full", action="store_true", help="the whole grid, for a bigger machine")
    parser.add_argument("--only", action="append", metavar="TASK", help="this task (may be given again)")
    parser.add_argument("--arm", action="append", metavar="ARM", help="this arm (may be given again)")
    parser.add_argument("--workers", type=int, help="processes, one run each at a time; by default one per core")
    parser.add_argument("--on", metavar="ADDRESS", help="ray or ray://HOST:PORT: the runs' jobs go to a Ray cluster")
    parser.add_argument(
        "--out", type=Path, help="where runs go, and with --full results and page too; else these stay with the study"
    )
    parser.add_argument(
        "--missing", action="store_true", help="only what results.json lacks, also without run directories"
    )
    parser.add_argument("--redraw", action="store_true", help="the page from what is there; nothing is run")
    options = parser.parse_args(arguments)
    if options.workers is not None and options.workers < 1:
        parser.error(f"--workers {options.workers}: expected at least 1")
    out = options.out or Path("runs") / (study.folder.name + ("-full" if options.full else ""))
    place = out if options.full else study.folder
    # The studies compare scores of live episodes, as publications do, and judge no policy by its dataset.
    tasks = {
        task: {name: dataclasses.replace(recipe, held_out=0.0) for name, recipe in arms.items()}
        for task, arms in study.tasks(options.full).items()
    }
    for name in options.only or ():
        if name not in tasks:
            parser.error(unknown("task (--only)", name, tasks))
    wanted = {task: arms for task, arms in tasks.items() if task in (options.only or tasks)}
    for name in options.arm or ():
        if not any(name in arms for arms in wanted.values()):
            parser.error(unknown("arm (--arm)", name, dict.fromkeys(a for arms in wanted.values() for a in arms)))
    if options.arm:
        wanted = {task: {a: r for a, r in arms.items() if a in options.arm} for task, arms in wanted.items()}
    if options.on is not None:
        try:
            segue.Ray.of(options.on)
        except segue.SegueError as error:
            parser.error(str(error))
    place.mkdir(parents=True, exist_ok=True)
    with _alone(place, parser):
        results = known(place / "results.json", tasks)
        if gone := superseded(place / "results.json", results):
            words = f"finished seeds that the study no longer has: {', '.join(gone)}"
            if options.redraw:
                parser.error(f"results.json holds {words}; --redraw would lose them, and only a run drops them")
            print(f"dropped: {words}", flush=True)
        return _grow(study, wanted, results, out, place, options)


def _grow(
    study: Study,
    wanted: Mapping[str, Arms],
    results: dict[str, Any],
    out: Path,
    place: Path,
    options: argparse.Namespace,
) -> int:
    """Run what is not there; results and page after every run. Returns the exit code."""
    sources = commit()
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
    print(f"{len(waiting)} runs to do; results and page go to {place}", flush=True)
    failed = False
    try:
        with (
            raising(soon=False),
            contextlib.closing(_run(waiting, options.workers or len(visible_cores()), options.on)) as runs,
        ):
            for unit, found, seconds in runs:
                label = f"{unit.directory.relative_to(out)} ({len(unit.arms)} arms, {seconds / 60:.1f} min)"
                if isinstance(found, str):
                    failed = True
                    print(f"{label}: {found}", flush=True)
                    continue
                failed |= found["status"] != "complete"
                print(f"{label}: {found['status']}", flush=True)
                add(results, unit.task, {**found, "commit": sources})
                write(study, results, place)
    except KeyboardInterrupt as stopped:
        print("stopped; the same command goes on", flush=True)
        return 128 + (stopped.number if isinstance(stopped, Stopped) else signal.SIGINT)
    return int(failed)


@contextlib.contextmanager
def _alone(place: Path, parser: argparse.ArgumentParser) -> Iterator[None]:
    """Nobody else writes the results meanwhile."""
    lock = FileLock(place / "results.json.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        parser.error(f"another run of this study writes to {place}; wait for it, or use another checkout")
    try:
        yield
    finally:
        lock.release()


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


def _run(
    waiting: Sequence[Unit], workers: int, on: str | None = None
) -> Generator[tuple[Unit, dict[str, Any] | str, float]]:
    """Each unit with its summary, or with what went wrong, and the seconds it took. Closing this ends the workers."""
    cores, todo = visible_cores(), list(waiting)[::-1]
    share = max(len(cores) // workers, 1)
    hired: list[_Worker] = []
    busy: dict[Any, tuple[_Worker, Unit]] = {}
    try:
        hired += (_Worker(cores[i * share % len(cores) :][:share], on) for i in range(min(workers, len(todo))))
        idle = list(hired)
        while todo or busy:
            while todo and idle:
                worker, unit = idle.pop(), todo.pop()
                try:
                    worker.pipe.send(unit)
                except OSError:  # killed between two units
                    worker = _Worker(worker.cores, on)
                    hired.append(worker)
                    worker.pipe.send(unit)
                busy[worker.pipe] = worker, unit
            for pipe in connection.wait(list(busy)):
                worker, unit = busy.pop(pipe)
                found: tuple[dict[str, Any] | str, float]
                try:
                    found = worker.pipe.recv()
                except (EOFError, OSError):
                    worker.process.join()
                    found = f"its process ended with exit code {worker.process.exitcode}", 0.0
                    worker = _Worker(worker.cores, on)
                    hired.append(worker)
                idle.append(worker)
                yield unit, *found
    finally:  # also after an error or an interrupt
        for worker in hired:
            worker.process.terminate()
        for worker in hired:
            worker.process.join()


class _Worker:
    """A process that does one unit after the other, so that what is compiled for one serves the next."""

    def __init__(self, cores: Sequence[int], on: str | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.cores = cores
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, cores, on))
        self.process.start()
        theirs.close()  # the pipe ends when the worker does


def _work(pipe: Any, cores: Sequence[int], on: str | None) -> None:
    follow_driver()
    # Before JAX starts, as in segue.runner.worker: results depend on the cores. A cluster gives out its own.
    if on is None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    with contextlib.suppress(KeyboardInterrupt, EOFError):
        while True:
            pipe.send(_do(pipe.recv(), on))


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


def _do(unit: Unit, on: str | None = None) -> tuple[dict[str, Any] | str, float]:
    start = time.perf_counter()
    try:
        workers = 1 if on is None else None  # as many jobs at a time as the cluster has room for
        result = segue.compare(unit.arms, unit.directory, workers=workers, on=on, command=f"studies: {unit.task}")
    except segue.RunFailed as failed:  # what the other arms came to counts
        result = failed.result
    except Exception as error:
        return f"{type(error).__name__}: {error}", time.perf_counter() - start
    return dict(result.summary), time.perf_counter() - start
