"""What a run gives back in Python: tables, curves, a picture, policies; and what it raises."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import PendulumEnv

import segue
from segue.errors import RecipeError
from segue.report import frame
from segue.runner.longer import lengthen
from toys import PENDULUM, SMALL, pendulum


class Breaks(PendulumEnv):
    """Every step raises."""

    def step(self, action: object) -> object:
        raise KeyError("sensor")


gym.register("SegueTestBreaks-v0", Breaks, max_episode_steps=20)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> segue.Result:
    arms = {"plain": pendulum(seeds=2), "cloned": pendulum(online=None, online_steps=0, warmup_steps=0)}
    return segue.compare(arms, str(tmp_path_factory.mktemp("result") / "x"), workers=1)


def test_tables_and_curves_are_data_frames_with_pandas(result: segue.Result) -> None:
    pandas = pytest.importorskip("pandas")
    table, curves = result.table(), result.curves()
    assert list(table["arm"]) == ["plain", "cloned"]
    assert list(table["seeds"]) == [2, 1]
    finals = [seed["final_score"] for seed in result.summary["arms"]["plain"]["seeds"].values()]
    assert table["final"][0] == pytest.approx(np.mean(finals))
    written = pandas.read_csv(result.directory / "curves.csv")
    assert list(curves.columns) == list(written.columns)
    columns = ["arm", "seed", "step", "mean_return"]
    pandas.testing.assert_frame_equal(curves[columns], written[columns])
    assert np.mean(curves["episode_returns"][0]) == pytest.approx(curves["mean_return"][0])


def test_without_pandas_the_same_columns_print_as_a_table(
    result: segue.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame.importlib.util, "find_spec", lambda name: None)
    table = result.table()
    assert list(table["arm"]) == ["plain", "cloned"]
    assert len(str(table).splitlines()) == 3
    assert set(result.curves()) == {"arm", "seed", "step", "mean_return", "episode_returns"}


def test_a_result_reads_well_and_draws_its_curves(result: segue.Result) -> None:
    assert "plain: 2 of 2 seeds complete, final return" in repr(result)
    assert "offline score" in str(result)
    assert "<pre>" in result._repr_html_()
    assert result.plot().axes
    assert result.plot()._repr_png_().startswith(b"\x89PNG"), "a notebook shows it"


def test_a_policy_is_chosen_by_arm_and_seed(result: segue.Result) -> None:
    observation = np.ones((1, 3), np.float32)
    for arm, seed in (("plain", None), ("plain", 1), ("cloned", np.int64(0))):
        assert np.abs(result.policy(arm, seed)(observation)).max() <= 1
    saved = segue.load_checkpoint(str(result.directory / "checkpoints/plain/seed-1/final")).policy()
    np.testing.assert_array_equal(result.policy("plain", 1)(observation), saved(observation))
    assert "td3-bc; observations (3,), normalised by the dataset; actions (1,)" in repr(result.policy("cloned"))
    for arguments, message in (
        ((), "has the arms plain, cloned; say which"),
        (("plian",), "did you mean 'plain'"),
        (("plain", 7), "has no seed 7; it has 0, 1"),
    ):
        with pytest.raises(segue.SegueError, match=message):
            result.policy(*arguments)


def test_a_run_in_place_of_a_checkpoint_is_answered_with_its_checkpoints(result: segue.Result) -> None:
    with pytest.raises(segue.SegueError, match=r"it is a run: give .*/checkpoints/.*/seed-0/final or "):
        segue.load_checkpoint(str(result.directory))


def test_a_result_comes_back_from_its_directory(result: segue.Result) -> None:
    again = segue.Result.load(str(result.directory))
    assert (again.status, again.summary) == (result.status, result.summary)
    with pytest.raises(segue.SegueError, match="no such directory"):
        segue.Result.load("nowhere")


def test_a_run_that_fails_raises_the_cause_and_keeps_the_seeds_that_completed(tmp_path: Path) -> None:
    arms = {
        "broken": pendulum(env="SegueTestBreaks-v0", offline=None, offline_steps=0),
        "whole": pendulum(offline=None, offline_steps=0),
    }
    with pytest.raises(segue.RunFailed, match=r"1 of 2 seeds failed\. broken, seed 0: .*KeyError: 'sensor'") as failed:
        segue.compare(arms, tmp_path / "x", workers=1)
    result = pickle.loads(pickle.dumps(failed.value)).result
    assert result.status == "failed"
    assert result.policy("whole")(np.ones((1, 3), np.float32)).shape == (1, 1)
    with pytest.raises(segue.SegueError, match="seed 0 of 'broken' is failed; it has no final policy"):
        result.policy("broken")


@pytest.mark.slow
def test_progress_is_shown_where_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = segue.Recipe(
        env=PENDULUM, online=segue.SAC(**SMALL), online_steps=20, warmup_steps=10, eval_every=20, eval_episodes=1
    )
    segue.run(recipe, tmp_path / "quiet", workers=1)
    assert capsys.readouterr().out == ""
    segue.run(recipe, tmp_path / "shown", workers=1, progress=True)
    assert "online step 20: return" in capsys.readouterr().out


def test_a_finished_run_gets_more_seeds_and_those_that_it_has_stay_as_they_are(tmp_path: Path) -> None:
    recipe = pendulum(dataset=None, offline=None, offline_steps=0, online_steps=20, eval_episodes=1)
    before = segue.run(recipe, tmp_path / "x", workers=1).summary["arms"]["run"]["seeds"]
    started: list[int] = []
    arms = lengthen(tmp_path / "x", seeds=2)
    grown = segue.compare(arms, tmp_path / "x", workers=1, on_event=lambda job, event: started.append(job.seed))
    after = grown.summary["arms"]["run"]["seeds"]
    assert set(started) == {1}
    assert (list(after), after["0"]) == (["0", "1"], before["0"])
    with pytest.raises(RecipeError, match="seeds is 1; expected at least the 2 that it has"):
        lengthen(tmp_path / "x", seeds=1)


def test_packages_that_the_documentation_names_are_there_after_import_segue() -> None:
    check = "import segue; segue.ope.DiscretePolicy, segue.runner.run, segue.errors.DataError"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_a_run_goes_on_with_another_seed(tmp_path: Path) -> None:
    first = segue.run(pendulum(), tmp_path / "x", workers=1)
    again = first.resume(seeds=2)
    assert "2 of 2 seeds complete" in repr(again)
    assert again.summary["arms"]["run"]["seeds"]["0"] == first.summary["arms"]["run"]["seeds"]["0"]
    with pytest.raises(RecipeError, match="seeds is 1; expected at least the 2 that it has"):
        again.resume(seeds=1)
