"""The studies' driver: it grows run by run, keeps what is there, and says what is not."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock
from studies.results import Study

import segue
from studies import grid

ROOT = Path(__file__).resolve().parents[2]

SMALL: dict[str, Any] = {"hidden_sizes": (8, 8), "batch_size": 16}
SCRATCH = segue.Recipe(
    env="CartPole-v1",
    online=segue.DiscreteSAC(**SMALL),
    online_steps=40,
    warmup_steps=10,
    eval_every=20,
    eval_episodes=2,
    seeds=2,
)
PRETRAINED = dataclasses.replace(SCRATCH, dataset="segue:cartpole-mixed", offline=segue.BC(**SMALL), offline_steps=20)
APPENDED = dataclasses.replace(PRETRAINED, replay=segue.Appended())
COLUMNS = ("offline score", "final", "area", "dip")


def study(folder: Path, arms: Mapping[str, segue.Recipe]) -> Study:
    (folder / "README.md").write_text("# Study\n\n<!-- results -->\n<!-- /results -->\n\nFindings.\n")
    return Study(folder, lambda full: {"cartpole": arms}, COLUMNS)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without worker processes, whose start would take longer than the runs."""

    def run(waiting: Any, workers: int, on: str | None) -> Any:
        return ((unit, *grid._do(unit)) for unit in waiting)

    monkeypatch.setattr(grid, "_run", run)


def test_arms_that_share_an_offline_phase_are_a_unit_and_first_seeds_come_first(tmp_path: Path) -> None:
    arms = {"scratch": SCRATCH, "plain": PRETRAINED, "appended": APPENDED}
    units = list(grid.units({"cartpole": arms}, tmp_path))
    assert [sorted(unit.arms) for unit in units] == [["scratch"], ["appended", "plain"]] * 2
    assert [next(iter(unit.arms.values())).seed for unit in units] == [0, 0, 1, 1]
    assert len({unit.directory for unit in units}) == 4


@pytest.mark.pictures
@pytest.mark.usefixtures("in_process")
def test_a_study_grows_run_by_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "commit", lambda: "abc1234")
    place, out = tmp_path / "study", tmp_path / "runs"
    place.mkdir()
    one = dataclasses.replace(SCRATCH, seeds=1)
    assert grid.main(study(place, {"scratch": one}), None, ["--out", str(out)]) == 0
    first = json.loads((place / "results.json").read_text())["arms"]["cartpole: scratch"]
    grown = study(place, {"scratch": SCRATCH, "plain": PRETRAINED})
    assert grid.main(grown, None, ["--redraw", "--out", str(out)]) == 0
    assert "Not run yet: cartpole: plain." in (place / "README.md").read_text()
    capsys.readouterr()
    assert grid.main(grown, None, ["--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "3 runs to do" in said, "the first seed from scratch is there"
    assert said.count("complete") == 3
    results = json.loads((place / "results.json").read_text())
    assert results["status"] == "complete"
    assert results["machines"][0]["segue_version"] == segue.__version__
    arm = results["arms"]["cartpole: scratch"]
    assert arm["seeds"]["0"] == first["seeds"]["0"]
    assert arm["seeds"]["0"]["commit"] == "abc1234", "kept, though it was read from its run"
    assert [e["step"] for e in arm["seeds"]["1"]["online_evaluations"]] == [0, 20, 40]
    page = (place / "README.md").read_text()
    assert page.startswith("# Study\n")
    assert page.endswith("\n\nFindings.\n")
    assert "| scratch |" in page
    assert "Few seeds (2)" in page
    assert (place / "curves.png").stat().st_size > 10_000
    elsewhere = ["--missing", "--out", str(tmp_path / "elsewhere")]
    assert grid.main(grown, None, elsewhere) == 0
    assert "0 runs to do" in capsys.readouterr().out, "results that are stored serve without their runs"


@pytest.mark.usefixtures("in_process")
def test_results_of_another_recipe_do_not_count_but_those_of_fewer_seeds_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "study"
    place.mkdir()
    one = dataclasses.replace(SCRATCH, seeds=1)
    assert grid.main(study(place, {"scratch": one}), None, ["--out", str(tmp_path / "runs")]) == 0
    assert grid.main(study(place, {"scratch": dataclasses.replace(one, seeds=2)}), None, ["--redraw"]) == 0
    seeds = json.loads((place / "results.json").read_text())["arms"]["cartpole: scratch"]["seeds"]
    assert [seed["status"] for seed in seeds.values()] == ["complete", "unfinished"]
    longer = study(place, {"scratch": dataclasses.replace(one, online_steps=60), "plain": PRETRAINED})
    before = (place / "results.json").read_bytes()
    with pytest.raises(SystemExit):
        grid.main(longer, None, ["--redraw"])
    assert "seeds that the study no longer has: cartpole: scratch (1)" in capsys.readouterr().err
    assert (place / "results.json").read_bytes() == before, "a redraw loses nothing"
    assert grid.main(longer, None, ["--arm", "plain", "--out", str(tmp_path / "runs")]) == 0
    assert "dropped: finished seeds" in capsys.readouterr().out
    assert "Not run yet: cartpole: scratch." in (place / "README.md").read_text()


@pytest.mark.usefixtures("in_process")
def test_a_run_that_fails_does_not_replace_what_was_found_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = study(tmp_path, {"scratch": dataclasses.replace(SCRATCH, seeds=1)})
    assert grid.main(one, None, ["--out", str(tmp_path / "runs")]) == 0
    before = json.loads((tmp_path / "results.json").read_text())["arms"]
    monkeypatch.setattr("segue.runner.job.train_online", lambda *a, **k: 1 / 0)
    assert grid.main(one, None, ["--out", str(tmp_path / "again")]) == 1
    assert json.loads((tmp_path / "results.json").read_text())["arms"] == before


def test_a_worker_that_died_between_two_runs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    hired: list[Any] = []

    def work(pipe: Any) -> None:
        with contextlib.suppress(EOFError):
            while True:
                pipe.send((pipe.recv(), 0.0))

    def hire(cores: Any, on: Any) -> Any:
        pipe, theirs = multiprocessing.Pipe()
        if hired:
            threading.Thread(target=work, args=(theirs,), daemon=True).start()
        else:
            theirs.close()
        process = SimpleNamespace(terminate=lambda: None, join=lambda: None)
        hired.append(SimpleNamespace(pipe=pipe, cores=cores, process=process))
        return hired[-1]

    monkeypatch.setattr(grid, "_Worker", hire)
    waiting: Any = ["one", "two"]
    assert [unit for unit, _, _ in grid._run(waiting, 1)] == waiting
    assert len(hired) == 2


def test_two_commands_do_not_write_to_one_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FileLock(tmp_path / "results.json.lock"), pytest.raises(SystemExit):
        grid.main(study(tmp_path, {"scratch": SCRATCH}), None, ["--redraw"])
    assert "another run of this study writes to" in capsys.readouterr().err


def stored_status(place: Path) -> str:
    (seed,) = json.loads((place / "results.json").read_text())["arms"]["paused: scratch"]["seeds"].values()
    return seed["status"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX signals")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_stopped_study_leaves_no_process_and_the_same_command_goes_on(tmp_path: Path, number: int, code: int) -> None:
    study(tmp_path, {})
    command = [sys.executable, str(Path(__file__).with_name("paused_study.py")), str(tmp_path)]
    pipe = tmp_path / "arrived"
    os.mkfifo(pipe)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    driver = subprocess.Popen(command, env={**environment, "ARRIVED": str(pipe)}, start_new_session=True)

    def unblock() -> None:
        driver.wait()
        with contextlib.suppress(OSError):
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))

    threading.Thread(target=unblock, daemon=True).start()
    worker = int(pipe.read_text())  # waits until the run is under way, or the driver has ended
    try:
        driver.send_signal(number)
        assert driver.wait() == code
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    assert list(tmp_path.glob("runs/**/step-*")), "the run was saved"
    assert stored_status(tmp_path) == "unfinished"
    assert subprocess.run(command, env=environment).returncode == 0
    assert stored_status(tmp_path) == "complete"


@pytest.mark.parametrize("name", ["exercise", "collapse", "guidance", "leaderboard", "levers"])
@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_recipe_of_every_study_can_be_built_and_written_down(name: str, full: bool, tmp_path: Path) -> None:
    import importlib

    tasks = importlib.import_module(f"studies.{name}.__main__").STUDY.tasks(full)
    assert all(recipe.env for arms in tasks.values() for recipe in arms.values())
    (seeds,) = {recipe.seeds for arms in tasks.values() for recipe in arms.values()}
    assert seeds == 10 if full else seeds >= 3
    assert list(grid.units(tasks, tmp_path))


def test_a_place_that_is_no_ray_cluster_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'segue[ray]'")
    with pytest.raises(SystemExit):
        grid.main(study(tmp_path, {"scratch": SCRATCH}), None, ["--on", "raay"])
    assert "expected ray, or ray://HOST:PORT" in capsys.readouterr().err
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize(
    ("flags", "answer"),
    [
        (["--workers", "0"], "--workers 0: expected at least 1"),
        (["--arm", "Scratch"], "unknown arm (--arm) 'Scratch': did you mean 'scratch'?"),
        (["--only", "cart"], "unknown task (--only) 'cart': did you mean 'cartpole'?"),
    ],
)
def test_flags_that_make_no_sense_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], answer: str
) -> None:
    with pytest.raises(SystemExit):
        grid.main(study(tmp_path, {"scratch": SCRATCH}), None, [*flags, "--out", str(tmp_path / "runs")])
    assert answer in capsys.readouterr().err
    assert not (tmp_path / "results.json").exists()
