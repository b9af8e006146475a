"""A run as values: `summary.json` and `metrics.csv` are decoded here, once, and nowhere else."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segue.errors import SegueError
from segue.report.references import OWN, Reference, reference

Array = NDArray[np.float64]
Curve = tuple[Array, Array]
"""`(steps [n], values [n])`, steps ascending."""
NO_CURVE: Curve = (np.empty(0), np.empty(0))
PHASES = ("offline", "online")

#: (what metrics.csv calls the arm, seed) → phase → metric → curve.
History = dict[tuple[str, str], dict[str, dict[str, Curve]]]

_WORST_FIRST = ("failed", "interrupted", "pending", "complete")


@dataclass(frozen=True)
class Evaluation:
    """The mean return after `step` steps of a phase, and the returns and costs of its episodes where they are known."""

    step: float
    mean: float
    returns: Array
    costs: Array = field(default_factory=lambda: np.empty(0))

    @property
    def mean_cost(self) -> float:
        """Per episode; NaN where costs were not recorded."""
        return float(self.costs.mean()) if self.costs.size else math.nan


@dataclass(frozen=True)
class Event:
    """A message that a seed recorded."""

    phase: str
    step: float
    message: str


@dataclass(frozen=True)
class ActionHistogram:
    """Shares of actions [dimensions, bins] in the dataset and of the policy on the dataset's states.

    `edges` [bins + 1] bound the bins of continuous actions; None for discrete ones, with a bin per action.
    """

    edges: Array | None
    dataset: Array
    policy: Array


@dataclass(frozen=True)
class Seed:
    """What one seed of an arm recorded. Evaluations are in order of step and have a finite mean."""

    status: str = "pending"
    error: str | None = None
    offline_score: float = math.nan
    final_score: float = math.nan
    training_return: float = math.nan
    offline: tuple[Evaluation, ...] = ()
    online: tuple[Evaluation, ...] = ()
    steps: Mapping[str, int | None] = field(default_factory=dict)
    """Updates offline and environment steps online that were done; what studies store does not have them."""
    wall_time_s: Mapping[str, float | None] = field(default_factory=dict)
    updates_per_second: Mapping[str, float | None] = field(default_factory=dict)
    digest: str | None = None
    events: tuple[Event, ...] = ()
    metrics: Mapping[str, Mapping[str, Curve]] = field(default_factory=dict)
    """Phase → metric → curve."""
    actions: ActionHistogram | None = None

    @property
    def finished(self) -> bool:
        """Whether it came to the end of its recipe."""
        return self.status == "complete"

    def metric(self, phase: str, name: str) -> Curve:
        """One recorded curve; empty where there is none."""
        return self.metrics.get(phase, {}).get(name, NO_CURVE)

    @property
    def offline_curve(self) -> Curve:
        """The evaluations of the offline phase."""
        return _curve((e.step, e.mean) for e in self.offline)

    @cached_property
    def from_handover(self) -> tuple[Evaluation, ...]:
        """The online evaluations, from the offline score if there is one and step 0 was not evaluated.

        Behind an offline score that was not measured again are the episodes of the last offline evaluation.
        """
        if not math.isfinite(self.offline_score) or (self.online and self.online[0].step == 0):
            return self.online
        last = self.offline[-1] if self.offline else Evaluation(0.0, math.nan, np.empty(0))
        return (dataclasses.replace(last, step=0.0, mean=self.offline_score), *self.online)

    @property
    def online_curve(self) -> Curve:
        """The curve of `from_handover`."""
        return _curve((e.step, e.mean) for e in self.from_handover)

    @property
    def online_steps(self) -> float:
        """Environment steps that were done, also those after the last evaluation; NaN if there are none to speak of."""
        steps, _ = self.online_curve
        return max([*steps[-1:], *([done] if (done := self.steps.get("online")) else [])], default=math.nan)

    @property
    def cost_curves(self) -> tuple[Curve, Curve]:
        """Mean costs per episode of the evaluations offline and from the handover on, where they were recorded."""
        offline, online = (
            _curve((e.step, e.mean_cost) for e in phase if e.costs.size) for phase in (self.offline, self.from_handover)
        )
        return offline, online


@dataclass(frozen=True)
class Arm:
    """One recipe with its seeds. `method` is its name within its task, `run` the run it comes from."""

    name: str
    recipe: Mapping[str, Any]
    """As `Recipe.to_dict` wrote it."""
    seeds: Mapping[str, Seed]
    method: str
    run: str = ""
    dataset_return: float = math.nan
    """Mean return of the episodes of its dataset; NaN without one, and in old summaries."""
    dataset_notes: tuple[str, ...] = ()
    """What loading did to its dataset, and what the checks found in it."""
    handover: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """The worst status among its seeds."""
        return worst(seed.status for seed in self.seeds.values())

    @property
    def environment(self) -> str | None:
        """Gymnasium id."""
        return None if self.recipe.get("env") is None else str(self.recipe["env"])

    @property
    def reference(self) -> Reference | None:
        """What its normalised scores refer to: the recipe's own returns, or the convention for its environment."""
        own = self.recipe.get("reference")
        if own is not None:
            return Reference(OWN, *map(float, own))
        return None if self._limited() else reference(self.environment)

    def _limited(self) -> bool:
        """Whether episodes end earlier or later than those that a convention is for."""
        import gymnasium as gym

        limit, usual = self.recipe.get("max_episode_steps"), gym.registry.get(self.environment or "")
        return limit is not None and usual is not None and limit != usual.max_episode_steps

    @property
    def pretrained(self) -> bool:
        """Whether it has an offline phase."""
        return bool(self.recipe.get("offline"))

    @property
    def offline_only(self) -> bool:
        """Whether it ends with its offline phase."""
        return self.pretrained and not self.recipe.get("online")

    def curves(self) -> list[Curve]:
        """The online curve of every seed."""
        return [seed.online_curve for seed in self.seeds.values()]


@dataclass(frozen=True)
class Source:
    """Where one run came from."""

    run: str
    status: str
    wall_time_s: float | None
    machine: Mapping[str, Any]
    versions: Mapping[str, Any]
    command: str | None


@dataclass(frozen=True)
class Summary:
    """One run, or several that `merge` put together."""

    run: str
    status: str
    arms: Mapping[str, Arm]
    sources: tuple[Source, ...]
    notes: tuple[str, ...] = ()
    """What readers should know of how the runs were put together."""

    def tasks(self) -> dict[str, list[str]]:
        """Name of each task → its arms, in order.

        A task is an environment together with a dataset. An arm without a dataset belongs to the one that the other
        arms of its run use, if that is only one. The dataset is in the name where the environment alone is ambiguous.
        """
        places = {name: self._place(arm) for name, arm in self.arms.items()}
        distinct = list(dict.fromkeys(places.values()))
        environments = [env for env, _ in distinct]
        names = {
            (env, data): env if environments.count(env) == 1 else f"{env} · {without_folder(data) or 'no dataset'}"
            for env, data in distinct
        }
        grouped: dict[str, list[str]] = defaultdict(list)
        for name, place in places.items():
            grouped[names[place]].append(name)
        return dict(grouped)

    def _place(self, arm: Arm) -> tuple[str, str]:
        data = arm.recipe.get("dataset")
        if data is None:
            found = {a.recipe.get("dataset") for a in self.arms.values() if a.run == arm.run} - {None}
            data = found.pop() if len(found) == 1 else None
        return arm.environment or "Offline to online", str(data or "")

    def places(self) -> dict[str, int]:
        """Arm → place of its method among the methods, which decides its colour and line style."""
        order = list(dict.fromkeys(arm.method for arm in self.arms.values()))
        return {name: order.index(arm.method) for name, arm in self.arms.items()}

    def scratch(self, names: Sequence[str]) -> str | None:
        """The first of these arms without pretraining, where there are others to compare with it."""
        return next((n for n in names if not self.arms[n].pretrained), None) if len(names) > 1 else None


def without_folder(dataset: str) -> str:
    """A dataset's URI as a name: `segue:hopper-mixed`, `door.hdf5`."""
    return dataset.rsplit("/", 1)[-1]


def worst(statuses: Iterable[str]) -> str:
    """The status that a reader must know of first; `complete` only if all are."""
    found = set(statuses)
    return next((s for s in _WORST_FIRST if s in found), "complete" if not found else sorted(found)[0])


# Decoding


def read_plain(directory: Path) -> dict[str, Any]:
    """The `summary.json` of a run directory as plain data.

    Raises:
        SegueError: if it is not there, cannot be read, or is not a summary.
    """
    path = Path(directory) / "summary.json"
    try:
        plain = json.loads(path.read_bytes())
    except NotADirectoryError:
        raise SegueError(f"{directory}: a file; expected the directory of a run") from None
    except FileNotFoundError:
        if not Path(directory).is_dir():
            raise SegueError(f"{directory}: no such directory") from None
        begun = (Path(directory) / "recipe.json").exists()
        expected = f"segue run --resume {directory} continues it" if begun else "expected the directory of a run"
        raise SegueError(f"{path}: not found; it is written when the run ends: {expected}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SegueError(f"{path}: cannot be read: {error}") from None
    except json.JSONDecodeError as error:
        raise SegueError(f"{path}: not JSON (line {error.lineno}: {error.msg}); run again to rewrite it") from None
    if not isinstance(plain, dict) or not isinstance(plain.get("arms"), dict):
        raise SegueError(f"{path}: not a Segue summary: expected an object with 'arms'")
    for name, arm in plain["arms"].items():
        if not (isinstance(arm, dict) and isinstance(arm.get("seeds"), dict)):
            raise SegueError(f"{path}: arm {name!r} is not a Segue arm: expected an object with 'seeds'")
    return plain


def decode(plain: Mapping[str, Any], run: str = "", history: History | None = None) -> Summary:
    """The typed summary of plain data as `summary.json` holds it, with training metrics if they are given.

    Raises:
        SegueError: if a field has another type than a summary's.
    """
    try:
        arms = {name: _arm(name, arm, history or {}) for name, arm in plain["arms"].items()}
        status = str(plain.get("status", "complete"))
        time = plain.get("wall_time_s")
        source = Source(
            run,
            status,
            None if time is None else float(time),
            dict(plain.get("machine") or {}),
            {"segue": plain.get("segue_version"), **(plain.get("versions") or {})},
            plain.get("command"),
        )
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise SegueError(f"{run or 'the run'}: its summary is damaged ({error}); run again to rewrite it") from None
    return Summary(run, status, arms, (source,))


def _arm(name: str, plain: Mapping[str, Any], history: History) -> Arm:
    return Arm(
        name,
        recipe=plain.get("recipe") or {},
        seeds={key: _seed(key, seed, history) for key, seed in plain["seeds"].items()},
        method=str(plain.get("method", name)),
        run=str(plain.get("run", "")),
        dataset_return=_number((plain.get("dataset") or {}).get("mean_return")),
        dataset_notes=tuple(map(str, (plain.get("dataset") or {}).get("notes") or ())),
        handover=tuple(map(str, plain.get("handover") or ())),
    )


def _seed(key: str, plain: Mapping[str, Any], history: History) -> Seed:
    listed = plain.get("metrics_of") or {}
    metrics = {phase: history.get((str(listed.get(phase)), key), {}).get(phase, {}) for phase in PHASES}
    actions = plain.get("actions")
    return Seed(
        status=str(plain.get("status", "pending")),
        error=None if plain.get("error") is None else str(plain["error"]),
        offline_score=_number(plain.get("offline_score")),
        final_score=_number(plain.get("final_score")),
        training_return=_number(plain.get("training_return")),
        offline=_evaluations(plain.get("offline_evaluations")),
        online=_evaluations(plain.get("online_evaluations")),
        steps=plain.get("steps") or {},
        wall_time_s=plain.get("wall_time_s") or {},
        updates_per_second=plain.get("updates_per_second") or {},
        digest=plain.get("parameters_sha256"),
        events=tuple(
            Event(str(e.get("phase", "online")), float(e["step"]), str(e["message"])) for e in plain.get("events") or ()
        ),
        metrics=metrics,
        actions=None
        if actions is None
        else ActionHistogram(
            None if actions["edges"] is None else np.asarray(actions["edges"], float),
            np.asarray(actions["dataset"], float),
            np.asarray(actions["policy"], float),
        ),
    )


def _evaluations(plain: Sequence[Mapping[str, Any]] | None) -> tuple[Evaluation, ...]:
    found = [
        Evaluation(
            float(e["step"]),
            float(e["mean_return"]),
            np.asarray(e.get("returns") or (), dtype=float),
            np.asarray(e.get("costs") or (), dtype=float),
        )
        for e in plain or ()
        if e.get("mean_return") is not None and math.isfinite(e["mean_return"])
    ]
    return tuple(sorted(found, key=lambda e: e.step))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _curve(points: Iterable[tuple[float, float]]) -> Curve:
    steps, values = np.asarray(sorted(points), dtype=float).reshape(-1, 2).T
    return steps, values


def read_metrics(path: Path, names: Iterable[str]) -> History:
    """The named columns of a `metrics.csv`, and every loss. Cells that are empty or not finite are left out."""
    wanted = set(names)
    found: dict[tuple[str, str], Any] = defaultdict(lambda: {p: defaultdict(list) for p in PHASES})
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            head = next(rows, [])
            if not {"arm", "seed", "phase", "step"} <= set(head):
                return {}
            arm, seed, phase, step = (head.index(name) for name in ("arm", "seed", "phase", "step"))
            columns = [(i, name) for i, name in enumerate(head) if name in wanted or name.endswith("_loss")]
            for row in rows:
                if len(row) != len(head) or row[phase] not in PHASES:
                    continue
                of_phase = found[row[arm], row[seed]][row[phase]]
                for i, name in columns:
                    if row[i]:
                        with contextlib.suppress(ValueError):
                            of_phase[name].append((float(row[step]), float(row[i])))
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    return {
        key: {
            phase: {name: _curve(p for p in points if all(map(math.isfinite, p))) for name, points in of.items()}
            for phase, of in phases.items()
        }
        for key, phases in found.items()
    }


# Several runs


def merge(summaries: Sequence[Summary]) -> Summary:
    """One summary with the arms of all; arms of one name on several tasks are one method.

    Arms of several runs whose recipes differ only in their seeds are one arm with the seeds of all. The arm of a run
    of a single recipe has the name of the run. An arm name that occurs in several runs becomes `run/arm`. What
    belongs to a run and not to an arm (machine, versions, command, wall time) stays in `sources`.
    """
    called = [summary.run or f"run {i}" for i, summary in enumerate(summaries, start=1)]
    runs = _distinct(called)
    alone = [list(summary.arms) == ["run"] for summary in summaries]
    arms_of_runs = [
        (i, called[i] if alone[i] else name, arm)
        for i, summary in enumerate(summaries)
        for name, arm in summary.arms.items()
    ]
    tasks = [summary._place(arm) for summary in summaries for arm in summary.arms.values()]
    found, notes = _pooled(arms_of_runs, tasks, runs)
    occurrences = Counter(name for _, name, _ in found)
    labels = _distinct(
        [name if occurrences[name] == 1 else runs[i] if alone[i] else f"{runs[i]}/{name}" for i, name, _ in found]
    )
    arms = {
        label: dataclasses.replace(arm, name=label, method=label, run=runs[i])
        for label, (i, _, arm) in zip(labels, found, strict=True)
    }
    sources = tuple(dataclasses.replace(s.sources[0], run=run) for run, s in zip(runs, summaries, strict=True))
    merged = Summary(", ".join(runs), worst(s.status for s in summaries), arms, sources, notes)
    bare = dict(zip(labels, (name for _, name, _ in found), strict=True))
    for together in merged.tasks().values():
        within = Counter(bare[label] for label in together)
        for label in together:
            if within[bare[label]] == 1:
                arms[label] = dataclasses.replace(arms[label], method=bare[label])
    return merged


Found = tuple[int, str, Arm]
"""Number of the run, name and arm."""


def _pooled(
    found: Sequence[Found], tasks: Sequence[tuple[str, str]], runs: Sequence[str]
) -> tuple[list[Found], tuple[str, ...]]:
    """The arms, those of different runs that differ only in their seeds as one; and a note on seeds that came twice."""
    groups: list[list[Found]] = []
    homes: dict[str, list[Found]] = {}
    for one, task in zip(found, tasks, strict=True):
        run, _, arm = one
        recipe = {name: value for name, value in arm.recipe.items() if name not in ("seed", "seeds")}
        key = json.dumps([task, recipe], sort_keys=True)
        group = homes.get(key) if arm.recipe else None
        if group is None or group[0][0] == run:  # arms of one run are told apart by their names
            group = []
            groups.append(group)
            homes.setdefault(key, group)
        group.append(one)
    pooled, notes = [], []
    for group in groups:
        i, _, first = group[0]
        name = _stem([called for _, called, _ in group])
        seeds: dict[str, Seed] = {}
        for run, _, arm in group:
            twice = sorted(seeds.keys() & arm.seeds.keys(), key=int)
            if twice:
                notes.append(
                    f"WARNING: of “{name}” seed {', '.join(twice)} of {runs[run]} was there before: counted once."
                )
            seeds |= {key: seed for key, seed in arm.seeds.items() if not (key in seeds and seeds[key].finished)}
        ordered = {key: seeds[key] for key in sorted(seeds, key=int)} if len(group) > 1 else first.seeds
        pooled.append((i, name, dataclasses.replace(first, seeds=ordered)))
    return pooled, tuple(notes)


def _stem(names: Sequence[str]) -> str:
    """What runs that differ in their seeds are called together: `x` of `x-seed-1` and `x-seed-2`."""
    if len(set(names)) == 1:
        return names[0]
    common = os.path.commonprefix(names)  # noqa: RUF071 - these are names, not paths
    return re.sub(r"[-_. ]*(seeds?)?[-_. =]*\d*$", "", common) or names[0]


def _distinct(names: Sequence[str]) -> list[str]:
    """The names in order; each later twin gets the first free number."""
    distinct: list[str] = []
    for name in names:
        candidate, n = name, 2
        while candidate in distinct or (candidate != name and candidate in names):
            candidate, n = f"{name} ({n})", n + 1
        distinct.append(candidate)
    return distinct
