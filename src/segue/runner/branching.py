"""A branch: a new run that starts from the end of another one's offline phase."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from segue.data import Mixture
from segue.errors import RecipeError, SegueError, unknown
from segue.files import in_words, write_atomically
from segue.recipe import HELD, Recipe, located, portable, read_recipes
from segue.runner import checkpoint
from segue.runner.directory import RunDirectory
from segue.runner.jobs import OFFLINE_FIELDS, Job
from segue.runner.start import check_fit, dataset_of, environment_of


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
        RecipeError: if the changed recipe has another offline phase or no online one, or does not fit log and
            environment.
        SegueError: if that phase is not finished, or damaged, or its dataset has changed, or `out` is in use or
        cannot be
            written. Nothing is left of `out` then.
    """
    if changed.online is None:
        raise RecipeError("a branch needs an online algorithm: --online NAME")
    changed = dataclasses.replace(changed, replay=None if changed.online.on_policy else changed.effective_replay)
    before, now = (json.loads(json.dumps(one.to_dict())) for one in (recipe, changed))
    for field in OFFLINE_FIELDS:
        if before[field] != now[field]:
            raise RecipeError(
                f"{field} is part of the offline phase, which a branch takes over as it is: {directory} has "
                f"{before[field]!r}, the branch {now[field]!r}"
            )
    before["dataset"] = portable(changed.dataset, directory)  # a dataset that the run holds is taken along
    branch = dataclasses.replace(changed, dataset=located(before["dataset"], out))
    if (out / "recipe.json").exists():
        return branch
    with in_words(out):
        if out.exists() and any(out.iterdir()):
            raise SegueError(f"{out} is not empty and holds no recipe.json; choose another --out")
    require_fit(directory, changed)
    source = {
        job.seed: job
        for job in RunDirectory(directory, read_recipes(directory)).jobs()
        if job.phase == "offline" and all(job.recipe[field] == before[field] for field in OFFLINE_FIELDS)
    }
    for seed in range(changed.seed, changed.seed + changed.seeds):
        if seed in source:
            _require_whole(directory, source[seed])
    staged = out.with_name(f".{out.name}.partial")
    try:
        with in_words(out):
            _stage(staged, directory, source, changed)
            os.replace(staged, out)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return branch


def require_fit(directory: Path, changed: Recipe) -> None:
    """What running this recipe, made of a run's, would refuse, refused before anything is written.

    Raises:
        SegueError: if it does not fit log and environment, or the dataset is not that of the run any more.
    """
    dataset = dataset_of(changed)
    check_fit(changed, dataset, environment_of(changed, dataset))
    before = RunDirectory(directory, {}).provenance()
    if (
        dataset is not None
        and before is not None
        and before["datasets"].get(portable(changed.dataset, directory)) != dataset.fingerprint()
    ):
        raise SegueError(
            f"{changed.dataset} is not the dataset any more that {directory} was pretrained on; put that back, or run "
            "the recipe from the start"
        )


def _require_whole(directory: Path, job: Job) -> None:
    if job.result() is None:
        raise SegueError(
            f"{directory}: the offline phase of seed {job.seed} is not finished; "
            f"segue run --resume {directory} finishes it"
        )
    said = checkpoint.damage(job.checkpoints / "final")
    if said is not None:
        raise SegueError(f"{said}; segue run --resume {directory} makes it again")


def _stage(staged: Path, directory: Path, source: Mapping[int, Job], changed: Recipe) -> None:
    """Write the branch down as a run whose offline phase is done."""
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    held = portable(changed.dataset, directory)
    branch = RunDirectory(staged, {"run": dataclasses.replace(changed, dataset=located(held, staged))})
    for part in Mixture.parse(str(held)).parts:
        if not part.startswith(HELD):
            continue
        place = part.removeprefix(HELD)
        (staged / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(directory / place, staged / place)
    for job in branch.jobs():
        if job.phase == "offline" and job.seed in source:
            for place in ("records", "checkpoints", "tensorboard"):
                shutil.copytree(getattr(source[job.seed], place), getattr(job, place))
    if (directory / "provenance.json").exists():
        shutil.copyfile(directory / "provenance.json", staged / "provenance.json")
    write_atomically(staged / "recipe.json", json.dumps(branch.plain, indent=1) + "\n")
