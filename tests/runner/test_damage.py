"""A run directory of which something is damaged, gone or not to be written: a sentence, and where possible a way on."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.cli.main import main
from segue.errors import RecipeError, SegueError
from segue.recipe import Recipe, portable, read_recipes
from segue.runner import branching, compare, load_checkpoint
from segue.runner.branching import branch_off, trunk
from segue.runner.checkpoint import FORMAT
from segue.runner.directory import RunDirectory
from segue.runner.longer import lengthen
from toys import pendulum

FINAL = "checkpoints/offline-td3-bc/seed-0/final"
RESULTS = ["records/offline-td3-bc/seed-0/result.json", "records/run/seed-0/result.json"]


def recipe() -> Recipe:
    return pendulum(offline_steps=40, eval_episodes=1)


pytestmark = pytest.mark.usefixtures("no_reports")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    directory = tmp_path_factory.mktemp("whole") / "x"
    assert segue.run(recipe(), directory, workers=1).status == "complete"
    return directory


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to damage."""
    shutil.copytree(whole, tmp_path / "x")
    return tmp_path / "x"


def resumed(directory: Path) -> tuple[list[str], set[str]]:
    """Goes on with it to the end; what was said, and which phases ran."""
    said: list[str] = []
    ran: set[str] = set()

    def listen(job: Any, event: dict[str, Any]) -> None:
        if event["event"] == "note":
            said.append(event["message"])
        if event["event"] == "start":
            ran.add(job.phase)

    result = compare(read_recipes(directory), directory, workers=1, on_event=listen, resume=True)
    assert result.status == "complete"
    return said, ran


def numbers(directory: Path) -> Any:
    seed = json.loads((directory / "summary.json").read_text())["arms"]["run"]["seeds"]["0"]
    kept = ("parameters_sha256", "offline_evaluations", "online_evaluations", "final_score", "offline_score")
    return {name: seed[name] for name in kept}, (directory / "metrics.csv").read_text()


@pytest.mark.parametrize(("file", "content"), list(zip(RESULTS, ["", '{"steps": 40}'], strict=True)))
def test_a_damaged_result_is_written_again_from_the_last_state(run: Path, whole: Path, file: str, content: str):
    (run / file).write_text(content)
    said, ran = resumed(run)
    assert "goes on from step 40" in said
    assert ran == {"offline" if "offline" in file else "online"}
    assert numbers(run) == numbers(whole)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"status": "complete", "wall_time_s": 1, "arms": {"run": {}}}'])
def test_a_damaged_summary_is_made_again_of_the_records(run: Path, whole: Path, content: str):
    (run / "summary.json").write_text(content)
    assert resumed(run) == ([], set())
    assert numbers(run) == numbers(whole)


@pytest.mark.parametrize("content", ["", None])
def test_so_are_the_metrics_of_a_finished_run(run: Path, whole: Path, content: str | None):
    file = run / "metrics.csv"
    file.unlink() if content is None else file.write_text(content)
    assert resumed(run) == ([], set())
    assert numbers(run) == numbers(whole)


@pytest.mark.parametrize("content", ["{}", None])
def test_damaged_provenance_is_refused_or_if_asked_for_said_once(run: Path, content: str | None):
    file = run / "provenance.json"
    file.unlink() if content is None else file.write_text(content)
    (run / RESULTS[1]).unlink()
    with pytest.raises(SegueError, match=r"provenance.json is damaged or gone: .* segue run --resume .* all the same"):
        compare(read_recipes(run), run, workers=1)
    said, _ = resumed(run)
    assert any(line.startswith("WARNING") and "cannot be checked" in line for line in said)
    (run / RESULTS[1]).unlink()
    said, _ = resumed(run)
    assert not any("WARNING" in line for line in said)


def test_bytes_that_are_no_text_in_the_records_of_a_finished_job_end_them_there(run: Path):
    file = run / "records/run/seed-0/metrics.jsonl"
    file.write_bytes(file.read_bytes() + b"\xff\xfe\n")
    before = (run / "metrics.csv").read_text()
    (run / "summary.json").unlink()
    resumed(run)
    assert (run / "metrics.csv").read_text() == before


def test_a_file_of_somebody_else_among_the_transitions_is_left_alone(run: Path, whole: Path):
    stray = run / "states/run/seed-0/rows/foo.safetensors"
    stray.write_text("mine")
    (run / RESULTS[1]).unlink()
    said, _ = resumed(run)
    assert "goes on from step 40" in said
    assert stray.read_text() == "mine"
    assert numbers(run) == numbers(whole)


def damage(checkpoint: Path) -> None:
    file = checkpoint / "arrays.safetensors"
    file.write_bytes(file.read_bytes()[:-5])


@pytest.mark.parametrize("gone", [False, True])
def test_a_damaged_checkpoint_that_the_online_phase_needs_is_made_again(run: Path, whole: Path, gone: bool):
    shutil.rmtree(run / FINAL) if gone else damage(run / FINAL)
    for place in ("states/run", "records/run"):
        shutil.rmtree(run / place)
    said, ran = resumed(run)
    assert any("to make it again" in line for line in said)
    assert ran == {"offline", "online"}
    assert (run / FINAL).with_name("damaged-1-final").exists() != gone
    assert numbers(run) == numbers(whole)


def test_so_is_that_of_a_finished_run_which_can_then_be_branched_from(run: Path, whole: Path, tmp_path: Path):
    damage(run / FINAL)
    with pytest.raises(SegueError, match=r"is damaged .*; segue run --resume .*x makes it again"):
        branch_off(run, trunk(run), trunk(run), tmp_path / "branch")
    assert not (tmp_path / "branch").exists()
    _, ran = resumed(run)
    assert ran == {"offline"}
    assert numbers(run) == numbers(whole)
    branch_off(run, trunk(run), trunk(run), tmp_path / "branch")
    assert (tmp_path / "branch" / FINAL).exists()


def test_so_is_the_policy_that_a_finished_run_ended_with(run: Path, whole: Path):
    final = run / "checkpoints/run/seed-0/final"
    damage(final)
    said, ran = resumed(run)
    assert any("run · seed 0 goes on from its last state to make it again" in line for line in said)
    assert ran == {"online"}
    assert (final / "arrays.safetensors").read_bytes() == (
        whole / final.relative_to(run) / "arrays.safetensors"
    ).read_bytes()
    assert numbers(run) == numbers(whole)


def test_a_checkpoint_of_another_version_is_no_damage(run: Path):
    file = run / FINAL / "manifest.json"
    file.write_text(file.read_text().replace(f'"format": {FORMAT}', '"format": 99'))
    with pytest.raises(SegueError, match=f"checkpoint format 99; this version reads {FORMAT}"):
        compare(read_recipes(run), run, workers=1, resume=True)
    assert file.exists()


def test_a_phase_that_starts_again_for_want_of_a_state_says_so(run: Path, whole: Path):
    shutil.rmtree(run / "states/run")
    (run / RESULTS[1]).unlink()
    said, _ = resumed(run)
    assert any("holds no state to go on from; the phase starts again" in line for line in said)
    assert numbers(run) == numbers(whole)


def test_a_branch_without_an_online_phase_is_refused_and_leaves_nothing(run: Path, tmp_path: Path, capsys):
    flags = ["--online", "none", "--bridges", "none", "--online-steps", "0"]
    assert main(["branch", str(run), *flags, "--out", str(tmp_path / "new")]) == 2
    assert "a branch needs an online algorithm" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_branch_that_could_not_run_is_refused_and_leaves_nothing(run: Path, tmp_path: Path):
    uri = portable(trunk(run).dataset, run)
    (run / "provenance.json").write_text(json.dumps({"datasets": {uri: "another"}, "cores_per_job": 1}))
    with pytest.raises(SegueError, match="is not the dataset any more"):
        branch_off(run, trunk(run), trunk(run), tmp_path / "new")
    file = run / "recipe.json"
    file.write_text(file.read_text().replace(uri, "npz:gone.npz"))
    with pytest.raises(SegueError, match=r"gone\.npz"):
        branch_off(run, trunk(run), trunk(run), tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_branch_that_finds_the_disk_full_is_refused_and_leaves_nothing(run: Path, tmp_path: Path, monkeypatch):
    def full(*_: Any) -> None:
        raise shutil.Error([("a", "b", "[Errno 28] No space left on device")])

    monkeypatch.setattr(branching.shutil, "copytree", full)
    with pytest.raises(SegueError, match=r"new: cannot be written: .*No space left on device"):
        branch_off(run, trunk(run), trunk(run), tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("command", ["report", "handover", "branch"])
def test_a_place_that_cannot_be_written_is_refused_in_a_sentence(run: Path, tmp_path: Path, capsys, command: str):
    (tmp_path / "file").write_text("")  # as root, no permission is in the way
    assert main([command, str(run), "--out", str(tmp_path / "file/sub")]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'file/sub'}: cannot be written: Not a directory" in error
    assert error.count("\n") == 1


def test_the_handover_of_a_run_that_cannot_be_written_is_told_without_a_picture(run: Path, capsys, monkeypatch):
    def refuse(path: Path, content: bytes) -> None:
        raise SegueError(f"{path}: cannot be written: Read-only file system")

    monkeypatch.setattr("segue.files.write_atomically", refuse)
    assert main(["handover", str(run)]) == 0
    told = capsys.readouterr()
    assert "Return" in told.out or "return" in told.out
    assert "no picture" in told.err
    assert "--out DIR" in told.err


def test_whatever_else_the_file_system_refuses_is_a_sentence(capsys, monkeypatch):
    def refuse(arguments: list[str]) -> int:
        raise PermissionError(13, "Permission denied", "/a/place")

    monkeypatch.setattr("segue.cli.list.main", refuse)
    assert main(["list"]) == 2
    assert capsys.readouterr().err == "segue: /a/place: Permission denied\n"


@pytest.mark.parametrize("command", ["report", "handover"])
def test_of_a_killed_run_there_is_what_it_recorded(run: Path, capsys, command: str):
    for file in ("summary.json", "metrics.csv", RESULTS[1]):
        (run / file).unlink()
    assert main([command, str(run)]) == 0
    told = capsys.readouterr()
    assert "this is what it recorded so far; segue run --resume" in told.err
    assert "eturn" in told.out
    assert not (run / "summary.json").exists(), "the run that goes on will write it"


def test_a_run_killed_as_it_went_on_is_shown_as_far_as_it_came_not_as_it_ended_before(run: Path, capsys, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*arguments: Any) -> Any:
        raise Killed

    monkeypatch.setattr("segue.runner.run_jobs", killed)
    with pytest.raises(Killed):
        compare(lengthen(run, online_steps=60), run, workers=1)
    assert main(["report", str(run)]) == 0
    told = capsys.readouterr()
    assert "this is what it recorded so far; segue run --resume" in told.err
    assert "interrupted" in told.out, "it has 20 more steps to go"


def test_a_file_in_place_of_a_run_is_said(run: Path):
    with pytest.raises(SegueError, match=r"recipe.json: a file; expected the directory of a run"):
        segue.report.read_run(run / "recipe.json")


def test_a_manifest_that_is_nested_too_deeply_is_a_damaged_checkpoint(run: Path):
    (run / FINAL / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(SegueError, match="the checkpoint is damaged"):
        load_checkpoint(run / FINAL)


def test_a_missing_summary_says_truly_when_there_will_be_one(run: Path):
    (run / "summary.json").unlink()
    with pytest.raises(SegueError, match=r"it is written when the run ends: segue run --resume .* continues it"):
        segue.report.read_run(run)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "has several arms; choose one by --arm: plain, scratch"),
        (["--arm", "plan"], "unknown arm 'plan': did you mean 'plain'"),
        (["--arm", "scratch"], "scratch has no offline phase to start from"),
    ],
)
def test_a_branch_of_a_comparison_starts_from_an_arm_with_an_offline_phase(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arms = {
        "plain": pendulum(dataset="segue:hopper-mixed"),
        "scratch": pendulum(dataset=None, offline=None, offline_steps=0),
    }
    (tmp_path / "x").mkdir()
    plain = RunDirectory(tmp_path / "x", arms).plain
    (tmp_path / "x" / "recipe.json").write_text(json.dumps(plain))
    assert main(["branch", str(tmp_path / "x"), *flags, "--online", "td3", "--out", str(tmp_path / "new")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_branch_of_an_offline_phase_that_is_not_finished_says_how_to_finish_it(run: Path, tmp_path: Path):
    (run / RESULTS[0]).unlink()
    with pytest.raises(SegueError, match=r"phase of seed 0 is not finished; segue run --resume .*/x finishes it"):
        branch_off(run, trunk(run), trunk(run), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_branch_is_put_into_no_folder_of_something_else_and_is_made_once(run: Path, tmp_path: Path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").write_text("mine")
    with pytest.raises(SegueError, match=r"new is not empty and holds no recipe\.json; choose another --out"):
        branch_off(run, trunk(run), trunk(run), tmp_path / "new")
    (tmp_path / "new" / "mine").unlink()
    made = branch_off(run, trunk(run), trunk(run), tmp_path / "new")
    (tmp_path / "new" / "records" / "of-the-branch").mkdir()
    assert branch_off(run, trunk(run), trunk(run), tmp_path / "new") == made
    assert (tmp_path / "new" / "records" / "of-the-branch").exists(), "it goes on"


def test_a_branch_needs_an_online_algorithm(run: Path, tmp_path: Path):
    offline_only = dataclasses.replace(trunk(run), online=None, online_steps=0, replay=None)
    with pytest.raises(RecipeError, match="a branch needs an online algorithm: --online NAME"):
        branch_off(run, trunk(run), offline_only, tmp_path / "new")


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("env"),
        lambda manifest: manifest.pop("parameters_sha256"),
        lambda manifest: manifest["spaces"].update(observation_size=0),
    ],
    ids=["no environment", "no hash", "nothing observed"],
)
def test_a_manifest_that_lacks_or_belies_what_is_needed_is_a_damaged_checkpoint(run: Path, change):
    file = run / FINAL / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))
    with pytest.raises(SegueError, match="the checkpoint is damaged"):
        load_checkpoint(run / FINAL)
