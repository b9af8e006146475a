"""What a study has found: `results.json`, and the page made of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import segue
from segue.files import write_atomically
from segue.report import decode, learning_curves
from segue.report.aggregate import aggregate
from segue.report.figures_statistics import statistics_picture
from segue.report.tables import escaped, labelled, markdown, measures_tables
from studies.page import put
from studies.panels import Panel, panels

ROOT = Path(__file__).parents[1]
Arms = Mapping[str, segue.Recipe]
Tasks = Callable[[bool], Mapping[str, Arms]]
"""The recipes by task and arm, of the stored grid or of the whole one. Each names its environment."""
KEPT = ("status", "error", "offline_score", "training_return", "updates_per_second", "parameters_sha256", "events")
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


def known(file: Path, tasks: Mapping[str, Arms]) -> dict[str, Any]:
    """Every arm of the grid, with the seeds that the file has of this very recipe."""
    stored = json.loads(file.read_text()) if file.exists() else {}
    arms = {}
    for task, recipes in tasks.items():
        for arm, recipe in recipes.items():
            label, plain = f"{task}: {arm}", recipe.to_dict()
            before = stored.get("arms", {}).get(label, {})
            seeds = before["seeds"] if _is(before.get("recipe"), recipe) else {}
            about = {"method": arm, "run": task, "recipe_sha256": digest(plain), "recipe": plain}
            about["dataset"] = before.get("dataset")
            names = [str(recipe.seed + i) for i in range(recipe.seeds)]
            arms[label] = {**about, "seeds": {seed: seeds.get(seed, {"status": "unfinished"}) for seed in names}}
    return {**{k: v for k, v in stored.items() if k != "arms"}, "arms": arms}


def superseded(file: Path, results: Mapping[str, Any]) -> list[str]:
    """Arms of the file with the number of their complete seeds that are not among the results."""
    stored = json.loads(file.read_text())["arms"] if file.exists() else {}
    found = []
    for label, arm in stored.items():
        kept = results["arms"].get(label, {"seeds": {}})["seeds"]
        done = [name for name, seed in arm["seeds"].items() if seed["status"] == "complete"]
        gone = sum(kept.get(name, {}).get("status") != "complete" for name in done)
        found += [f"{label} ({gone})"] if gone else []
    return found


def _is(plain: Mapping[str, Any] | None, recipe: segue.Recipe) -> bool:
    """Whether this was that recipe, of any number of seeds. Fields that Segue has got since count as their defaults.

    Nothing was held out.
    """
    try:
        return plain is not None and segue.Recipe.from_dict({"held_out": 0.0, **plain, "seeds": recipe.seeds}) == recipe
    except segue.SegueError:
        return False


def commit() -> str | None:
    """Which version of the sources this is; None without git, or outside of a repository."""

    def git(*words: str) -> str:
        found = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
        return found.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "src", "studies/*.py")
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def add(results: dict[str, Any], task: str, summary: Mapping[str, Any]) -> None:
    """What reports need of a run; returns to a tenth, which no table shows."""
    about = {"segue_version": summary["segue_version"], **summary["versions"], **summary["machine"]}
    machines = results.setdefault("machines", [])
    if about not in machines:
        machines.append(about)
    for arm, run in summary["arms"].items():
        into = results["arms"][f"{task}: {arm}"]
        into["dataset"] = run["dataset"]
        for seed, record in run["seeds"].items():
            before = into["seeds"].get(seed, {})
            if before.get("status") == "complete" != record["status"]:
                continue  # what failed this time does not replace what was found before
            into["seeds"][seed] = {name: record[name] for name in KEPT} | {
                "commit": summary["commit"] if "commit" in summary else before.get("commit"),
                "offline_evaluations": [_evaluation(e, ()) for e in record["offline_evaluations"]],
                "online_evaluations": [_evaluation(e, e["returns"]) for e in record["online_evaluations"]],
            }
    states = {seed["status"] for arm in results["arms"].values() for seed in arm["seeds"].values()}
    results["status"] = "complete" if states == {"complete"} else "interrupted"


def _evaluation(evaluation: Mapping[str, Any], returns: Sequence[float]) -> dict[str, Any]:
    plain = {"step": evaluation["step"], "mean_return": round(evaluation["mean_return"], 2)}
    return plain | ({"returns": [round(value, 1) for value in returns]} if len(returns) else {})


def write(study: Study, results: Mapping[str, Any], place: Path) -> None:
    """results.json, tables into README.md (of the full grid: results.md), and the pictures."""
    place.mkdir(parents=True, exist_ok=True)
    write_atomically(place / "results.json", compact(results))
    results, waiting = begun(results)
    text = tables(results, study.columns, study.reach) + waiting
    if place == study.folder:
        put(place / "README.md", "results", text)
        for name, text_of in study.more.items():
            put(place / "README.md", name, text_of(results))
    else:
        write_atomically(place / "results.md", text)
    if study.panels and place == study.folder:
        write_atomically(place / "curves.png", panels(results, study.panels))
        return
    decoded = decode(results)
    write_atomically(place / "curves.png", learning_curves(decoded))
    found = aggregate(decoded)
    if found is not None:
        write_atomically(place / "statistics.png", statistics_picture(found))


def begun(results: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The results without arms of which no seed has run, and a line that names these; all if none has."""
    arms = results["arms"]
    some = {
        label: arm
        for label, arm in arms.items()
        if any(seed["status"] != "unfinished" for seed in arm["seeds"].values())
    }
    if not some or len(some) == len(arms):
        return results, ""
    lacking = ", ".join(label for label in arms if label not in some)
    return {**results, "arms": some}, f"\nNot run yet: {lacking}.\n"


def tables(
    summary: Mapping[str, Any],
    columns: Sequence[str],
    reach: float | None = None,
    more: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> str:
    """Markdown: these measures of every arm, a table per task, and what must be known to read them.

    `more` has further columns, with a cell per arm of the tasks that they are for.
    """
    measures = measures_tables(decode(summary), reach)
    blocks = []
    for task in measures.tasks:
        cells: dict[str, tuple[str, ...]] = {}
        for table in task.tables:
            for i, column in enumerate(table.columns):
                name = "steps to" if column.startswith("steps to") else column
                of = [row.cells[i] for row in table.rows]
                cells[name] = (column, *(f"{c.value} ({c.spread})" if c.spread else c.value for c in of))
        arms = [row.arm for row in task.levels.rows]
        added = {name: (name, *(of[arm] for arm in arms)) for name, of in more.items() if of.keys() >= set(arms)}
        shown = [cells[name] for name in columns if name in cells] + list(added.values())
        shown += [cells[name] for name in ("seeds", "online steps") if name in cells]
        names = ["arm", *(labelled(row.label, row.status) for row in task.levels.rows)]
        head, *rows = zip(names, *shown, strict=True)
        if len(measures.tasks) > 1:
            name = summary["arms"][task.levels.rows[0].arm]["run"]
            blocks.append(f"**{escaped(name)}**")
        blocks.append(markdown(head, rows))
    if measures.warning:
        blocks.append(f"**{measures.warning}**")
    return "\n\n".join(blocks) + "\n"


def digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def compact(results: Mapping[str, Any]) -> str:
    """JSON with a line per arm and seed."""
    head = {name: value for name, value in results.items() if name != "arms"}
    lines = [
        f'{json.dumps(label)}: {{{json.dumps({k: v for k, v in arm.items() if k != "seeds"})[1:-1]}, "seeds": {{\n'
        + ",\n".join(f"  {json.dumps(seed)}: {json.dumps(record)}" for seed, record in arm["seeds"].items())
        + "}}"
        for label, arm in results["arms"].items()
    ]
    return f'{{{json.dumps(head)[1:-1]}{", " if head else ""}"arms": {{\n' + ",\n".join(lines) + "}}\n"
