"""What an experiment tracker is told of a run: W&B and MLflow for real where they are installed, and a stand-in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

import segue
from segue.cli.main import main
from segue.errors import RecipeError, SegueError
from segue.runner import tracking
from segue.runner.jobs import Event, Job
from segue.runner.longer import lengthen
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


def test_a_finished_run_can_be_tracked_afterwards_and_is_tracked_once(book: type[Book], tmp_path: Path) -> None:
    result = segue.run(pendulum(), tmp_path / "x", workers=1)
    for _ in range(2):
        segue.run(pendulum(), tmp_path / "x", workers=1, track="json")
    (run,) = book.runs.values()
    assert run.evaluations() == expected(result.summary, "run", 0)
    assert run.ends == ["complete"]


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
