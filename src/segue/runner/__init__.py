"""Running recipes: phases, seeds, arms, the run directory and its report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import segue
from segue.data import load as load_dataset
from segue.data import npz
from segue.data.dataset import Dataset
from segue.envs import make, spaces_of
from segue.errors import RecipeError, SegueError
from segue.recipe import Recipe
from segue.report import write_report
from segue.runner.checkpoint import Checkpoint
from segue.runner.checkpoint import load as load_checkpoint
from segue.runner.directory import RunDirectory, slug
from segue.runner.executor import run_jobs
from segue.runner.job import Event, Job, environment_of
from segue.runner.machine import describe_machine, versions, visible_cores

__all__ = ["Checkpoint", "Result", "compare", "load_checkpoint", "run"]


@dataclasses.dataclass(frozen=True)
class Result:
    """Where a run is and what came of it."""

    directory: Path
    summary: dict[str, Any]
    report: Path

    @property
    def status(self) -> str:
        """`complete`, `interrupted` or `failed`."""
        return self.summary["status"]


def run(recipe: Recipe, out: str | Path = "runs/latest", **options: Any) -> Result:
    """Run one recipe; see `compare`."""
    return compare({"run": recipe}, out, **options)


def compare(
    arms: Mapping[str, Recipe],
    out: str | Path,
    *,
    workers: int | None = None,
    on_event: Callable[[Job, Event], None] = lambda job, event: None,
    command: str | None = None,
) -> Result:
    """Run several recipes into one directory and one report.

    Jobs that the directory already holds the results of are not done again, so an interrupted run goes on where
    whole jobs are missing, and a finished run is only reported again.

    Args:
        arms: recipe by name.
        out: the run directory; created, or holding the same recipes.
        workers: worker processes; by default one per core, and none (all in this process, with every core) if there is
            one job to do at a time.
        on_event: called with progress, evaluations and notes as they happen.
        command: the command line, for the report.

    Raises:
        RecipeError: if parts do not fit together; nothing was written.
        SegueError: if the directory holds something else.
    """
    out = Path(out)
    _check_names(arms)
    logs: dict[Path, Dataset] = {}
    arms = {name: _check(name, recipe, out, logs) for name, recipe in arms.items()}
    directory = RunDirectory(out, arms)
    directory.claim()
    for file, log in logs.items():
        npz.write(file, log.columns())
    jobs = directory.jobs()
    earlier = directory.earlier_summary()
    if earlier is not None and earlier["status"] == "complete":
        return Result(out, earlier, write_report(out))
    if workers is None:
        side_by_side = max(sum(job.phase == phase for job in jobs) for phase in ("offline", "online"))
        workers = min(len(visible_cores()), side_by_side)
    start = time.perf_counter()
    outcomes, _ = run_jobs(jobs, workers, on_event)
    about = {
        "segue_version": segue.__version__,
        "machine": describe_machine(max(len(visible_cores()) // workers, 1)),
        "versions": versions(),
        "command": command,
        "wall_time_s": time.perf_counter() - start + (earlier["wall_time_s"] if earlier else 0.0),
    }
    summary = directory.summarise(outcomes, about)
    return Result(out, summary, write_report(out))


def _check_names(arms: Mapping[str, Recipe]) -> None:
    if not arms:
        raise RecipeError("nothing to compare: no arm was given")
    slugs = [slug(name) for name in arms]
    for name, short in zip(arms, slugs, strict=True):
        if slugs.count(short) > 1:
            raise RecipeError(f"arm {name!r} and another one would both be stored as {short!r}; rename one")
        if short.startswith("offline"):
            raise RecipeError(f"arm {name!r}: names starting with 'offline' are kept for offline phases; rename it")


def _check(name: str, recipe: Recipe, out: Path, logs: dict[Path, Dataset]) -> Recipe:
    """The recipe with its environment and replay named, once log, environment and algorithms are known to fit.

    A log held in memory is put into `logs` under the file where workers, and whoever repeats the run, will find it.
    """
    where = "" if name == "run" else f"arm {name!r}: "
    try:
        dataset = None
        if isinstance(recipe.dataset, Dataset):
            dataset = recipe.dataset
        elif recipe.dataset is not None:
            dataset = load_dataset(recipe.dataset, clip_actions=recipe.clip_actions)
        env_id = environment_of(recipe, dataset)
        environment = None
        if env_id is not None:
            env = make(env_id)
            environment = spaces_of(env)
            env.close()
        recipe.check_fit(dataset, environment)
        if dataset is not None and not isinstance(recipe.dataset, str):
            file = out / f"log-{dataset.fingerprint()}.npz"
            logs[file] = dataset
            recipe = dataclasses.replace(recipe, dataset=f"npz:{file}")
        replay = recipe.effective_replay if recipe.online is not None else None
        return dataclasses.replace(recipe, env=env_id, replay=replay)
    except SegueError as error:
        raise type(error)(f"{where}{error}") from error
