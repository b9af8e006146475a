"""Workers change how long a run takes, not what comes of it, as long as each job has the same number of cores."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import segue
from segue.compiled import visible_cores
from segue.errors import RecipeError
from segue.recipe import Recipe, read_recipes
from segue.runner import compare, dispatch, executor
from segue.runner import run as run_recipe
from toys import SMALL, pendulum

IN_TURN = """
import json, os, sys
os.sched_setaffinity(0, json.loads(sys.argv[1]))
from pathlib import Path
from segue.recipe import read_recipes
from segue.runner import compare, executor
assert compare(read_recipes(Path(sys.argv[2])), sys.argv[3], workers=1).status == "complete"
"""

SCRATCH = {"dataset": None, "offline": None, "offline_steps": 0, "online": segue.TD3(**SMALL)}


def recipe() -> Recipe:
    return pendulum(seeds=2, online=segue.TD3BC(**SMALL))


def outcome(directory: Path) -> dict[str, object]:
    seeds = json.loads((directory / "summary.json").read_text())["arms"]["run"]["seeds"]
    kept = ("parameters_sha256", "offline_evaluations", "online_evaluations")
    return {seed: {name: result[name] for name in kept} for seed, result in seeds.items()}


def cores_per_job(directory: Path) -> int:
    return json.loads((directory / "provenance.json").read_text())["cores_per_job"]


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(visible_cores()) < 2, reason="needs two cores to pin to"
)
def test_two_seeds_side_by_side_are_the_two_seeds_in_turn_on_as_many_cores_each(tmp_path: Path):
    """Side by side each has half the cores; in turn they have the same number if the whole process is pinned so."""
    result = run_recipe(dataclasses.replace(recipe(), **SCRATCH), tmp_path / "beside", workers=2)
    assert result.status == "complete"
    half = visible_cores()[: len(visible_cores()) // 2]
    again = [sys.executable, "-c", IN_TURN, json.dumps(half), str(tmp_path / "beside"), str(tmp_path / "turn")]
    subprocess.run(again, check=True, capture_output=True)
    assert cores_per_job(tmp_path / "beside") == cores_per_job(tmp_path / "turn") == len(half)
    assert outcome(tmp_path / "beside") == outcome(tmp_path / "turn")
    seeds = outcome(tmp_path / "turn")
    assert seeds["0"]["parameters_sha256"] != seeds["1"]["parameters_sha256"]


def test_a_seed_of_two_is_the_same_as_the_seed_alone(tmp_path: Path):
    """In one process, so on the same cores: nothing of the first seed's job reaches the second's."""
    both = run_recipe(dataclasses.replace(recipe(), **SCRATCH), tmp_path / "both", workers=1)
    alone = dataclasses.replace(read_recipes(both.directory)["run"], seed=1, seeds=1)
    compare({"run": alone}, tmp_path / "alone", workers=1)
    assert outcome(tmp_path / "alone")["1"] == outcome(tmp_path / "both")["1"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"workers": 0}, "workers is 0; expected at least 1"),
        ({"workers": -1}, "workers is -1; expected at least 1"),
        ({"checkpoint_every": -5.0}, "checkpoint_every is -5.0; expected seconds, at least 0"),
        ({"checkpoint_every": float("nan")}, "checkpoint_every is nan; expected seconds, at least 0"),
    ],
)
def test_impossible_workers_and_saves_are_refused_before_anything_is_written(tmp_path: Path, option, message):
    with pytest.raises(RecipeError, match=message):
        run_recipe(recipe(), tmp_path / "x", **option)
    assert not (tmp_path / "x").exists()


def test_a_worker_that_does_not_heed_the_signal_is_killed_when_its_time_is_up(tmp_path: Path, monkeypatch):
    """And what it still says is heard, so that the run ends."""
    begin, begun = dispatch.start_worker, []

    def start(job, *rest):
        deaf = 'import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); print(\'{"event": "deaf"}\', flush=True)'
        monkeypatch.setattr(sys, "executable", str(wrapper))
        wrapper.write_text(f"#!{python}\n{deaf}\nimport os\nos.read(0, 1)\n")
        wrapper.chmod(0o755)
        begun.append(begin(job, *rest))
        return begun[-1]

    def interrupt(job, event):
        if event["event"] == "deaf":
            raise KeyboardInterrupt

    wrapper, python = tmp_path / "deaf", sys.executable
    monkeypatch.setattr(dispatch, "start_worker", start)
    monkeypatch.setitem(executor.GRACE_SECONDS, signal.SIGINT, 0.0)
    result = run_recipe(dataclasses.replace(recipe(), seeds=2), tmp_path / "x", workers=2, on_event=interrupt)
    assert result.status == "interrupted"
    assert -signal.SIGKILL in [one.returncode for one in begun]  # the other may have been told before it was deaf


def test_a_resumed_run_gives_each_job_the_cores_it_had(tmp_path: Path, monkeypatch):
    """Whatever the default would be here: the numbers depend on it."""
    asked = []
    monkeypatch.setattr(segue.runner, "visible_cores", lambda: list(range(8)))
    monkeypatch.setattr(
        segue.runner,
        "run_jobs",
        lambda jobs, dispatcher, *rest: asked.append(dispatcher) or ({j.label: executor.Outcome() for j in jobs}, None),
    )
    run_recipe(recipe(), tmp_path / "x", workers=1)
    compare(read_recipes(tmp_path / "x"), tmp_path / "x", resume=True)
    assert asked == [None, None]
    assert cores_per_job(tmp_path / "x") == 8
