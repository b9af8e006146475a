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
import hashlib
import json
import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import segue
from segue.compiled import visible_cores
from segue.files import write_atomically
from segue.report import plot_learning_curves
from segue.report.aggregate import aggregate
from segue.report.statistics_picture import statistics_picture
from segue.report.table import escaped, labelled, markdown, measures_tables
from segue.runner.directory import OFFLINE_FIELDS, slug
from studies.page import put
from studies.panels import Panel, panels

Arms = Mapping[str, segue.Recipe]
Tasks = Callable[[bool], Mapping[str, Arms]]
"""The recipes by task and arm, of the stored grid or of the whole one. Each names its environment."""
KEPT = ("status", "error", "offline_score", "updates_per_second", "parameters_sha256", "events")
"""What results.json holds of a seed besides its evaluations."""


@dataclasses.dataclass(frozen=True)
class Study:
    """A grid and how its page looks."""

    folder: Path
    """Where README.md is, with the lines `<!-- results -->` and `<!-- /results -->`."""
    tasks: Tasks
    columns: Sequence[str]
    """The measures in the table, by the names of docs/measures.md."""
    reach: float | None = None
    """The return that steps are counted to, if not the final one from scratch."""
    more: Mapping[str, Callable[[Mapping[str, Any]], str]] = dataclasses.field(default_factory=dict)
    """Text from the results for further places of README.md, by their names."""
    panels: Sequence[Sequence[Panel]] = ()
    """Rows of panels for curves.png, where the report's picture of the stored grid would be crowded."""


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
    parser.add_argument("--workers", type=int, help="processes, one run each at a time; by default one per core")
    parser.add_argument("--out", type=Path, help="where runs go, and with --full the results too")
    parser.add_argument("--redraw", action="store_true", help="tables and pictures from results.json; nothing is run")
    options = parser.parse_args(arguments)
    out = options.out or Path("runs") / (study.folder.name + ("-full" if options.full else ""))
    place = out if options.full else study.folder
    tasks = study.tasks(options.full)
    for name in options.only or ():
        if name not in tasks:
            parser.error(f"--only {name}: there is {', '.join(tasks)}")
    results = _known(place / "results.json", tasks)
    if options.redraw:
        write_page(study, results, place)
        return 0
    chosen = {name: arms for name, arms in tasks.items() if name in (options.only or tasks)}
    failed = False
    for unit, found, seconds in _run(list(units(chosen, out)), options.workers or len(visible_cores())):
        label = f"{unit.directory.relative_to(out)} ({len(unit.arms)} arms, {seconds / 60:.1f} min)"
        if isinstance(found, Exception):
            failed = True
            print(f"{label}: {found}", flush=True)
            continue
        failed |= found["status"] != "complete"
        print(f"{label}: {found['status']}", flush=True)
        _add(results, unit, found)
        place.mkdir(parents=True, exist_ok=True)
        write_atomically(place / "results.json", _compact(results))
        write_page(study, results, place)
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
                name = _digest({arm: recipe.to_dict() for arm, recipe in group.items()})
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
        finally:  # also where whoever reads the results fails, or is interrupted
            pool.shutdown(cancel_futures=True)


def _pin(slots: Any) -> None:
    """Before JAX starts, as in segue.runner.worker: results depend on the number of cores."""
    cores = slots.get()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def _do(unit: Unit) -> tuple[dict[str, Any], float]:
    start = time.perf_counter()
    file = unit.directory / "summary.json"
    if file.exists() and (summary := json.loads(file.read_text()))["status"] == "complete":
        return summary, 0.0
    summary = segue.compare(unit.arms, unit.directory, workers=1, command=f"studies: {unit.task}").summary
    return summary, time.perf_counter() - start


def _known(file: Path, tasks: Mapping[str, Arms]) -> dict[str, Any]:
    """Every arm of the grid, with the seeds that the file has of this very recipe."""
    stored = json.loads(file.read_text()) if file.exists() else {}
    arms = {}
    for task, recipes in tasks.items():
        for arm, recipe in recipes.items():
            label, plain = f"{task}: {arm}", recipe.to_dict()
            before = stored.get("arms", {}).get(label, {})
            seeds = before["seeds"] if _is(before.get("recipe"), recipe) else {}
            about = {"method": arm, "run": task, "recipe_sha256": _digest(plain), "recipe": plain}
            about["log"] = before.get("log")
            names = [str(recipe.seed + i) for i in range(recipe.seeds)]
            arms[label] = {**about, "seeds": {seed: seeds.get(seed, {"status": "unfinished"}) for seed in names}}
    return {**{k: v for k, v in stored.items() if k != "arms"}, "arms": arms}


def _is(plain: Mapping[str, Any] | None, recipe: segue.Recipe) -> bool:
    """Whether this was that recipe; fields that Segue has got since then count as their defaults."""
    try:
        return plain is not None and segue.Recipe.from_dict(plain) == recipe
    except segue.SegueError:
        return False


def _add(results: dict[str, Any], unit: Unit, summary: Mapping[str, Any]) -> None:
    """What reports need of a run; returns to a tenth, which no table shows."""
    about = {"segue_version": summary["segue_version"], **summary["versions"], **summary["machine"]}
    machines = results.setdefault("machines", [])
    if about not in machines:
        machines.append(about)
    for arm, run in summary["arms"].items():
        into = results["arms"][f"{unit.task}: {arm}"]
        into["log"] = run["log"]
        for seed, record in run["seeds"].items():
            into["seeds"][seed] = {name: record[name] for name in KEPT} | {
                "offline_evaluations": [_evaluation(e, ()) for e in record["offline_evaluations"]],
                "online_evaluations": [_evaluation(e, e["returns"]) for e in record["online_evaluations"]],
            }
    states = {seed["status"] for arm in results["arms"].values() for seed in arm["seeds"].values()}
    results["status"] = "complete" if states == {"complete"} else "interrupted"


def _evaluation(evaluation: Mapping[str, Any], returns: Sequence[float]) -> dict[str, Any]:
    plain = {"step": evaluation["step"], "mean_return": round(evaluation["mean_return"], 2)}
    return plain | ({"returns": [round(value, 1) for value in returns]} if len(returns) else {})


def write_page(study: Study, results: Mapping[str, Any], place: Path) -> None:
    """Tables into README.md (of the full grid: results.md), and the pictures."""
    text = tables(results, study.columns, study.reach)
    if place == study.folder:
        put(place / "README.md", "results", text)
        for name, write in study.more.items():
            put(place / "README.md", name, write(results))
    else:
        write_atomically(place / "results.md", text)
    if study.panels and place == study.folder:
        write_atomically(place / "curves.png", panels(results, study.panels))
    else:
        plot_learning_curves(results, place / "curves.png")
    found = aggregate(results)
    if found is not None:
        write_atomically(place / "statistics.png", statistics_picture(found))


def tables(summary: Mapping[str, Any], columns: Sequence[str], reach: float | None = None) -> str:
    """Markdown: these measures of every arm, a table per task, and what must be known to read them."""
    measures = measures_tables(summary, reach)
    blocks = []
    for task in measures.tasks:
        cells: dict[str, tuple[str, ...]] = {}
        for table in task.tables:
            for i, column in enumerate(table.columns):
                name = "steps to" if column.startswith("steps to") else column
                of = [row.cells[i] for row in table.rows]
                cells[name] = (column, *(f"{c.value} ({c.spread})" if c.spread else c.value for c in of))
        shown = [cells[name] for name in (*columns, "seeds", "online steps") if name in cells]
        names = ["arm", *(labelled(row.label, row.status) for row in task.levels.rows)]
        head, *rows = zip(names, *shown, strict=True)
        if len(measures.tasks) > 1:
            name = summary["arms"][task.levels.rows[0].arm]["run"]
            blocks.append(f"**{escaped(name)}**")
        blocks.append(markdown(head, rows))
    if measures.warning:
        blocks.append(f"**{measures.warning}**")
    return "\n\n".join(blocks) + "\n"


def _digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _compact(results: Mapping[str, Any]) -> str:
    """JSON with a line per arm and seed."""
    head = {name: value for name, value in results.items() if name != "arms"}
    lines = [
        f'{json.dumps(label)}: {{{json.dumps({k: v for k, v in arm.items() if k != "seeds"})[1:-1]}, "seeds": {{\n'
        + ",\n".join(f"  {json.dumps(seed)}: {json.dumps(record)}" for seed, record in arm["seeds"].items())
        + "}}"
        for label, arm in results["arms"].items()
    ]
    return f'{{{json.dumps(head)[1:-1]}{", " if head else ""}"arms": {{\n' + ",\n".join(lines) + "}}\n"
