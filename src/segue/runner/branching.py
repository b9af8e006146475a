"""A branch: a new run that starts from the end of another one's offline phase."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

from segue.errors import RecipeError, SegueError, unknown
from segue.files import write_atomically
from segue.recipe import Recipe, read_recipes
from segue.runner.directory import OFFLINE_FIELDS, RunDirectory


def trunk(directory: Path, arm: str | None = None) -> Recipe:
    """The recipe of a run (of one of its arms) that has an offline phase to start from.

    Raises:
        SegueError: if there is no such arm, or none is named of several.
    """
    arms = read_recipes(directory)
    if arm is None and len(arms) > 1:
        raise SegueError(f"{directory} has several arms; choose one by --arm: {', '.join(arms)}")
    name = arm or next(iter(arms))
    if name not in arms:
        raise SegueError(unknown("arm", name, arms))
    if arms[name].offline is None:
        raise RecipeError(f"{directory}: {name} has no offline phase to start from")
    return arms[name]


def branch_off(directory: Path, recipe: Recipe, changed: Recipe, out: Path) -> Recipe:
    """Prepare `out` with the offline phase of `recipe`, a run in `directory`, and return the recipe to run there.

    The branch is, to the bit, what a whole run of that recipe would have been. Seeds that the run lacks are pretrained
    in the branch. An `out` that was prepared before is left as it is.

    Raises:
        RecipeError: if the changed recipe has another offline phase.
        SegueError: if that phase is not finished, or `out` is in use.
    """
    if changed.online is not None:
        changed = dataclasses.replace(changed, replay=None if changed.online.on_policy else changed.effective_replay)
    before, now = (json.loads(json.dumps(one.to_dict())) for one in (recipe, changed))
    for field in OFFLINE_FIELDS:
        if before[field] != now[field]:
            raise RecipeError(
                f"{field} is part of the offline phase, which a branch takes over as it is: {directory} has "
                f"{before[field]!r}, the branch {now[field]!r}"
            )
    if (out / "recipe.json").exists():
        return changed
    if out.exists() and any(out.iterdir()):
        raise SegueError(f"{out} is not empty and holds no recipe.json; choose another --out")
    source = {
        job.seed: job
        for job in RunDirectory(directory, read_recipes(directory)).jobs()
        if job.phase == "offline" and all(job.recipe[field] == before[field] for field in OFFLINE_FIELDS)
    }
    staged = out.with_name(f".{out.name}.partial")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    for job in RunDirectory(staged, {"run": changed}).jobs():
        if job.phase == "offline" and job.seed in source:
            finished = source[job.seed]
            if finished.result() is None:
                raise SegueError(
                    f"{directory}: the offline phase of seed {job.seed} is not finished; "
                    f"segue run --resume {directory} finishes it"
                )
            for place in ("records", "checkpoints", "tensorboard"):
                shutil.copytree(getattr(finished, place), getattr(job, place))
    shutil.copyfile(directory / "provenance.json", staged / "provenance.json")
    write_atomically(staged / "recipe.json", json.dumps(now, indent=1) + "\n")
    os.replace(staged, out)
    return changed
