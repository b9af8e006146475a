"""Passes a run on to an experiment tracker, W&B or MLflow: one tracked run for each seed of each arm.

`tracking.json` in the run directory keeps the ids of the tracked runs and how far they are, so that a resumed run
goes on in the same ones.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol

from segue.errors import RecipeError, SegueError, unknown
from segue.files import write_atomically
from segue.report import decode
from segue.report.measures import arm_measures
from segue.runner.directory import RunDirectory, read_lines
from segue.runner.jobs import Event, Job

#: Where tracked runs go if the tracker's own environment variable names no other project or experiment.
PROJECT = "segue"
#: In the run directory.
FILE = "tracking.json"
#: Metrics that MLflow gets in one request: its limit.
MLFLOW_METRICS = 1000
#: Parameters in one request: its limit.
MLFLOW_PARAMETERS = 100
#: The longest value of a parameter, and of a tag, in characters.
MLFLOW_VALUE, MLFLOW_TAG = 6000, 5000


class TrackedRun(Protocol):
    """One seed of one arm, at a tracker; every method may raise what it likes."""

    id: str
    """Finds it again."""
    place: str
    """Where a person looks at it."""

    def __init__(self, known: str | None, name: str, group: str, parameters: Mapping[str, Any]) -> None:
        """Begin a run, or go on with the one whose id is known."""

    def log(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        """Numbers at a step of a phase, which counts updates offline and environment steps online."""

    def finish(self, status: str, figures: Mapping[str, float], notes: str) -> None:
        """The seed ended, complete, failed or interrupted, with figures that have no step."""


class WandbRun:
    """Weights & Biases; WANDB_MODE, WANDB_PROJECT and its other variables hold."""

    def __init__(self, known: str | None, name: str, group: str, parameters: Mapping[str, Any]) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self.id = known or uuid.uuid4().hex
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=self.id,
            resume="allow",
            name=name,
            group=group,
            reinit="create_new",  # several seeds at the same time
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.run.config.update(dict(parameters), allow_val_change=True)
        for phase in ("offline", "online"):
            self.run.define_metric(f"{phase}/step", hidden=True)
            self.run.define_metric(f"{phase}/*", step_metric=f"{phase}/step")
        self.place = self.run.sync_dir if self.run.offline else self.run.url

    def log(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        """One row of the history; the phase's own step is its axis."""
        self.run.log({f"{phase}/{name}": value for name, value in values.items()} | {f"{phase}/step": step})

    def finish(self, status: str, figures: Mapping[str, float], notes: str) -> None:
        """The figures go into the run's summary."""
        self.run.summary.update({"status": status, **figures})
        if notes:
            self.run.notes = notes
        self.run.finish(exit_code=0 if status == "complete" else 1)


class MLflowRun:
    """MLflow; MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME hold, and by default a SQLite file in this folder."""

    def __init__(self, known: str | None, name: str, group: str, parameters: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow
        from mlflow.entities import Param

        self.client, self.waiting = mlflow.MlflowClient(), list[Any]()
        if known is None:
            tags = {"mlflow.runName": name, "mlflow.source.name": "segue", "group": group}
            run = self.client.create_run(self._experiment(), tags=tags)
            given = [Param(_mlflow_name(key), str(value)[:MLFLOW_VALUE]) for key, value in parameters.items()]
            for i in range(0, len(given), MLFLOW_PARAMETERS):
                self.client.log_batch(run.info.run_id, params=given[i : i + MLFLOW_PARAMETERS])
        else:
            run = self.client.get_run(known)  # its parameters cannot be changed
            self.client.update_run(known, "RUNNING")
        self.id = run.info.run_id
        self.place = f"{mlflow.get_tracking_uri()}, run {self.id}"

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self.client.get_experiment_by_name(name)
        return self.client.create_experiment(name) if found is None else found.experiment_id

    def log(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        """Metrics are sent with the next evaluation, since each request takes as long as many updates."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.waiting += [Metric(_mlflow_name(f"{phase}/{key}"), value, now, step) for key, value in values.items()]
        if "mean_return" in values or len(self.waiting) >= MLFLOW_METRICS // 2:
            self._send()

    def _send(self) -> None:
        for i in range(0, len(self.waiting), MLFLOW_METRICS):
            self.client.log_batch(self.id, metrics=self.waiting[i : i + MLFLOW_METRICS])
        self.waiting = []

    def finish(self, status: str, figures: Mapping[str, float], notes: str) -> None:
        """The figures are metrics at step 0; the notes are the run's description."""
        self._send()
        for name, value in figures.items():
            self.client.log_metric(self.id, _mlflow_name(name), value)
        if notes:
            self.client.set_tag(self.id, "mlflow.note.content", notes[:MLFLOW_TAG])
        ended = {"complete": "FINISHED", "failed": "FAILED"}
        self.client.set_terminated(self.id, ended.get(status, "KILLED"))


def _mlflow_name(name: str) -> str:
    """MLflow refuses other characters."""
    return re.sub(r"[^\w\-. /]", "_", name)


TRACKERS: dict[str, type[TrackedRun]] = {"wandb": WandbRun, "mlflow": MLflowRun}


def require_tracker(name: str) -> None:
    """Refuse a tracker that is not there.

    Raises:
        RecipeError: if Segue does not know it.
        SegueError: if its package is not installed.
    """
    if name not in TRACKERS:
        raise RecipeError(unknown("tracker", name, TRACKERS))
    if importlib.util.find_spec(name) is None:
        raise SegueError(f"--track {name} needs a package that is not installed: pip install 'segue[track]'")


class Tracking:
    """Receives the events of `segue.compare`; use as a context manager.

    A failing tracker never ends the run: after its first failure the run warns once and tells it no more.

    Args:
        directory: the run's.
        name: of the tracker; with None nothing is tracked.
        say: is told a sentence for people.
    """

    def __init__(self, directory: RunDirectory, name: str | None, say: Callable[[str], None]) -> None:
        self.directory, self.name, self.say = directory, name or "", say
        self.active = name is not None
        self.runs: dict[tuple[str, int], TrackedRun] = {}
        self.tracked: dict[tuple[str, int], dict[str, dict[str, int]]] = {}
        self.jobs: dict[tuple[str, int], list[Job]] = {}
        self.recorded: dict[str, list[tuple[str, int, dict[str, float]]]] = {}
        if self.active:
            self.jobs = {(arm, seed): directory.jobs_of(arm, seed) for arm, seed in directory.seeds()}
            # Now, because a job that goes on cuts its records back.
            self.recorded = {job.label: list(_recorded(job)) for job in directory.jobs()}
        self.last = {label: _last(rows) for label, rows in self.recorded.items()}

    def __enter__(self) -> Tracking:
        """Begin with the first seed that is not done, so that a tracker that cannot be reached is known at once.

        Raises:
            SegueError: if it cannot.
        """
        first = next((key for key, jobs in self.jobs.items() if not all(job.result() for job in jobs)), None)
        if first is not None:
            try:
                place = self._run(first).place
            except Exception as error:  # trackers raise what they like
                raise SegueError(f"--track {self.name}: {_line(error)}; nothing was started") from error
            self.say(f"tracked by {self.name}: {place}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for key in list(self.runs):
            self._finish(key, "interrupted", {}, "")

    def __call__(self, job: Job, event: Event) -> None:
        """Pass on one event to every arm that the job is part of."""
        row = _row(event)
        if not self.active or (row is None and event["event"] != "start"):
            return
        with self._tolerant():
            for key in [key for key, jobs in self.jobs.items() if job.label in [one.label for one in jobs]]:
                self._run(key)
                # What a job that goes on does again was recorded before, and tracked when the run was opened.
                if row is not None:
                    self._log(key, job, row, self.last[job.label])
                if event["event"] == "evaluation":
                    self._keep(key, "running")

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Pass on what came of every seed that has begun.

        Args:
            summary: what `summary.json` holds.
        """
        if not self.active:
            return
        done = {name for name, entry in self._entries().items() if entry["status"] == "complete"}
        for name, arm in decode(summary, self.directory.path.name).arms.items():
            figures = arm_measures(arm)
            for seed, outcome in arm.seeds.items():
                key = (name, int(seed))
                if outcome.status == "pending" or (_label(key) in done and key not in self.runs):
                    continue
                found = {k.replace(" ", "_"): v for k, v in figures[seed].items() if math.isfinite(v)}
                notes = [*arm.dataset_notes, *arm.handover, *(e.message for e in outcome.events)]
                notes += [outcome.error] if outcome.error else []
                self._finish(key, outcome.status, found, "\n".join(notes))

    def _finish(self, key: tuple[str, int], status: str, figures: Mapping[str, float], notes: str) -> None:
        with self._tolerant():
            if self.active:
                self._run(key).finish(status, figures, notes)
                self._keep(key, status)
        self.runs.pop(key, None)

    def _run(self, key: tuple[str, int]) -> TrackedRun:
        """The tracked run of a seed, begun at its first use with what was recorded before."""
        if key not in self.runs:
            arm, seed = key
            stored = self._entries().get(_label(key), {})
            known = stored.get("id")
            group = self.directory.path.resolve().name
            group = group if set(self.directory.arms) == {"run"} else f"{group} {arm}"
            parameters = {"arm": arm, **_flat(self.directory.arms[arm]), "seed": seed}
            run = TRACKERS[self.name](known, f"{group} seed {seed}", group, parameters)
            self.runs[key] = run
            self.tracked[key] = {job.phase: dict(stored.get(job.phase, {})) for job in self.jobs[key]}
            self._keep(key, "running")
            for job in self.jobs[key]:
                before = dict(self.tracked[key][job.phase])
                for row in self.recorded[job.label]:
                    self._log(key, job, row, before)
        return self.runs[key]

    def _log(
        self, key: tuple[str, int], job: Job, row: tuple[str, int, dict[str, float]], before: Mapping[str, int]
    ) -> None:
        """Pass on what of a row is later than `before`, the last step of every quantity."""
        phase, step, values = row
        new = {name: value for name, value in values.items() if step > before.get(name, -1)}
        if new:
            self.runs[key].log(phase, step, new)
            self.tracked[key][phase] |= dict.fromkeys(new, step)

    def _stored(self) -> dict[str, Any]:
        """What earlier calls kept, by tracker; a damaged file is none: new tracked runs are begun."""
        with contextlib.suppress(OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
            found = json.loads((self.directory.path / FILE).read_bytes())
            if all(isinstance(e["id"], str) and "status" in e for runs in found.values() for e in runs.values()):
                return found
        return {}

    def _entries(self) -> dict[str, Any]:
        return self._stored().get(self.name, {})

    def _keep(self, key: tuple[str, int], status: str) -> None:
        entry = {_label(key): {"id": self.runs[key].id, "status": status, **self.tracked[key]}}
        plain = {**self._stored(), self.name: {**self._entries(), **entry}}
        write_atomically(self.directory.path / FILE, json.dumps(plain, indent=1) + "\n")

    @contextlib.contextmanager
    def _tolerant(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # trackers raise what they like
            self.active = False
            self.say(f"WARNING: tracking by {self.name} stopped: {_line(error)}. The run goes on without it")


def _label(key: tuple[str, int]) -> str:
    return f"{key[0]} · seed {key[1]}"


def _row(event: Mapping[str, Any]) -> tuple[str, int, dict[str, float]] | None:
    """Phase, step and numbers of an event that has them."""
    if event["event"] == "evaluation":
        return event["phase"], event["step"], _means(event)
    if event["event"] == "metrics":
        return event["phase"], event["step"], event["values"]
    return None


def _means(evaluation: Mapping[str, Any]) -> dict[str, float]:
    return {name: evaluation[name] for name in ("mean_return", "mean_cost") if name in evaluation}


def _recorded(job: Job) -> Iterator[tuple[str, int, dict[str, float]]]:
    """The rows that a job recorded before, as its events gave them; last the evaluations, with which all is sent."""
    for record in read_lines(job.records / "metrics.jsonl"):
        values = {name: value for name, value in record.items() if name not in ("phase", "step")}
        if record.keys() >= {"phase", "step"}:
            yield record["phase"], record["step"], values
    for record in read_lines(job.records / "evaluations.jsonl"):
        if record.keys() >= {"phase", "step", "mean_return"}:
            yield record["phase"], record["step"], _means(record)


def _last(rows: list[tuple[str, int, dict[str, float]]]) -> dict[str, int]:
    """The last step of every quantity."""
    return {name: step for _, step, values in sorted(rows, key=lambda row: row[1]) for name in values}


def _flat(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names; a list of parts by their names."""
    flat: dict[str, Any] = {}
    for name, value in plain.items():
        if isinstance(value, list) and value and all(isinstance(one, Mapping) and "name" in one for one in value):
            flat[f"{prefix}{name}"] = ", ".join(one["name"] for one in value)
            value = {one["name"]: {k: v for k, v in one.items() if k != "name"} for one in value}
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
