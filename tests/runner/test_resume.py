"""A run that is killed, wherever that happens, ends as if it had not been."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.errors import RecipeError, SegueError
from segue.files import write_directory
from segue.recipe import Recipe, read_recipes
from segue.runner import checkpointer, compare, machine
from segue.runner.branching import branch_off, trunk
from segue.runner.directory import RunDirectory, WallTime
from segue.runner.longer import lengthen
from segue.runner.result import RunFailed
from segue.runner.stopping import Stopped
from toys import PICK, REACH, RISK, SMALL, log_of, pendulum, pendulum_log

pytestmark = pytest.mark.usefixtures("no_reports")


class Killed(BaseException):
    """The process ends here: nothing that follows is reached, but for what Python tidies up."""


def longer(**changes: Any) -> Recipe:
    """Long enough to be killed in every phase."""
    steps = {"offline_steps": 150, "online_steps": 320, "warmup_steps": 30, "eval_every": 80, "eval_episodes": 1}
    return pendulum(**(steps | changes))


GUARDED = (segue.Guard(), segue.JumpStart(stages=2, window=2, longest=50))
RECIPES = {
    "replay-of-a-dataset": longer(),
    "a-mixture-with-weights": longer(dataset=segue.Mixture([pendulum_log(), pendulum_log(100)], [1, 3])),
    "bridges-with-states": longer(bridges=GUARDED, environments=2, env=RISK, cost="cost"),
    "a-ring-that-runs-over": longer(
        online=segue.IQL(**SMALL), replay=segue.Balanced(capacity=100, hidden_sizes=(8,)), offline=segue.IQL(**SMALL)
    ),
    "from-scratch": longer(dataset=None, offline=None, offline_steps=0, online=segue.TD3(**SMALL)),
    "hindsight": longer(
        dataset=None,
        env=REACH,
        offline=None,
        offline_steps=0,
        online=segue.TD3(**SMALL),
        hindsight=2,
        replay=segue.OnlineOnly(capacity=100),
        environments=2,
    ),
    "on-policy": longer(
        dataset=log_of(PICK),
        env=PICK,
        offline=segue.BC(**SMALL),
        online=segue.PPO(**SMALL, rollout_steps=48, epochs=2),
        environments=2,
    ),
}


def essence(directory: Path) -> tuple[Any, ...]:
    """Everything a run says, but for times."""
    summary = json.loads((directory / "summary.json").read_text())
    kept = ("parameters_sha256", "offline_evaluations", "online_evaluations", "final_score", "events", "status")
    seeds = {name: {k: seed[k] for k in kept} for name, seed in summary["arms"]["run"]["seeds"].items()}
    handover = summary["arms"]["run"]["handover"]
    final = json.loads((directory / "checkpoints/run/seed-0/final/manifest.json").read_text())
    return seeds, handover, (directory / "metrics.csv").read_text(), final["observed"]


def killed_at_saves(monkeypatch: pytest.MonkeyPatch, before: bool, every: int) -> list[int]:
    """Every so many saves the process ends, just before the save or just after; counts the ends."""
    saved, ends = [0], [0]
    save = checkpointer.JobCheckpointer.save

    def fatal(self: Any, position: Any) -> None:
        saved[0] += 1
        if before and saved[0] % every == 0:
            ends[0] += 1
            raise Killed
        save(self, position)
        if not before and saved[0] % every == 0:
            ends[0] += 1
            raise Killed

    monkeypatch.setattr(checkpointer.JobCheckpointer, "save", fatal)
    return ends


def until_done(directory: Path) -> None:
    for _ in range(100):
        try:
            result = compare(read_recipes(directory), directory, workers=1, checkpoint_every=0)
        except Killed:
            continue
        assert result.status == "complete"
        return
    raise AssertionError("it never ends")


QUICK = ("bridges-with-states",)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]
)
def test_a_run_killed_again_and_again_ends_to_the_bit_as_if_it_had_not_been(tmp_path: Path, monkeypatch, name):
    whole = segue.run(RECIPES[name], tmp_path / "whole", workers=1, checkpoint_every=10**9)
    assert whole.status == "complete", whole.summary["arms"]["run"]["seeds"]["0"]["error"]
    with monkeypatch.context() as patch:
        ends = killed_at_saves(patch, before=False, every=2)
        with pytest.raises(Killed):
            segue.run(read_recipes(tmp_path / "whole")["run"], tmp_path / "x", workers=1, checkpoint_every=0)
        until_done(tmp_path / "x")
    assert ends[0] >= 3
    assert essence(tmp_path / "x") == essence(tmp_path / "whole")


@pytest.mark.slow
def test_what_came_in_after_the_last_save_is_collected_again_not_twice(tmp_path: Path, monkeypatch):
    name = "bridges-with-states"
    segue.run(RECIPES[name], tmp_path / "whole", workers=1)
    with monkeypatch.context() as patch:
        ends = killed_at_saves(patch, before=True, every=3)
        with pytest.raises(Killed):
            segue.run(read_recipes(tmp_path / "whole")["run"], tmp_path / "x", workers=1, checkpoint_every=0)
        until_done(tmp_path / "x")
    assert ends[0] >= 3
    assert essence(tmp_path / "x") == essence(tmp_path / "whole")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    directory = tmp_path_factory.mktemp("whole") / "x"
    assert segue.run(longer(), directory, workers=1).status == "complete"
    return directory


def again(directory: Path, **options: Any) -> tuple[Any, list[str]]:
    """The same command once more; and what it said."""
    said: list[str] = []

    def listen(job: Any, event: dict[str, Any]) -> None:
        if event["event"] == "note":
            said.append(event["message"])

    return compare(read_recipes(directory), directory, workers=1, on_event=listen, **options), said


def stopped_by(number: int, directory: Path, recipe: Recipe, times: int = 1, step: int = 80) -> Any:
    """The run, sent this signal as it judges the online policy at this step."""

    def send(job: Any, event: dict[str, Any]) -> None:
        if event["event"] == "evaluation" and event["phase"] == "online" and event["step"] == step:
            for _ in range(times):
                signal.raise_signal(number)

    return segue.run(recipe, directory, workers=1, on_event=send)


@pytest.mark.parametrize("times", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_ctrl_c_once_saves_and_stops_twice_stops_at_once_and_either_goes_on(tmp_path: Path, whole: Path, times: int):
    result = stopped_by(signal.SIGINT, tmp_path / "x", read_recipes(whole)["run"], times)
    assert result.status == "interrupted"
    steps = [int(path.name.removeprefix("step-")) for path in (tmp_path / "x/states/run/seed-0").glob("step-*")]
    assert max(steps) == (120 if times == 1 else 40), "the next place to save, or the first one, which always is"
    done = result.summary["arms"]["run"]["seeds"]["0"]["steps"]
    assert done == {"offline": 150, "online": max(*steps, 80)}, "80 is the evaluation at which it was asked to stop"
    result, said = again(tmp_path / "x")
    assert result.status == "complete"
    assert f"goes on from step {max(steps)}" in said
    assert essence(tmp_path / "x") == essence(whole)


def test_sigterm_saves_and_says_by_its_exit_code_that_it_was_that(tmp_path: Path, whole: Path):
    ours = signal.signal(signal.SIGTERM, lambda number, frame: None)  # so that this process is not ended in ten seconds
    try:
        with pytest.raises(Stopped) as stopped:
            stopped_by(signal.SIGTERM, tmp_path / "x", read_recipes(whole)["run"])
    finally:
        signal.signal(signal.SIGTERM, ours)
    assert stopped.value.exit_code == 143
    # It wrote no summary, but its time counts.
    (tmp_path / "x/wall_time.json").write_text('{"seconds": 1e6}')
    result, _ = again(tmp_path / "x")
    assert result.status == "complete"
    assert result.summary["wall_time_s"] > 1e6
    assert essence(tmp_path / "x") == essence(whole)


def test_the_wall_time_is_that_of_all_calls_also_of_those_that_were_killed(tmp_path: Path):
    clock = iter([0.0, *(10.0,) * 3, 14.0, *(21.0,) * 3, 22.0, *(31.0,) * 9])
    first = WallTime(tmp_path, now=clock.__next__)
    for _ in range(4):
        first.tick(every=5.0)  # killed at 22 after it wrote at 10 and at 21
    second = WallTime(tmp_path, now=clock.__next__)
    assert (second.before, second.total) == (21.0, 21.0)
    assert WallTime(tmp_path, earlier=40.0).before == 40.0, "a run of an earlier version has it in its summary only"
    second.file.write_text("{")
    assert WallTime(tmp_path).before == 0.0


def unfinished(tmp_path: Path, whole: Path) -> Path:
    """A run that was killed in its online phase."""
    recipe = read_recipes(whole)["run"]
    with pytest.MonkeyPatch.context() as patch:
        killed_at_saves(patch, before=False, every=7)
        with pytest.raises(Killed):
            segue.run(recipe, tmp_path / "x", workers=1, checkpoint_every=0)
    return tmp_path / "x"


def test_a_damaged_state_is_set_aside_and_said_and_the_one_before_used(tmp_path: Path, whole: Path):
    directory = unfinished(tmp_path, whole)
    newest = max((directory / "states/run/seed-0").glob("step-*"))
    content = bytearray((newest / "arrays.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "arrays.safetensors").write_bytes(content)
    result, said = again(directory)
    assert result.status == "complete"
    assert any(f"{newest} is damaged" in line for line in said)
    assert essence(directory) == essence(whole)


def test_where_every_state_is_damaged_the_phase_starts_again_and_that_is_said(tmp_path: Path, whole: Path):
    directory = unfinished(tmp_path, whole)
    for file in directory.glob("states/run/seed-0/step-*/state.json"):
        file.write_text("{}")
    result, said = again(directory)
    assert result.status == "complete"
    assert "no state is left; the phase starts again" in said
    assert essence(directory) == essence(whole)


def test_records_that_were_changed_are_not_gone_on_with(tmp_path: Path, whole: Path):
    directory = unfinished(tmp_path, whole)
    file = directory / "records/run/seed-0/metrics.jsonl"
    file.write_text(file.read_text().replace("e", "E", 1))
    _, said = again(directory)
    assert any("no longer begins with" in line for line in said)
    assert essence(directory) == essence(whole), "it started again"


@pytest.mark.parametrize(
    "edit", [('"discount": 0.99', '"discount": 0.98'), ('"warmup_steps": 30', '"warmup_steps": 20')]
)
def test_a_state_of_another_recipe_is_not_gone_on_with(tmp_path: Path, whole: Path, edit: tuple[str, str]):
    """Also where the recipe's file itself was edited."""
    directory = unfinished(tmp_path, whole)
    file = directory / "recipe.json"
    before = file.read_text()
    file.write_text(before.replace(*edit))
    assert file.read_text() != before
    with pytest.raises(RunFailed, match=r"was saved by a run with another (offline|warmup_steps)"):
        again(directory)
    file.write_text(before)
    again(directory)
    assert essence(directory) == essence(whole)


def test_another_number_of_cores_is_refused_or_if_asked_for_said(tmp_path: Path, whole: Path, monkeypatch):
    directory = unfinished(tmp_path, whole)
    monkeypatch.setattr(checkpointer, "identity", lambda: machine.identity() | {"cores per job": "64"})
    monkeypatch.setattr(segue.runner, "visible_cores", lambda: list(range(64)))
    with pytest.raises(SegueError, match=r"was begun with \d cores per job, now there would be 64.*--resume"):
        again(directory)
    result, said = again(directory, resume=True)
    assert result.status == "complete"
    assert sum("WARNING" in line and "64" in line for line in said) == 2


def test_a_full_disk_stops_the_run_with_a_sentence_and_with_room_it_goes_on(tmp_path: Path, whole: Path, monkeypatch):
    writes = [0]

    def full(path: Path, files: Any) -> None:
        writes[0] += 1
        if writes[0] > 5:
            raise SegueError(f"{path}: cannot be written: No space left on device")
        write_directory(path, files)

    with monkeypatch.context() as patch:
        patch.setattr("segue.runner.state_store.write_directory", full)
        with pytest.raises(RunFailed) as failed:
            segue.run(read_recipes(whole)["run"], tmp_path / "x", workers=1, checkpoint_every=0)
    assert failed.value.result.status == "failed"
    error = failed.value.result.summary["arms"]["run"]["seeds"]["0"]["error"]
    assert (
        "No space left on device. The states saved before are whole: make room, and the same command goes on" in error
    )
    result, _ = again(tmp_path / "x")
    assert result.status == "complete"
    assert essence(tmp_path / "x") == essence(whole)


def test_a_read_only_run_directory_is_refused_in_a_sentence(tmp_path: Path, whole: Path, monkeypatch):
    directory = unfinished(tmp_path, whole)
    (directory / ".lock").unlink()
    (directory / ".lock").mkdir()  # as root, no permission is in the way
    with pytest.raises(SegueError, match="x cannot be written: Is a directory"):
        again(directory)


def test_a_longer_budget_gives_the_run_that_was_longer_from_the_start(tmp_path: Path, whole: Path):
    longer = dataclasses.replace(read_recipes(whole)["run"], online_steps=480)
    segue.run(longer, tmp_path / "from-the-start", workers=1)
    shutil.copytree(whole, tmp_path / "x")
    result = compare(lengthen(tmp_path / "x", online_steps=480), tmp_path / "x", workers=1)
    assert result.status == "complete"
    assert essence(tmp_path / "x") == essence(tmp_path / "from-the-start")


@pytest.mark.slow
def test_a_replay_with_a_state_for_every_row_of_the_ring_becomes_longer_too(tmp_path: Path):
    recipe = longer(replay=segue.Balanced(hidden_sizes=(8,)), online_steps=120, eval_every=60)
    segue.run(recipe, tmp_path / "x", workers=1)
    result = compare(lengthen(tmp_path / "x", online_steps=240), tmp_path / "x", workers=1)
    assert result.status == "complete", result.summary["arms"]["run"]["seeds"]["0"]["error"]
    evaluations = result.summary["arms"]["run"]["seeds"]["0"]["online_evaluations"]
    assert [evaluation["step"] for evaluation in evaluations] == [0, 60, 120, 180, 240]


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"online_steps": 300}, "online_steps is 300; expected at least the 320"),
        ({"offline_steps": 300}, "the online phase started from the end of the offline one"),
    ],
)
def test_a_budget_that_cannot_be_is_refused_and_nothing_changes(whole: Path, budget: dict[str, int], message: str):
    before = (whole / "recipe.json").read_text()
    with pytest.raises(RecipeError, match=message):
        lengthen(whole, **budget)
    assert (whole / "recipe.json").read_text() == before


def test_a_branch_is_the_whole_run_of_its_recipe_without_the_offline_phase_again(tmp_path: Path, whole: Path):
    recipe = trunk(whole)
    other = dataclasses.replace(recipe, online=segue.TD3(**SMALL), bridges=(segue.QFilter(),))
    segue.run(other, tmp_path / "whole", workers=1)
    phases = set()
    changed = branch_off(whole, recipe, other, tmp_path / "x")
    result = compare({"run": changed}, tmp_path / "x", workers=1, on_event=lambda job, event: phases.add(job.phase))
    assert result.status == "complete"
    assert phases == {"online"}
    assert essence(tmp_path / "x") == essence(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_that_was_moved_with_its_dataset_goes_on_in_its_new_place(tmp_path: Path, whole: Path):
    assert stopped_by(signal.SIGINT, tmp_path / "x", longer()).status == "interrupted"
    (tmp_path / "x").rename(tmp_path / "y")
    result, _ = again(tmp_path / "y")
    assert result.status == "complete"
    assert essence(tmp_path / "y") == essence(whole)


def test_a_run_killed_as_its_dataset_is_written_down_begins_again(tmp_path: Path, whole: Path, monkeypatch):
    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("segue.runner.npz.save", killed)
        with pytest.raises(Killed):
            segue.run(longer(), tmp_path / "x", workers=1)
    assert not (tmp_path / "x/recipe.json").exists(), "it would name a dataset that is not there"
    (tmp_path / "x/.log-0123456789ab.npz.7.tmp").write_text("cut short")
    assert segue.run(longer(), tmp_path / "x", workers=1).status == "complete"
    assert essence(tmp_path / "x") == essence(whole)


def test_a_run_whose_dataset_is_gone_keeps_its_budget(tmp_path: Path, whole: Path):
    shutil.copytree(whole, tmp_path / "x")
    next((tmp_path / "x").glob("log-*.npz")).unlink()
    with pytest.raises(SegueError, match=r"log-.*: there is no such file"):
        lengthen(tmp_path / "x", online_steps=480)
    assert (tmp_path / "x/recipe.json").read_text() == (whole / "recipe.json").read_text()


@pytest.mark.slow
def test_a_branch_takes_along_the_dataset_that_its_run_holds(tmp_path: Path, whole: Path):
    shutil.copytree(whole, tmp_path / "x")
    recipe = trunk(tmp_path / "x")
    branch_off(tmp_path / "x", recipe, dataclasses.replace(recipe, online=segue.TD3(**SMALL)), tmp_path / "y")
    shutil.rmtree(tmp_path / "x")
    result, said = again(tmp_path / "y")
    assert result.status == "complete"
    assert not any("WARNING" in line for line in said)


def test_a_branch_with_another_offline_phase_is_refused(tmp_path: Path, whole: Path):
    recipe = trunk(whole)
    with pytest.raises(RecipeError, match="offline_steps is part of the offline phase"):
        branch_off(whole, recipe, dataclasses.replace(recipe, offline_steps=160), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_run_in_use_keeps_the_budget_that_it_was_given(tmp_path: Path, whole: Path):
    shutil.copytree(whole, tmp_path / "x")
    before = (tmp_path / "x/recipe.json").read_text()
    with RunDirectory(tmp_path / "x", read_recipes(whole)).lock(), pytest.raises(SegueError, match="in use"):
        lengthen(tmp_path / "x", online_steps=480)
    assert (tmp_path / "x/recipe.json").read_text() == before
