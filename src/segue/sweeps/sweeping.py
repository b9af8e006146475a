"""A sweep from its first trial to the winner's fresh seeds.

    sweep.json    what is varied and how; every trial with its values and scores; the winner, on its old and fresh seeds
    sweep.md      the same in words; its picture is sweep.png
    trials.csv    a row per trial and seed
    search/       the run directory of the trials, an arm each
    confirm/      the run directory of the winner and of the recipe as given, on seeds that chose nothing

A sweep that was stopped is the same call again: the search asks the same questions, and runs that are there answer
them.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Any

from segue.data import uri_of
from segue.envs.spec import NO_ENVIRONMENT
from segue.errors import RecipeError, SegueError, unknown
from segue.files import make_directory, write_atomically
from segue.recipe import CHECKPOINT_EVERY, Recipe, read_recipes
from segue.report import decode
from segue.report.frame import frame
from segue.report.measures import arm_measures
from segue.runner import Ray, Result, RunFailed, compare
from segue.runner.jobs import Event, Job
from segue.runner.longer import lengthen
from segue.sweeps.figure import sweep_picture
from segue.sweeps.objectives import LIVE, OBJECTIVES, measure_of
from segue.sweeps.search import Kind, Search, searcher
from segue.sweeps.space import Range, Values, changed, field_of, title, whole
from segue.sweeps.words import GIVEN, WINNER, in_words

FILE = "sweep.json"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Where a sweep is and what came of it."""

    directory: Path
    plain: Mapping[str, Any]
    """What `sweep.json` holds."""

    @classmethod
    def load(cls, directory: str | Path) -> Sweep:
        """The sweep in a directory.

        Raises:
            SegueError: if there is none.
        """
        found = _stored(Path(directory))
        if found is None:
            raise SegueError(f"{directory} holds no {FILE}; expected the directory of segue sweep")
        return cls(Path(directory), found)

    @property
    def status(self) -> str:
        """`complete`, `interrupted`, or `failed` if no trial has a score."""
        return self.plain["status"]

    @property
    def best(self) -> Mapping[str, Any]:
        """The winner's values by field.

        Raises:
            SegueError: if there is none yet.
        """
        return self._winner["values"]

    @property
    def searched(self) -> float:
        """The winner's score on the seeds that chose it, which is biased upwards."""
        return self._winner["score"]

    @property
    def confirmed(self) -> float:
        """The winner's score on fresh seeds: what to expect of it."""
        return self._winner["fresh"][WINNER]["score"]

    @property
    def recipe(self) -> Recipe:
        """The winner's recipe."""
        return read_recipes(self.directory / "confirm")[WINNER]

    @cached_property
    def search(self) -> Result:
        """The run of all trials."""
        return Result.load(self.directory / "search")

    @property
    def _winner(self) -> Mapping[str, Any]:
        if self.plain["winner"] is None:
            raise SegueError(f"{self.directory}: the sweep is {self.status} and has no winner")
        return self.plain["winner"]

    def table(self) -> Any:
        """A row per trial: its values, score and seeds; a pandas DataFrame if pandas is installed."""
        return frame(
            [
                {"trial": t["name"], **t["values"], "score": t["score"], "seeds": len(t["by_seed"])}
                for t in self.plain["trials"]
            ]
        )

    def __str__(self) -> str:
        return in_words(self.plain)


@dataclasses.dataclass
class _Trial:
    values: dict[str, Any]
    name: str
    recipe: Recipe
    seeds: int = 0
    by_seed: dict[str, float] = dataclasses.field(default_factory=dict)

    def score(self, seeds: Sequence[int]) -> float:
        """Mean over these seeds; NaN if one of them has no value."""
        values = [self.by_seed.get(str(seed), math.nan) for seed in seeds]
        return math.fsum(values) / len(values) if values and all(map(math.isfinite, values)) else math.nan


def sweep(
    recipe: Recipe,
    out: str | Path,
    *,
    vary: Mapping[str, Values],
    search: Kind = "grid",
    trials: int | None = None,
    objective: str = "final",
    halving: bool = False,
    confirm: int = 5,
    batch: int = 4,
    workers: int | None = None,
    on: str | Ray | None = None,
    progress: bool | None = None,
    on_event: Callable[[Job, Event], None] = lambda job, event: None,
    track: str | None = None,
    command: str | None = None,
    checkpoint_every: float = CHECKPOINT_EVERY,
) -> Sweep:
    """Try values of hyper-parameters, choose the best, and judge it again on fresh seeds.

    Every trial has the seeds of the recipe. The search is repeatable: the same call goes on with a sweep that was
    stopped.

    Args:
        recipe: what the trials have in common; the winner is compared with it.
        out: the sweep's directory; created, or holding the same sweep.
        vary: values, or a `Range`, by field: `offline.alpha`, `online.actor_learning_rate`, `updates_per_step`,
            `bridges.q-filter.percentile`, or a part by its name (`online`).
        search: `grid` tries every combination; `random`, `tpe` and `cma` are Optuna's samplers.
        trials: how many combinations these try.
        objective: the measure by which trials are ranked; of dip, swing, regret, cost and share-below less is better.
        halving: stop trials by successive halving: all have one seed, the better half two, of these the better half
            four, and so on up to the recipe's seeds.
        confirm: fresh seeds on which the winner and the recipe as given are judged.
        batch: trials that tpe and cma ask for at a time, before they learn what came of them.
        workers: as `segue.compare` takes it.
        on: as `segue.compare` takes it.
        progress: as `segue.compare` takes it.
        on_event: as `segue.compare` takes it.
        track: as `segue.compare` takes it.
        command: the command line, for the report.
        checkpoint_every: as `segue.compare` takes it.

    Raises:
        RecipeError: if something does not fit together; nothing was written.
        SegueError: if the directory holds something else, or cannot be written; as `segue.compare` does.
    """
    out = Path(out)
    if objective not in OBJECTIVES:
        raise RecipeError(unknown("objective", objective, OBJECTIVES))
    if recipe.env == NO_ENVIRONMENT:
        raise RecipeError(
            f"a sweep ranks trials by evaluations, here by {objective}, and with env {NO_ENVIRONMENT} there are none; "
            "give the environment (--env)"
        )
    if objective in LIVE and recipe.online is None:
        raise RecipeError(
            f"{objective} is measured in the online phase, and the recipe has none; give an online algorithm "
            "(--online), or another objective such as final"
        )
    if not vary:
        raise RecipeError("nothing to vary: give values of at least one field, for example offline.alpha=1,2.5,5")
    for name, value in (("confirm", confirm), ("batch", batch)):
        if value < 1:
            raise RecipeError(f"{name} is {value}; expected at least 1")
    if halving and recipe.seeds < 2:
        raise RecipeError("halving stops trials by their seeds, and the recipe has one; give --seeds 4 or more")
    space = {".".join(field_of(path, recipe)): _checked(path, values) for path, values in vary.items()}
    integral = {path: whole(recipe, path) for path, values in space.items() if isinstance(values, Range)}
    source = searcher(search, space, integral, trials, batch, recipe.seed)
    spec = {
        "recipe": _as_given(recipe),
        "vary": {p: dataclasses.asdict(v) if isinstance(v, Range) else list(v) for p, v in space.items()},
        "search": search,
        "trials": trials,
        "objective": objective,
        "halving": halving,
        "confirm": confirm,
        "batch": batch,
    }
    options = {
        "workers": workers,
        "on": on,
        "progress": progress,
        "on_event": on_event,
        "track": track,
        "command": command,
        "checkpoint_every": checkpoint_every,
    }
    running = _Running(recipe, out, spec, source, options)
    return Sweep.load(out) if running.complete else running.run()


class _Running:
    """A sweep as it goes; its state is on disk only."""

    def __init__(
        self, recipe: Recipe, out: Path, spec: dict[str, Any], source: Search, options: dict[str, Any]
    ) -> None:
        self.recipe, self.out, self.source, self.options = recipe, out, source, options
        self.spec = json.loads(json.dumps(spec))
        self.measure = measure_of(spec["objective"])
        self.sign = 1.0 if OBJECTIVES[spec["objective"]] else -1.0
        self.trials: list[_Trial] = []
        before = _stored(out)
        other = [name for name in self.spec if before is not None and before["spec"].get(name) != self.spec[name]]
        if other:
            raise SegueError(f"{out} holds a sweep with another {other[0]}; choose another --out")
        if before is None and out.exists() and any(out.iterdir()):
            raise SegueError(f"{out} is not empty and holds no {FILE}; choose another --out")
        self.recorded = [] if before is None else before["trials"]
        self.complete, self.interrupted = before is not None and before["status"] == "complete", False

    def run(self) -> Sweep:
        """From where it stands to its end."""
        seeds = self.recipe.seeds
        rungs = [count for i in range(20) if (count := 2**i) < seeds] + [seeds] if self.spec["halving"] else [seeds]
        while not self.interrupted and (asked := self.source.ask()):
            batch = [self._trial(values) for values in asked]
            self._write("interrupted")
            self._search(rungs[0], batch)
            self.source.tell([self.sign * trial.score(self._seeds(rungs[0])) for trial in batch])
        racing = self._ranked(self.trials, rungs[0])
        for before, count in itertools.pairwise(rungs):
            if self.interrupted:
                break
            racing = self._ranked(racing, before)[: math.ceil(len(racing) / 2)]
            self._search(count, racing)
        if self.interrupted:
            return self._write("interrupted")
        best = next(iter(self._ranked(racing, rungs[-1])), None)
        if best is None:
            return self._write("failed")
        fresh = self._confirm(best)
        winner = {"name": best.name, "values": best.values, "score": best.score(self._seeds(seeds)), "fresh": fresh}
        return self._write("interrupted" if self.interrupted else "complete", None if self.interrupted else winner)

    def _seeds(self, count: int) -> range:
        return range(self.recipe.seed, self.recipe.seed + count)

    def _trial(self, values: dict[str, Any]) -> _Trial:
        number = len(self.trials)
        plain = json.loads(json.dumps(values))
        if number < len(self.recorded) and self.recorded[number]["values"] != plain:
            raise SegueError(
                f"{self.out}: the search would now try other values than when it began, because another version of "
                "Optuna is installed; install that one again, or choose another --out"
            )
        trial = _Trial(plain, title(number, plain), changed(self.recipe, values))
        self.trials.append(trial)
        return trial

    def _ranked(self, trials: Sequence[_Trial], count: int) -> list[_Trial]:
        """Those that have a score on so many seeds, the best first, of equals the earlier one."""
        scored = [trial for trial in trials if math.isfinite(trial.score(self._seeds(count)))]
        return sorted(scored, key=lambda trial: -self.sign * trial.score(self._seeds(count)))

    def _search(self, count: int, trials: Sequence[_Trial]) -> None:
        """Give these trials so many seeds; all trials are arms of one run, also those that an earlier call came to."""
        place = self.out / "search"
        arms = read_recipes(place) if (place / "recipe.json").exists() else {}
        if short := [trial.name for trial in trials if trial.name in arms and arms[trial.name].seeds < count]:
            arms = lengthen(place, seeds=count, only=short)
        for trial in trials:
            trial.seeds = count
            arms.setdefault(trial.name, dataclasses.replace(trial.recipe, seeds=count))
        scores = self._compare(arms, place)
        for trial in self.trials:
            trial.by_seed = scores[trial.name]

    def _confirm(self, best: _Trial) -> dict[str, Any]:
        """Scores on seeds that chose nothing."""
        count = self.spec["confirm"]
        seeds = {"seed": self.recipe.seed + self.recipe.seeds, "seeds": count}
        arms = {WINNER: best.recipe, GIVEN: self.recipe}
        if best.recipe == self.recipe:
            del arms[GIVEN]
        arms = {name: dataclasses.replace(recipe, **seeds) for name, recipe in arms.items()}
        scores = self._compare(arms, self.out / "confirm", report=True)
        means = {name: math.fsum(of.values()) / len(of) if of else math.nan for name, of in scores.items()}
        return {name: {"score": _plain(means[name]), "by_seed": of} for name, of in scores.items()}

    def _compare(self, arms: Mapping[str, Recipe], place: Path, report: bool = False) -> dict[str, dict[str, float]]:
        """Run them, and give the measure of every arm and seed that came to its end."""
        try:
            result = compare(arms, place, report=report, **self.options)
        except RunFailed as failed:  # a trial that diverges is a bad trial
            result = failed.result
        self.interrupted = result.status == "interrupted"
        found = decode(result.summary, place.name)
        return {
            name: {
                seed: of[self.measure]
                for seed, of in arm_measures(arm).items()
                if arm.seeds[seed].finished and math.isfinite(of[self.measure])
            }
            for name, arm in found.arms.items()
        }

    def _write(self, status: str, winner: dict[str, Any] | None = None) -> Sweep:
        make_directory(self.out)
        trials = [
            {"name": t.name, "values": t.values, "score": _plain(t.score(self._seeds(t.seeds))), "by_seed": t.by_seed}
            for t in self.trials
        ]
        trials += self.recorded[len(trials) :]  # of an earlier call that came farther
        plain = {"status": status, "spec": self.spec, "trials": trials, "winner": winner}
        write_atomically(self.out / FILE, json.dumps(plain, indent=1) + "\n")
        if status != "complete":
            return Sweep(self.out, plain)
        write_atomically(self.out / "trials.csv", _csv(plain))
        write_atomically(self.out / "sweep.png", sweep_picture(plain))
        write_atomically(self.out / "sweep.md", in_words(plain) + "\n")
        return Sweep(self.out, plain)


def _csv(plain: Mapping[str, Any]) -> str:
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    fields = list(plain["spec"]["vary"])
    writer.writerow(["trial", *fields, "seed", plain["spec"]["objective"]])
    for trial in plain["trials"]:
        for seed, score in trial["by_seed"].items():
            writer.writerow([trial["name"], *(trial["values"][field] for field in fields), seed, score])
    return table.getvalue()


def _plain(score: float) -> float | None:
    """None where there is no score, for which JSON has a word."""
    return score if math.isfinite(score) else None


def _checked(path: str, values: Values) -> Values:
    """The values of a field.

    Raises:
        RecipeError: if there are none, or one is there twice.
    """
    if isinstance(values, Range):
        return values
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise RecipeError(f"vary {path}: {values!r} is no list of values, and no segue.Range(LOW, HIGH)")
    if not values:
        raise RecipeError(f"vary {path}: no value is given")
    for i, value in enumerate(values):
        if value in values[:i]:
            raise RecipeError(f"vary {path}: {value!r} is given twice")
    return list(values)


def _as_given(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data; a dataset held in memory by a word, as its content is known to the runs."""
    in_memory = recipe.dataset is not None and uri_of(recipe.dataset) is None
    return (dataclasses.replace(recipe, dataset="npz:in-memory") if in_memory else recipe).to_dict()


def _stored(out: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((out / FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise SegueError(f"{out / FILE} cannot be read ({error}); its runs are whole: choose another --out") from None
    kinds: dict[str, Any] = {"status": str, "spec": dict, "trials": list, "winner": (dict, NoneType)}
    try:
        whole = all(isinstance(found[name], kind) for name, kind in kinds.items())
        if whole and found["status"] in ("complete", "interrupted", "failed"):
            in_words(found)  # it looks at every part
            return found
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        pass
    raise SegueError(f"{out / FILE} is no sweep; choose another --out")
