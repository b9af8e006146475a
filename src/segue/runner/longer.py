"""A run with a longer budget or more seeds: it goes on from its last state, under the recipe that it would have had."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from pathlib import Path

from segue.errors import RecipeError
from segue.files import write_atomically
from segue.recipe import Recipe, read_recipes
from segue.runner.branching import require_fit
from segue.runner.directory import RunDirectory


def lengthen(
    directory: Path,
    online_steps: int | None = None,
    offline_steps: int | None = None,
    seeds: int | None = None,
    only: Collection[str] | None = None,
) -> dict[str, Recipe]:
    """Give every arm of a run (or `only` some) these budgets and so many seeds, and return the recipes of all; running
    them there goes on.

    The seeds that it has stay as they are.

    What depends on the budget (schedules, annealed replay, evaluations where `eval_every` is not given) follows the new
    one from here on; a run without such parts is then, to the bit, the run that was longer from the start.

    Raises:
        RecipeError: for a smaller budget, fewer seeds, a phase that there is not, or an offline phase that cannot grow.
        SegueError: if the run is in use, or its dataset is gone or has changed; nothing is changed then.
    """
    arms = read_recipes(directory)
    if offline_steps is not None and len(arms) > 1:
        raise RecipeError(f"{directory} has several arms; the offline phase of a single run only can become longer")
    longer = {
        name: _longer(directory, recipe, {"offline": offline_steps, "online": online_steps}, seeds)
        if only is None or name in only
        else recipe
        for name, recipe in arms.items()
    }
    if longer != arms:
        for name, recipe in longer.items():
            if recipe != arms[name]:
                require_fit(directory, recipe)
        _require_as_written(directory, arms)
        changed = RunDirectory(directory, longer)
        with changed.lock():  # a process that runs it now keeps the budget it was given
            write_atomically(directory / "recipe.json", json.dumps(changed.plain, indent=1) + "\n")
    return longer


def _require_as_written(directory: Path, arms: dict[str, Recipe]) -> None:
    """A plug-in may have got or lost hyper-parameters since: its saved states then do not fit the recipe.

    Raises:
        RecipeError: if the recipes, as they are read today, are not those in the file.
    """
    stored = json.loads((directory / "recipe.json").read_bytes())
    now = RunDirectory(directory, arms).plain
    for name, arm in now.get("arms", {"run": now}).items():
        before = stored.get("arms", {"run": stored})[name]
        changed = sorted(field for field in arm.keys() | before.keys() if arm.get(field) != before.get(field))
        if changed:
            raise RecipeError(
                f"{directory}: {changed[0]} of {name!r} has other hyper-parameters today than when the run was "
                "written; nothing was changed. Use the versions of Segue and its plug-ins that wrote it, or run anew"
            )


def _longer(directory: Path, recipe: Recipe, budgets: dict[str, int | None], seeds: int | None) -> Recipe:
    changes: dict[str, int] = {}
    if seeds is not None:
        if seeds < recipe.seeds:
            raise RecipeError(f"{directory}: seeds is {seeds}; expected at least the {recipe.seeds} that it has")
        changes["seeds"] = seeds
    for phase, steps in budgets.items():
        before = getattr(recipe, f"{phase}_steps")
        if steps is None or steps == before:
            continue
        if getattr(recipe, phase) is None:
            raise RecipeError(f"{directory}: {phase}_steps is {steps}, but this run has no {phase} phase")
        if steps < before:
            raise RecipeError(f"{directory}: {phase}_steps is {steps}; expected at least the {before} that it has")
        if phase == "offline" and recipe.online is not None:
            raise RecipeError(
                f"{directory}: the online phase started from the end of the offline one, which cannot become longer "
                "now; run the recipe again with another --out"
            )
        changes[f"{phase}_steps"] = steps
    return dataclasses.replace(recipe, **changes)  # type: ignore[arg-type]
