"""Running recipes: phases, seeds, arms, the run directory and its report."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import segue
from segue.compiled import visible_cores
from segue.data import Mixture, Source, npz, parts_of, uri_of, with_categories
from segue.data import load as load_dataset
from segue.data.dataset import Dataset
from segue.data.problems import Problem, cut_short, problems
from segue.envs import Environment
from segue.envs.cost import require_cost
from segue.envs.make import Looks, same
from segue.errors import RecipeError, SegueError
from segue.recipe import CHECKPOINT_EVERY, Recipe
from segue.report import write_report
from segue.runner.checkpoint import Checkpoint
from segue.runner.checkpoint import load as load_checkpoint
from segue.runner.directory import RunDirectory, WallTime, slug
from segue.runner.dispatch import Dispatcher, ThisMachine
from segue.runner.executor import run_jobs
from segue.runner.jobs import Event, Job
from segue.runner.machine import describe_machine, versions
from segue.runner.on_ray import Ray, connected
from segue.runner.progress import Watcher
from segue.runner.result import Result, RunFailed
from segue.runner.start import check_fit, dataset_of, environment_of
from segue.runner.stopping import Stopped, say
from segue.runner.tracking import Tracking, require_tracker

#: Fewest seconds between two writes of the time spent, also where `checkpoint_every` is less.
TICK = 1.0

__all__ = ["Checkpoint", "Ray", "Result", "RunFailed", "compare", "load_checkpoint", "run"]


def run(recipe: Recipe, out: str | Path = "runs/latest", **options: Any) -> Result:
    """Run one recipe; see `compare`."""
    return compare({"run": recipe}, out, **options)


def compare(
    arms: Mapping[str, Recipe],
    out: str | Path,
    *,
    workers: int | None = None,
    on: str | Ray | None = None,
    progress: bool | None = None,
    on_event: Callable[[Job, Event], None] = lambda job, event: None,
    track: str | None = None,
    command: str | None = None,
    checkpoint_every: float = CHECKPOINT_EVERY,
    resume: bool = False,
    report: bool = True,
) -> Result:
    """Run several recipes into one directory and one report.

    An interrupted run continues from its last saved state, to the same numbers as an uninterrupted one;
    a finished run is only reported again. A comparison may be given more arms beside those that it has: only they run.

    Args:
        arms: recipe by name.
        out: the run directory; created, or holding the same recipes.
        workers: worker processes; by default one per core, and none (all in this process, with every core) if there is
            one job to do at a time. On a cluster: jobs at a time; by default as many as have room.
        on: where jobs run: None is this machine; "ray", "ray://HOST:PORT" or a `segue.Ray` a Ray cluster (docs/ray.md).
        progress: show bars (where they cannot be drawn, lines); by default on a terminal and in a notebook.
        on_event: called with progress, evaluations and notes as they happen.
        track: `wandb` or `mlflow`: pass the recipe, evaluations, metrics and final figures on to it
            (docs/tracking.md). If it fails while the run goes on, a note says so.
        command: the command line, for the report.
        checkpoint_every: seconds between saves; 0 saves as often as possible. The results do not depend on it.
        resume: continue even if the number of cores per job changed; prints a warning, because the numbers may differ.
        report: write the page and its pictures; `segue report` writes them later.

    Returns:
        What came of it; its status is `complete`, or `interrupted` after Ctrl-C.

    Raises:
        RunFailed: if a seed failed, with the cause and the result. The seeds that completed are kept.
        RecipeError: if parts do not fit together; nothing was written.
        SegueError: if the directory holds something else, or cannot be written.
        Stopped: on SIGTERM; the run is saved and can go on.
    """
    # Workers share the accelerator, if there is one; by default the first process takes most of its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    out = Path(out)
    _check_names(arms)
    cluster = None if on is None else Ray.of(on)
    if out.is_file():
        raise SegueError(f"{out} is a file; choose another --out")
    if workers is not None and workers < 1:
        raise RecipeError(f"workers is {workers}; expected at least 1")
    if not checkpoint_every >= 0:
        raise RecipeError(f"checkpoint_every is {checkpoint_every}; expected seconds, at least 0")
    if track is not None:
        require_tracker(track)
    look, loaded = Looks(), _Loaded()
    checked = {name: _check(name, recipe, out, look, loaded) for name, recipe in arms.items()}
    directory = RunDirectory(out, {name: recipe for name, (recipe, _) in checked.items()}, checkpoint_every)
    stuck = _bound_to_this_process(recipe for recipe, _ in checked.values())
    if stuck is not None and (cluster is not None or (workers is not None and workers > 1)):
        raise RecipeError(stuck)
    workers, cores = _workers_and_cores(directory, 1 if stuck is not None else workers, cluster)
    datasets = {str(recipe.dataset): dataset for recipe, dataset in checked.values() if dataset is not None}
    provenance = {"datasets": {uri: dataset.fingerprint() for uri, dataset in datasets.items()}, "cores_per_job": cores}

    def keep_datasets() -> None:
        for recipe in arms.values():
            for part in loaded.parts(recipe):
                if isinstance(part, Dataset) and not _file_of(part, out).exists():
                    npz.save(_file_of(part, out), part.columns())

    held_out = [_held_out(recipe, dataset) for recipe, dataset in checked.values() if dataset is not None]

    @functools.cache  # a finished run asks for none
    def found(uri: str) -> tuple[Problem, ...]:
        return problems(datasets[uri])

    notes = []
    if directory.provenance() is None:
        live = [note for recipe, dataset in checked.values() for note in _environment_notes(recipe, dataset, look)]
        notes = list(dict.fromkeys([*filter(None, [*held_out, stuck]), *live]))
        notes += [f"{uri}: {note}" for uri, dataset in datasets.items() for note in dataset.notes]
        said = "segue inspect and the report say what it means and what to do"
        notes += [f"{uri}: problem: {p.found} ({said})" for uri in datasets for p in found(uri)]
    notes += directory.claim(provenance, resume, keep_datasets)
    jobs = directory.jobs()
    finished = directory.complete()
    if finished is not None:
        done = f"{out}: this recipe has run to its end before; nothing is run again"
        Watcher(progress).console.print(done, soft_wrap=True, markup=False)
        directory.write_metrics(out)
        if report:
            write_report(out)
        Tracking(directory, track, say).finish(finished)
        return Result(out, finished)
    with directory.lock() as held, Watcher(progress) as watcher, contextlib.ExitStack() as entered:

        def tell(job: Job, event: Event) -> None:
            watcher(job, event)
            on_event(job, event)

        def remark(message: str) -> None:
            tell(jobs[0], {"event": "note", "message": message})

        for note in notes:
            remark(note)
        tracking = entered.enter_context(Tracking(directory, track, remark))
        earlier = directory.begin()
        clock = WallTime(out, earlier["wall_time_s"] if earlier else 0.0)

        def watched(job: Job, event: Event) -> None:
            clock.tick(max(checkpoint_every, TICK))
            tell(job, event)
            tracking(job, event)

        dispatcher: Dispatcher | None = None
        if cluster is not None:
            dispatcher = entered.enter_context(connected(cluster, cores, workers))
        elif workers > 1:
            dispatcher = ThisMachine(workers, held)
        outcomes, stopped = run_jobs(jobs, dispatcher, watched)
        clock.tick()
        if stopped == signal.SIGTERM:  # there is no time for a report
            raise Stopped(stopped)
        about = {
            "segue_version": segue.__version__,
            "machine": {**describe_machine(cores), **({} if dispatcher is None else dispatcher.about)},
            "versions": versions(),
            "command": command,
            "wall_time_s": clock.total,
        }
        with _undisturbed():
            described = {
                name: {**_describe(recipe, dataset), "notes": [*dataset.notes, *map(str, found(str(recipe.dataset)))]}
                for name, (recipe, dataset) in checked.items()
                if dataset is not None
            }
            summary = directory.summarise(outcomes, about, described)
        try:
            if report:
                write_report(out)
        except KeyboardInterrupt:  # the pictures take seconds, and everything else is written
            say(f"the report is not finished: segue report {out} writes it")
        tracking.finish(summary)
    result = Result(out, summary)
    if result.status == "failed":
        raise RunFailed(result)
    return result


def _workers_and_cores(directory: RunDirectory, workers: int | None, cluster: Ray | None) -> tuple[int, int]:
    """How many jobs run at a time, and the cores of each: by default those that the run began with."""
    before, jobs, here = directory.provenance(), directory.jobs(), len(visible_cores())
    if cluster is not None:
        return workers or len(jobs), cluster.cores or (before["cores_per_job"] if before else 1)
    if workers is None and before is not None:
        workers = max(here // max(before["cores_per_job"], 1), 1)
    elif workers is None:
        phases = [job.phase for job in jobs]
        workers = min(here, max(phases.count(phase) for phase in ("offline", "online")))
    return workers, max(here // workers, 1)


def _describe(recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    """What reports compare policies with: the size of the whole dataset, and the mean return of its episodes."""
    returns, held = dataset.episode_returns, dataset.held_out_count(recipe.held_out)
    mean = float(returns.mean()) if dataset.rewards_known else None
    return {"steps": len(dataset), "episodes": len(returns), "held_out": held, "mean_return": mean}


def _held_out(recipe: Recipe, dataset: Dataset) -> str | None:
    """A sentence on the episodes held out; None if the recipe asks for none."""
    count, held = len(dataset.episode_starts), dataset.held_out_count(recipe.held_out)
    if held:
        return f"{held:,} of {count:,} episodes are held out to judge the policies"
    if recipe.held_out:
        return f"no episode is held out to judge the policies: {recipe.held_out:g} of {count:,} is fewer than 2"
    return None


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignores Ctrl-C for the moment that it takes to write down what there is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _check_names(arms: Mapping[str, Recipe]) -> None:
    if not isinstance(arms, Mapping):
        raise RecipeError(
            f"the arms are a {type(arms).__name__}; expected recipes by name: {{'one': Recipe(…), 'other': Recipe(…)}}"
        )
    if not arms:
        raise RecipeError("nothing to compare: no arm was given")
    for name, recipe in arms.items():
        if not isinstance(recipe, Recipe):
            what = "the recipe" if name == "run" else f"arm {name!r}"
            kind = "class" if isinstance(recipe, type) else type(recipe).__name__
            raise RecipeError(
                f"{what} is a {kind}; expected a "
                "segue.Recipe(dataset=…, offline=…); from a file: segue.recipe.read_recipes(PATH)"
            )
    slugs = [slug(name) for name in arms]
    for name, short in zip(arms, slugs, strict=True):
        if slugs.count(short) > 1:
            raise RecipeError(f"arm {name!r} and another one would both be stored as {short!r}; rename one")
        if short.startswith("offline"):
            raise RecipeError(f"arm {name!r}: names starting with 'offline' are kept for offline phases; rename it")


class _Loaded:
    """The datasets of recipes, each read and validated once."""

    def __init__(self) -> None:
        self._found: dict[tuple[int | str, bool], Dataset] = {}

    def parts(self, recipe: Recipe) -> list[Source]:
        """The parts of the recipe's dataset: URIs, and Datasets for what is held in memory.

        Raises:
            DataError: as `segue.load` does.
        """
        return [uri_of(part) or self._loaded(part, recipe.clip_actions) for part in parts_of(recipe.dataset)]

    def __call__(self, recipe: Recipe) -> Source:
        """The recipe's dataset, made of these parts."""
        if recipe.dataset is None or uri_of(recipe.dataset) is not None:
            return recipe.dataset
        parts, weights = self.parts(recipe), getattr(recipe.dataset, "weights", None)
        return Mixture(parts, weights) if len(parts) > 1 or weights else parts[0]

    def whole(self, recipe: Recipe) -> Dataset | None:
        """The recipe's dataset, read once for all recipes that name the same one."""
        dataset = recipe.dataset
        if dataset is None or isinstance(dataset, Dataset):
            return dataset
        if isinstance(dataset, str):
            return self._loaded(dataset, recipe.clip_actions)
        return load_dataset(dataset, clip_actions=recipe.clip_actions)

    def _loaded(self, part: Source, clip_actions: bool) -> Dataset:
        key = part if isinstance(part, str) else id(part), clip_actions
        if key not in self._found:
            self._found[key] = load_dataset(part, clip_actions=clip_actions)
        return self._found[key]


def _check(
    name: str, recipe: Recipe, out: Path, look: Looks | None = None, loaded: _Loaded | None = None
) -> tuple[Recipe, Dataset | None]:
    """The recipe with its environment, its dataset and what it leaves to the online algorithm named, once dataset,
    environment and algorithms are known to fit; and the dataset.

    A dataset held in memory is named by the file in which workers, and a repeated run, find it.
    """
    look, loaded = look or Looks(), loaded or _Loaded()
    where = "" if name == "run" else f"arm {name!r}: "
    try:
        recipe = dataclasses.replace(recipe, dataset=loaded(recipe))
        dataset = dataset_of(dataclasses.replace(recipe, dataset=loaded.whole(recipe)), look=look)
        environment = environment_of(recipe, dataset)
        check_fit(recipe, dataset, environment, look)
        if dataset is not None and environment is not None:
            _check_bounds(dataset, environment, look)
        if recipe.cost is not None:
            if environment is None:
                raise RecipeError(f"cost is {recipe.cost!r}, but there is no environment that reports it")
            require_cost(environment, recipe.cost)
        recipe = _for_its_episodes(recipe, dataset, environment, look)
        uri = None if dataset is None else _uri_in_files(recipe, dataset, out)
        live: dict[str, Any] = {}
        if recipe.online is not None and not recipe.online.on_policy:
            live = {"replay": recipe.effective_replay, "updates_per_step": recipe.effective_updates_per_step}
        if environment is not None:
            with contextlib.suppress(RecipeError):  # it then runs in this process only, see `_bound_to_this_process`
                environment = environment.portable()
            live |= {
                "env": environment.name,
                "env_kwargs": environment.kwargs,
                "env_wrappers": environment.wrappers,
                "max_episode_steps": environment.max_episode_steps,
            }
        return dataclasses.replace(recipe, dataset=uri, **live), dataset
    except SegueError as error:
        raise type(error)(f"{where}{error}") from error


def _for_its_episodes(recipe: Recipe, dataset: Dataset | None, environment: Environment | None, look: Looks) -> Recipe:
    """The recipe with its parts told of its limit on cost and of the length of an episode.

    That is the environment's time limit, or else the length of the longest episode of the dataset.
    """
    limit = None if environment is None else look(environment).time_limit
    if limit is None and dataset is not None:
        limit = int(dataset.episode_lengths.max())
    told: dict[str, Any] = {
        name: algorithm.for_episodes(limit, recipe.cost_limit)
        for name, algorithm in (("offline", recipe.offline), ("online", recipe.online))
        if algorithm is not None
    }
    bridges = tuple(bridge.with_cost_limit(recipe.cost_limit) for bridge in recipe.bridges)
    return dataclasses.replace(recipe, bridges=bridges, **told)


def _uri_in_files(recipe: Recipe, dataset: Dataset, out: Path) -> str:
    """The recipe's dataset, what is held in memory named by the file that the run keeps it in."""
    parts = parts_of(recipe.dataset)
    names = [f"npz:{_file_of(part, out)}" if isinstance(part, Dataset) else str(uri_of(part)) for part in parts]
    weights = recipe.dataset.weights if isinstance(recipe.dataset, Mixture) else None
    return with_categories(Mixture(names, weights).text(names) if len(names) > 1 else names[0], dataset)


def _file_of(dataset: Dataset, out: Path) -> Path:
    return out.resolve() / f"log-{dataset.fingerprint()}.npz"


def _check_bounds(dataset: Dataset, environment: Environment, look: Looks) -> None:
    """Refuse to guess what unit the dataset's actions are in."""
    if dataset.bounds_known:
        return
    actions = look(environment).actions
    if actions.low is None or actions.high is None:
        return
    if (actions.low != -1).any() or (actions.high != 1).any():
        raise RecipeError(
            f"the dataset {dataset.source} does not name its action bounds, and those of {environment} are not ±1 "
            f"(low {actions.low.min():g}, high {actions.high.max():g}): add the entries action_low and action_high to "
            "the dataset (an .npz file or a dict of arrays), ±1 if its actions are rescaled already"
        )


def _bound_to_this_process(recipes: Iterable[Recipe]) -> str | None:
    """Why the environments of these recipes cannot be made in another process; None if they can."""
    for recipe in recipes:
        try:
            if recipe.environment is not None:
                recipe.environment.portable()
        except RecipeError as error:
            return str(error)
    return None


def _environment_notes(recipe: Recipe, dataset: Dataset | None, look: Looks) -> list[str]:
    """What a user should know of the live environment before anything is learnt in it."""
    live, logged = recipe.environment, None if dataset is None else dataset.environment
    notes = []
    if live is not None and logged is not None and not same(live, logged, look):
        notes.append(f"the live environment is {live}, the dataset was recorded in {logged}: they differ")
    elif live is not None and logged is not None and logged.options() is not None:
        notes.append(f"the live environment is the dataset's: {live}")
    if live is not None and look(live).time_limit is None:
        notes.append(
            f"environment {live} has no time limit: an episode ends where the environment ends it, or by "
            "--max-episode-steps N (in Python: max_episode_steps)"
        )
    if live is not None and dataset is not None and (shorter := cut_short(dataset, look(live).time_limit)) is not None:
        notes.append(f"{dataset.source}: {shorter}")
    return notes
