"""What an experiment tracker is told of a run: W&B and MLflow for real where they are installed, and a stand-in."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

import segue
from segue.cli.main import main
from segue.errors import RecipeError, SegueError
from segue.recipe import Recipe
from segue.runner import tracking
from segue.runner.jobs import Event, Job
from segue.runner.longer import lengthen
from segue.runner.result import Result
from toys import pendulum


class Book:
    """A tracker in memory: runs by id."""

    runs: ClassVar[dict[str, Book]] = {}
    broken: ClassVar[bool] = False

    def __init__(self, known: str | None, name: str, group: str, parameters: Mapping[str, Any]) -> None:
        if Book.broken:
            raise OSError("no route\nto host")
        self.id = known or f"id-{len(Book.runs)}"
        self.place = "memory"
        self.name, self.group, self.parameters = name, group, dict(parameters)
        before = Book.runs.get(self.id)
        self.rows: list[tuple[str, int, dict[str, float]]] = before.rows if before else []
        self.ends: list[str] = before.ends if before else []
        self.figures: dict[str, float] = {}
        Book.runs[self.id] = self

    def log(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        if Book.broken:
            raise OSError("no route\nto host")
        self.rows.append((phase, step, dict(values)))

    def finish(self, status: str, figures: Mapping[str, float], notes: str) -> None:
        self.ends.append(status)
        self.figures, self.notes = dict(figures), notes

    def evaluations(self) -> list[tuple[str, int, float]]:
        return [(phase, step, row["mean_return"]) for phase, step, row in self.rows if "mean_return" in row]


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> type[Book]:
    monkeypatch.setattr(Book, "runs", {})
    monkeypatch.setattr(Book, "broken", False)
    monkeypatch.setitem(tracking.TRACKERS, "json", Book)  # a package of this name is there
    return Book


def expected(summary: Mapping[str, Any], arm: str, seed: int) -> list[tuple[str, int, float]]:
    found = summary["arms"][arm]["seeds"][str(seed)]
    return [
        (phase, one["step"], one["mean_return"])
        for phase in ("offline", "online")
        for one in found[f"{phase}_evaluations"]
    ]


def test_each_seed_of_each_arm_is_one_tracked_run_with_its_phases_parameters_and_figures(
    book: type[Book], tmp_path: Path
) -> None:
    arms = {"plain": pendulum(seeds=2), "cloned": pendulum(online=None, online_steps=0, warmup_steps=0)}
    result = segue.compare(arms, tmp_path / "x", workers=1, track="json")
    runs = {(run.parameters["arm"], run.parameters["seed"]): run for run in book.runs.values()}
    assert set(runs) == {("plain", 0), ("plain", 1), ("cloned", 0)}
    for (arm, seed), run in runs.items():
        assert run.evaluations() == expected(result.summary, arm, seed)
        assert any("critic_loss" in row for _, _, row in run.rows)
        assert run.ends == ["complete"]
        final = result.summary["arms"][arm]["seeds"][str(seed)]["final_score"]
        assert run.figures["final"] == pytest.approx(final)
        assert ("dip" in run.figures) == (arm == "plain")
        assert ("critic: carried over" in run.notes) == (arm == "plain")
    assert runs["cloned", 0].parameters["online"] is None
    assert runs["cloned", 0].parameters["offline.name"] == "td3-bc"
    assert runs["plain", 0].group == runs["plain", 1].group != runs["cloned", 0].group


def test_a_resumed_run_goes_on_in_the_same_tracked_run_without_repeating_a_step(
    book: type[Book], tmp_path: Path
) -> None:
    def interrupt(job: Job, event: Event) -> None:
        if event["event"] == "evaluation" and event["phase"] == "online" and event["step"] == 20:
            raise KeyboardInterrupt

    first = segue.run(pendulum(), tmp_path / "x", workers=1, track="json", on_event=interrupt, checkpoint_every=0)
    assert first.status == "interrupted"
    again = segue.run(pendulum(), tmp_path / "x", workers=1, track="json")
    (run,) = book.runs.values()
    assert run.ends == ["interrupted", "complete"]
    steps = [(phase, step, tuple(row)) for phase, step, row in run.rows]
    assert len(set(steps)) == len(steps)
    # Also the one that the interruption kept from the tracker: it was recorded.
    assert run.evaluations() == expected(again.summary, "run", 0)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path, Result]:
    """A run that finished untracked."""
    recipe, where = pendulum(bridges=(segue.JumpStart(),)), tmp_path_factory.mktemp("once") / "x"
    return recipe, where, segue.run(recipe, where, workers=1)


@pytest.fixture
def finished(once: tuple[Recipe, Path, Result], tmp_path: Path) -> Any:
    """Tracks a copy of that run; each call is one more command."""
    recipe, where, result = once
    shutil.copytree(where, tmp_path / "x")

    def track(by: str) -> Result:
        segue.run(recipe, tmp_path / "x", workers=1, track=by)
        return result

    return track


def test_a_finished_run_can_be_tracked_afterwards_and_is_tracked_once(book: type[Book], finished: Any) -> None:
    for _ in range(2):
        result = finished("json")
    (run,) = book.runs.values()
    assert run.evaluations() == expected(result.summary, "run", 0)
    assert run.ends == ["complete"]
    assert run.parameters["bridges"] == "jump-start"
    assert "bridges.jump-start.stages" in run.parameters


@pytest.mark.parametrize("kept", ['{"json": {"run · seed 0": {"id": 7, "status": "complete"}}}', "{", "[]", "null"])
def test_a_damaged_list_of_tracked_runs_begins_new_ones_and_strange_records_are_left_out(
    kept: str, book: type[Book], finished: Any, tmp_path: Path
) -> None:
    (tmp_path / "x/tracking.json").write_text(kept)
    for records in tmp_path.glob("x/records/*/*/*.jsonl"):
        records.write_text('{"of": "another program"}\n' + records.read_text())
    result = finished("json")
    (run,) = book.runs.values()
    assert run.evaluations() == expected(result.summary, "run", 0)
    assert json.loads((tmp_path / "x/tracking.json").read_text())["json"]["run · seed 0"]["id"] == run.id


def installed(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    """A stand-in for a package that is not installed here."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)


class Wandb:
    """What `wandb` offers, as far as Segue calls it; with it `wandb.init` returns this run."""

    summary: dict[str, Any]

    def __init__(self, offline: bool = False) -> None:
        self.offline, self.url, self.sync_dir = offline, "https://wandb.example/run", "wandb/offline-run-1"
        self.begun: list[dict[str, Any]] = []
        self.summary, self.parameters, self.rows, self.ends, self.notes = {}, {}, list[Any](), list[int](), ""
        self.axes: dict[str, str | None] = {}
        self.config = SimpleNamespace(update=self.configure)

    def init(self, **settings: Any) -> Wandb:
        self.begun.append(settings)
        return self

    def configure(self, parameters: dict[str, Any], allow_val_change: bool) -> None:
        assert allow_val_change, "wandb refuses to change what a resumed run has"
        self.parameters.update(parameters)

    def define_metric(self, name: str, step_metric: str | None = None, hidden: bool = False) -> None:
        self.axes[name] = step_metric

    def log(self, row: dict[str, float]) -> None:
        self.rows.append(row)

    def finish(self, exit_code: int) -> None:
        self.ends.append(exit_code)


@pytest.mark.parametrize("offline", [False, True])
def test_wandb_gets_rows_on_the_axis_of_their_phase_parameters_and_a_summary(
    offline: bool, monkeypatch: pytest.MonkeyPatch, finished: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Wandb(offline)
    installed(monkeypatch, "wandb", init=run.init, Settings=lambda **options: options)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    result = finished("wandb")
    (begun,) = run.begun
    assert (begun["project"], begun["resume"], begun["name"]) == ("mine", "allow", "x seed 0")
    assert run.parameters["online.name"] == "sac"
    assert run.axes["online/*"] == "online/step"
    rows = [
        (phase, row[f"{phase}/step"], row[f"{phase}/mean_return"])
        for row in run.rows
        for phase in ("offline", "online")
        if f"{phase}/mean_return" in row
    ]
    assert rows == expected(result.summary, "run", 0)
    assert run.ends == [0]
    assert run.summary["status"] == "complete"
    assert run.summary["final"] == pytest.approx(result.summary["arms"]["run"]["seeds"]["0"]["final_score"])
    assert "critic: carried over" in run.notes


def test_wandb_is_told_where_the_run_is_and_that_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    for offline, place in ((True, "wandb/offline-run-1"), (False, "https://wandb.example/run")):
        fake = Wandb(offline)
        installed(monkeypatch, "wandb", init=fake.init, Settings=lambda **options: options)
        run = tracking.WandbRun("known", "x seed 0", "x", {})
        assert (run.place, fake.begun[0]["id"]) == (place, "known")
        run.finish("failed", {}, "")
        assert (fake.ends, fake.notes) == ([1], "")


class MLflow:
    """What `mlflow.MlflowClient()` offers, as far as Segue calls it, with the limits of one request."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.metrics, self.sizes, self.statuses = list[Any](), list[int](), list[str]()
        self.params: dict[str, str] = {}

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name: str) -> str:
        return self.experiments.setdefault(name, f"number {len(self.experiments)}")

    def create_run(self, experiment_id: str, tags: dict[str, str]) -> Any:
        assert experiment_id in self.experiments.values()
        self.tags.update(tags)
        return self.get_run("r")

    def get_run(self, run_id: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def update_run(self, run_id: str, status: str) -> None:
        self.statuses.append(status)

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        assert len(metrics) <= 1000
        assert len(params) <= 100
        assert all(len(value) <= 6000 for _, value in params)
        self.params.update(params)
        self.metrics += metrics
        self.sizes.append(len(metrics))

    def log_metric(self, run_id: str, key: str, value: float) -> None:
        self.metrics.append((key, value, 0, 0))

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        assert len(value) <= 5000
        self.tags[key] = value

    def set_terminated(self, run_id: str, status: str) -> None:
        self.statuses.append(status)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> MLflow:
    fake = MLflow()
    installed(monkeypatch, "mlflow", MlflowClient=lambda: fake, get_tracking_uri=lambda: "sqlite:///m.db")
    installed(monkeypatch, "mlflow.entities", Param=lambda *given: given, Metric=lambda *given: given)
    return fake


def test_mlflow_gets_curves_parameters_and_figures_within_its_limits(
    client: MLflow, monkeypatch: pytest.MonkeyPatch, finished: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    result = finished("mlflow")
    assert client.experiments.keys() == {"mine"}
    assert client.tags["mlflow.runName"] == "x seed 0"
    assert client.params["bridges"] == "jump-start"
    found = [(key.split("/")[0], step, value) for key, value, _, step in client.metrics if "/mean_return" in key]
    assert found == expected(result.summary, "run", 0)
    final = result.summary["arms"]["run"]["seeds"]["0"]["final_score"]
    assert dict(one[:2] for one in client.metrics)["final"] == pytest.approx(final)
    assert "critic: carried over" in client.tags["mlflow.note.content"]
    assert client.statuses == ["FINISHED"]


def test_mlflow_goes_on_in_a_known_run_and_what_was_not_sent_yet_is_sent_at_its_end(client: MLflow) -> None:
    client.create_experiment("segue")
    first = tracking.MLflowRun(None, "x seed 0", "x", {"long": "y" * 9000} | {f"p{i}": i for i in range(150)})
    assert len(client.params) == 151
    first.log("online", 10, {"loss (critic)": 1.0})
    assert client.metrics == []  # each request takes as long as many updates
    first.finish("interrupted", {}, "")
    assert [one[0] for one in client.metrics] == ["online/loss _critic_"]
    again = tracking.MLflowRun(first.id, "x seed 0", "x", {"long": "changed"})
    assert (again.id, again.place) == (first.id, "sqlite:///m.db, run r")
    again.log("online", 20, {f"q{i}": 0.0 for i in range(1200)})
    again.log("online", 20, {"mean_return": 2.0})
    again.finish("failed", {}, "z" * 9000)
    assert client.sizes[-3:] == [1000, 200, 1]
    assert client.statuses == ["KILLED", "RUNNING", "FAILED"]
    assert client.experiments == {"segue": "number 0"}


def test_a_tracker_that_fails_on_the_way_is_told_no_more_and_the_run_completes(
    book: type[Book], tmp_path: Path
) -> None:
    notes = []

    def fail(job: Job, event: Event) -> None:
        if event["event"] == "evaluation":
            Book.broken = True
        if event["event"] == "note":
            notes.append(event["message"])

    result = segue.run(pendulum(), tmp_path / "x", workers=1, track="json", on_event=fail)
    assert result.status == "complete"
    stopped = [note for note in notes if "tracking" in note]
    assert stopped == ["WARNING: tracking by json stopped: no route to host. The run goes on without it"]


def test_a_tracker_that_cannot_begin_is_one_sentence_before_anything_trains(book: type[Book], tmp_path: Path) -> None:
    Book.broken = True
    with pytest.raises(SegueError, match="--track json: no route to host; nothing was started"):
        segue.run(pendulum(), tmp_path / "x", workers=1, track="json")
    assert not (tmp_path / "x/records").exists()


def test_unknown_trackers_and_missing_packages_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RecipeError, match="did you mean 'wandb'"):
        segue.run(pendulum(), tmp_path / "x", track="wandv")
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    assert main(["run", "--dataset", "segue:hopper-mixed", "--track", "mlflow", "--out", str(tmp_path / "x")]) == 2
    assert "--track mlflow needs a package that is not installed: pip install 'segue[track]'" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_mlflow_keeps_parameters_curves_and_figures_in_a_file_without_a_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'm.db'}")
    result = segue.run(pendulum(), tmp_path / "x", workers=1, track="mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'm.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("segue").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["online.name"] == "sac"
    for phase in ("offline", "online"):
        history = client.get_metric_history(run.info.run_id, f"{phase}/mean_return")
        found = [(phase, one.step, one.value) for one in history]
        assert found == [one for one in expected(result.summary, "run", 0) if one[0] == phase]
    assert run.data.metrics["final"] == pytest.approx(result.summary["arms"]["run"]["seeds"]["0"]["final_score"])


def test_wandb_writes_offline_runs_and_a_resumed_run_has_the_same_id(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    segue.run(pendulum(), tmp_path / "x", workers=1, track="wandb")
    longer = lengthen(tmp_path / "x", online_steps=60)
    segue.compare(longer, tmp_path / "x", workers=1, track="wandb")
    kept = json.loads((tmp_path / "x/tracking.json").read_text())["wandb"]["run · seed 0"]
    assert kept["status"] == "complete"
    files = sorted(file.name for file in tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert set(files) == {f"run-{kept['id']}.wandb"}
